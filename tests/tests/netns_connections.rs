//! What becomes of the connections that sockets make: counted by version, as clients have seen it.
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::{Agent, EndpointState},
    cgroup::Cgroup,
    cleanup::Running,
    load::Protocol,
    resources::{Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, vip},
    tally::Weights,
};
use serde_json::Value;

const START: Weights = Weights { v1: 90, v2: 10 };

struct World {
    // In this order: the agent ends before its namespace and its cgroup are let go.
    agent: Agent,
    story: Story,
    cgroup: Cgroup,
}

impl World {
    fn new() -> Result<Self> {
        let (story, cgroup) = (Story::new(Hook::Tc, 1, 1)?, Cgroup::new()?);
        let mut agent = Agent::new(&story)?;
        agent.attach_to(&[&format!("cgroup:{}", cgroup.path().display())]);
        agent.with(&["--connection-metrics"]);
        write_service(&agent.config(), START, &Extras::default())?;
        write_endpoints(&agent.config(), &story.endpoints())?;
        agent.start(&story)?;
        agent.wait_for(&canary_tests::cluster::sockets(&story.endpoints()), &[EndpointState::Serving])?;
        Ok(Self { agent, story, cgroup })
    }

    /// A number of a version's connections over IPv4.
    fn of(&self, version: &str, field: &str) -> Result<u64> {
        let all: Value = serde_json::from_str(&self.agent.call(&["get", "versions", "-o", "json"])?)?;
        let items = all.get("items").and_then(Value::as_array).context("no items")?;
        let text = |it: &Value, field| it.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut of = items.iter().filter(|it| text(it, "service").ends_with("tcp") && text(it, "version") == version);
        let of = of.next().and_then(|it| it.pointer(&format!("/connections/{field}")));
        of.and_then(Value::as_u64).with_context(|| format!("{version} has no {field}: {all}"))
    }

    /// Waits until a version has so many.
    fn wait(&self, version: &str, field: &str, count: u64) -> Result<()> {
        let started = Instant::now();
        while self.of(version, field)? != count {
            ensure!(started.elapsed() < Duration::from_secs(20), "{version}: {field} is {}", self.of(version, field)?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A client that holds twenty connections open.
struct Held(Running);

impl Held {
    fn new(world: &World) -> Result<Self> {
        const SCRIPT: &str = r"
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) for _ in range(20)]
print('open', flush=True)
sys.stdin.readline()
";
        let mut command = world.cgroup.command(&world.story.client, "python3")?;
        command.args(["-c", SCRIPT, &vip(false).ip().to_string(), &PORT.to_string()]);
        let mut client = Running::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        BufReader::new(client.child().stdout.take().context("stdout")?).read_line(&mut line)?;
        assert_eq!(line, "open\n");
        Ok(Self(client))
    }

    fn end(&mut self) -> Result<()> {
        self.0.child().stdin.take().context("stdin")?.write_all(b"\n")?;
        self.0.child().wait()?;
        Ok(())
    }
}

#[test]
fn connections_are_counted_from_their_beginning_to_their_end() -> Result<()> {
    let world = World::new()?;
    let tally = world.cgroup.load(&world.story.client, vip(false), Protocol::Tcp, 100)?;
    START.hold_for(&tally)?;
    for (version, count) in [("v1", 90), ("v2", 10)] {
        world.wait(version, "open", 0)?;
        assert_eq!((world.of(version, "established")?, world.of(version, "failed")?), (count, 0), "{version}");
        let (sent, received) = (world.of(version, "bytes_in")?, world.of(version, "bytes_out")?);
        // A request and an answer are longer than this, and no two are a kilobyte.
        assert!((10 * count..1_000 * count).contains(&sent), "{version}: {sent} bytes in");
        assert!((10 * count..1_000 * count).contains(&received), "{version}: {received} bytes out");
        for time in ["handshake_micros", "rtt_micros"] {
            assert!((1..1_000_000).contains(&world.of(version, time)?), "{version}: {time}");
        }
    }
    Ok(())
}

#[test]
fn whoever_does_not_get_through_is_counted_as_failed() -> Result<()> {
    let mut world = World::new()?;
    let name = world.story.endpoints_of("v2").first().context("no v2")?.pod.clone();
    world.story.pod(&name)?.crash()?;
    let tally = world.cgroup.load(&world.story.client, vip(false), Protocol::Tcp, 100)?;
    assert_eq!((tally.of("v1"), tally.failed), (90, 10), "{tally:?}");
    world.wait("v2", "failed", 10)?;
    assert_eq!((world.of("v2", "established")?, world.of("v1", "failed")?), (0, 0));
    Ok(())
}

/// An agent that comes and goes loses none; one that is open while its endpoint goes away is told of.
#[test]
fn open_connections_are_told_of_until_they_end() -> Result<()> {
    let mut world = World::new()?;
    let mut held = Held::new(&world)?;
    assert_eq!((world.of("v1", "open")?, world.of("v2", "open")?, world.of("v2", "draining")?), (18, 2, 0));
    let World { agent, story, .. } = &mut world;
    agent.replace(story)?;
    write_endpoints(&world.agent.config(), &world.story.endpoints_of("v1"))?;
    let gone = world.story.endpoints_of("v2").first().map(|it| SocketAddr::new(it.v4.into(), PORT)).context("no v2")?;
    world.agent.wait_for(&[gone], &[EndpointState::Draining])?;
    assert_eq!((world.of("v1", "open")?, world.of("v2", "open")?, world.of("v2", "draining")?), (18, 2, 2));
    held.end()?;
    for version in ["v1", "v2"] {
        world.wait(version, "open", 0)?;
    }
    assert_eq!(world.of("v2", "draining")?, 0);
    Ok(())
}

/// Two programs see the same connections: for a moment while one agent replaces another, and here all the time.
#[test]
fn none_is_counted_twice() -> Result<()> {
    let mut world = World::new()?;
    let inner = world.cgroup.below("pod")?;
    let World { agent, story, cgroup } = &mut world;
    let places = [cgroup.path(), inner.path()].map(|path| format!("cgroup:{}", path.display()));
    agent.attach_to(&places.each_ref().map(String::as_str));
    agent.replace(story)?;
    let tally = inner.load(&story.client, vip(false), Protocol::Tcp, 100)?;
    START.hold_for(&tally)?;
    for (version, count) in [("v1", 90), ("v2", 10)] {
        world.wait(version, "open", 0)?;
        assert_eq!((world.of(version, "established")?, world.of(version, "failed")?), (count, 0), "{version}");
    }
    drop(world); // The inner cgroup goes after the programs.
    Ok(())
}

/// While nobody counts, ends are missed.
#[test]
fn what_was_open_when_nobody_counted_any_more_is_not_open_for_ever() -> Result<()> {
    let mut world = World::new()?;
    let mut held = Held::new(&world)?;
    assert_eq!((world.of("v1", "open")?, world.of("v2", "open")?), (18, 2));
    let World { agent, story, .. } = &mut world;
    agent.without("--connection-metrics");
    agent.replace(story)?;
    held.end()?;
    agent.with(&["--connection-metrics"]);
    agent.replace(story)?;
    assert_eq!((world.of("v1", "open")?, world.of("v2", "open")?), (0, 0));
    let tally = world.cgroup.load(&world.story.client, vip(false), Protocol::Tcp, 10)?;
    assert_eq!(tally.answers(), 10, "{tally:?}");
    world.wait("v1", "established", 9)?;
    Ok(())
}
