//! An agent that is killed at any moment, and one that attaches elsewhere than the last: no connection notices.
use std::{thread, time::Duration};

use anyhow::Result;
use canary_tests::{
    background::Background,
    load::Load,
    probe,
    stage::{Setting, Stage},
    story::Hook,
    tally::Weights,
};

/// Connections for as long as `work` takes; none may fail.
fn under_load(stage: &mut Stage, work: impl FnOnce(&mut Stage) -> Result<()>) -> Result<()> {
    let held = stage.hold(30)?;
    let load = Load { concurrency: 4, pause: Duration::from_millis(2), ..Load::tcp(stage.target(), u32::MAX) };
    let busy = Background::load(&stage.story.client, load);
    work(stage)?;
    held.wait_for_exchanges(60)?;
    busy.wait("200 connections meanwhile", |so_far| Ok(so_far.tally().answers() > 200))?;
    let (held, busy) = (held.stop()?, busy.stop()?);
    assert_eq!((held.failed, busy.failed), (0, 0), "{:?} {:?}\n{}", held.failures, busy.failures, stage.agent.log());
    Ok(())
}

/// Killed a little later each time, so that the blow falls between every two steps of its start: whatever was done by
/// then, connections go on, and the last agent finds everything in order.
fn killed_while_it_starts(hook: Hook) -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let mut stage = Stage::new(&Setting { weights, ..Setting::new(hook, false) })?;
    under_load(&mut stage, |stage| {
        stage.agent.kill()?;
        for step in 0..24 {
            let Stage { agent, story, .. } = &mut *stage;
            agent.spawn(story)?;
            thread::sleep(Duration::from_millis(10 + 25 * step));
            agent.kill()?;
        }
        let Stage { agent, story, .. } = &mut *stage;
        agent.start(story)?;
        probe::eventually("the maps to be in order", || Ok(agent.call(&["verify"]).is_ok()))
    })?;
    for weights in [Weights { v1: 9, v2: 1 }, weights] {
        stage.set_weights(weights)?;
        weights.hold_for(&stage.connect(200)?)?;
    }
    Ok(())
}

#[test]
fn an_agent_killed_at_any_step_of_its_start_costs_no_connection_by_tc() -> Result<()> {
    killed_while_it_starts(Hook::Tc)
}

#[test]
fn an_agent_killed_at_any_step_of_its_start_costs_no_connection_by_xdp() -> Result<()> {
    killed_while_it_starts(Hook::Xdp)
}

/// The very first start, when nothing is pinned yet, is killed at every step: the next agent works with what is there.
#[test]
fn a_first_start_that_is_killed_leaves_nothing_that_stops_the_next() -> Result<()> {
    let weights = Weights { v1: 50, v2: 50 };
    let mut stage = Stage::new(&Setting { weights, ..Setting::new(Hook::Tc, false) })?;
    stage.agent.kill()?;
    for step in 0..10 {
        stage.agent.detach(&stage.story)?;
        let Stage { agent, story, .. } = &mut stage;
        agent.spawn(story)?;
        thread::sleep(Duration::from_millis(20 + 40 * step));
        agent.kill()?;
        agent.start(story)?;
        probe::eventually("the maps to be in order", || Ok(agent.call(&["verify"]).is_ok()))?;
        weights.hold_for(&stage.connect(40)?)?;
        stage.agent.kill()?;
    }
    Ok(())
}

/// From TC to XDP and back, on another interface in between, while connections go on.
#[test]
fn an_agent_that_attaches_elsewhere_costs_no_connection() -> Result<()> {
    // Prepared for XDP from the start: unfinished checksums are the one thing that it cannot bear.
    for ipv6 in [false, true] {
        let mut stage = Stage::new(&Setting { pods: (1, 1), ..Setting::new(Hook::Xdp, ipv6) })?;
        under_load(&mut stage, |stage| {
            for places in
                [&["tc:front"][..], &["xdp:front"], &["tc:front", "tc:pod-v1-1"], &["xdp:front", "tc:pod-v2-1"]]
            {
                stage.agent.kill()?;
                stage.agent.attach_to(places);
                let Stage { agent, story, .. } = &mut *stage;
                agent.start(story)?;
                thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        })?;
        let shown = stage.story.node.call("ip", &["-details", "link", "show", "front"])?;
        assert!(shown.contains("prog/xdp"), "{shown}");
    }
    Ok(())
}
