//! Further attempts: for what, at which endpoints, how fast, and how many at a time.
use std::{
    collections::BTreeSet,
    error::Error as _,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode, Version,
    body::Body as _,
    header::{HeaderName, HeaderValue},
};
use tokio::time::{sleep, timeout};

use super::{
    body::Body,
    endpoint::Picked,
    table::Endpoints,
    telemetry::Tally,
    upstream::{Failure, Pool, Unanswered, copy},
};
use crate::state::{Retries, RetryOn};

/// Which attempt it is, as Istio has Envoy tell endpoints.
const ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// How often an endpoint is looked for that was not tried before, as in Istio.
const CHOICES: usize = 5;
/// The longest pause, in first pauses.
const SLOWEST: u32 = 10;
/// Retries that a version may always have at a time …
const FEW: u64 = 3;
/// … and those that it may have for each hundred open requests.
const PERCENT: u64 = 20;

/// [`Retries`], ready to be followed.
#[derive(Debug)]
pub(super) struct Retry {
    attempts: u32,
    per_try: Option<Duration>,
    on: BTreeSet<RetryOn>,
    statuses: BTreeSet<u16>,
    explicit: bool,
    avoid_previous: bool,
    backoff: Duration,
    /// Whether it is known only after sending that another attempt is due; with HTTP/1, with HTTP/2.
    late: [bool; 2],
}

impl Retry {
    pub(super) fn new(of: &Retries) -> Self {
        use RetryOn::{
            Cancelled, ConnectFailure, DeadlineExceeded, Internal, RefusedStream, ResetBeforeRequest,
            ResourceExhausted, Unavailable,
        };
        let early = [ConnectFailure, ResetBeforeRequest, RefusedStream];
        let grpc = [Cancelled, DeadlineExceeded, ResourceExhausted, Internal, Unavailable];
        let late = !of.statuses.is_empty() || of.on.iter().any(|on| !early.contains(on) && !grpc.contains(on));
        Self {
            attempts: of.attempts,
            per_try: of.per_try_timeout_ms.map(Duration::from_millis),
            on: of.on.clone(),
            statuses: of.statuses.clone(),
            explicit: of.explicit,
            avoid_previous: of.avoid_previous,
            backoff: Duration::from_millis(of.backoff_ms),
            late: [late, late || of.on.iter().any(|on| grpc.contains(on))],
        }
    }

    /// What can be sent again when it has been sent once: a request without a body, if that may happen at all.
    fn keep(&self, request: &Request<Body>) -> Option<Request<Body>> {
        if !request.body().is_end_stream() {
            return None;
        }
        let [single, multiplexed] = self.late;
        let wanted = if request.version() == Version::HTTP_2 {
            self.on.contains(&RetryOn::RefusedStream) || (multiplexed && self.harmless(request))
        } else {
            single && self.harmless(request)
        };
        wanted.then(|| copy(request))
    }

    /// Whether the endpoint may see a request twice.
    fn harmless(&self, request: &Request<Body>) -> bool {
        self.explicit || request.method().is_idempotent()
    }

    /// Whether another attempt is due.
    fn is_due(&self, sent: &Sent) -> bool {
        match sent {
            Ok(answer) => self.is_due_for(answer),
            Err(Unanswered { why, unsent }) => self.is_due_without(why, unsent.is_some()),
        }
    }

    fn is_due_for(&self, answer: &Response<Body>) -> bool {
        let status = answer.status();
        if answer.headers().contains_key(&RATE_LIMITED) {
            return self.on.contains(&RetryOn::EnvoyRatelimited);
        }
        let gateway = matches!(status.as_u16(), 502..=504);
        self.statuses.contains(&status.as_u16())
            || self.on.iter().any(|on| match on {
                RetryOn::ServerError => status.is_server_error(),
                RetryOn::GatewayError => gateway,
                RetryOn::Conflict => status == StatusCode::CONFLICT,
                RetryOn::Cancelled => says(answer, b"1"),
                RetryOn::DeadlineExceeded => says(answer, b"4"),
                RetryOn::ResourceExhausted => says(answer, b"8"),
                RetryOn::Internal => says(answer, b"13"),
                RetryOn::Unavailable => says(answer, b"14"),
                RetryOn::Reset
                | RetryOn::ResetBeforeRequest
                | RetryOn::ConnectFailure
                | RetryOn::RefusedStream
                | RetryOn::EnvoyRatelimited => false,
            })
    }

    fn is_due_without(&self, why: &Failure, unsent: bool) -> bool {
        // A limit would be reached the sooner for further attempts.
        if matches!(why, Failure::Client(_) | Failure::Overflow) {
            return false;
        }
        self.on.iter().any(|on| match on {
            RetryOn::ServerError | RetryOn::GatewayError | RetryOn::Reset => true,
            RetryOn::ResetBeforeRequest => unsent,
            RetryOn::ConnectFailure => matches!(why, Failure::Connect(_)),
            RetryOn::RefusedStream => why.refused(),
            _ => false,
        })
    }

    /// How long to wait: anything up to the `n`-th longest pause, so that clients which failed together do not come
    /// back together.
    fn pause(&self, n: u32) -> Duration {
        let longest = self.backoff.saturating_mul(2_u32.saturating_pow(n).min(SLOWEST));
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let random = RandomState::new().hash_one(n); // Its keys differ each time.
        Duration::from_nanos(random.checked_rem(nanos).unwrap_or(0))
    }
}

/// Whether an answer that is only a head has this gRPC status.
fn says(answer: &Response<Body>, status: &[u8]) -> bool {
    answer.headers().get(&GRPC_STATUS).is_some_and(|it| it.as_bytes() == status)
}

impl Failure {
    /// Whether the endpoint says that it did nothing.
    fn refused(&self) -> bool {
        let Self::Ended(error) = self else { return false };
        let reason = error.source().and_then(|it| it.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
        reason == Some(h2::Reason::REFUSED_STREAM)
    }
}

/// Retries of a version's requests, by a rule: how many there are, and have been.
#[derive(Debug, Default)]
pub(super) struct Budget {
    open: AtomicU64,
    spent: AtomicU64,
}

/// The right to one further attempt, until it is over.
#[derive(Debug)]
struct Spending<'a>(&'a Budget);

impl Budget {
    /// Retries so far.
    pub(super) fn spent(&self) -> u64 {
        self.spent.load(Relaxed)
    }

    /// As in Envoy's budget: otherwise retries would be what keeps a version down.
    fn spend(&self, requests: u64) -> Option<Spending<'_>> {
        let limit = (requests.saturating_mul(PERCENT) / 100).max(FEW);
        let more = |open: u64| open.checked_add(1).filter(|open| *open <= limit);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        self.spent.fetch_add(1, Relaxed);
        Some(Spending(self))
    }
}

impl Drop for Spending<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

type Sent = Result<Response<Body>, Unanswered>;

/// What became of a request after all attempts.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) sent: Result<Response<Body>, Failure>,
    /// The last endpoint that was tried.
    pub(super) endpoint: SocketAddr,
    /// One more attempt is due, but the rule allows no more.
    pub(super) exhausted: bool,
}

/// A request's way to the endpoints of a version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempts<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) endpoints: &'a Endpoints,
    pub(super) tally: &'a Tally,
    pub(super) retry: Option<&'a Retry>,
    /// Where the attempt under way goes, if it is not the first.
    pub(super) further: &'a Mutex<Option<Picked>>,
}

impl Attempts<'_> {
    /// Sends a request to `endpoint`, and perhaps to others after it.
    pub(super) async fn send(self, to: &Picked, mut request: Request<Body>) -> Outcome {
        let endpoint = to.address;
        let kept = self.retry.and_then(|retry| {
            number(&mut request, 1);
            retry.keep(&request).map(Box::new)
        });
        let sent = self.attempt(self.retry.and_then(|retry| retry.per_try), to, request).await;
        let Some(retry) = self.retry else {
            return Outcome { sent: sent.map_err(|it| it.why), endpoint, exhausted: false };
        };
        // An answer to what cannot be sent again is the last one: nothing of it needs to be looked at.
        if (sent.is_ok() && kept.is_none()) || !retry.is_due(&sent) {
            return Outcome { sent: sent.map_err(|it| it.why), endpoint, exhausted: false };
        }
        // Boxed: what seldom happens takes no room in the state of every request.
        Box::pin(self.further(retry, to, sent, kept)).await
    }

    async fn further(self, retry: &Retry, first: &Picked, mut sent: Sent, kept: Option<Box<Request<Body>>>) -> Outcome {
        let mut tried = vec![first.address];
        let mut to = first.clone();
        let over = |sent: Sent, endpoint, exhausted| Outcome { sent: sent.map_err(|it| it.why), endpoint, exhausted };
        for n in 0..retry.attempts {
            let refused = matches!(&sent, Err(it) if it.why.refused());
            let again = match &mut sent {
                Err(Unanswered { unsent: Some(request), .. }) => Some(std::mem::replace(&mut **request, empty())),
                _ => kept.as_deref().filter(|it| refused || retry.harmless(it)).map(copy),
            };
            let Some(mut request) = again else { return over(sent, to.address, false) };
            let Some(_spending) = self.tally.retries.spend(self.tally.open()) else {
                return over(sent, to.address, false);
            };
            let Ok(_allowed) = self.endpoints.retry() else { return over(sent, to.address, false) };
            drop(sent); // What this attempt has of a connection is free again.
            sleep(retry.pause(n)).await;
            to = self.other(retry, &tried).unwrap_or(to);
            tried.push(to.address);
            *self.further.lock().unwrap_or_else(PoisonError::into_inner) = Some(to.clone());
            number(&mut request, n.saturating_add(2));
            sent = self.attempt(retry.per_try, &to, request).await;
            if !retry.is_due(&sent) {
                return over(sent, to.address, false);
            }
        }
        over(sent, to.address, true)
    }

    async fn attempt(self, limit: Option<Duration>, to: &Picked, request: Request<Body>) -> Sent {
        // In one place for both: what is moved is held twice.
        let mut sent = pin!(self.pool.send(to, request));
        let Some(limit) = limit else { return sent.await };
        timeout(limit, sent.as_mut()).await.unwrap_or_else(|_| {
            to.timed_out();
            Err(Unanswered { why: Failure::Slow, unsent: None })
        })
    }

    /// The next endpoint; one that was not tried, if there is one among the next few.
    fn other(self, retry: &Retry, tried: &[SocketAddr]) -> Option<Picked> {
        let mut next = self.endpoints.next()?;
        for _ in 1..CHOICES {
            if !retry.avoid_previous || !tried.contains(&next.address) {
                break;
            }
            next = self.endpoints.next()?;
        }
        Some(next)
    }
}

fn empty() -> Request<Body> {
    Request::new(Body::of(hyper::body::Bytes::new()))
}

fn number(request: &mut Request<Body>, attempt: u32) {
    let value = if attempt == 1 { HeaderValue::from_static("1") } else { HeaderValue::from(attempt) };
    request.headers_mut().insert(ATTEMPT, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_share_of_what_is_open_or_three() {
        let budget = Budget::default();
        for (requests, most) in [(0, 3), (15, 3), (20, 4), (1_000, 200)] {
            let held: Vec<_> = std::iter::from_fn(|| budget.spend(requests)).collect();
            assert_eq!(held.len(), most, "{requests}");
        }
        assert_eq!(budget.spent(), 210);
    }

    #[test]
    fn pauses_grow_to_ten_times_the_first() {
        let retry = Retry::new(&Retries { backoff_ms: 10, ..Retries::default() });
        for (n, longest) in [(0, 10), (1, 20), (2, 40), (3, 80), (4, 100), (40, 100)] {
            let pauses: Vec<Duration> = (0..1_000).map(|_| retry.pause(n)).collect();
            let most = pauses.iter().max().copied().unwrap_or_default();
            // The chance that a thousand even draws all miss the upper tenth is 10^-46.
            let bounds = Duration::from_millis(longest * 9 / 10)..Duration::from_millis(longest);
            assert!(bounds.contains(&most), "{n}: {most:?}");
        }
    }
}
