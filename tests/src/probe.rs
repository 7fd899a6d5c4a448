//! Looks closely: sockets without a server's manners, bulk data, the kernel's own counters, single frames on a cable.
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{agent::Agent, netns::Namespace, resources::PORT};

pub mod wire;

/// An answer that takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Listens on the service's port, in both families.
///
/// # Errors
/// When the port is taken.
pub fn listen(namespace: &Namespace) -> Result<TcpListener> {
    namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?.context("listen")
}

/// A UDP socket on the service's port, in both families.
///
/// # Errors
/// When the port is taken.
pub fn receive(namespace: &Namespace) -> Result<UdpSocket> {
    let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?.context("bind")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Opens a connection.
///
/// # Errors
/// What the kernel says, as [`std::io::Error`] at the root.
pub fn connect(namespace: &Namespace, target: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A UDP socket that is connected to `target`, so that the kernel tells it about ICMP errors.
///
/// # Errors
/// When there is no route.
pub fn datagrams(namespace: &Namespace, target: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = namespace.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(target)?;
        io::Result::Ok(socket)
    })??;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Bytes that do not repeat with any power of two, so that a lost, doubled or moved segment shows.
fn pattern() -> Vec<u8> {
    (0..65_521_u32).map(|at| at.wrapping_mul(at).to_le_bytes()[1]).collect()
}

/// Sends `total` bytes and receives as many at the same time; both ends do this. What arrives must be what was sent.
///
/// # Errors
/// When the connection fails or a byte is wrong.
pub fn exchange_bulk(stream: &TcpStream, total: usize) -> Result<()> {
    let pattern = pattern();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_bulk(stream, &pattern, total));
        let received = receive_bulk(stream, &pattern, total);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received.and(sent)
    })
}

fn send_bulk(mut stream: &TcpStream, pattern: &[u8], total: usize) -> Result<()> {
    let mut left = total;
    while left > 0 {
        let now = pattern.get(..left.min(pattern.len())).context("pattern")?;
        stream.write_all(now).with_context(|| format!("{left} bytes not sent"))?;
        left -= now.len();
    }
    Ok(())
}

fn receive_bulk(mut stream: &TcpStream, pattern: &[u8], total: usize) -> Result<()> {
    let mut buffer = vec![0; pattern.len()];
    let mut left = total;
    while left > 0 {
        let now = left.min(pattern.len());
        let part = buffer.get_mut(..now).context("buffer")?;
        stream.read_exact(part).with_context(|| format!("{left} of {total} bytes did not come"))?;
        ensure!(pattern.get(..now) == Some(&*part), "wrong bytes, {left} of {total} before the end");
        left -= now;
    }
    Ok(())
}

/// Sends back `count` datagrams.
///
/// # Errors
/// When the socket fails, or nothing comes for [`PATIENCE`].
pub fn echo(socket: &UdpSocket, count: usize) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    for number in 0..count {
        let (length, client) = socket.recv_from(&mut buffer).with_context(|| format!("datagram {number}"))?;
        socket.send_to(buffer.get(..length).context("length")?, client)?;
    }
    Ok(())
}

/// Sets a socket option that is an integer.
///
/// # Errors
/// When the kernel refuses.
pub fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    let size = u32::try_from(size_of::<i32>())?;
    // SAFETY: a pointer to an integer that lives through the call, and its size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    ensure!(done == 0, "setsockopt: {}", io::Error::last_os_error());
    Ok(())
}

/// Pings `target`: sends `count` echo requests of 1 200 bytes, and wants as many answers.
///
/// # Errors
/// When an answer is missing or wrong.
pub fn ping(namespace: &Namespace, target: IpAddr, count: u8) -> Result<()> {
    namespace.sysctl("net/ipv4/ping_group_range", "0 0")?;
    let (family, protocol, request) = if target.is_ipv4() {
        (libc::AF_INET, libc::IPPROTO_ICMP, 8)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128)
    };
    let socket = namespace.run(|| {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and belongs to nobody else; it is connected and read as UDP's are.
        let socket = unsafe { UdpSocket::from_raw_fd(fd) };
        socket.connect(SocketAddr::new(target, 0))?;
        Ok(socket)
    })??;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 2_048];
    for number in 0..count {
        let mut message = vec![number; 1_200];
        message.splice(..8, [request, 0, 0, 0, 0, 0, 0, number]);
        socket.send(&message).with_context(|| format!("ping {target}"))?;
        let length = socket.recv(&mut buffer).with_context(|| format!("answer {number} of {target}"))?;
        ensure!(buffer.get(8..length) == message.get(8..), "answer {number} of {target} is another one's");
    }
    Ok(())
}

/// Checksums that receivers found wrong in a namespace: TCP, UDP and ICMP, both families.
///
/// # Errors
/// When the kernel's counters are not there.
pub fn wrong_checksums(namespace: &Namespace) -> Result<u64> {
    let all = counters(namespace)?;
    Ok(all.iter().filter(|(name, _)| name.ends_with("InCsumErrors")).map(|(_, count)| count).sum())
}

/// One counter of a namespace's `snmp` or `snmp6`, such as `Ip.ReasmOKs` or `Ip6ReasmOKs`.
///
/// # Errors
/// When there is none of that name.
pub fn counter(namespace: &Namespace, name: &str) -> Result<u64> {
    let all = counters(namespace)?;
    all.iter().find(|(other, _)| other == name).map(|(_, count)| *count).with_context(|| format!("counter {name}"))
}

fn counters(namespace: &Namespace) -> Result<Vec<(String, u64)>> {
    // `self` would be the namespace of the main thread.
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let (snmp, snmp6) = namespace.run(|| io::Result::Ok((read("snmp")?, read("snmp6")?)))??;
    let mut all = Vec::new();
    let lines: Vec<&str> = snmp.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        let Some((protocol, names)) = names.split_once(": ") else { continue };
        let values = values.split_whitespace().skip(1);
        for (name, value) in names.split_whitespace().zip(values) {
            all.push((format!("{protocol}.{name}"), value.parse().unwrap_or(0)));
        }
    }
    for line in snmp6.lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace) {
            all.push((name.to_owned(), value.trim().parse()?));
        }
    }
    Ok(all)
}

/// Packets left alone for a reason, as `canary get leaves` says.
///
/// # Errors
/// When the agent does not know the reason.
pub fn leaves(agent: &Agent, reason: &str) -> Result<u64> {
    number(agent, "leaves", "reason", reason, "packets")
}

/// A number of the version `version`, such as `packets_in`, as `canary get versions` says, all services together.
///
/// # Errors
/// When the agent does not know it.
pub fn of_version(agent: &Agent, version: &str, field: &str) -> Result<u64> {
    number(agent, "versions", "version", version, field)
}

/// The same of all versions together.
///
/// # Errors
/// When the agent knows no version.
pub fn of_all(agent: &Agent, field: &str) -> Result<u64> {
    number(agent, "versions", "version", "", field)
}

/// The sum over the objects whose `field` is `name`, or has any value when `name` is empty.
fn number(agent: &Agent, kind: &str, field: &str, name: &str, wanted: &str) -> Result<u64> {
    let text = agent.call(&["get", kind, "-o", "json"])?;
    let value: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    find(&value, field, name, wanted, &mut found);
    ensure!(!found.is_empty(), "`get {kind}` knows no `{wanted}` of {name}: {text}");
    Ok(found.iter().sum())
}

/// Collects `wanted` from every object whose `field` is `name`, directly or one level below.
fn find(value: &Value, field: &str, name: &str, wanted: &str, found: &mut Vec<u64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find(item, field, name, wanted, found)),
        Value::Object(fields)
            if fields.get(field).and_then(Value::as_str).is_some_and(|it| name.is_empty() || it == name) =>
        {
            let inside = fields.values().find_map(|inner| inner.get(wanted));
            found.extend(fields.get(wanted).or(inside).and_then(Value::as_u64));
        }
        Value::Object(fields) => fields.values().for_each(|item| find(item, field, name, wanted, found)),
        _ => {}
    }
}

/// Tries again until `reached` is true.
///
/// # Errors
/// When it fails, or is not true in time.
pub fn eventually(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !reached()? {
        ensure!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
