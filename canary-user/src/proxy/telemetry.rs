//! What became of requests: counted where they end, by service, rule and version, without a lock.
//!
//! The names of metrics and labels are Istio's; [`crate::telemetry::metrics`] puts them to what is counted here.
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use hyper::{HeaderMap, Request, Response, Version, body::Incoming};

use super::{
    Flag,
    access_log::{AccessLog, Destination, Entry},
    body::Body,
    exchange::Connection,
    headers::is_grpc,
    own::Flags,
};
use crate::state::ServiceId;

pub mod histogram;
pub(super) mod request_id;
mod tally;

pub(super) use self::tally::Tally;
pub use self::{
    histogram::Distribution,
    tally::{Ended, Series, Spoken},
};

/// What mirrored requests are counted under, after the name of their rule: nobody hears the answers.
pub const MIRROR: &str = " (mirror)";

/// What is counted for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountKey {
    /// The service.
    pub service: ServiceId,
    /// Name of the rule; empty: no rule matched.
    pub rule: String,
    /// Name of the version; empty: answered without one.
    pub version: String,
}

/// Counts as they were at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that were sent on this way.
    pub requests: u64,
    /// Those that have ended, by how.
    pub ended: BTreeMap<Ended, Series>,
    /// Attempts after the first one.
    pub retries: u64,
}

impl Count {
    /// Answers by the first digit of their status, `1xx` first.
    #[must_use]
    pub fn classes(&self) -> [u64; 5] {
        [1, 2, 3, 4, 5].map(|class| self.sum(|ended| ended.class() == class))
    }

    /// Requests that ended with a flag.
    #[must_use]
    pub fn flag(&self, flag: Flag) -> u64 {
        self.sum(|ended| ended.flags.has(flag))
    }

    fn sum(&self, counts: impl Fn(&Ended) -> bool) -> u64 {
        self.ended.iter().filter(|(ended, _)| counts(ended)).map(|(_, series)| series.count).sum()
    }
}

/// What one split of requests did since its weights were last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSplit {
    /// The service.
    pub service: ServiceId,
    /// Index of the rule in the service's rules for requests.
    pub rule: usize,
    /// (version, weight as it is followed, requests it got) in order of names.
    pub versions: Vec<(String, u32, u64)>,
}

/// Everything that is counted, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// By service, rule and version.
    pub counts: Vec<(CountKey, Count)>,
    /// Requests on connections whose service is not known (any more).
    pub lost: Count,
    /// Splits in force.
    pub splits: Vec<RequestSplit>,
    /// Lines that the access log had no room for.
    pub unlogged: u64,
}

/// The tallies of a table; those of the same names go on in the next one.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<CountKey, Arc<Tally>>);

impl Counts {
    /// The tally of a key: this table's, or else the one before's, or else a new one.
    pub(super) fn tally(&mut self, previous: Option<&Self>, key: CountKey) -> Arc<Tally> {
        let before = || previous.and_then(|it| it.0.get(&key)).cloned().unwrap_or_default();
        if let Some(tally) = self.0.get(&key) {
            return tally.clone();
        }
        let tally = before();
        self.0.insert(key, tally.clone());
        tally
    }

    /// Takes over what nobody counts now but may again: a version of weight 0 is out of its rule for a while only.
    pub(super) fn keep(&mut self, previous: &Self, there: impl Fn(&CountKey) -> bool) {
        let kept = previous.0.iter().filter(|(key, _)| there(key));
        for (key, tally) in kept {
            self.0.entry(key.clone()).or_insert_with(|| tally.clone());
        }
    }

    /// All counts, in the order of their keys.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = (CountKey, Count)> {
        self.0.iter().map(|(key, tally)| (key.clone(), tally.read()))
    }
}

/// A request whose way is not known yet.
#[derive(Debug)]
pub(super) struct Arrival {
    at: Instant,
    spoken: Spoken,
    entry: Option<Box<Entry>>,
}

impl Arrival {
    /// Now.
    pub(super) fn new(request: &Request<Incoming>, on: &Connection, log: Option<&AccessLog>) -> Self {
        // gRPC needs HTTP/2, so that nothing else is asked for it.
        let grpc = request.version() == Version::HTTP_2 && is_grpc(request.headers());
        let spoken = if grpc { Spoken::Grpc } else { Spoken::Http };
        let entry = log.and_then(|log| log.entry(request, on.client, on.frontend));
        Self { at: Instant::now(), spoken, entry }
    }

    /// It is sent this way.
    pub(super) fn on(self, tally: Arc<Tally>) -> Record {
        let mut record = Record::new(tally);
        record.begun = self.at;
        record.ended.spoken = self.spoken;
        record.entry = self.entry;
        record
    }
}

/// Bytes of a request's body.
#[derive(Debug, Clone)]
pub(super) enum Received {
    /// So many; it said so.
    Known(u64),
    /// Counted on their way.
    Counted(Arc<AtomicU64>),
}

impl Received {
    fn of(body: &Incoming) -> Self {
        use hyper::body::Body as _;
        body.size_hint().exact().map_or_else(|| Self::Counted(Arc::default()), Self::Known)
    }

    fn get(&self) -> u64 {
        match self {
            Self::Known(bytes) => *bytes,
            Self::Counted(bytes) => bytes.load(Relaxed),
        }
    }
}

/// A request on its way: counted when it begins, and when its answer is complete or nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Record {
    tally: Arc<Tally>,
    begun: Instant,
    ended: Ended,
    received: Received,
    sent: u64,
    /// Nothing of the answer is missing.
    whole: bool,
    entry: Option<Box<Entry>>,
}

impl Record {
    /// A request that begins, of which nothing is known.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        tally.begin();
        // Until it is answered, the client can only go away.
        let ended = Ended { code: 0, flags: Flag::DC.into(), spoken: Spoken::Http, grpc_status: None };
        Self { tally, begun: Instant::now(), ended, received: Received::Known(0), sent: 0, whole: true, entry: None }
    }

    /// A connection that begins, and is passed on as it is.
    pub(super) fn of_connection(tally: Arc<Tally>) -> Self {
        let mut record = Self::new(tally);
        record.ended.spoken = Spoken::Tls;
        record
    }

    /// A flag that comes beside whatever ends it.
    pub(super) fn note(&mut self, flag: Flag) {
        self.ended.flags = self.ended.flags.and(flag);
    }

    /// It ends so, or so far: the client did not go away.
    fn resolve(&mut self, code: u16, flags: Flags) {
        self.ended.code = code;
        self.ended.flags = self.ended.flags.without(Flag::DC).or(flags);
    }

    /// It is answered, or at least the head of the answer is there.
    pub(super) fn answered(mut self, answer: Response<Body>, flags: Flags) -> Response<Body> {
        self.resolve(answer.status().as_u16(), flags);
        self.trailed(answer.headers());
        answer.map(|body| body.recorded(self))
    }

    /// It is over without an answer that goes through here; code 0: nobody was told anything.
    pub(super) fn over(mut self, code: u16, flags: Flags) {
        self.resolve(code, flags);
    }

    /// Where it goes, and what its body is counted by, if that must be.
    pub(super) fn goes(&mut self, body: &Incoming, to: impl FnOnce() -> Destination) -> Option<Arc<AtomicU64>> {
        if let Some(entry) = &mut self.entry {
            entry.destination = Some(to());
        }
        self.received = Received::of(body);
        match &self.received {
            Received::Known(_) => None,
            Received::Counted(bytes) => Some(bytes.clone()),
        }
    }

    /// The endpoint that was tried last.
    pub(super) fn tries(&mut self, endpoint: SocketAddr) {
        if let Some(entry) = &mut self.entry {
            entry.endpoint = Some(endpoint);
        }
    }

    /// Part of the answer's body.
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Headers or trailers of the answer.
    pub(super) fn trailed(&mut self, trailers: &HeaderMap) {
        if self.ended.spoken == Spoken::Grpc
            && let Some(status) = trailers.get("grpc-status")
        {
            // What is none of the codes counts as UNKNOWN, as clients have it.
            let known = status.to_str().ok().and_then(|code| code.parse().ok()).filter(|code| *code <= 16);
            self.ended.grpc_status = Some(known.unwrap_or(2));
        }
    }

    /// More of the body must follow.
    pub(super) const fn begins(&mut self) {
        self.whole = false;
    }

    /// The body is over; `broken`: because the endpoint did not finish it.
    pub(super) fn ends(mut self, broken: bool) {
        self.whole = true;
        if broken {
            self.note(Flag::UC);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.whole {
            self.note(Flag::DC);
        }
        let (lasted, received) = (self.begun.elapsed(), self.received.get());
        self.tally.end(self.ended, lasted, received, self.sent);
        if let Some(entry) = self.entry.take() {
            entry.write(self.ended, lasted, received, self.sent);
        }
    }
}
