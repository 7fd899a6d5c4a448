//! What goes beside the virtual address is untouched, pods are clients too, and nothing is translated twice.
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    thread,
};

use anyhow::{Context, Result};
use canary_common::host::frame::{Build, fault};
use canary_tests::{
    agent::{Agent, EndpointState},
    background::Background,
    load::{Load, Progress, Protocol, run},
    netns::Namespace,
    probe::{self, wire},
    resources::{Extras, PORT, write_endpoints, write_service},
    stage::{Setting, Stage},
    story::{FRONT, Hook, Story, vip},
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

fn load(namespace: &Namespace, target: SocketAddr, protocol: Protocol, connections: u32) -> Result<Tally> {
    namespace.run(|| run(Load { protocol, ..Load::tcp(target, connections) }, &Progress::new()))?
}

/// A line for `ip` that makes an interface find its neighbours anew. Not those that it is just looking for: the kernel
/// would answer what waits for them with "no route to host", with or without a load balancer.
fn forget_neighbours(interface: &str) -> String {
    format!("neigh flush dev {interface} nud reachable nud stale nud delay\n")
}

/// While connections go through the virtual address: connections to the same pods directly, by TCP and UDP, from the
/// client and from the node, pings everywhere, and neighbours that have to be found anew.
#[test]
fn what_is_not_for_the_virtual_address_is_untouched() -> Result<()> {
    everywhere(|hook, ipv6| {
        let setting = Setting { pods: (2, 1), ..Setting::new(hook, ipv6) };
        let stage = Stage::new(&setting)?;
        // Above the ports of their own that direct connections have.
        stage.story.client.sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
        let busy = Load { concurrency: 4, ..Load::tcp(stage.target(), u32::MAX) };
        let busy = Background::load(&stage.story.client, busy);
        for endpoint in stage.story.endpoints() {
            let address: IpAddr = if ipv6 { endpoint.v6.into() } else { endpoint.v4.into() };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for from in [&*stage.story.client, &stage.story.node] {
                    let direct = Load { protocol, own_ports: true, ..Load::tcp(SocketAddr::new(address, PORT), 60) };
                    let tally = from.run(|| run(direct, &Progress::new()))??;
                    assert_eq!(tally.of_instance(&endpoint.pod), 60, "{protocol:?} from {}: {tally:?}", from.name());
                }
            }
            for from in [&*stage.story.client, &stage.story.node] {
                probe::ping(from, address, 5)?;
            }
            stage.story.client.ip(&forget_neighbours("eth0"))?;
            stage.story.node.ip(&forget_neighbours(FRONT))?;
        }
        let gateway = if ipv6 { "fd00:1::1" } else { "10.0.0.1" };
        probe::ping(&stage.story.client, gateway.parse()?, 5)?;
        busy.wait("a hundred connections beside them", |so_far| Ok(so_far.tally().answers() > 100))?;
        let tally = busy.stop()?;
        setting.weights.hold_for(&tally)
    })
}

/// A stage whose agent attaches to other places than the front only.
fn attached(setting: &Setting, places: &[&str]) -> Result<Stage> {
    let mut stage = Stage::new(setting)?;
    stage.agent.kill()?;
    stage.agent.attach_to(places);
    let Stage { agent, story, .. } = &mut stage;
    agent.start(story)?;
    Ok(stage)
}

const ALL: [&str; 3] = ["tc:front", "tc:pod-v1-1", "tc:pod-v2-1"];

/// On the client's side and on the pods' side: every packet is translated and counted once, there and back.
#[test]
fn attached_on_both_sides_nothing_is_translated_twice() -> Result<()> {
    for (hook, ipv6) in [(Hook::Tc, false), (Hook::Tc, true), (Hook::Xdp, false), (Hook::Xdp, true)] {
        let setting = Setting { pods: (1, 1), weights: Weights { v1: 50, v2: 50 }, ..Setting::new(hook, ipv6) };
        let front = format!("{}:{FRONT}", hook.name());
        let stage = attached(&setting, &[&front, ALL[1], ALL[2]])?;
        setting.weights.hold_for(&stage.connect(200)?)?;
        let counts = || -> Result<_> {
            Ok(["flows", "packets_in", "packets_out"].map(|field| probe::of_all(&stage.agent, field).unwrap()))
        };
        let before = counts()?;
        assert_eq!(stage.datagrams(100)?.answers(), 100);
        let after = counts()?;
        assert_eq!([0, 1, 2].map(|at| after[at] - before[at]), [100; 3], "{hook:?}, IPv6: {ipv6}");
    }
    Ok(())
}

/// A pod opens connections to a service whose endpoints are other pods: translated where they leave the pod. (To itself
/// it cannot: both ends would have one address, and its kernel believes no packet from outside that has its own.)
#[test]
fn a_pod_is_a_client_too() -> Result<()> {
    for ipv6 in [false, true] {
        let setting = Setting { pods: (1, 1), weights: Weights { v1: 0, v2: 1 }, ..Setting::new(Hook::Tc, ipv6) };
        for places in [&ALL[..], &ALL[1..2]] {
            let stage = attached(&setting, places)?;
            stage.publish(&stage.story.endpoints_of("v2"))?;
            let pod = stage.story.pods()[0].namespace();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let tally = load(pod, stage.target(), protocol, 100)?;
                assert_eq!(tally.of("v2"), 100, "{places:?}, {protocol:?}: {tally:?}");
            }
            assert_eq!(probe::wrong_checksums(pod)?, 0);
        }
    }
    Ok(())
}

/// A pod that is refused hears it at once.
#[test]
fn a_pod_is_refused_at_once_too() -> Result<()> {
    let setting = Setting { pods: (1, 1), weights: Weights { v1: 0, v2: 1 }, ..Setting::new(Hook::Tc, false) };
    let stage = attached(&setting, &ALL)?;
    stage.publish(&stage.story.endpoints_of("v1"))?;
    let error = probe::connect(stage.story.pods()[0].namespace(), stage.target()).unwrap_err();
    let kind = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{error:#}");
    Ok(())
}

/// An agent of its own for the same resources and the same node.
fn agent(story: &Story, place: &str, weights: Weights) -> Result<Agent> {
    let mut agent = Agent::new(story)?;
    agent.attach_to(&[place]);
    write_service(&agent.config(), weights, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(story)?;
    let sockets: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    agent.wait_for(&sockets, &[EndpointState::Serving])?;
    Ok(agent)
}

/// Two agents that know nothing of each other, XDP and TC on one interface: the first to see a packet translates it,
/// the other leaves it alone. When the first goes, the other has everything that is new.
#[test]
fn two_agents_on_one_interface_do_not_disturb_each_other() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let story = Story::new(Hook::Xdp, 1, 1)?;
    let mut first = agent(&story, "xdp:front", weights)?;
    let second = agent(&story, "tc:front", weights)?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(load(&story.client, vip(false), protocol, 200)?.answers(), 200);
    }
    assert_eq!((probe::of_all(&first, "flows")?, probe::of_all(&second, "flows")?), (400, 0));
    first.kill()?;
    first.detach(&story)?;
    weights.hold_for(&load(&story.client, vip(false), Protocol::Tcp, 200)?)?;
    assert_eq!(probe::of_all(&second, "flows")?, 200);
    Ok(())
}

/// A connection that the first agent began must not be taken over by the second in its middle with another endpoint's
/// answers: both ends see one connection from its first byte to its last.
#[test]
fn a_second_agent_leaves_the_connections_of_the_first_alone() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let story = Story::new(Hook::Xdp, 1, 1)?;
    let _first = agent(&story, "xdp:front", weights)?;
    let held = Background::hold(&story.client, vip(false), 50)?;
    let _second = agent(&story, "tc:front", weights)?;
    held.wait_for_exchanges(200)?;
    assert_eq!(held.stop()?.failed, 0);
    Ok(())
}

/// The node forwards frames with a VLAN tag between its ports, as a bridge does: they are translated inside the tag.
#[test]
fn frames_with_a_vlan_tag_are_translated_inside_it() -> Result<()> {
    for (hook, ipv6) in [(Hook::Tc, false), (Hook::Tc, true), (Hook::Xdp, false), (Hook::Xdp, true)] {
        for tags in [vec![0x8100], vec![0x88a8, 0x8100]] {
            let setting = Setting { pods: (1, 0), weights: Weights { v1: 1, v2: 0 }, ..Setting::new(hook, ipv6) };
            let stage = Stage::new(&setting)?;
            let pod = &stage.story.pods()[0];
            stage.story.node.ip(&format!(
                "link add bridge type bridge\nlink set bridge up\n\
                 link set {FRONT} master bridge\nlink set pod-v1-1 master bridge\n"
            ))?;
            let (client, there) = (wire::mac(&stage.story.client, "eth0")?, wire::mac(pod.namespace(), "eth0")?);
            let from: SocketAddr = if ipv6 { "[fd00:1::2]:4243" } else { "10.0.0.2:4243" }.parse()?;
            let address: IpAddr = if ipv6 { pod.endpoint().v6.into() } else { pod.endpoint().v4.into() };
            let build = |src, dst| Build { tags: tags.clone(), ..Build::udp(src, dst).with(b"tagged") };
            let made = |src, dst, from, to| wire::between(build(src, dst).frame(), from, to);
            let ours = |frame: &[u8]| frame.windows(6).any(|window| window == b"tagged");
            let (near, far) =
                (wire::Wire::new(&stage.story.client, "eth0")?, wire::Wire::new(pod.namespace(), "eth0")?);
            let endpoint = SocketAddr::new(address, PORT);
            let name = format!("{hook:?}, IPv6: {ipv6}, {tags:x?}");

            near.send(&made(from, stage.target(), client, there))?;
            let got = far.next(ours)?.with_context(|| format!("{name}: nothing at the pod"))?;
            assert_eq!(got, made(from, endpoint, client, there), "{name}: to the pod");
            assert_eq!(fault(&got), None);

            far.send(&made(endpoint, from, there, client))?;
            let got = near.next(ours)?.with_context(|| format!("{name}: nothing at the client"))?;
            assert_eq!(got, made(stage.target(), from, there, client), "{name}: to the client");
        }
    }
    Ok(())
}

/// A connection between the same two hosts that canary has nothing to do with, while the agent comes and goes.
#[test]
fn attaching_and_detaching_does_not_disturb_other_connections() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        let mut stage = Stage::new(&Setting { pods: (1, 1), ..Setting::new(hook, false) })?;
        let direct = SocketAddr::new(stage.story.endpoints()[0].v4.into(), PORT);
        let held = Background::hold(&stage.story.client, direct, 20)?;
        stage.agent.kill()?;
        stage.agent.detach(&stage.story)?;
        held.wait_for_exchanges(60)?;
        let Stage { agent, story, .. } = &mut stage;
        agent.start(story)?;
        held.wait_for_exchanges(60)?;
        assert_eq!(held.stop()?.failed, 0);
    }
    Ok(())
}

/// A server that speaks first, and one that speaks long after: both directions are remembered, not only answers.
#[test]
fn a_server_may_speak_first() -> Result<()> {
    everywhere(|hook, ipv6| {
        let weights = Weights { v1: 1, v2: 0 };
        let mut stage = Stage::new(&Setting { pods: (1, 0), weights, ..Setting::new(hook, ipv6) })?;
        let pod = stage.story.pod("helloworld-v1-1")?;
        pod.crash()?;
        let listener = probe::listen(pod.namespace())?;
        let server = thread::spawn(move || -> Result<()> {
            let (mut stream, peer) = listener.accept()?;
            anyhow::ensure!(peer.ip().to_canonical().to_string().ends_with(if ipv6 { "1::2" } else { "0.0.2" }));
            Ok(stream.write_all(b"220 ready\r\n")?)
        });
        let mut client = probe::connect(&stage.story.client, stage.target())?;
        let mut said = String::new();
        client.read_to_string(&mut said)?;
        assert_eq!(said, "220 ready\r\n");
        server.join().unwrap()
    })
}
