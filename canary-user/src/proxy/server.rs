//! The listener: connections, what is spoken on them, and their end.
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    exchange::Connection,
    table::RouteTable,
    tunnel::Tunnel,
    upstream::Pool,
    wire::{Control, Limits, Wire},
};
use crate::api::socket::stopped;

/// Most headers of a request.
pub(super) const HEADERS: usize = 100;
/// Longest head of a message, in bytes.
pub(super) const HEAD_BYTES: usize = 64 << 10;
/// How often connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(20);
/// How often an HTTP/2 client is asked whether it lives.
const PING: Duration = Duration::from_mins(1);
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// What every HTTP/2 connection begins with; no HTTP/1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For the head of a request.
    pub head: Duration,
    /// Between the requests of a connection.
    pub idle: Duration,
    /// For requests that are open when the proxy stops.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_mins(10), drain: Duration::from_secs(30) }
    }
}

/// Serves the connections of `listener` until `stop` becomes true (or its sender is gone); then those that are open may
/// finish their requests. `frontend_of` has the virtual address that a connection (peer, local address) was made to.
/// Each request meets the table that is the newest when it comes.
pub async fn serve(
    listener: TcpListener,
    frontend_of: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr>,
    table: watch::Receiver<Arc<RouteTable>>,
    mut stop: watch::Receiver<bool>,
    settings: Settings,
) {
    let pool = Arc::new(Pool::default());
    let mut connections = JoinSet::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = sweep.tick() => {
                pool.sweep();
                continue;
            }
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: those that are open must end first.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let frontend = stream.local_addr().ok().and_then(|local| frontend_of(peer, local));
        let connection = Arc::new(Connection {
            table: table.clone(),
            pool: pool.clone(),
            client,
            frontend,
            control: Arc::new(Control::default()),
            tunnel: Tunnel::default(),
        });
        let stop = stop.clone();
        connections.spawn(async move {
            if let Err(error) = converse(stream, connection, stop, settings).await {
                tracing::debug!(%error, %client, "connection ended badly");
            }
        });
    }
    drop(listener);
    let finished = timeout(settings.drain, async { while connections.join_next().await.is_some() {} });
    if finished.await.is_err() {
        tracing::info!(connections = connections.len(), "cut off connections that did not finish");
        connections.shutdown().await;
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn converse(
    stream: TcpStream,
    connection: Arc<Connection>,
    mut stop: watch::Receiver<bool>,
    settings: Settings,
) -> Ended {
    stream.set_nodelay(true)?;
    let multiplexed = tokio::select! {
        sniffed = timeout(settings.head, speaks_http2(&stream)) => sniffed??,
        () = stopped(&mut stop) => return Ok(()), // It has not asked for anything.
    };
    if multiplexed {
        multiplex(stream, connection, stop).await
    } else {
        take_turns(stream, connection, stop, settings).await
    }
}

/// Looks at the first bytes, without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let len = stream.peek(&mut bytes).await?;
        let got = bytes.get(..len).unwrap_or_default();
        if len == PREFACE.len() || len == 0 || !PREFACE.starts_with(got) {
            return Ok(got == PREFACE);
        }
        // `P`, perhaps of `POST`: nothing tells of the next byte as long as this one is not taken.
        sleep(Duration::from_millis(1)).await;
    }
}

async fn take_turns(
    stream: TcpStream,
    connection: Arc<Connection>,
    mut stop: watch::Receiver<bool>,
    settings: Settings,
) -> Ended {
    let limits = Limits { head: settings.head, idle: settings.idle };
    let wire = Wire::new(stream, connection.control.clone(), limits);
    let service = service_fn(|request| connection.answer(request));
    // The time for a head is the wire's to watch: hyper's would begin with the end of the request before.
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut served = pin!(served);
    tokio::select! {
        ended = served.as_mut() => connection.noted(ended)?,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            connection.noted(served.await)?;
        }
    }
    connection.tunnel.run().await;
    Ok(())
}

async fn multiplex(stream: TcpStream, connection: Arc<Connection>, mut stop: watch::Receiver<bool>) -> Ended {
    let service = service_fn(move |request| connection.answer(request));
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        ended = served.as_mut() => ended?,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await?;
        }
    }
    Ok(())
}
