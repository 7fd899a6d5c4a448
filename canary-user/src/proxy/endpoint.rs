//! What is kept of endpoints whose version has a policy, from table to table and for all threads: plain atomics.
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use hyper::header::HeaderValue;
use tokio::time::Instant;

use super::{balance::Group, outlier::Health, upstream::Failure};
use crate::state::ConnectionPool;

/// One endpoint of a version.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// When it came; times of its health are milliseconds since then.
    since: Instant,
    /// Requests under way.
    active: AtomicU32,
    pub(super) health: Health,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, since: Instant::now(), active: AtomicU32::new(0), health: Health::default() }
    }

    /// Milliseconds since it came.
    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Requests under way.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}

/// The limits of a version, and how much of them is in use.
#[derive(Debug)]
pub(super) struct Usage {
    /// Tells one from any other, for as long as the program runs.
    pub(super) id: u64,
    pub(super) limits: ConnectionPool,
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

/// What of [`Usage`] is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Connection,
    Pending,
    Request,
    Retry,
}

/// The policy allows no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overflow;

/// One of what is counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    usage: Arc<Usage>,
    kind: Kind,
}

impl Usage {
    pub(super) fn new(limits: ConnectionPool) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: IDS.fetch_add(1, Relaxed),
            limits,
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        }
    }

    const fn counter(&self, kind: Kind) -> (&AtomicU32, Option<u32>) {
        match kind {
            Kind::Connection => (&self.connections, self.limits.max_connections),
            Kind::Pending => (&self.pending, self.limits.max_pending),
            Kind::Request => (&self.requests, self.limits.max_requests),
            Kind::Retry => (&self.retries, self.limits.max_retries),
        }
    }

    /// One more, if the limit allows it.
    pub(super) fn take(self: &Arc<Self>, kind: Kind) -> Option<Held> {
        let (counter, limit) = self.counter(kind);
        let limit = limit.unwrap_or(u32::MAX);
        // Counted first: of two that come at the same time at most one finds the last place.
        if counter.fetch_add(1, Relaxed) >= limit {
            counter.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Held { usage: self.clone(), kind })
    }

    /// One more, whatever the limit.
    pub(super) fn take_anyway(self: &Arc<Self>, kind: Kind) -> Held {
        self.counter(kind).0.fetch_add(1, Relaxed);
        Held { usage: self.clone(), kind }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.usage.counter(self.kind).0.fetch_sub(1, Relaxed);
    }
}

/// A request that is under way at an endpoint, until its answer is over.
#[derive(Debug)]
pub(super) struct Ticket {
    endpoint: Arc<Endpoint>,
    _request: Held,
}

impl Ticket {
    pub(super) fn new(endpoint: Arc<Endpoint>, request: Held) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self { endpoint, _request: request }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Relaxed);
    }
}

/// What became of a request at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was answered with this status.
    Status(u16),
    /// No connection, or its end before the answer.
    Failed,
    /// The time for an answer was over.
    TimedOut,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) struct Picked {
    pub(super) address: SocketAddr,
    /// `None`: the version has no policy.
    pub(super) chosen: Option<Chosen>,
    /// A cookie for the answer, by which the client comes back to this endpoint.
    pub(super) cookie: Option<Box<HeaderValue>>,
}

/// An endpoint of a version with a policy.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) group: Arc<Group>,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Picked {
    /// An endpoint of which nothing is kept.
    pub(super) const fn plain(address: SocketAddr) -> Self {
        Self { address, chosen: None, cookie: None }
    }

    /// The time for the answer was over. To be called by whoever stops waiting for [`send`](super::upstream::Pool::send).
    pub(super) fn timed_out(&self) {
        if let Some(chosen) = &self.chosen {
            chosen.saw(Seen::TimedOut);
        }
    }
}

impl Chosen {
    /// Takes note of what became of a request.
    pub(super) fn saw(&self, seen: Seen) {
        self.group.saw(&self.endpoint, seen);
    }

    /// Takes note of why there is no answer.
    pub(super) fn saw_failure(&self, failure: &Failure) {
        match failure {
            Failure::Connect(_) | Failure::Ended(_) => self.saw(Seen::Failed),
            // Not the endpoint's fault, or told by whoever waited.
            Failure::Client(_) | Failure::Overflow | Failure::Slow => {}
        }
    }
}
