//! Connections to endpoints: HTTP/1.1 ones are kept and used again, one HTTP/2 connection serves all.
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response, Version,
    body::{Body as _, Bytes},
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    begun::Begun,
    body::Body,
    endpoint::{Chosen, Picked},
};
use limited::Limited;

mod limited;

/// Longest time to connect, if no policy says: Istio's default.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Longest time that a connection is kept unused. Servers close theirs after 60 s and more.
const IDLE: Duration = Duration::from_mins(1);
/// Most connections kept unused, for each endpoint.
const KEPT: usize = 256;
/// Longest time for what is left of a request whose answer is complete.
const LEFTOVER: Duration = Duration::from_secs(5);
/// How often an HTTP/2 connection in use is asked whether it lives.
const PING: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(io::Error),
    /// The connection ended before the answer.
    Ended(hyper::Error),
    /// What the client sends is not HTTP.
    Client(hyper::Error),
    /// The time for one attempt was over.
    Slow,
    /// The version's policy allows no more.
    Overflow,
}

/// A failure, and the request if nothing of it was sent.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) why: Failure,
    pub(super) unsent: Option<Box<Request<Body>>>,
}

impl Unanswered {
    /// Nothing of the request was sent.
    fn unsent(why: Failure, request: Request<Body>) -> Self {
        Self { why, unsent: Some(Box::new(request)) }
    }

    fn of(mut error: TrySendError<Request<Body>>) -> Self {
        let unsent = error.take_message().map(Box::new);
        Self { why: Failure::of(error.into_error()), unsent }
    }
}

impl Failure {
    pub(super) fn of(error: hyper::Error) -> Self {
        if error.is_user() { Self::Client(error) } else { Self::Ended(error) }
    }
}

/// Connections by endpoint.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    shared: Mutex<HashMap<SocketAddr, http2::SendRequest<Body>>>,
    /// Those to versions with a policy, by their [`Usage`](super::endpoint::Usage).
    limited: Mutex<HashMap<u64, Arc<Limited>>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// What of a connection is in use until the answer is over.
#[derive(Debug)]
pub(super) enum Lease {
    /// The whole connection.
    Kept(Kept),
    /// One to a version with a policy.
    Limited(Box<limited::Lease>),
}

impl Lease {
    /// The answer is complete.
    pub(super) fn give_back(self) {
        match self {
            Self::Kept(kept) => kept.give_back(),
            Self::Limited(lease) => lease.give_back(),
        }
    }
}

/// The right to put a connection back.
#[derive(Debug)]
pub(super) struct Kept {
    pool: Arc<Pool>,
    endpoint: SocketAddr,
    sender: http1::SendRequest<Body>,
}

impl Kept {
    fn give_back(mut self) {
        if self.sender.is_ready() {
            self.put();
            return;
        }
        tokio::spawn(async move {
            if is_free(&mut self.sender).await {
                self.put();
            }
        });
    }

    fn put(self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(self.endpoint).or_default();
        if kept.len() < KEPT {
            kept.push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}

impl Pool {
    /// Sends a request to an endpoint, in its own version of HTTP.
    pub(super) async fn send(
        self: &Arc<Self>,
        to: &Picked,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let endpoint = to.address;
        if let Some(chosen) = &to.chosen {
            // Boxed: what only policies need takes no room in the state of every request.
            return Box::pin(self.limited(chosen).send(chosen, request)).await;
        }
        if request.version() == Version::HTTP_2 {
            // Boxed, as what is seldom: it would take the room of its longest way.
            Box::pin(self.send_shared(endpoint, request)).await
        } else {
            self.send_single(endpoint, request).await
        }
    }

    fn limited(&self, chosen: &Chosen) -> Arc<Limited> {
        let usage = &chosen.group.usage;
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        limited.entry(usage.id).or_insert_with(|| Arc::new(Limited::new(usage.clone()))).clone()
    }

    /// Closes connections that nobody used for long. To be called from time to time.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(Idle::usable);
            !kept.is_empty()
        });
        drop(idle);
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, sender| !sender.is_closed());
        self.limited.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, limited| limited.sweep());
    }

    async fn send_single(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        if let Some(mut sender) = self.take(endpoint) {
            let again = repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.lease(endpoint, sender, answer)),
                Err(error) => request = once_more(error, again)?,
            }
        }
        let mut sender = match Box::pin(open(endpoint)).await {
            Ok(sender) => sender,
            Err(why) => return Err(Unanswered::unsent(why, request)),
        };
        let answer = sender.try_send_request(request).await.map_err(Unanswered::of)?;
        Ok(self.lease(endpoint, sender, answer))
    }

    fn lease(
        self: &Arc<Self>,
        endpoint: SocketAddr,
        sender: http1::SendRequest<Body>,
        answer: Response<hyper::body::Incoming>,
    ) -> Response<Body> {
        let reusable = answer.status() != hyper::StatusCode::SWITCHING_PROTOCOLS;
        let lease = reusable.then(|| Lease::Kept(Kept { pool: self.clone(), endpoint, sender }));
        answer.map(|body| Body::passed(body, lease))
    }

    fn take(&self, endpoint: SocketAddr) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&endpoint)?;
        // The one used last is the least likely to be closed soon, and the others get their rest.
        while let Some(last) = kept.pop() {
            if last.usable() {
                return Some(last.sender);
            }
        }
        None
    }

    async fn send_shared(
        &self,
        endpoint: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let known = self.shared.lock().unwrap_or_else(PoisonError::into_inner).get(&endpoint).cloned();
        if let Some(mut sender) = known.filter(|sender| !sender.is_closed()) {
            let again = repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer.map(|body| Body::passed(body, None))),
                Err(error) => request = once_more(error, again)?,
            }
        }
        let mut sender = match self.connect_shared(endpoint).await {
            Ok(sender) => sender,
            Err(why) => return Err(Unanswered::unsent(why, request)),
        };
        let answer = sender.try_send_request(request).await.map_err(Unanswered::of)?;
        Ok(answer.map(|body| Body::passed(body, None)))
    }

    async fn connect_shared(&self, endpoint: SocketAddr) -> Result<http2::SendRequest<Body>, Failure> {
        let stream = connect(endpoint, CONNECT).await.map_err(Failure::Connect)?;
        let (sender, connection) = multiplexed(stream).await.map_err(Failure::of)?;
        tokio::spawn(async move { ended(endpoint, connection.await) });
        // Requests that come at the same time may connect more than once; the first one to be there is the shared one,
        // and the others end with their requests.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shared.entry(endpoint).or_insert_with(|| sender.clone());
        if kept.is_closed() {
            *kept = sender;
        }
        Ok(kept.clone())
    }
}

impl Idle {
    fn usable(&self) -> bool {
        self.sender.is_ready() && self.since.elapsed() < IDLE
    }
}

/// What is to be sent instead after a connection that was used before failed: the endpoint may have closed it at the
/// same time. Once more, if nothing was sent, or if `again`, a copy, does no harm.
fn once_more(
    mut error: TrySendError<Request<Body>>,
    again: Option<Request<Body>>,
) -> Result<Request<Body>, Unanswered> {
    let unsent = error.take_message().or(again);
    unsent.ok_or_else(|| Unanswered { why: Failure::of(error.into_error()), unsent: None })
}

/// Whether a connection whose answer is complete becomes free: its task has not seen the end yet, or the client still
/// sends.
async fn is_free(sender: &mut http1::SendRequest<Body>) -> bool {
    matches!(timeout(LEFTOVER, sender.ready()).await, Ok(Ok(())))
}

/// Says how a connection ended.
fn ended(endpoint: SocketAddr, result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, %endpoint, "endpoint's connection ended badly");
    }
}

pub(super) async fn connect(endpoint: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(endpoint)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A new connection for HTTP/1.1, which lives as long as it is used.
async fn open(endpoint: SocketAddr) -> Result<http1::SendRequest<Body>, Failure> {
    let stream = connect(endpoint, CONNECT).await.map_err(Failure::Connect)?;
    let (sender, connection) = single(stream).await.map_err(Failure::of)?;
    tokio::spawn(async move { ended(endpoint, connection.with_upgrades().await) });
    Ok(sender)
}

type Single = (http1::SendRequest<Body>, http1::Connection<TokioIo<Begun>, Body>);

/// HTTP/1.1 on a new connection.
async fn single(stream: TcpStream) -> hyper::Result<Single> {
    let io = TokioIo::new(Begun::new(stream));
    http1::Builder::new().max_buf_size(super::server::HEAD_BYTES).handshake(io).await
}

type Multiplexed = (http2::SendRequest<Body>, http2::Connection<TokioIo<TcpStream>, Body, TokioExecutor>);

/// HTTP/2 on a new connection.
async fn multiplexed(stream: TcpStream) -> hyper::Result<Multiplexed> {
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_header_list_size(u32::try_from(super::server::HEAD_BYTES).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await
}

/// A copy of a request that may be sent twice: it has no body, and twice is the same as once.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    Some(copy(request))
}

/// A copy of a request without a body.
pub(super) fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::of(Bytes::new()));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    copy
}
