//! The listener: connections, what is spoken on them, and their end.
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    StatusCode,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    begun::Begun,
    door::{Door, Guest},
    exchange::Connection,
    farewell,
    limited::{Limited, Reason},
    pass::pass,
    rate::Rate,
    table::RouteTable,
    tunnel::Tunnel,
    upstream::Pool,
    wire::{Control, Limits, Wire},
};
use crate::stop::stopped;

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
/// Streams that an HTTP/2 client may have reset before they were looked at; one more ends the connection.
const RESETS: usize = 20;
/// Streams of an HTTP/2 connection that may end for errors of the client; one more ends the connection.
const ERRORS: usize = 1_024;
/// For those that came while the proxy stopped, beyond the time of the others.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What every HTTP/2 connection begins with; no HTTP/1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// How long clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// For the head of a request.
    pub head: Duration,
    /// Between the requests of a connection.
    pub idle: Duration,
    /// Between two pieces of a body, either way.
    pub body: Duration,
    /// For requests that are open when the proxy stops.
    pub drain: Duration,
    /// For one more request on connections that are idle then.
    pub linger: Duration,
    /// Requests of one connection, a second.
    pub rate: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_mins(10),
            body: Duration::from_mins(5), // Envoy's stream_idle_timeout.
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            rate: 10_000,
        }
    }
}

/// Serves the connections of `door` until `stop` becomes true (or its sender is gone); then those that are open may finish
/// their requests. Meanwhile new ones are answered once each, unless the door has a successor. `frontend_of` has the
/// virtual address that a connection (peer, local address) was made to. Each request meets the table that is the newest
/// when it comes.
pub async fn serve(
    mut door: Door,
    frontend_of: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr>,
    table: watch::Receiver<Arc<RouteTable>>,
    mut stop: watch::Receiver<bool>,
    settings: Settings,
) {
    let limited = door.house().limited.clone();
    let host = Host {
        local: door.address(),
        frontend_of,
        pool: Arc::new(Pool::default()),
        table,
        stop: stop.clone(),
        settings,
        limited,
    };
    let mut connections = JoinSet::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            came = door.next() => host.welcome(came, &mut connections).await,
            _ = sweep.tick() => host.pool.sweep(),
            () = stopped(&mut stop) => break,
        }
        // Here, and not as a branch of its own: nobody needs to be woken for each connection that ends.
        while connections.try_join_next().is_some() {}
    }
    host.part(door, connections).await;
}

/// What the connections of a door have in common.
struct Host<F> {
    local: Option<SocketAddr>,
    frontend_of: F,
    pool: Arc<Pool>,
    table: watch::Receiver<Arc<RouteTable>>,
    stop: watch::Receiver<bool>,
    settings: Settings,
    limited: Arc<Limited>,
}

impl<F: Fn(SocketAddr, SocketAddr) -> Option<SocketAddr>> Host<F> {
    /// Sees `connections` off, and those that come meanwhile, and cuts off what does not end.
    async fn part(&self, mut door: Door, mut connections: JoinSet<()>) {
        let drain = self.settings.drain;
        let (mut late, mut over) = (JoinSet::new(), pin!(sleep(drain)));
        while !connections.is_empty() && !door.has_successor() {
            tokio::select! {
                came = door.next() => self.welcome(came, &mut late).await,
                Some(_) = connections.join_next() => {}
                Some(_) = late.join_next() => {}
                () = &mut over => break,
            }
        }
        for guest in door.close() {
            self.welcome(Ok(guest), &mut late).await;
        }
        let last_words = sleep(LAST_WORDS.min(drain));
        let finished = async {
            while connections.join_next().await.is_some() {}
            while late.join_next().await.is_some() {}
        };
        tokio::select! {
            () = finished => {}
            _ = futures::future::join(over, last_words) => {}
        }
        let cut = connections.len() + late.len();
        if cut > 0 {
            tracing::info!(connections = cut, "cut off connections that did not finish");
            self.limited.add(Reason::Drain, cut as u64);
        }
    }

    /// Talks with whoever came.
    async fn welcome(&self, came: io::Result<Guest>, connections: &mut JoinSet<()>) {
        let Guest { stream, peer, place } = match came {
            Ok(guest) => guest,
            Err(error) => {
                // Out of file descriptors, mostly: those that are open must end first.
                tracing::warn!(%error, "cannot accept a connection");
                return sleep(Duration::from_millis(100)).await;
            }
        };
        let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let frontend =
            self.local.or_else(|| stream.local_addr().ok()).and_then(|local| (self.frontend_of)(peer, local));
        let connection = Arc::new(Connection {
            table: self.table.clone(),
            pool: self.pool.clone(),
            client,
            frontend,
            control: Arc::new(Control::default()),
            tunnel: Tunnel::default(),
            rate: Rate::new(self.settings.rate),
            limited: self.limited.clone(),
        });
        let (stop, settings, limited) = (self.stop.clone(), self.settings, self.limited.clone());
        // Boxed: a task is moved several times before it runs, and once more when it has ended.
        connections.spawn(Box::pin(async move {
            let _place = place;
            if let Err(error) = converse(stream, connection, stop, settings, limited).await {
                tracing::debug!(%error, %client, "connection ended badly");
            }
        }));
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn converse(
    stream: TcpStream,
    connection: Arc<Connection>,
    stop: watch::Receiver<bool>,
    settings: Settings,
    limited: Arc<Limited>,
) -> Ended {
    let mut stream = Begun::new(stream);
    if let Some(meant) = connection.passed() {
        // Boxed, so that requests carry no room for it.
        let passed = Box::pin(pass(stream, meant, stop.clone(), settings)).await?;
        let Some(back) = passed else { return Ok(()) };
        stream = back;
    }
    let multiplexed = tokio::select! {
        sniffed = timeout(settings.head, speaks_http2(&mut stream)) => match sniffed {
            Ok(sniffed) => sniffed?,
            Err(late) => {
                limited.count(Reason::SlowHead);
                return Err(late.into());
            }
        },
        () = farewell::lingered(stop.clone(), settings.linger) => return Ok(()), // It has not asked for anything.
    };
    if multiplexed {
        multiplex(stream, connection, stop, settings.linger).await
    } else {
        take_turns(stream, connection, stop, settings, limited).await
    }
}

/// Looks at the first bytes.
async fn speaks_http2(stream: &mut Begun) -> io::Result<bool> {
    // More of them as long as they may become the preface.
    while stream.first().len() < PREFACE.len() && PREFACE.starts_with(stream.first()) && stream.more().await? {}
    Ok(stream.first().starts_with(PREFACE))
}

async fn take_turns(
    stream: Begun,
    connection: Arc<Connection>,
    stop: watch::Receiver<bool>,
    settings: Settings,
    limited: Arc<Limited>,
) -> Ended {
    let limits = Limits { head: settings.head, idle: settings.idle, body: settings.body };
    let wire = Wire::new(stream, connection.control.clone(), limits, limited);
    let service = service_fn(|request| connection.answer(request));
    // The time for a head is the wire's to watch: hyper's would begin with the end of the request before.
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let end = http1::UpgradeableConnection::graceful_shutdown;
    let ended = farewell::serve(pin!(served), end, &connection.control, stop, settings.linger).await;
    if let Err(error) = &ended
        && let Some(code) = refused(error)
    {
        connection.count_refused(code);
    }
    ended?;
    connection.tunnel.run().await;
    Ok(())
}

/// What hyper answered to what it could not read; 0: nothing, for the rest of a head did not come in time.
fn refused(error: &hyper::Error) -> Option<u16> {
    if error.is_parse_too_large() {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16());
    }
    if error.is_parse() {
        return Some(StatusCode::BAD_REQUEST.as_u16());
    }
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    (cause.kind() == io::ErrorKind::TimedOut).then_some(0)
}

async fn multiplex(stream: Begun, connection: Arc<Connection>, stop: watch::Receiver<bool>, linger: Duration) -> Ended {
    let control = connection.control.clone();
    let service = service_fn(move |request| connection.answer(request));
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(stream), service);
    farewell::serve(pin!(served), http2::Connection::graceful_shutdown, &control, stop, linger).await?;
    Ok(())
}
