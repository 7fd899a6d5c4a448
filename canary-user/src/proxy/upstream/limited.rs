//! Connections to the endpoints of a version with a policy: no more than it allows, as long as it allows.
//!
//! As in Envoy, each thread has its own, and the limits are for all of them together; an endpoint may always have one
//! connection of each thread. Requests wait in order.
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    client::conn::{http1, http2},
};
use tokio::{sync::Notify, time::Instant};

use super::{CONNECT, Failure, IDLE, Unanswered, connect, ended, is_free, multiplexed, once_more, repeatable, single};
use crate::proxy::{
    body::Body,
    endpoint::{Chosen, Held, Kind, Seen, Ticket, Usage},
};
use line::{Line, Sender, keep_alive, upgrade};

mod line;

/// Connections by endpoint.
#[derive(Debug)]
pub(super) struct Limited {
    usage: Arc<Usage>,
    hosts: Mutex<HashMap<SocketAddr, Host>>,
}

/// Connections to one endpoint.
#[derive(Debug, Default)]
struct Host {
    /// All there are, also those that are being made.
    open: u32,
    /// HTTP/1.1, unused.
    idle: Vec<Line<http1::SendRequest<Body>>>,
    /// HTTP/2.
    shared: Vec<(Line<http2::SendRequest<Body>>, u32)>,
    waiting: u32,
    freed: Arc<Notify>,
}

/// What a request that needs a connection is told.
enum Place {
    Ready(Sender),
    /// The right to make one.
    Open(Opened),
    Wait(Waiting),
}

/// A connection is there, until its task has ended.
#[derive(Debug)]
struct Opened {
    pool: Arc<Limited>,
    endpoint: SocketAddr,
    _held: Held,
}

/// A place among those who wait.
struct Waiting {
    pool: Arc<Limited>,
    endpoint: SocketAddr,
    freed: std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>>,
}

/// A connection's part that a request has, and its place among the requests under way.
#[derive(Debug)]
pub(in crate::proxy) struct Lease {
    pool: Arc<Limited>,
    endpoint: SocketAddr,
    /// `None`: given back, or not to be used again.
    sender: Option<Sender>,
    _ticket: Ticket,
}

impl Limited {
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, hosts: Mutex::default() }
    }

    /// Closes what nobody used for long; whether anything is left.
    pub(super) fn sweep(&self) -> bool {
        let mut hosts = self.hosts();
        for host in hosts.values_mut() {
            host.idle.retain(|line| line.sender.is_ready() && self.usable(line));
            host.shared.retain(|(line, active)| !line.sender.is_closed() && (*active > 0 || self.usable(line)));
        }
        hosts.retain(|_, host| host.open > 0 || host.waiting > 0);
        !hosts.is_empty()
    }

    /// Sends a request to an endpoint, and takes note of what becomes of it.
    pub(super) async fn send(
        self: Arc<Self>,
        chosen: &Chosen,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        if self.usage.limits.upgrade {
            upgrade(&mut request);
        }
        let sent = self.try_send(chosen, request).await;
        match &sent {
            Ok(answer) => chosen.saw(Seen::Status(answer.status().as_u16())),
            Err(unanswered) => chosen.saw_failure(&unanswered.why),
        }
        sent
    }

    async fn try_send(
        self: Arc<Self>,
        chosen: &Chosen,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let endpoint = chosen.endpoint.address;
        let Some(held) = self.usage.take(Kind::Request) else {
            return Err(Unanswered::unsent(Failure::Overflow, request));
        };
        let mut lease =
            Lease { pool: self.clone(), endpoint, sender: None, _ticket: Ticket::new(chosen.endpoint.clone(), held) };
        loop {
            let mut sender = match self.sender(endpoint, request.version() == Version::HTTP_2).await {
                Ok(sender) => sender,
                Err(why) => return Err(Unanswered::unsent(why, request)),
            };
            let used = sender.begin();
            let again = if used { repeatable(&request) } else { None };
            // From here on whoever stops waiting closes an HTTP/1.1 connection, and leaves an HTTP/2 one.
            let sender = lease.sender.insert(sender);
            match sender.try_send(request).await {
                Ok(answer) => return Ok(lease.carry(answer)),
                Err(error) if used => {
                    request = once_more(error, again)?;
                    lease.let_go();
                }
                Err(error) => return Err(Unanswered::of(error)),
            }
        }
    }

    /// A connection for a request, as soon as there is one.
    async fn sender(self: &Arc<Self>, endpoint: SocketAddr, shared: bool) -> Result<Sender, Failure> {
        if let Some(ready) = self.ready(endpoint, shared) {
            return Ok(ready);
        }
        let _pending = self.usage.take(Kind::Pending).ok_or(Failure::Overflow)?;
        loop {
            match self.place(endpoint, shared) {
                Place::Ready(sender) => return Ok(sender),
                Place::Open(opened) => return self.open(opened, shared).await,
                Place::Wait(mut waiting) => waiting.freed.as_mut().await,
            }
        }
    }

    /// A connection that is there, unless others wait for it.
    fn ready(&self, endpoint: SocketAddr, shared: bool) -> Option<Sender> {
        let mut hosts = self.hosts();
        let host = hosts.entry(endpoint).or_default();
        if host.waiting > 0 { None } else { self.take(host, shared) }
    }

    fn place(self: &Arc<Self>, endpoint: SocketAddr, shared: bool) -> Place {
        let mut hosts = self.hosts();
        let host = hosts.entry(endpoint).or_default();
        if let Some(sender) = self.take(host, shared) {
            return Place::Ready(sender);
        }
        let held = self.usage.take(Kind::Connection);
        // An endpoint without any would wait for those of others.
        let held = held.or_else(|| (host.open == 0).then(|| self.usage.take_anyway(Kind::Connection)));
        if let Some(held) = held {
            host.open += 1;
            return Place::Open(Opened { pool: self.clone(), endpoint, _held: held });
        }
        host.waiting += 1;
        let mut freed = Box::pin(host.freed.clone().notified_owned());
        // Before anybody else can free one.
        freed.as_mut().enable();
        Place::Wait(Waiting { pool: self.clone(), endpoint, freed })
    }

    fn take(&self, host: &mut Host, shared: bool) -> Option<Sender> {
        if shared {
            host.shared.retain(|(line, active)| !line.sender.is_closed() && (*active > 0 || self.usable(line)));
            let streams = self.usage.limits.max_concurrent_streams.unwrap_or(u32::MAX);
            let mut lines = host.shared.iter_mut();
            let (line, active) = lines.find(|(line, active)| *active < streams && self.usable(line))?;
            *active += 1;
            line.served = line.served.saturating_add(1);
            return Some(Sender::Shared(line.clone()));
        }
        // The one used last is the least likely to be closed soon.
        while let Some(line) = host.idle.pop() {
            if line.sender.is_ready() && self.usable(&line) {
                return Some(Sender::Single(line));
            }
        }
        None
    }

    /// Whether a connection may have another request.
    fn usable<S>(&self, line: &Line<S>) -> bool {
        let limits = &self.usage.limits;
        let duration = limits.max_connection_duration_ms.map(Duration::from_millis);
        line.since.elapsed() < limits.idle_timeout_ms.map_or(IDLE, Duration::from_millis)
            && limits.max_requests_per_connection.is_none_or(|most| line.served < most)
            && duration.is_none_or(|longest| line.opened.elapsed() < longest)
    }

    async fn open(self: &Arc<Self>, opened: Opened, shared: bool) -> Result<Sender, Failure> {
        let limits = &self.usage.limits;
        let endpoint = opened.endpoint;
        let limit = limits.connect_timeout_ms.map_or(CONNECT, Duration::from_millis);
        let stream = connect(endpoint, limit).await.map_err(Failure::Connect)?;
        if let Some(keepalive) = &limits.keepalive {
            keep_alive(&stream, keepalive).map_err(|error| Failure::Connect(error.into()))?;
        }
        if !shared {
            let (sender, connection) = single(stream).await.map_err(Failure::of)?;
            tokio::spawn(async move {
                ended(endpoint, connection.with_upgrades().await);
                drop(opened);
            });
            return Ok(Sender::Single(Line::new(sender)));
        }
        let (sender, connection) = multiplexed(stream).await.map_err(Failure::of)?;
        tokio::spawn(async move {
            ended(endpoint, connection.await);
            drop(opened);
        });
        let mut line = Line::new(sender);
        line.served = 1;
        let mut hosts = self.hosts();
        let host = hosts.entry(endpoint).or_default();
        host.shared.push((line.clone(), 1));
        // Others may use it too.
        host.freed.notify_waiters();
        Ok(Sender::Shared(line))
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<SocketAddr, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, endpoint: SocketAddr, mut line: Line<http1::SendRequest<Body>>) {
        line.since = Instant::now();
        if !self.usable(&line) {
            return; // Its end makes room.
        }
        let mut hosts = self.hosts();
        let host = hosts.entry(endpoint).or_default();
        host.idle.push(line);
        host.freed.notify_one();
    }

    fn leave(&self, endpoint: SocketAddr, id: u64) {
        let mut hosts = self.hosts();
        let Some(host) = hosts.get_mut(&endpoint) else { return };
        if let Some((line, active)) = host.shared.iter_mut().find(|(line, _)| line.id == id) {
            *active = active.saturating_sub(1);
            line.since = Instant::now();
        }
        // One that may have no more requests is closed by the last of them.
        host.shared.retain(|(line, active)| *active > 0 || self.usable(line));
        host.freed.notify_one();
    }
}

impl Lease {
    /// The answer is complete.
    pub(super) fn give_back(mut self) {
        if let Some(Sender::Single(mut line)) = self.sender.take_if(|sender| matches!(sender, Sender::Single(_))) {
            if line.sender.is_ready() {
                self.pool.put(self.endpoint, line);
                return;
            }
            let (pool, endpoint) = (self.pool.clone(), self.endpoint);
            tokio::spawn(async move {
                if is_free(&mut line.sender).await {
                    pool.put(endpoint, line);
                }
            });
        }
    }

    /// The answer, which gives it back at its end.
    fn carry(self, answer: Response<Incoming>) -> Response<Body> {
        // What comes after a change of protocols is not HTTP.
        let lease = (answer.status() != StatusCode::SWITCHING_PROTOCOLS).then(|| super::Lease::Limited(Box::new(self)));
        answer.map(|body| Body::passed(body, lease))
    }

    /// Gives up its connection.
    fn let_go(&mut self) {
        if let Some(Sender::Shared(line)) = self.sender.take() {
            self.pool.leave(self.endpoint, line.id);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut hosts = self.pool.hosts();
        let Some(host) = hosts.get_mut(&self.endpoint) else { return };
        host.open = host.open.saturating_sub(1);
        host.freed.notify_one();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut hosts = self.pool.hosts();
        if let Some(host) = hosts.get_mut(&self.endpoint) {
            host.waiting = host.waiting.saturating_sub(1);
        }
    }
}
