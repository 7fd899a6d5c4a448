//! The steps of the story, and what must hold at each.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use canary_tests::{
    background::Background,
    load::Load,
    stage::Stage,
    tally::{Tally, Weights},
};

use crate::show::{Show, Step};

/// Connections that stay open from the 50:50 step to the end.
const HELD: u32 = 50;
const ALL_V1: Weights = Weights { v1: 100, v2: 0 };
const HALF: Weights = Weights { v1: 50, v2: 50 };

/// Walks through all steps. A step whose numbers are wrong is shown as such, and the walk goes on.
///
/// # Errors
/// When a step cannot be done at all.
pub(crate) fn walk(stage: &mut Stage, connections: u32, first: Weights, show: &mut Show) -> Result<()> {
    let Weights { v1, v2 } = first;
    let measured = measure(stage, connections, show, &format!("{v1}:{v2}"))?;
    show.step(judged(&format!("a canary at {v1}:{v2}"), "the resources as written", first, measured));

    stage.set_weights(ALL_V1)?;
    let measured = measure(stage, connections, show, "all v1")?;
    show.step(judged("everything to v1", &command(ALL_V1), ALL_V1, measured));

    let held = stage.hold(HELD)?;
    let switched = switch_under_traffic(stage)?;
    let measured = measure(stage, connections, show, "50:50")?;
    let mut step = judged("half to v2, set while traffic runs", &command(HALF), HALF, measured);
    step.also(switched);
    show.step(step);

    stage.scale_v2(3)?;
    let measured = measure(stage, connections, show, "v2 × 3")?;
    let mut step = judged("v2 scaled from 1 pod to 3", "two more endpoints", HALF, measured);
    let serving = step.tally.versions.get("v2").map_or(0, std::collections::BTreeMap::len);
    step.also(check(serving == 3, format!("{serving} of the three pods of v2 answer")));
    show.step(step);

    let surplus = stage.scale_v2(1)?;
    let measured = measure(stage, connections, show, "v2 × 1")?;
    let mut step = judged("v2 scaled back to 1 pod", "two endpoints fewer", HALF, measured);
    let late: u64 = surplus.iter().map(|pod| step.tally.of_instance(pod)).sum();
    step.also(check(late == 0, format!("{late} new connections to pods that left")));
    show.step(step);
    for pod in &surplus {
        stage.story.remove_pod(pod)?;
    }

    stage.set_weights(ALL_V1)?;
    let measured = measure(stage, connections, show, "roll-back")?;
    let mut step = judged("rolled back to v1", &command(ALL_V1), ALL_V1, measured);
    step.also(end_held(held));
    show.step(step);
    Ok(())
}

/// Judges the flows of one step. Those of a step that begins with its weights are the first of a sequence, which is
/// what the guarantee speaks of. Those of the 50:50 steps come from its middle: canary places one flow of v2 in every
/// two, so that any stretch of it is within one flow as well.
fn judged(title: &str, done: &str, weights: Weights, (tally, took): (Tally, Duration)) -> Step {
    let verdict = weights.hold_for(&tally);
    Step::new(title, done, weights, tally, took, verdict)
}

fn command(Weights { v1, v2 }: Weights) -> String {
    format!("canary set-weight helloworld v1={v1} v2={v2}")
}

fn check(holds: bool, what: String) -> Result<String> {
    ensure!(holds, what);
    Ok(what)
}

/// Opens `connections` and shows how they fall while they come in.
fn measure(stage: &Stage, connections: u32, show: &Show, title: &str) -> Result<(Tally, Duration)> {
    let started = Instant::now();
    let bar = show.bar(connections, title);
    let load = Background::load(&stage.story.client, Load::tcp(stage.target(), connections));
    while !load.is_finished() {
        bar.update(&load.progress().tally());
        thread::sleep(Duration::from_millis(20));
    }
    let tally = load.join()?;
    bar.finish();
    Ok((tally, started.elapsed()))
}

/// Sets 50:50 in the middle of a stream of new connections that all went to v1 before.
fn switch_under_traffic(stage: &Stage) -> Result<Result<String>> {
    const AT_A_TIME: u64 = 4;
    let pause = Duration::from_millis(5);
    let stream = Load { concurrency: 4, pause, ..Load::tcp(stage.target(), u32::MAX) };
    let stream = Background::load(&stage.story.client, stream);
    stream.wait("100 connections before the change", |progress| Ok(progress.tally().answers() >= 100))?;
    let before = stream.progress().tally();
    let started = Instant::now();
    stage.set_weights(HALF)?;
    let took = started.elapsed();
    let returned = stream.progress().tally().answers();
    stream.wait("100 connections after the change", |progress| Ok(progress.tally().answers() >= returned + 100))?;
    let end = stream.stop()?;
    Ok(judge_switch(&before, returned, &end, AT_A_TIME).map(|()| {
        format!(
            "{} connections opened over the change, {} of them by v2, none failed; the command took {} ms",
            end.answers(),
            end.of("v2"),
            took.as_millis()
        )
    }))
}

/// Flows that had ended when the command began follow the old weights, those that began after it returned the new
/// ones; those between, and the few in flight at either moment, may be either.
fn judge_switch(before: &Tally, returned: u64, end: &Tally, at_a_time: u64) -> Result<()> {
    end.none_failed()?;
    ensure!(before.of("v2") == 0, "v2 got {} connections while its weight was 0", before.of("v2"));
    let surely_new = end.answers() - returned - at_a_time.min(end.answers() - returned);
    let perhaps_new = end.answers() - before.answers();
    let (least, most) = ((surely_new / 2).saturating_sub(1), perhaps_new.div_ceil(2) + 1);
    let v2 = end.of("v2");
    ensure!(
        (least..=most).contains(&v2),
        "of the connections around the change v2 got {v2}; {surely_new} to {perhaps_new} of them came after it, so it \
         should be {least} to {most}"
    );
    Ok(())
}

/// Connections that were open all the time: none may have been cut, or moved to another pod.
fn end_held(held: Background) -> Result<String> {
    held.wait_for_exchanges(u64::from(HELD))?;
    let exchanges = held.progress().exchanges();
    let tally = held.stop()?;
    ensure!(tally.failed == 0, "held connections: {}", tally.failures.join("; "));
    Ok(format!("{HELD} connections held since 100:0 exchanged {exchanges} lines; none was cut or moved"))
}

#[cfg(test)]
mod tests {
    use canary_tests::{server::Hello, tally::Tally};

    use super::judge_switch;

    fn tally(v1: u64, v2: u64) -> Tally {
        let mut tally = Tally::default();
        for (version, count) in [("v1", v1), ("v2", v2)] {
            for _ in 0..count {
                tally.answered(Hello { version: version.into(), instance: version.into() });
            }
        }
        tally
    }

    #[test]
    fn the_switch_is_judged_with_what_is_certain() {
        // 100 before, 104 when the command returned, 204 at the end: 96 to 104 connections under 50:50.
        let cases = [
            ("half of the new ones", tally(100, 0), tally(154, 50), true),
            ("all still at v1", tally(100, 0), tally(204, 0), false),
            ("more than half", tally(100, 0), tally(144, 60), false),
            ("v2 before its time", tally(99, 1), tally(154, 50), false),
        ];
        for (name, before, end, expected) in cases {
            assert_eq!(judge_switch(&before, 104, &end, 4).is_ok(), expected, "{name}");
        }
        let mut broken = tally(154, 50);
        broken.failed("reset".into());
        assert!(judge_switch(&tally(100, 0), 104, &broken, 4).is_err());
    }
}
