//! `connects`: what it costs a process to connect, with and without the programs of a cgroup.
//!
//! The time of `connect()` alone. A datagram socket sends nothing then: that is the pure cost. A TCP socket shakes hands with a
//! real pod. Rounds are interleaved, and every figure is of a process of its own.
use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use canary_tests::{
    agent::{Agent, EndpointState},
    cgroup::Cgroup,
    load::Protocol,
    resources::{Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, vip},
    tally::Weights,
};
use clap::Parser;

/// Measures `connect()` from inside and outside of a cgroup that canary is attached to.
#[derive(Debug, Parser)]
struct Options {
    /// Interleaved rounds; the table shows the median of them
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Connect so many times to `--to`, and print the mean in nanoseconds: what the other processes do
    #[arg(long, hide = true)]
    measure: Option<u32>,
    /// Addresses, in turn
    #[arg(long, hide = true)]
    to: Vec<SocketAddr>,
    /// Transport of that
    #[arg(long, hide = true, value_enum, default_value_t = Protocol::Udp)]
    protocol: Protocol,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(times) = options.measure {
        println!("{}", measure(&options.to, options.protocol, times)?);
        return Ok(());
    }
    let story = Story::new(Hook::Tc, 3, 1)?;
    let (cgroup, _agent) = world(&story, &[])?;
    let (counted, _counting) = world(&story, &["--connection-metrics"])?;
    let pods: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    let service = [vip(false)];
    println!("{:<6} {:<34} {:>10} {:>10}", "", "connect() to", "ns", "added");
    for (protocol, times) in [(Protocol::Udp, 100_000), (Protocol::Tcp, 3_000)] {
        let cases = [
            ("the pods, outside the cgroup", pods.as_slice(), None),
            ("the pods", &pods, Some(&cgroup)),
            ("the service", &service, Some(&cgroup)),
            ("the pods, connections counted", &pods, Some(&counted)),
            ("the service, connections counted", &service, Some(&counted)),
        ];
        let mut found = [const { Vec::new() }; 5];
        for _ in 0..options.rounds {
            for ((_, target, cgroup), found) in cases.iter().zip(&mut found) {
                found.push(child(&story, *cgroup, target, protocol, times)?);
            }
        }
        let mut base = None;
        for ((what, ..), mut found) in cases.into_iter().zip(found) {
            found.sort_by(f64::total_cmp);
            let median = found.get(found.len() / 2).copied().context("no round")?;
            let added = median - *base.get_or_insert(median);
            println!("{:<6} {what:<34} {median:>10.0} {added:>+10.0}", format!("{protocol:?}").to_lowercase());
        }
    }
    Ok(())
}

/// A cgroup, and an agent that is attached to it with these arguments besides.
fn world(story: &Story, arguments: &[&str]) -> Result<(Cgroup, Agent)> {
    let (cgroup, mut agent) = (Cgroup::new()?, Agent::new(story)?);
    agent.attach_to(&[&format!("cgroup:{}", cgroup.path().display())]);
    agent.with(arguments);
    write_service(&agent.config(), Weights { v1: 90, v2: 10 }, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(story)?;
    let pods: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    agent.wait_for(&pods, &[EndpointState::Serving])?;
    Ok((cgroup, agent))
}

/// The mean of so many calls, in a process of its own.
fn child(
    story: &Story,
    cgroup: Option<&Cgroup>,
    targets: &[SocketAddr],
    protocol: Protocol,
    times: u32,
) -> Result<f64> {
    let program = std::env::current_exe()?;
    let mut command = match cgroup {
        Some(cgroup) => cgroup.command(&story.client, program)?,
        None => story.client.command(program)?,
    };
    command.args(["--measure", &times.to_string()]);
    for target in targets {
        command.args(["--to", &target.to_string()]);
    }
    command.args(["--protocol", if protocol == Protocol::Tcp { "tcp" } else { "udp" }]);
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Mean time of `connect()` of a new socket, in nanoseconds.
fn measure(targets: &[SocketAddr], protocol: Protocol, times: u32) -> Result<f64> {
    let mut spent = Duration::ZERO;
    for target in targets.iter().cycle().take(times as usize) {
        match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let begin = Instant::now();
                socket.connect(target)?;
                spent += begin.elapsed();
            }
            Protocol::Tcp => {
                let begin = Instant::now();
                let stream = TcpStream::connect(target)?;
                spent += begin.elapsed();
                drop(stream);
            }
        }
    }
    Ok(spent.as_secs_f64() * 1e9 / f64::from(times))
}
