//! One connection that is passed on as it is: from its `ClientHello` to its end.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Flag,
    begun::Begun,
    client_hello::{HANDSHAKE, Progress, Reader},
    farewell::lingered,
    own::Flags,
    rule::Ends,
    server::Settings,
    table::{Endpoints, Service},
    telemetry::Record,
    upstream::{CONNECT, connect},
};

/// Endpoints that are tried before a connection fails.
const ATTEMPTS: usize = 3;
/// Longest silence of both sides, as Envoy's `idle_timeout` of a TCP proxy.
const SILENCE: Duration = Duration::from_hours(1);
/// Bytes on their way, for each direction.
const BUFFER: usize = 16 << 10;

/// Passes a connection on and returns at its end; gives it back when it is a matter of requests.
pub(super) async fn pass(
    stream: Begun,
    (service, ends): (Arc<Service>, Ends),
    stop: watch::Receiver<bool>,
    settings: Settings,
) -> io::Result<Option<Begun>> {
    let mut looking = Looking { stream, reader: Reader::default(), read: 0 };
    let looked = tokio::select! {
        looked = timeout(settings.head, looking.look(service.has_requests())) => looked.unwrap_or_else(|late| Err(late.into())),
        () = lingered(stop, settings.linger) => return Ok(None), // It has not asked for anything.
    };
    let stream = looking.stream;
    let name = match looked {
        Ok(Looked::Hello(name)) => name,
        Ok(Looked::Request) => return Ok(Some(stream)),
        Ok(Looked::Other) => {
            tracing::debug!(client = %ends.client, "no rule for a connection: it is no TLS");
            unmatched(&service, Flag::NR);
            return Ok(None);
        }
        Err(error) => {
            // Those that never say anything only see whether somebody listens.
            if !stream.first().is_empty() {
                unmatched(&service, Flag::DC);
            }
            return Err(error);
        }
    };
    let Some((endpoint, record)) = lead(&service, name.as_deref(), ends).await else { return Ok(None) };
    let copied = copy(stream, endpoint).await;
    record.over(0, Flags::NONE);
    copied.map(|()| None)
}

fn unmatched(service: &Service, flag: Flag) {
    Record::of_connection(service.unmatched.clone()).over(0, flag.into());
}

/// What a connection begins with.
enum Looked {
    /// TLS that asks for this name.
    Hello(Option<String>),
    /// No TLS, for a service with rules for requests.
    Request,
    Other,
}

struct Looking {
    stream: Begun,
    reader: Reader,
    read: usize,
}

impl Looking {
    /// Reads until it is known what it is.
    async fn look(&mut self, requests: bool) -> io::Result<Looked> {
        loop {
            if !self.stream.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if requests && self.stream.first().first() != Some(&HANDSHAKE) {
                return Ok(Looked::Request);
            }
            let new = self.stream.first().get(self.read..).unwrap_or_default();
            self.read += new.len();
            match self.reader.feed(new) {
                Progress::More => {}
                Progress::Hello(name) => return Ok(Looked::Hello(name)),
                Progress::Other => return Ok(Looked::Other),
            }
        }
    }
}

/// Finds rule, version and endpoint, and connects to it. `None`: counted as failed.
async fn lead(service: &Service, name: Option<&str>, ends: Ends) -> Option<(TcpStream, Record)> {
    let rule = service.tls.as_ref().and_then(|names| names.rule(name, ends.client.ip()));
    let Some(route) = rule.and_then(|rule| rule.route()) else {
        tracing::debug!(client = %ends.client, name, "no rule for a connection: filter_chain_not_found");
        unmatched(service, Flag::NR);
        return None;
    };
    let Some(destination) = route.choose(ends) else {
        unmatched(service, Flag::NC);
        return None;
    };
    let record = Record::of_connection(destination.tally.clone());
    let reached = match service.version(&destination.version) {
        Some(endpoints) => reach(endpoints).await,
        None => Err(Flag::NC),
    };
    match reached {
        Ok(stream) => Some((stream, record)),
        Err(flag) => {
            record.over(0, flag.into());
            None
        }
    }
}

/// Connects to the endpoint whose turn it is, or to the next ones when it is not there.
async fn reach(endpoints: &Endpoints) -> Result<TcpStream, Flag> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    // Others that connect at the same time take turns too, and turns may come to one endpoint more than once.
    for _ in 0..ATTEMPTS * 2 {
        let endpoint = endpoints.next().ok_or(Flag::UH)?.address;
        if tried.contains(&endpoint) {
            continue;
        }
        match connect(endpoint, CONNECT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => tracing::debug!(%error, %endpoint, "cannot connect to an endpoint"),
        }
        tried.push(endpoint);
        if tried.len() == ATTEMPTS {
            break;
        }
    }
    Err(Flag::UF)
}

/// Copies until both sides are done, or silent for too long. The end of one is passed on, and the other goes on.
async fn copy(client: Begun, endpoint: TcpStream) -> io::Result<()> {
    let clock = Arc::new(Clock::default());
    let mut client = Watched { stream: client, clock: clock.clone() };
    let mut endpoint = Watched { stream: endpoint, clock: clock.clone() };
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER) => copied.map(drop),
        () = clock.silence() => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// When something last came.
#[derive(Debug)]
struct Clock {
    begin: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Clock {
    fn tick(&self) {
        let elapsed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Relaxed);
    }

    /// Returns when nothing has come for too long.
    async fn silence(&self) {
        let mut due = self.begin + SILENCE;
        while Instant::now() < due {
            sleep_until(due).await;
            due = self.begin + Duration::from_millis(self.last.load(Relaxed)) + SILENCE;
        }
    }
}

/// A side whose bytes keep the connection from being silent.
struct Watched<T> {
    stream: T,
    clock: Arc<Clock>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready() {
            this.clock.tick();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
