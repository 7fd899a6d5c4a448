//! Sockets of a cgroup: a process that addresses the service is connected to an endpoint, and packets are left alone.
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use canary_common::abi::LAYOUT;
use canary_tests::{
    agent::{Agent, EndpointState},
    cgroup::Cgroup,
    cleanup::Running,
    focused::{FOCUSED, write_routes},
    load::Protocol,
    probe,
    resources::{Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, program, vip},
    tally::{Tally, Weights},
};

const START: Weights = Weights { v1: 90, v2: 10 };
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The story, whose node would pass no packet to the virtual address on; the agent at a cgroup.
struct World {
    // In this order: the agent ends before its namespace and its cgroup are let go.
    agent: Agent,
    story: Story,
    cgroup: Cgroup,
}

impl World {
    fn new(v1: u8, v2: u8, places: &[&str]) -> Result<Self> {
        let (story, cgroup) = (Story::new(Hook::Tc, v1, v2)?, Cgroup::new()?);
        let mut agent = Agent::new(&story)?;
        let own = format!("cgroup:{}", cgroup.path().display());
        let places: Vec<&str> = std::iter::once(own.as_str()).chain(places.iter().copied()).collect();
        agent.attach_to(&places);
        write_service(&agent.config(), START, &Extras::default())?;
        write_endpoints(&agent.config(), &story.endpoints())?;
        agent.start(&story)?;
        let world = Self { agent, story, cgroup };
        world.wait()?;
        Ok(world)
    }

    fn wait(&self) -> Result<()> {
        let sockets: Vec<_> = self.story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
        self.agent.wait_for(&sockets, &[EndpointState::Serving])
    }

    fn load(&self, ipv6: bool, protocol: Protocol, connections: u32) -> Result<Tally> {
        self.cgroup.load(&self.story.client, vip(ipv6), protocol, connections)
    }
}

fn all_answered(tally: &Tally, connections: u64) {
    assert_eq!((tally.answers(), tally.failed), (connections, 0), "{tally:?}");
}

#[test]
fn the_share_of_a_version_is_exact_for_sockets_too() -> Result<()> {
    let world = World::new(3, 1, &[])?;
    for ipv6 in [false, true] {
        for protocol in PROTOCOLS {
            let tally = world.load(ipv6, protocol, 200)?;
            all_answered(&tally, 200);
            assert_eq!(tally.of("v2"), 20, "{protocol:?}, IPv6: {ipv6}: {tally:?}");
        }
    }
    // Whoever is not in the cgroup finds nobody at that address.
    let outside = probe::connect(&world.story.client, vip(false));
    assert!(outside.is_err(), "{outside:?}");
    assert_eq!(probe::of_all(&world.agent, "flows")?, 4 * 200);
    assert_eq!(probe::of_all(&world.agent, "packets_in")?, 0);
    Ok(())
}

/// A process sees the address that it has asked for, whatever it asks.
#[test]
fn processes_see_the_address_that_they_have_asked_for() -> Result<()> {
    const SCRIPT: &str = r#"
import socket, sys
v4, v6, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6), (socket.AF_INET6, "::ffff:" + v4)):
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.settimeout(5)
    stream.connect((address, port))
    assert stream.getpeername()[:2] == (address, port), stream.getpeername()
    stream.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in stream.recv(1000)
    for connected in (False, True):
        datagram = socket.socket(family, socket.SOCK_DGRAM)
        datagram.settimeout(5)
        if connected:
            datagram.connect((address, port))
            assert datagram.getpeername()[:2] == (address, port), datagram.getpeername()
            datagram.send(b"hello?\n")
            assert datagram.recvfrom(1000)[1][:2] == (address, port)
            # By its name or without one, to the one that it is connected to: it takes answers from no other.
            for _ in range(8):
                datagram.sendto(b"hello?\n", (address, port))
                datagram.recvfrom(1000)
            datagram.sendto(b"hello?\n", (address, port))
        else:
            datagram.sendto(b"hello?\n", (address, port))
        answer, source = datagram.recvfrom(1000)
        assert source[:2] == (address, port), source
print("done")
"#;
    let world = World::new(2, 1, &[])?;
    let (v4, v6) = (vip(false).ip().to_string(), vip(true).ip().to_string());
    let said = world.cgroup.python(&world.story.client, SCRIPT, &[&v4, &v6, &PORT.to_string()])?;
    assert_eq!(said, "done\n");
    Ok(())
}

/// Datagrams of one socket go to one endpoint; when that is gone, the next one goes to another at once.
#[test]
fn datagrams_stay_with_their_endpoint_as_long_as_it_is_there() -> Result<()> {
    const SCRIPT: &str = r#"
import socket, sys
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(5)
for line in sys.stdin:
    datagram.sendto(b"hello?\n", (sys.argv[1], int(sys.argv[2])))
    print(datagram.recvfrom(1000)[0].decode().split()[-1], flush=True)
"#;
    let world = World::new(3, 1, &[])?;
    let mut command = world.cgroup.command(&world.story.client, "python3")?;
    command.args(["-c", SCRIPT, &vip(false).ip().to_string(), &PORT.to_string()]);
    let mut client = Running::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut ask = client.child().stdin.take().context("stdin")?;
    let mut answers = BufReader::new(client.child().stdout.take().context("stdout")?).lines();
    let mut hello = || -> Result<String> {
        std::io::Write::write_all(&mut ask, b"\n")?;
        Ok(answers.next().context("the client has ended")??)
    };
    let first = hello()?;
    for _ in 0..20 {
        assert_eq!(hello()?, first);
    }
    let mut rest = world.story.endpoints();
    rest.retain(|endpoint| !first.contains(&endpoint.pod));
    ensure!(rest.len() == 3, "`{first}` names no pod");
    write_endpoints(&world.agent.config(), &rest)?;
    let gone = world.story.endpoints().into_iter().find(|it| !rest.contains(it)).context("one is gone")?;
    let gone = [SocketAddr::new(gone.v4.into(), PORT)];
    world.agent.wait_for(&gone, &[EndpointState::Draining, EndpointState::Absent])?;
    let second = hello()?;
    assert_ne!(second, first);
    assert_eq!(hello()?, second);
    Ok(())
}

#[test]
fn whom_nobody_serves_is_refused_at_once() -> Result<()> {
    const SCRIPT: &str = r"
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
except OSError as error:
    print(type(error).__name__)
";
    let world = World::new(1, 1, &[])?;
    write_endpoints(&world.agent.config(), &[])?;
    let gone: Vec<_> = world.story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    world.agent.wait_for(&gone, &[EndpointState::Draining, EndpointState::Absent])?;
    let said = world.cgroup.python(&world.story.client, SCRIPT, &[&vip(false).ip().to_string(), &PORT.to_string()])?;
    assert_eq!(said, "ConnectionRefusedError\n");
    Ok(())
}

/// Killed, started again, relieved: processes connect all the while, and weights hold.
#[test]
fn agents_come_and_go_and_processes_connect_all_the_while() -> Result<()> {
    let mut world = World::new(2, 1, &[])?;
    let (target, load) = (vip(false).to_string(), program("load")?);
    let mut command = world.cgroup.command(&world.story.client, load)?;
    command.args([&target, "-n", "20000", "-c", "2"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut busy = Running::new(command.spawn()?);
    world.agent.kill()?;
    let tally = world.cgroup.load(&world.story.client, vip(true), Protocol::Tcp, 100)?;
    all_answered(&tally, 100);
    assert_eq!(tally.of("v2"), 10, "{tally:?}");
    let World { agent, story, .. } = &mut world;
    agent.start(story)?;
    agent.replace(story)?;
    let mut output = String::new();
    let stdout = busy.child().stdout.take().context("stdout")?;
    std::io::Read::read_to_string(&mut { stdout }, &mut output)?;
    let tally: Tally = serde_json::from_str(&output)?;
    all_answered(&tally, 20_000);
    START.hold_for(&tally)
}

/// With programs for packets at the front: who is in the cgroup is chosen for once, and both together have exact shares.
#[test]
fn sockets_and_packets_share_the_numbers_and_nothing_is_translated_twice() -> Result<()> {
    let world = World::new(2, 1, &["tc:front"])?;
    let mut both = Tally::default();
    for _ in 0..5 {
        both.add(&world.load(false, Protocol::Tcp, 10)?);
        let outside = canary_tests::load::Load { concurrency: 1, ..canary_tests::load::Load::tcp(vip(false), 10) };
        let progress = canary_tests::load::Progress::new();
        both.add(&world.story.client.run(|| canary_tests::load::run(outside, &progress))??);
    }
    all_answered(&both, 100);
    assert_eq!(both.of("v2"), 10, "{both:?}");
    assert_eq!(probe::of_all(&world.agent, "flows")?, 100);
    Ok(())
}

/// A pod reaches itself by its own service, which packets cannot do.
#[test]
fn a_pod_reaches_itself() -> Result<()> {
    let world = World::new(1, 1, &[])?;
    let pod = &world.story.pods()[0];
    for ipv6 in [false, true] {
        for protocol in PROTOCOLS {
            let tally = world.cgroup.load(pod.namespace(), vip(ipv6), protocol, 20)?;
            assert_eq!((tally.of("v1"), tally.of("v2"), tally.failed), (18, 2, 0), "{tally:?}");
        }
    }
    Ok(())
}

/// The blog's second half for processes: who has the cookie sees v2 in half of the cases, by the proxy, which learns where the
/// connection was meant to go.
#[test]
fn the_focused_canary_is_for_processes_too() -> Result<()> {
    const SCRIPT: &str = r#"
import socket, sys
v4, v6, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6), (socket.AF_INET6, "::ffff:" + v4)):
    for cookie in (b"cookie: email=ada@some-company-name.com\r\n", b""):
        canaries = 0
        for _ in range(40):
            stream = socket.socket(family, socket.SOCK_STREAM)
            stream.settimeout(5)
            stream.connect((address, port))
            assert stream.getpeername()[:2] == (address, port), stream.getpeername()
            stream.sendall(b"GET /hello HTTP/1.1\r\nHost: helloworld\r\nConnection: close\r\n" + cookie + b"\r\n")
            answer = b""
            while part := stream.recv(4096):
                answer += part
            assert answer.startswith(b"HTTP/1.1 200"), answer
            canaries += b"v2" in answer
        print(canaries)
"#;
    let (story, cgroup) = (Story::new(Hook::Tc, 2, 1)?, Cgroup::new()?);
    let mut agent = Agent::new(&story)?;
    agent.attach_to(&[&format!("cgroup:{}", cgroup.path().display())]);
    agent.listen_at(&["10.0.0.1:15001", "[fd00:1::1]:15001"]);
    write_service(&agent.config(), START, &Extras::default())?;
    write_routes(&agent, FOCUSED)?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(&story)?;
    let world = World { agent, story, cgroup };
    world.wait()?;
    let (v4, v6) = (vip(false).ip().to_string(), vip(true).ip().to_string());
    let said = world.cgroup.python(&world.story.client, SCRIPT, &[&v4, &v6, &PORT.to_string()])?;
    assert_eq!(said, "20\n0\n20\n0\n20\n0\n", "{}", world.agent.log());
    Ok(())
}

/// An agent whose maps are laid out in another way leaves nothing that decides by the old ones, at sockets or interfaces.
#[test]
fn programs_of_another_layout_go_when_the_new_ones_are_in_force() -> Result<()> {
    let mut world = World::new(1, 1, &["tc:front"])?;
    world.agent.terminate()?;
    let pins = world.agent.pins().to_owned();
    fs::rename(pins.join(format!("v{LAYOUT}")), pins.join("v0"))?;
    write_service(&world.agent.config(), Weights { v1: 0, v2: 100 }, &Extras::default())?;
    world.agent.start(&world.story)?;
    let left: Vec<_> = fs::read_dir(&pins)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(left, [format!("v{LAYOUT}").as_str()]);
    world.wait()?;
    let tally = world.load(false, Protocol::Tcp, 50)?;
    all_answered(&tally, 50);
    assert_eq!(tally.of("v2"), 50, "the old tables say 90 to 10");
    Ok(())
}
