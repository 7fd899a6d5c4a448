//! Copies of requests, for versions that nobody hears: sent and forgotten, never waited for.
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, StatusCode, Uri, Version,
    body::{Body as _, Bytes, Frame, Incoming, SizeHint},
    header::{HOST, HeaderValue},
    http::request::Parts,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::timeout,
};

use super::{
    Flag,
    body::{Body, Broken},
    own::Flags,
    portion::Portion,
    table::Service,
    target::with_port,
    telemetry::{Record, Tally},
    upstream::{Failure, Pool},
};

/// Copies that a mirror may have under way at a time. What is beyond is not copied.
const OPEN: usize = 256;
/// Bytes of a body that a copy may lag behind its request. One that is slower is given up.
const BEHIND: usize = 256 << 10;
/// Longest time for a copy and the answer to it, unless the rule has one.
const PATIENCE: Duration = Duration::from_secs(30);

/// One mirror of a rule.
#[derive(Debug)]
pub(super) struct Mirror {
    version: String,
    portion: Portion,
    patience: Duration,
    open: Arc<AtomicUsize>,
    tally: Arc<Tally>,
}

/// A place among the copies that a mirror may have.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Mirror {
    pub(super) fn new(version: String, portion: Portion, limit: Option<Duration>, tally: Arc<Tally>) -> Self {
        Self { version, portion, patience: limit.unwrap_or(PATIENCE), open: Arc::default(), tally }
    }

    /// What counts its copies: a version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn place(&self) -> Option<Place> {
        let more = |open: usize| open.checked_add(1).filter(|open| *open <= OPEN);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Place(self.open.clone()))
    }

    /// Sends a copy, with what comes out of `body`.
    fn send(&self, service: &Service, pool: &Arc<Pool>, head: &Parts, body: Body) -> Option<AbortHandle> {
        let record = Record::new(self.tally.clone());
        let failed = |record: Record, flag: Flag| record.over(StatusCode::SERVICE_UNAVAILABLE.as_u16(), flag.into());
        let ready = service.version(&self.version).ok_or(Flag::NC).and_then(|endpoints| {
            let picked = endpoints.next().ok_or(Flag::UH)?;
            Ok((picked, self.place().ok_or(Flag::UO)?))
        });
        let (picked, place) = match ready {
            Ok(ready) => ready,
            Err(flag) => {
                failed(record, flag);
                return None;
            }
        };
        let (pool, patience, request) = (pool.clone(), self.patience, shadow(head, body));
        let task = tokio::spawn(async move {
            let _place = place;
            let exchange = async {
                match pool.send(&picked, request).await.map_err(|it| it.why) {
                    Ok(answer) => {
                        let mut body = record.answered(answer, Flags::NONE).into_body();
                        while let Some(Ok(_)) = body.frame().await {}
                    }
                    Err(Failure::Connect(_)) => failed(record, Flag::UF),
                    Err(Failure::Ended(_)) => failed(record, Flag::UC),
                    Err(Failure::Slow) => failed(record, Flag::UT),
                    Err(Failure::Overflow) => failed(record, Flag::UO),
                    // The copy fell behind, or the request itself broke off: as one that nobody waits for.
                    Err(Failure::Client(_)) => drop(record),
                }
            };
            if timeout(patience, exchange).await.is_err() {
                picked.timed_out();
                tracing::debug!(endpoint = %picked.address, "gave up a mirrored request that took too long");
            }
        });
        Some(task.abort_handle())
    }
}

/// Starts the copies of a request that is about to be sent; its body for the endpoint.
pub(super) fn split(mirrors: &[Mirror], service: &Service, pool: &Arc<Pool>, head: &Parts, body: Incoming) -> Body {
    let mut copies = Vec::new();
    for mirror in mirrors.iter().filter(|mirror| mirror.portion.takes()) {
        if body.is_end_stream() {
            mirror.send(service, pool, head, Body::of(Bytes::new()));
            continue;
        }
        let (mut tail, copy) = copy();
        tail.task = mirror.send(service, pool, head, Body::made(copy));
        copies.push(tail);
    }
    if copies.is_empty() { Body::passed(body, None) } else { Body::made(Split { body, copies }) }
}

/// The request as Envoy's shadows are: what the endpoint gets, but for the authority.
fn shadow(head: &Parts, body: Body) -> Request<Body> {
    let mut copy = Request::new(body);
    copy.method_mut().clone_from(&head.method);
    copy.headers_mut().clone_from(&head.headers);
    *copy.version_mut() = head.version;
    *copy.uri_mut() = head.uri.clone();
    if head.version == Version::HTTP_2 {
        let mut parts = head.uri.clone().into_parts();
        let authority = parts.authority.as_ref().and_then(|it| shadowed(it.as_str()).parse().ok());
        parts.authority = authority.or(parts.authority);
        if let Ok(uri) = Uri::from_parts(parts) {
            *copy.uri_mut() = uri;
        }
    } else if let Some(host) = head.headers.get(HOST).and_then(|host| host.to_str().ok())
        && let Ok(host) = HeaderValue::from_str(&shadowed(host))
    {
        copy.headers_mut().insert(HOST, host);
    }
    copy
}

/// `web:80` as `web-shadow:80`. An IPv6 address stays: with more in it, it would be none.
fn shadowed(authority: &str) -> String {
    match with_port(authority) {
        (host, _) if host.starts_with('[') => authority.to_owned(),
        (host, Some(port)) => format!("{host}-shadow:{port}"),
        (host, None) => format!("{host}-shadow"),
    }
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Where the pieces of a copy are put in.
#[derive(Debug)]
struct Tail {
    pieces: UnboundedSender<Piece>,
    behind: Arc<AtomicUsize>,
    /// What sends the copy, until all of it is put in.
    task: Option<AbortHandle>,
}

impl Drop for Tail {
    /// Nothing may come after this: a connection that waits to write would not look for it.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Tail {
    /// Whether the copy goes on.
    fn put(&mut self, piece: Piece) -> bool {
        if matches!(piece, Piece::End) {
            self.task = None;
        }
        // The channel has its costs too, also for an empty piece.
        let bytes = if let Piece::Data(data) = &piece { data.len() + 1 } else { 0 };
        self.behind.fetch_add(bytes, Relaxed) + bytes <= BEHIND && self.pieces.send(piece).is_ok()
    }
}

/// The body of a copy. It breaks off if no end was put in.
#[derive(Debug)]
struct Copy {
    pieces: UnboundedReceiver<Piece>,
    behind: Arc<AtomicUsize>,
}

fn copy() -> (Tail, Copy) {
    let (sender, pieces) = unbounded_channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (Tail { pieces: sender, behind: behind.clone(), task: None }, Copy { pieces, behind })
}

impl hyper::body::Body for Copy {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(data)) => {
                self.behind.fetch_sub(data.len() + 1, Relaxed);
                Some(Ok(Frame::data(data)))
            }
            Some(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Piece::End) => None,
            None => Some(Err(Broken::Copy)),
        })
    }
}

/// A body whose frames are copied on the way, as they come. It waits for nobody.
#[derive(Debug)]
struct Split {
    body: Incoming,
    copies: Vec<Tail>,
}

impl Split {
    fn put(&mut self, piece: &Piece) {
        self.copies.retain_mut(|copy| copy.put(piece.clone()));
    }
}

impl hyper::body::Body for Split {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().cloned().map(Piece::Data);
                if let Some(piece) = data.or_else(|| frame.trailers_ref().cloned().map(Piece::Trailers)) {
                    self.put(&piece);
                }
            }
            Some(Err(_)) => self.copies.clear(),
            None => {}
        }
        // Whoever knows the length does not ask for the end, nor does anybody after trailers.
        let last = |frame: &Frame<Bytes>| frame.is_trailers() || self.body.is_end_stream();
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(last)) {
            self.put(&Piece::End);
            self.copies.clear();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::Passed)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_a_shadow() {
        for (authority, expected) in [
            ("web", "web-shadow"),
            ("web:80", "web-shadow:80"),
            ("[::1]:80", "[::1]:80"),
            ("10.0.0.1", "10.0.0.1-shadow"),
        ] {
            assert_eq!(shadowed(authority), expected);
        }
    }

    #[test]
    fn a_copy_differs_in_its_authority_only() {
        let request = Request::post("http://web:80/a?b").version(Version::HTTP_2).header("x-a", "b");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let copy = shadow(&head, Body::of(Bytes::new()));
        assert_eq!(copy.uri(), "http://web-shadow:80/a?b");
        assert_eq!((copy.method(), copy.version(), copy.headers()), (&head.method, head.version, &head.headers));
    }

    #[tokio::test]
    async fn a_copy_that_lags_is_given_up_and_one_without_an_end_breaks_off() {
        let (mut tail, mut body) = copy();
        let piece = || Piece::Data(Bytes::from(vec![0; BEHIND / 4]));
        assert!((0..3).all(|_| tail.put(piece())));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(tail.put(piece()), "what was read makes room");
        assert!(!tail.put(piece()));
        drop(tail);
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(matches!(body.frame().await, Some(Err(Broken::Copy))));
    }

    #[test]
    fn there_are_only_so_many_copies() {
        let id = crate::state::ServiceId::tcp("web", 80);
        let portion = Portion::new(crate::state::Percentage::ALL, &id, "http[0]", "mirror");
        let mirror = Mirror::new("v2".into(), portion, None, Arc::default());
        let places: Vec<Place> = std::iter::from_fn(|| mirror.place()).collect();
        assert_eq!(places.len(), OPEN);
        drop(places);
        assert!(mirror.place().is_some());
    }
}
