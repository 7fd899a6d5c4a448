//! One connection of those that are limited, and what is said on it.
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use hyper::{
    Request, Response, Uri, Version,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    header::{HOST, UPGRADE},
};
use rustix::net::sockopt;
use tokio::{net::TcpStream, time::Instant};

use crate::{proxy::body::Body, state::Keepalive};

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Line<S> {
    pub(super) sender: S,
    pub(super) id: u64,
    pub(super) opened: Instant,
    /// Since nobody has used it.
    pub(super) since: Instant,
    pub(super) served: u32,
}

/// A connection for a request.
#[derive(Debug)]
pub(super) enum Sender {
    Single(Line<http1::SendRequest<Body>>),
    Shared(Line<http2::SendRequest<Body>>),
}

impl<S> Line<S> {
    pub(super) fn new(sender: S) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let id = IDS.fetch_add(1, Relaxed);
        Self { sender, id, opened: now, since: now, served: 0 }
    }
}

impl Sender {
    /// Counts a request; whether there were some before.
    pub(super) const fn begin(&mut self) -> bool {
        match self {
            Self::Single(line) => {
                line.served = line.served.saturating_add(1);
                line.served > 1
            }
            // Counted where others see it.
            Self::Shared(line) => line.served > 1,
        }
    }

    pub(super) async fn try_send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Single(line) => line.sender.try_send_request(request).await,
            Self::Shared(line) => line.sender.try_send_request(request).await,
        }
    }
}

/// Has the system look after a connection.
pub(super) fn keep_alive(stream: &TcpStream, keepalive: &Keepalive) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    if let Some(seconds) = keepalive.time_seconds {
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(seconds))?;
    }
    if let Some(seconds) = keepalive.interval_seconds {
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(seconds))?;
    }
    keepalive.probes.map_or(Ok(()), |probes| sockopt::set_tcp_keepcnt(stream, probes))
}

/// Makes a request one of HTTP/2. What changes the protocol itself stays: HTTP/2 has no such thing.
pub(super) fn upgrade(request: &mut Request<Body>) {
    if request.version() == Version::HTTP_2 || request.headers().contains_key(UPGRADE) {
        return;
    }
    let Some(authority) = request.headers().get(HOST).cloned() else { return };
    let mut uri = Uri::builder().scheme("http").authority(authority.as_bytes());
    if let Some(path) = request.uri().path_and_query() {
        uri = uri.path_and_query(path.clone());
    }
    // One whose host is no authority goes as it is.
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
    }
}
