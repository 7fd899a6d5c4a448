//! Who gets which version: rules for client networks, and clients that keep their version.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what these functions assert is what the tests prove"
)]
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use canary_tests::{
    agent::{Agent, EndpointState},
    probe,
    resources::{Extras, PORT, write_endpoints, write_service},
    server::Hello,
    stage::{Setting, Stage},
    story::{Hook, Story},
    tally::Weights,
};

/// A connection from one of the client's addresses, and who answered.
fn from(stage: &Stage, source: IpAddr) -> Result<Hello> {
    let open = async || {
        let socket = if source.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = tokio::time::timeout(probe::PATIENCE, socket.connect(stage.target())).await;
        stream.context("connect: no answer")??.into_std().context("std")
    };
    let connect = || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(open());
    let mut stream = stage.story.client.run(connect)?.with_context(|| format!("from {source}"))?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(probe::PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Hello::read(answer.rsplit("\r\n").next().unwrap_or_default())
}

/// So many more addresses of the client, in a network of their own.
fn addresses(stage: &Stage, ipv6: bool, net: u8, count: u8) -> Result<Vec<IpAddr>> {
    let all: Vec<IpAddr> = (1..=count)
        .map(
            |host| {
                if ipv6 { [0xfd00, 2, net.into(), 0, 0, 0, 0, host.into()].into() } else { [10, 2, net, host].into() }
            },
        )
        .collect();
    // Without duplicate address detection the address is usable at once; with it, even if it is off, a moment later.
    let (bits, at_once) = if ipv6 { (128, " nodad") } else { (32, "") };
    let lines: Vec<String> =
        all.iter().map(|address| format!("addr add {address}/{bits} dev eth0{at_once}\n")).collect();
    stage.story.client.ip(&lines.concat())?;
    let (route, via) = if ipv6 { ("fd00:2::/32", "fd00:1::2") } else { ("10.2.0.0/16", "10.0.0.2") };
    // The second network finds the route there.
    let _ = stage.story.node.ip(&format!("route add {route} via {via}\n"));
    Ok(all)
}

/// The routes of the stage, changed by a user's editor.
fn edit(stage: &Stage, change: impl Fn(&str) -> String) -> Result<()> {
    let path = stage.agent.config().join("routes.yaml");
    let new = path.with_extension("new");
    std::fs::write(&new, change(&std::fs::read_to_string(&path)?))?;
    Ok(std::fs::rename(new, path)?)
}

const OFFICE: &str = "  - name: office
    route:
    - destination:
        host: helloworld
        subset: v2
  - route:
    - destination:
        host: helloworld
        subset: v1
---
apiVersion: canary.io/v1alpha1
kind: RoutePolicy
metadata:
  name: helloworld
spec:
  targetRef:
    kind: VirtualService
    name: helloworld
  rules:
  - name: office
    sources: [10.2.7.0/24, 'fd00:2:7::/48']
---
";

/// Clients of one network get v2 and nothing else, all others v1 and nothing else; whose neighbours they are does not
/// matter, nor in which order they come.
fn one_network_sees_the_canary(hook: Hook, ipv6: bool) -> Result<()> {
    let stage = Stage::new(&Setting { pods: (2, 2), ..Setting::new(hook, ipv6) })?;
    edit(&stage, |routes| {
        let (head, rest) = routes.split_once("  - route:\n").unwrap();
        let (_, tail) = rest.split_once("---\n").unwrap();
        format!("{head}{OFFICE}{tail}")
    })?;
    probe::eventually("two rules", || Ok(stage.agent.call(&["get", "versions"])?.contains("office")))?;
    let (office, others) = (addresses(&stage, ipv6, 7, 10)?, addresses(&stage, ipv6, 8, 10)?);
    for _ in 0..3 {
        for (inside, outside) in office.iter().zip(&others) {
            assert_eq!(from(&stage, *inside)?.version, "v2", "{inside}");
            assert_eq!(from(&stage, *outside)?.version, "v1", "{outside}");
        }
    }
    Ok(())
}

#[test]
fn clients_of_one_network_see_the_canary_and_nobody_else_does_by_tc() -> Result<()> {
    one_network_sees_the_canary(Hook::Tc, false)?;
    one_network_sees_the_canary(Hook::Tc, true)
}

#[test]
fn clients_of_one_network_see_the_canary_and_nobody_else_does_by_xdp() -> Result<()> {
    one_network_sees_the_canary(Hook::Xdp, false)?;
    one_network_sees_the_canary(Hook::Xdp, true)
}

/// A stage whose split is keyed by the client from the start.
fn keyed(hook: Hook, ipv6: bool, weights: Weights) -> Result<Stage> {
    let stage = Stage::new(&Setting { pods: (2, 1), weights, ..Setting::new(hook, ipv6) })?;
    edit(&stage, |routes| {
        routes.replacen("  annotations:\n", "  annotations:\n    canary.io/choosing: keyed-client\n", 1)
    })?;
    probe::eventually("a keyed split", || Ok(stage.agent.call(&["get", "services", "-o", "json"])?.contains("keyed")))?;
    Ok(stage)
}

fn versions(stage: &Stage, clients: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    clients.iter().map(|client| Ok((*client, from(stage, *client)?.version))).collect()
}

/// A client keeps its version over new connections, over scaling and over an agent's death; more weight for the canary
/// moves some clients there and nobody away.
fn a_client_keeps_its_version(hook: Hook, ipv6: bool) -> Result<()> {
    let mut stage = keyed(hook, ipv6, Weights { v1: 80, v2: 20 })?;
    let clients = addresses(&stage, ipv6, 9, 60)?;
    let first = versions(&stage, &clients)?;
    let canaries = |seen: &BTreeMap<IpAddr, String>| seen.values().filter(|version| *version == "v2").count();
    assert!((3..=25).contains(&canaries(&first)), "20 % of 60: {first:?}");
    assert_eq!(versions(&stage, &clients)?, first, "a second connection");
    for count in [3, 1] {
        stage.scale_v2(count)?;
        assert_eq!(versions(&stage, &clients)?, first, "v2 has {count} pods");
    }
    stage.agent.kill()?;
    let Stage { agent, story, .. } = &mut stage;
    agent.start(story)?;
    assert_eq!(versions(&stage, &clients)?, first, "another agent");
    let mut before = first;
    for v2 in [40, 70, 100] {
        stage.set_weights(Weights { v1: 100 - v2, v2 })?;
        let now = versions(&stage, &clients)?;
        for (client, version) in &before {
            assert!(version == "v1" || now[client] == "v2", "{client} left v2 as its weight grew to {v2}");
        }
        assert!(canaries(&now) > canaries(&before), "nobody moved at {v2}");
        before = now;
    }
    assert_eq!(canaries(&before), 60);
    Ok(())
}

#[test]
fn a_keyed_client_keeps_its_version_by_tc() -> Result<()> {
    a_client_keeps_its_version(Hook::Tc, false)
}

#[test]
fn a_keyed_client_keeps_its_version_by_xdp() -> Result<()> {
    a_client_keeps_its_version(Hook::Xdp, true)
}

/// The version depends on the client and the names alone, not on the node: a second one that never heard of the first
/// decides the same.
#[test]
fn two_nodes_agree_about_keyed_clients() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let (one, two) = (keyed(Hook::Tc, false, weights)?, keyed(Hook::Xdp, false, weights)?);
    let clients = addresses(&one, false, 9, 30)?;
    assert_eq!(addresses(&two, false, 9, 30)?, clients);
    assert_eq!(versions(&one, &clients)?, versions(&two, &clients)?);
    Ok(())
}

/// What was changed while no agent ran is in force when the next one does.
#[test]
fn an_agent_that_starts_again_with_other_files_enforces_those() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 1)?;
    let mut agent = Agent::new(&story)?;
    for weights in [Weights { v1: 1, v2: 0 }, Weights { v1: 0, v2: 1 }] {
        write_service(&agent.config(), weights, &Extras::default())?;
        write_endpoints(&agent.config(), &story.endpoints())?;
        agent.start(&story)?;
        let sockets: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
        agent.wait_for(&sockets, &[EndpointState::Serving])?;
        let load = canary_tests::load::Load::tcp(canary_tests::story::vip(false), 50);
        let run = || canary_tests::load::run(load, &canary_tests::load::Progress::new());
        weights.hold_for(&story.client.run(run)??)?;
        agent.kill()?;
    }
    Ok(())
}
