//! Shares on real connections: exact at both attach points, in both families, over both transports, at any weights.
use anyhow::Result;
use canary_tests::{
    load::Protocol,
    stage::{Setting, Stage},
    story::Hook,
    tally::{Tally, Weights},
};

const CONNECTIONS: u32 = 1_000;

/// The blog's 90:10 with three pods and one, as a client sees it.
fn ninety_to_ten(hook: Hook, ipv6: bool, protocol: Protocol) -> Result<()> {
    let setting = Setting::new(hook, ipv6);
    let stage = Stage::new(&setting)?;
    let tally = match protocol {
        Protocol::Tcp => stage.connect(CONNECTIONS)?,
        Protocol::Udp => stage.datagrams(CONNECTIONS)?,
    };
    setting.weights.hold_for(&tally)
}

#[test]
fn ninety_to_ten_of_tcp_over_ipv4_by_tc() -> Result<()> {
    ninety_to_ten(Hook::Tc, false, Protocol::Tcp)
}

#[test]
fn ninety_to_ten_of_udp_over_ipv4_by_tc() -> Result<()> {
    ninety_to_ten(Hook::Tc, false, Protocol::Udp)
}

#[test]
fn ninety_to_ten_of_tcp_over_ipv6_by_tc() -> Result<()> {
    ninety_to_ten(Hook::Tc, true, Protocol::Tcp)
}

#[test]
fn ninety_to_ten_of_udp_over_ipv6_by_tc() -> Result<()> {
    ninety_to_ten(Hook::Tc, true, Protocol::Udp)
}

#[test]
fn ninety_to_ten_of_tcp_over_ipv4_by_clsact() -> Result<()> {
    ninety_to_ten(Hook::Clsact, false, Protocol::Tcp)
}

#[test]
fn ninety_to_ten_of_tcp_over_ipv4_by_xdp() -> Result<()> {
    ninety_to_ten(Hook::Xdp, false, Protocol::Tcp)
}

#[test]
fn ninety_to_ten_of_udp_over_ipv4_by_xdp() -> Result<()> {
    ninety_to_ten(Hook::Xdp, false, Protocol::Udp)
}

#[test]
fn ninety_to_ten_of_tcp_over_ipv6_by_xdp() -> Result<()> {
    ninety_to_ten(Hook::Xdp, true, Protocol::Tcp)
}

#[test]
fn ninety_to_ten_of_udp_over_ipv6_by_xdp() -> Result<()> {
    ninety_to_ten(Hook::Xdp, true, Protocol::Udp)
}

#[test]
fn one_per_cent_with_one_pod_is_one_per_cent() -> Result<()> {
    let weights = Weights { v1: 99, v2: 1 };
    let stage = Stage::new(&Setting { weights, ..Setting::new(Hook::Tc, false) })?;
    let tally = stage.connect(CONNECTIONS)?;
    weights.hold_for(&tally)?;
    assert!((9..=11).contains(&tally.of("v2")), "{tally:?}");
    Ok(())
}

#[test]
fn weights_need_not_add_up_to_a_hundred() -> Result<()> {
    let weights = Weights { v1: 2, v2: 5 };
    let stage = Stage::new(&Setting { weights, ..Setting::new(Hook::Tc, false) })?;
    weights.hold_for(&stage.connect(700)?)?;
    Ok(())
}

#[test]
fn pods_of_a_version_are_used_evenly() -> Result<()> {
    let stage = Stage::new(&Setting::new(Hook::Tc, false))?;
    let tally = stage.connect(CONNECTIONS)?;
    for pod in stage.story.endpoints_of("v1") {
        let got = tally.of_instance(&pod.pod);
        assert!((299..=301).contains(&got), "{} got {got} of 900: {tally:?}", pod.pod);
    }
    Ok(())
}

#[test]
fn each_change_of_weights_starts_a_sequence_of_its_own() -> Result<()> {
    let stage = Stage::new(&Setting::new(Hook::Tc, false))?;
    for (v1, v2) in [(100, 0), (50, 50), (0, 100), (1, 2), (90, 10)] {
        let weights = Weights { v1, v2 };
        stage.set_weights(weights)?;
        weights.hold_for(&stage.connect(300)?)?;
    }
    Ok(())
}

/// The share of v2 stays where it is while v2 goes from one pod to three and back: over all connections together,
/// since the weights were never touched.
#[test]
fn scaling_a_version_does_not_move_its_share() -> Result<()> {
    let setting = Setting::new(Hook::Tc, false);
    let mut stage = Stage::new(&setting)?;
    let mut all = Tally::default();
    for count in [1, 3, 1] {
        let surplus = stage.scale_v2(count)?;
        let tally = stage.connect(333)?;
        for pod in &surplus {
            assert_eq!(tally.of_instance(pod), 0, "{pod} has left: {tally:?}");
        }
        let serving = tally.versions.get("v2").map_or(0, std::collections::BTreeMap::len);
        assert_eq!(serving, count, "pods of v2 that answer: {tally:?}");
        all.add(&tally);
        setting.weights.hold_for(&all)?;
    }
    assert_eq!(all.answers(), 999);
    Ok(())
}
