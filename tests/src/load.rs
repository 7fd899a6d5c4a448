//! The client's end: opens real connections through the virtual address and counts who answers.
//!
//! Everything runs on the calling thread, so that sockets belong to that thread's network namespace: see
//! [`crate::netns::Namespace::run`].
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{server::Hello, tally::Tally};

/// An answer that takes longer is a failure. Longer than the second after which a lost SYN is sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A load with so many failures has shown what it can show; the rest would only take time.
const FAILURES_MAX: u64 = 200;

/// The transport of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// An HTTP request on a TCP connection of its own.
    Tcp,
    /// A datagram from a port of its own, and its answer.
    Udp,
}

/// Connections to open one after the other, some at a time.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Virtual address.
    pub target: SocketAddr,
    /// Transport.
    pub protocol: Protocol,
    /// How many in all.
    pub connections: u32,
    /// How many at a time.
    pub concurrency: u32,
    /// Rest between two connections of one of those.
    pub pause: Duration,
    /// TCP from ports that no other load uses: a pod cannot tell a connection by a virtual address and a direct one from
    /// the same port apart.
    pub own_ports: bool,
}

impl Load {
    /// `connections` TCP connections to `target`, sixteen at a time, without rest.
    #[must_use]
    pub fn tcp(target: SocketAddr, connections: u32) -> Self {
        Self { target, protocol: Protocol::Tcp, connections, concurrency: 16, pause: Duration::ZERO, own_ports: false }
    }
}

/// What a load has done so far; others may look and stop it.
#[derive(Debug, Default)]
pub struct Progress {
    tally: Mutex<Tally>,
    started: AtomicU32,
    exchanges: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Who answered so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().clone()
    }

    /// Lines exchanged over held connections.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Ends the load after the connections that are under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn goes_on(&self) -> bool {
        !self.stopped() && self.lock().failed < FAILURES_MAX
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, result: Result<Hello>) {
        match result {
            Ok(hello) => self.lock().answered(hello),
            Err(error) => self.lock().failed(format!("{error:#}")),
        }
    }
}

/// Opens the connections of `load`, each once, and returns when all have ended, it was stopped, or too many failed.
///
/// # Errors
/// When the runtime cannot be built; a connection that fails is counted instead.
pub fn run(load: Load, progress: &Arc<Progress>) -> Result<Tally> {
    block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..load.concurrency {
            let progress = Arc::clone(progress);
            workers.spawn(async move {
                while progress.goes_on() && progress.started.fetch_add(1, Ordering::Relaxed) < load.connections {
                    progress.record(once(&load).await);
                    if !load.pause.is_zero() {
                        sleep(load.pause).await;
                    }
                }
            });
        }
        finish(workers).await
    })?;
    Ok(progress.tally())
}

/// Opens `connections` TCP connections and sends a request on each every `every`, until it is stopped. The tally
/// counts a connection when its first answer has come, and a failure when it is cut, moves or falls silent.
///
/// # Errors
/// When the runtime cannot be built.
pub fn hold(target: SocketAddr, connections: u32, every: Duration, progress: &Arc<Progress>) -> Result<Tally> {
    block_on(async {
        let mut held = JoinSet::new();
        for number in 0..connections {
            let progress = Arc::clone(progress);
            held.spawn(async move {
                if let Err(error) = hold_one(target, every, &progress).await {
                    progress.lock().failed(format!("connection {number}: {error:#}"));
                }
            });
        }
        finish(held).await
    })?;
    Ok(progress.tally())
}

async fn hold_one(target: SocketAddr, every: Duration, progress: &Progress) -> Result<()> {
    let mut stream = connect(target, false).await?;
    let first = exchange(&mut stream, target, "keep-alive").await.context("first request")?;
    progress.lock().answered(first.clone());
    while !progress.stopped() {
        sleep(every).await;
        let hello = exchange(&mut stream, target, "keep-alive").await.with_context(|| first.instance.clone())?;
        ensure!(hello == first, "{} answers on a connection to {}", hello.instance, first.instance);
        progress.exchanges.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn finish(mut tasks: JoinSet<()>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the load")?;
    }
    Ok(())
}

/// One flow from its first packet to its last.
async fn once(load: &Load) -> Result<Hello> {
    let target = load.target;
    match load.protocol {
        Protocol::Tcp => {
            let mut stream = connect(target, load.own_ports).await?;
            let hello = exchange(&mut stream, target, "close").await?;
            // The server closes first: its side keeps the memory of the port, and the client's ports stay free.
            let rest = timeout(PATIENCE, stream.read(&mut [0; 16])).await.context("the server does not close")??;
            ensure!(rest == 0, "more than one answer");
            Ok(hello)
        }
        Protocol::Udp => datagram(target).await,
    }
}

async fn connect(target: SocketAddr, own_port: bool) -> Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if own_port {
        own_ports(target.ip(), |source| socket.bind(source))?;
    }
    let stream = timeout(PATIENCE, socket.connect(target)).await.context("connect: no answer")?.context("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One HTTP/1.1 request and its answer.
async fn exchange(stream: &mut TcpStream, target: SocketAddr, connection: &str) -> Result<Hello> {
    let request = format!("GET /hello HTTP/1.1\r\nHost: {target}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("request")?;
    timeout(PATIENCE, answer(stream)).await.context("no answer")?
}

async fn answer(stream: &mut TcpStream) -> Result<Hello> {
    let mut received = Vec::with_capacity(512);
    loop {
        if let Some((head, body)) = split_head(&received) {
            let head = std::str::from_utf8(head).context("head of the answer")?;
            let length = content_length(head)?;
            if body.len() >= length {
                let body = body.get(..length).context("body")?;
                return Hello::read(std::str::from_utf8(body).context("body of the answer")?);
            }
        }
        if stream.read_buf(&mut received).await.context("answer")? == 0 {
            bail!("closed in the middle of an answer");
        }
    }
}

fn split_head(received: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((received.get(..end)?, received.get(end + 4..)?))
}

fn content_length(head: &str) -> Result<usize> {
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status == "HTTP/1.1 200 OK", "answer `{status}`");
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: "));
    length.context("no Content-Length")?.parse().context("Content-Length")
}

/// A datagram and its answer. Sent again when nothing comes: that is the same flow.
async fn datagram(target: SocketAddr) -> Result<Hello> {
    let socket = udp_socket(target.ip())?;
    socket.connect(target).await?;
    let mut buffer = [0; 512];
    for _ in 0..3 {
        socket.send(b"hello?\n").await.context("send")?;
        if let Ok(length) = timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await {
            let text = buffer.get(..length.context("answer")?).context("answer")?;
            return Hello::read(std::str::from_utf8(text)?);
        }
    }
    bail!("no answer to three datagrams")
}

/// A socket on a port that this process has not used lately. A port that the kernel picks may be one that a flow of
/// the last minute had, and to the data plane that is the same flow.
fn udp_socket(target: IpAddr) -> Result<UdpSocket> {
    let socket = own_ports(target, std::net::UdpSocket::bind)?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}

/// What `bind` makes of the next free port, below those that the kernel picks.
fn own_ports<T>(target: IpAddr, mut bind: impl FnMut(SocketAddr) -> io::Result<T>) -> Result<T> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let any = if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    for _ in 0..100 {
        let number = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some((next + 1) % COUNT));
        if let Ok(bound) = bind(SocketAddr::new(any, FIRST + number.unwrap_or_default())) {
            return Ok(bound);
        }
    }
    bail!("no free port")
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::{Load, Progress, Protocol, content_length, hold, run};
    use crate::server::{Hello, serve};

    /// A server on loopback; returns its port.
    fn server() -> u16 {
        let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let (ready, wait) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let hello = Hello { version: "v1".into(), instance: "a".into() };
            runtime.block_on(serve(hello, port, || ready.send(()).unwrap())).unwrap();
        });
        wait.recv().unwrap();
        port
    }

    #[test]
    fn connections_are_counted_once_each() {
        let port = server();
        for target in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let load = Load { protocol, ..Load::tcp(target.parse().unwrap(), 100) };
                let tally = run(load, &Progress::new()).unwrap();
                assert_eq!(
                    (tally.answers(), tally.of_instance("a"), tally.failed),
                    (100, 100, 0),
                    "{target} {tally:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_there_is_a_failure() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tally = run(Load::tcp(closed, 3), &Progress::new()).unwrap();
        assert_eq!((tally.answers(), tally.failed), (0, 3));
        assert!(tally.failures[0].contains("Connection refused"), "{:?}", tally.failures);
    }

    #[test]
    fn held_connections_talk_until_they_are_stopped() {
        let target = format!("127.0.0.1:{}", server()).parse().unwrap();
        let progress = Progress::new();
        let watcher = Arc::clone(&progress);
        let holding = thread::spawn(move || hold(target, 10, Duration::from_millis(5), &progress).unwrap());
        while watcher.exchanges() < 50 {
            thread::sleep(Duration::from_millis(1));
        }
        watcher.stop();
        let tally = holding.join().unwrap();
        assert_eq!((tally.answers(), tally.failed), (10, 0), "{tally:?}");
    }

    #[test]
    fn only_a_right_answer_counts() {
        assert_eq!(content_length("HTTP/1.1 200 OK\r\nContent-Length: 7").unwrap(), 7);
        assert!(content_length("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0").is_err());
        assert!(content_length("HTTP/1.1 200 OK\r\nServer: x").is_err());
    }
}
