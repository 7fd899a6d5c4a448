//! `--direct`: clients' packets go straight into the pods' namespaces.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::{Agent, EndpointState},
    load::{Load, Progress, Protocol, run},
    resources::{Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, vip},
    tally::Weights,
};
use serde_json::Value;

/// The host would not forward clients' packets: what they reach, they reach past it. Answers take their way as ever.
fn close_the_stack(story: &Story) -> Result<()> {
    for (family, pods) in [("-4", "10.244.0.0/16"), ("-6", "fd00:244::/32")] {
        story.node.call("ip", &[family, "rule", "add", "iif", "front", "to", pods, "blackhole"])?;
    }
    Ok(())
}

fn start(story: &Story, direct: bool) -> Result<Agent> {
    let mut agent = Agent::new(story)?;
    if direct {
        agent.with(&["--direct"]);
    }
    write_service(&agent.config(), Weights { v1: 50, v2: 50 }, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(story)?;
    let pods: Vec<_> = story.endpoints().iter().map(|it| (it.v4, PORT).into()).collect();
    agent.wait_for(&pods, &[EndpointState::Serving; 2])?;
    Ok(agent)
}

/// Asserts what the command line says of each endpoint's device.
fn assert_devices(agent: &Agent, direct: bool) -> Result<()> {
    let said: Value = serde_json::from_str(&agent.call(&["get", "endpoints", "-o", "json"])?)?;
    let items = said.pointer("/items").and_then(Value::as_array).context("no items")?;
    ensure!(!items.is_empty());
    for item in items {
        let field = |name| item.get(name).and_then(Value::as_str);
        let expected = field("version").filter(|_| direct).map(|version| format!("pod-{version}-1"));
        assert_eq!(field("direct"), expected.as_deref(), "{item}");
    }
    Ok(())
}

#[test]
fn clients_packets_go_past_the_stack_if_that_is_asked_for() -> Result<()> {
    for direct in [false, true] {
        let story = Story::new(Hook::Tc, 1, 1)?;
        close_the_stack(&story)?;
        let agent = start(&story, direct)?;
        for ipv6 in [false, true] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let flows = if direct { 20 } else { 2 };
                let load = Load { protocol, ..Load::tcp(vip(ipv6), flows) };
                let tally = story.client.run(|| run(load, &Progress::new()))??;
                let expected = if direct { (20, 0) } else { (0, 2) };
                assert_eq!((tally.answers(), tally.failed), expected, "{ipv6} {protocol:?}: {tally:?}");
                if direct && protocol == Protocol::Tcp {
                    assert_eq!(tally.of("v2"), 10, "{tally:?}");
                }
            }
        }
        assert_devices(&agent, direct)?;
    }
    Ok(())
}

#[test]
fn a_pod_that_is_made_anew_with_its_old_address_is_found_again() -> Result<()> {
    let mut story = Story::new(Hook::Tc, 1, 1)?;
    close_the_stack(&story)?;
    let agent = start(&story, true)?;
    story.remove_pod("helloworld-v2-1")?;
    // Nothing in its resources changes: links and routes tell.
    story.add_pod("v2")?;
    let started = Instant::now();
    loop {
        let tally = story.client.run(|| run(Load::tcp(vip(false), 10), &Progress::new()))??;
        if tally.failed == 0 {
            assert_eq!(tally.of("v2"), 5, "{tally:?}");
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(10), "{tally:?}\n{}", agent.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn connections_are_made_while_the_agent_is_gone_and_when_it_is_back() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 1)?;
    let mut agent = start(&story, true)?;
    agent.kill()?;
    let tally = story.client.run(|| run(Load::tcp(vip(false), 20), &Progress::new()))??;
    assert_eq!((tally.of("v2"), tally.failed), (10, 0), "{tally:?}");
    agent.start(&story)?;
    let tally = story.client.run(|| run(Load::tcp(vip(false), 20), &Progress::new()))??;
    assert_eq!((tally.of("v2"), tally.failed), (10, 0), "{tally:?}");
    Ok(())
}

/// What a kube-proxy's host has: connection tracking that drops what it has not seen begin. The exemption is the one of
/// the operations guide.
#[test]
fn a_firewall_that_follows_connections_needs_an_exemption() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 1)?;
    story
        .node
        .call("nft", &["add table ip filter; add chain ip filter forward { type filter hook forward priority 0; }"])?;
    story.node.call("nft", &["add rule ip filter forward ct state invalid drop"])?;
    let _agent = start(&story, true)?;
    let connect = |connections| story.client.run(|| run(Load::tcp(vip(false), connections), &Progress::new()))?;
    assert_eq!(connect(2)?.failed, 2);
    story.node.call(
        "nft",
        &["add table ip raw; add chain ip raw prerouting { type filter hook prerouting priority raw; }"],
    )?;
    let exempt = format!("add rule ip raw prerouting ip saddr 10.244.0.0/16 tcp sport {PORT} notrack");
    story.node.call("nft", &[&exempt])?;
    let tally = connect(20)?;
    assert_eq!((tally.of("v2"), tally.failed), (10, 0), "{tally:?}");
    Ok(())
}
