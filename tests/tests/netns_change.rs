//! Connections survive what happens around them: new weights, a dead agent, endpoints that leave.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use canary_tests::{
    background::Background,
    load::Load,
    resources::Extras,
    stage::{Setting, Stage},
    story::Hook,
    tally::Weights,
};

/// Two hundred open connections, all weights turned round: every connection goes on, with the pod that it had.
fn weights_change_under_open_connections(hook: Hook, ipv6: bool) -> Result<()> {
    let half = Weights { v1: 50, v2: 50 };
    let stage = Stage::new(&Setting { weights: half, ..Setting::new(hook, ipv6) })?;
    let held = stage.hold(200)?;
    half.hold_for(&held.progress().tally())?;
    for weights in [Weights { v1: 0, v2: 100 }, Weights { v1: 100, v2: 0 }] {
        stage.set_weights(weights)?;
        held.wait_for_exchanges(400)?;
        weights.hold_for(&stage.connect(100)?)?;
    }
    let tally = held.stop()?;
    assert_eq!((tally.answers(), tally.failed), (200, 0), "{tally:?}");
    Ok(())
}

#[test]
fn a_change_of_weights_cuts_no_connection_by_tc() -> Result<()> {
    weights_change_under_open_connections(Hook::Tc, false)
}

#[test]
fn a_change_of_weights_cuts_no_connection_by_xdp() -> Result<()> {
    weights_change_under_open_connections(Hook::Xdp, true)
}

/// At least ten thousand connections while the agent is killed and started again, several times: none fails, and the
/// split goes on where it was.
fn the_agent_dies_and_comes_back(hook: Hook) -> Result<()> {
    let setting = Setting::new(hook, false);
    let mut stage = Stage::new(&setting)?;
    let held = stage.hold(50)?;
    let mut all = held.progress().tally();
    let traffic = Background::load(&stage.story.client, Load::tcp(stage.target(), 10_000));
    for quarter in 1..=3 {
        traffic.wait("a quarter of the connections", |so_far| Ok(so_far.tally().answers() >= quarter * 2_500))?;
        stage.agent.kill()?;
        thread::sleep(Duration::from_millis(200)); // traffic without any agent
        let Stage { agent, story, .. } = &mut stage;
        agent.start(story)?;
    }
    let tally = traffic.join()?;
    assert_eq!((tally.answers(), tally.failed), (10_000, 0), "{:?}\n{}", tally.failures, stage.agent.log());
    all.add(&tally);
    setting.weights.hold_for(&all)?;
    // The new agent is in charge: it can still change weights, and old connections still live.
    stage.set_weights(Weights { v1: 0, v2: 1 })?;
    Weights { v1: 0, v2: 1 }.hold_for(&stage.connect(100)?)?;
    held.wait_for_exchanges(50)?;
    assert_eq!(held.stop()?.failed, 0);
    Ok(())
}

#[test]
fn an_agent_that_is_killed_and_restarted_costs_no_connection_by_tc() -> Result<()> {
    the_agent_dies_and_comes_back(Hook::Tc)
}

#[test]
fn an_agent_that_is_killed_and_restarted_costs_no_connection_by_xdp() -> Result<()> {
    the_agent_dies_and_comes_back(Hook::Xdp)
}

#[test]
fn an_endpoint_that_leaves_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let mut stage = Stage::new(&Setting { weights, pods: (1, 2), ..Setting::new(Hook::Tc, false) })?;
    let held = stage.hold(100)?;
    let leaving = "helloworld-v2-2";
    let on_it = held.progress().tally().of_instance(leaving);
    assert!(on_it > 0, "{:?}", held.progress().tally());
    assert_eq!(stage.scale_v2(1)?, [leaving]);

    let tally = stage.connect(200)?;
    weights.hold_for(&tally)?;
    assert_eq!(tally.of_instance(leaving), 0, "{tally:?}");
    held.wait_for_exchanges(300)?;
    let tally = held.stop()?;
    assert_eq!((tally.of_instance(leaving), tally.failed), (on_it, 0), "{tally:?}");
    Ok(())
}

#[test]
fn at_the_end_of_its_drain_an_endpoint_s_connections_are_reset_at_once() -> Result<()> {
    let extras = Extras { drain: Some("2s") };
    let weights = Weights { v1: 50, v2: 50 };
    let mut stage = Stage::new(&Setting { weights, pods: (1, 2), extras, ..Setting::new(Hook::Tc, false) })?;
    let held = stage.hold(100)?;
    let leaving = "helloworld-v2-2";
    let on_it = held.progress().tally().of_instance(leaving);
    assert!(on_it > 0, "{:?}", held.progress().tally());
    assert_eq!(stage.scale_v2(1)?, [leaving]);

    held.wait("connections of the drained endpoint to end", |so_far| Ok(so_far.tally().failed >= on_it))?;
    held.wait_for_exchanges(200)?; // the others talk on
    let tally = held.stop()?;
    assert_eq!(tally.failed, on_it, "{tally:?}");
    for failure in &tally.failures {
        // Not "no answer": whoever is drained must learn it at once.
        assert!(failure.contains(leaving) && failure.contains("reset"), "{failure}");
    }
    Ok(())
}

#[test]
fn a_version_without_endpoints_fails_at_once_and_the_other_keeps_its_share() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let stage = Stage::new(&Setting { weights, ..Setting::new(Hook::Tc, false) })?;
    let v1 = stage.story.endpoints_of("v1");
    stage.publish(&v1)?;
    let tally = stage.connect(100)?;
    // The default is Istio's: a dead version's share is not given to the others.
    assert!((49..=51).contains(&tally.of("v1")) && tally.of("v1") + tally.failed == 100, "{tally:?}");
    assert!(tally.failures.iter().all(|failure| failure.contains("refused")), "{:?}", tally.failures);
    Ok(())
}

#[test]
fn detach_leaves_nothing_in_the_kernel() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        let mut stage = Stage::new(&Setting::new(hook, false))?;
        let links = |stage: &Stage| stage.story.node.call("ip", &["-details", "link", "show", "front"]);
        assert!(stage.agent.pins().exists());
        let shown = links(&stage)?;
        assert!(hook == Hook::Tc || shown.contains("prog/xdp"), "{shown}");
        assert_eq!(stage.connect(10)?.answers(), 10);

        stage.agent.kill()?;
        assert_eq!(stage.connect(10)?.answers(), 10, "the data plane outlives the agent");
        stage.agent.detach(&stage.story)?;
        assert!(!stage.agent.pins().exists(), "pins are left");
        // The kernel lets go of a program when its last reader has passed: soon, but not at once.
        let detached = Instant::now();
        while links(&stage)?.contains("prog/xdp") || stage.connect(1)?.answers() > 0 {
            assert!(detached.elapsed() < Duration::from_secs(5), "{}", links(&stage)?);
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(stage.connect(10)?.answers(), 0, "the virtual address is nobody's again");
    }
    Ok(())
}
