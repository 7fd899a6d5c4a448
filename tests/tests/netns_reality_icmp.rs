//! ICMP errors reach the side that they are about, in words that it understands: path MTU, closed ports, gone clients.
use std::{io::ErrorKind, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result};
use canary_tests::{
    probe,
    stage::{Setting, Stage},
    story::Hook,
    tally::Weights,
};

/// One pod, whose server has made room for the test's own sockets.
fn one_pod(hook: Hook, ipv6: bool) -> Result<Stage> {
    let weights = Weights { v1: 1, v2: 0 };
    let mut stage = Stage::new(&Setting { pods: (1, 0), weights, ..Setting::new(hook, ipv6) })?;
    stage.story.pod("helloworld-v1-1")?.crash()?;
    Ok(stage)
}

fn everywhere(test: impl Fn(Hook, bool) -> Result<()>) -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        for ipv6 in [false, true] {
            test(hook, ipv6).with_context(|| format!("{hook:?}, IPv6: {ipv6}"))?;
        }
    }
    Ok(())
}

/// What the client's kernel knows about the way to an address.
fn route(stage: &Stage, to: IpAddr) -> Result<String> {
    stage.story.client.call("ip", &["route", "get", &to.to_string()])
}

/// The link to the pod takes 1 400 bytes, and only the node knows: the error that says so names the pod, and the client
/// would not believe it. Translated, the client learns the path MTU of the virtual address, and the transfer completes.
#[test]
fn tcp_learns_the_path_mtu_behind_the_virtual_address() -> Result<()> {
    const BULK: usize = 4 << 20;
    everywhere(|hook, ipv6| {
        let stage = one_pod(hook, ipv6)?;
        stage.story.node.ip("link set pod-v1-1 mtu 1400\n")?;
        // What the pod sends has to fit (a veth would drop it), but it invites the client to send more.
        stage.story.pods()[0].namespace().ip("route replace default via 10.244.0.1 mtu 1400 advmss 1460\n\
             route replace default via fd00:244::1 mtu 1400 advmss 1440\n")?;
        let listener = probe::listen(stage.story.pods()[0].namespace())?;
        let server = thread::spawn(move || probe::exchange_bulk(&listener.accept()?.0, BULK));
        let client = probe::connect(&stage.story.client, stage.target())?;
        assert!(!route(&stage, stage.target().ip())?.contains("mtu 1400"));
        probe::exchange_bulk(&client, BULK).context("the client")?;
        server.join().unwrap().context("the server")?;
        let known = route(&stage, stage.target().ip())?;
        assert!(known.contains("mtu 1400"), "{known}");
        let pod = &stage.story.endpoints()[0];
        let pod: IpAddr = if ipv6 { pod.v6.into() } else { pod.v4.into() };
        let known = route(&stage, pod)?;
        assert!(!known.contains("mtu 1400"), "the error named the pod: {known}");
        assert_eq!(probe::wrong_checksums(&stage.story.client)?, 0);
        Ok(())
    })
}

/// Nobody listens at the pod's UDP port: the client hears it at once, as it would without canary.
#[test]
fn a_closed_udp_port_is_refused() -> Result<()> {
    everywhere(|hook, ipv6| {
        let stage = one_pod(hook, ipv6)?;
        let client = probe::datagrams(&stage.story.client, stage.target())?;
        client.send(b"anybody?")?;
        let error = client.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(probe::wrong_checksums(&stage.story.client)?, 0);
        Ok(())
    })
}

/// The client is gone when the answer comes: the pod hears it, about the address that it answered.
#[test]
fn an_error_about_an_answer_reaches_the_pod() -> Result<()> {
    everywhere(|hook, ipv6| {
        let stage = one_pod(hook, ipv6)?;
        let server = probe::receive(stage.story.pods()[0].namespace())?;
        let client = probe::datagrams(&stage.story.client, stage.target())?;
        client.send(b"hello")?;
        let (_, from) = server.recv_from(&mut [0; 16])?;
        drop(client);
        server.connect(from)?;
        server.send(b"too late")?;
        let error = server.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(probe::wrong_checksums(stage.story.pods()[0].namespace())?, 0);
        Ok(())
    })
}

/// A pod that is not there any more, route and all: the node says so, and the client believes it.
#[test]
fn an_unreachable_pod_is_reported_by_the_node() -> Result<()> {
    everywhere(|hook, ipv6| {
        let stage = one_pod(hook, ipv6)?;
        stage.story.node.ip("link set pod-v1-1 down\n")?;
        let client = probe::datagrams(&stage.story.client, stage.target())?;
        client.set_read_timeout(Some(Duration::from_secs(2)))?;
        // Without this, sockets do not hear of an error that may pass.
        let (level, option) =
            if ipv6 { (libc::SOL_IPV6, libc::IPV6_RECVERR) } else { (libc::SOL_IP, libc::IP_RECVERR) };
        probe::set_option(&client, level, option, 1)?;
        client.send(b"anybody?")?;
        let error = client.recv(&mut [0; 16]).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable),
            "{error} ({:?})",
            error.kind()
        );
        Ok(())
    })
}
