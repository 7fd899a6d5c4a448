//! Nobody waits for what cannot come: refused at once, reset at once, and ports that are used again are new flows.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what these functions assert is what the tests prove"
)]
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use canary_tests::{
    load::{Load, Progress, run},
    probe,
    resources::Extras,
    server::Hello,
    stage::{Setting, Stage},
    story::Hook,
    tally::{Tally, Weights},
};

fn everywhere(test: impl Fn(Hook, bool) -> Result<()>) -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        for ipv6 in [false, true] {
            test(hook, ipv6).with_context(|| format!("{hook:?}, IPv6: {ipv6}"))?;
        }
    }
    Ok(())
}

/// A version without endpoints: `connect` fails at once, not after a minute of repeated SYNs.
#[test]
fn a_service_without_endpoints_refuses_at_once() -> Result<()> {
    everywhere(|hook, ipv6| {
        let weights = Weights { v1: 1, v2: 0 };
        let stage = Stage::new(&Setting { pods: (1, 0), weights, ..Setting::new(hook, ipv6) })?;
        stage.publish(&[])?;
        for _ in 0..5 {
            let started = Instant::now();
            let error = probe::connect(&stage.story.client, stage.target()).unwrap_err();
            let kind = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            anyhow::ensure!(kind == Some(ErrorKind::ConnectionRefused), "{error:#}");
            assert!(started.elapsed() < Duration::from_millis(900), "after {:?}: a second SYN", started.elapsed());
        }
        assert_eq!(probe::wrong_checksums(&stage.story.client)?, 0);
        Ok(())
    })
}

/// Both ends of a connection to `pod`.
fn both_ends(stage: &Stage, listener: &std::net::TcpListener) -> Result<(TcpStream, TcpStream)> {
    listener.set_nonblocking(true)?;
    for _ in 0..8 {
        let client = probe::connect(&stage.story.client, stage.target())?;
        thread::sleep(Duration::from_millis(50));
        if let Ok((server, _)) = listener.accept() {
            server.set_nonblocking(false)?;
            server.set_read_timeout(Some(probe::PATIENCE))?;
            // Both sides have spoken.
            (&client).write_all(b"a")?;
            (&server).read_exact(&mut [0])?;
            (&server).write_all(b"b")?;
            (&client).read_exact(&mut [0])?;
            return Ok((client, server));
        }
    }
    anyhow::bail!("eight connections and none to this pod")
}

fn is_reset(mut stream: &TcpStream, first: &[u8]) -> Result<()> {
    let started = Instant::now();
    // A write may be told of the reset already.
    let _ = stream.write_all(first);
    let error = stream.read(&mut [0; 16]).unwrap_err();
    anyhow::ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
    assert!(started.elapsed() < Duration::from_secs(1), "after {:?}", started.elapsed());
    Ok(())
}

/// When an endpoint's time to drain is over, whichever side speaks next is told at once that the connection is over;
/// a UDP flow goes on with an endpoint that is there.
#[test]
fn after_the_drain_deadline_each_end_is_reset_at_its_next_packet() -> Result<()> {
    everywhere(|hook, ipv6| {
        let weights = Weights { v1: 1, v2: 0 };
        let extras = Extras { drain: Some("1s") };
        let mut stage = Stage::new(&Setting { pods: (2, 0), weights, extras, ..Setting::new(hook, ipv6) })?;
        let leaving = stage.story.pod("helloworld-v1-1")?;
        leaving.crash()?;
        let listener = probe::listen(leaving.namespace())?;
        let (client, _server) = both_ends(&stage, &listener)?;
        let (bulky, _server2) = both_ends(&stage, &listener)?;
        let (_client3, server) = both_ends(&stage, &listener)?;
        let stay: Vec<_> = stage.story.endpoints().into_iter().filter(|pod| pod.pod != "helloworld-v1-1").collect();
        stage.publish(&stay)?;
        thread::sleep(Duration::from_millis(3_500)); // the deadline, and the ticks around it

        is_reset(&client, b"hello?").context("the client")?;
        is_reset(&bulky, &vec![7; 60_000]).context("the client, with a super-packet")?;
        is_reset(&server, b"hello?").context("the server")?;
        assert_eq!(probe::wrong_checksums(&stage.story.client)?, 0);
        assert_eq!(probe::wrong_checksums(stage.story.pods()[0].namespace())?, 0);
        Ok(())
    })
}

/// The name of the pod that answers a datagram. Asks again: a veth's queue is shared by all namespaces of the machine, and
/// drops when other tests fill it.
fn who(socket: &std::net::UdpSocket) -> Result<String> {
    let mut buffer = [0; 512];
    let mut ask = || socket.send(b"who?").and_then(|_| socket.recv(&mut buffer));
    let length = ask().or_else(|_| ask()).or_else(|_| ask())?;
    Ok(Hello::read(std::str::from_utf8(&buffer[..length])?)?.instance)
}

#[test]
fn after_the_drain_deadline_a_udp_flow_is_chosen_anew() -> Result<()> {
    everywhere(|hook, ipv6| {
        let extras = Extras { drain: Some("1s") };
        let weights = Weights { v1: 1, v2: 0 };
        let stage = Stage::new(&Setting { pods: (2, 0), weights, extras, ..Setting::new(hook, ipv6) })?;
        let sockets: Vec<_> =
            (0..4).map(|_| probe::datagrams(&stage.story.client, stage.target())).collect::<Result<_>>()?;
        for socket in &sockets {
            let first = who(socket)?;
            assert_eq!(who(socket)?, first, "a flow stays where it is");
        }
        let stay: Vec<_> = stage.story.endpoints().into_iter().filter(|pod| pod.pod != "helloworld-v1-1").collect();
        stage.publish(&stay)?;
        thread::sleep(Duration::from_millis(3_500));
        for socket in &sockets {
            assert_eq!(who(socket)?, "helloworld-v1-2");
        }
        Ok(())
    })
}

/// One connection from a port that was used a moment ago; `abort` ends it by RST instead of FIN.
async fn from_port(source: SocketAddr, target: SocketAddr, abort: bool) -> Result<Hello> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = if source.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(source)?;
    let connecting = tokio::time::timeout(Duration::from_millis(900), socket.connect(target));
    let mut stream = connecting.await.context("connect: no answer")?.context("connect")?;
    stream.set_zero_linger()?; // Leaves no TIME_WAIT that would keep the port.
    let ending = if abort { "keep-alive" } else { "close" };
    stream.write_all(format!("GET / HTTP/1.1\r\nConnection: {ending}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") || !answer.windows(6).any(|window| window == b"Hello ") {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "closed early");
    }
    if !abort {
        stream.read_to_end(&mut Vec::new()).await?;
    }
    let text = String::from_utf8(answer)?;
    Hello::read(text.rsplit("\r\n").next().unwrap_or_default())
}

/// The same, in the client's namespace. A program that another test starts holds copies of all sockets for a moment,
/// and then the port is not free yet.
fn again(stage: &Stage, source: SocketAddr, target: SocketAddr, abort: bool) -> Result<Hello> {
    let once = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(from_port(source, target, abort))
    };
    let started = Instant::now();
    loop {
        let result = stage.story.client.run(once)?;
        let kind = result.as_ref().err().and_then(|error| error.root_cause().downcast_ref::<std::io::Error>());
        let taken =
            kind.is_some_and(|error| matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse));
        if !taken || started.elapsed() > probe::PATIENCE {
            return result;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The same 5-tuple, closed by the server, by both or by RST and opened again at once: a new flow with a draw of its own.
#[test]
fn a_port_that_is_used_again_at_once_is_a_new_flow() -> Result<()> {
    everywhere(|hook, ipv6| {
        let weights = Weights { v1: 50, v2: 50 };
        let stage = Stage::new(&Setting { weights, pods: (2, 2), ..Setting::new(hook, ipv6) })?;
        let source = if ipv6 { "[fd00:1::2]:7777" } else { "10.0.0.2:7777" }.parse()?;
        let target = stage.target();
        let mut tally = Tally::default();
        for number in 0..60 {
            let hello = again(&stage, source, target, number % 2 == 0);
            tally.answered(hello.with_context(|| format!("connection {number}"))?);
        }
        weights.hold_for(&tally)
    })
}

/// A flow of the virtual address that has ended does not stand in the way of a direct connection to the same pod from
/// the same port: its answers are its own.
#[test]
fn a_direct_connection_may_use_the_port_of_an_ended_flow() -> Result<()> {
    everywhere(|hook, ipv6| {
        let weights = Weights { v1: 1, v2: 0 };
        let stage = Stage::new(&Setting { weights, pods: (1, 0), ..Setting::new(hook, ipv6) })?;
        let pod = &stage.story.endpoints()[0];
        let direct: std::net::IpAddr = if ipv6 { pod.v6.into() } else { pod.v4.into() };
        let direct = SocketAddr::new(direct, stage.target().port());
        let source = if ipv6 { "[fd00:1::2]:7778" } else { "10.0.0.2:7778" }.parse()?;
        for abort in [true, false] {
            for target in [stage.target(), direct, stage.target(), direct] {
                again(&stage, source, target, abort).with_context(|| format!("to {target}, abort: {abort}"))?;
            }
        }
        Ok(())
    })
}

/// Twenty thousand connections, hundreds at a time: none fails and the split is exact.
#[test]
fn twenty_thousand_short_connections_by_tc() -> Result<()> {
    twenty_thousand(Hook::Tc)
}

#[test]
fn twenty_thousand_short_connections_by_xdp() -> Result<()> {
    twenty_thousand(Hook::Xdp)
}

fn twenty_thousand(hook: Hook) -> Result<()> {
    let setting = Setting::new(hook, false);
    let stage = Stage::new(&setting)?;
    let load = Load { concurrency: 400, ..Load::tcp(stage.target(), 20_000) };
    let tally = stage.story.client.run(|| run(load, &Progress::new()))??;
    assert_eq!(tally.answers(), 20_000, "{:?}", tally.failures);
    setting.weights.hold_for(&tally)
}
