//! The same packets through the programs in the kernel and through the same code on the host: the same verdicts, frames,
//! flows and counters.
use std::collections::BTreeMap;

use anyhow::Result;
use canary_common::{
    host::HostTables,
    pipeline::Way,
    verdict::{Leave, Onward, Verdict},
};
use canary_tests::kernel::{Dice, Kernel, clock, steady_tick, traffic};

/// What a run met; printed, and checked to be more than noise.
#[derive(Debug, Default)]
struct Met {
    forwarded: u64,
    /// Of these, past the stack.
    direct: u64,
    left: BTreeMap<&'static str, u64>,
    torn: u64,
}

/// Compares the kernel's memory with the host's, in words that fit on a screen.
fn assert_same_memory(kernel: &Kernel, host: &HostTables, when: &str) -> Result<()> {
    let (there, here) = (kernel.memory(&host.image())?, host.memory());
    for (name, there, here) in [("FLOWS", &there.flows, &here.flows), ("TRANSIENT", &there.transient, &here.transient)]
    {
        for key in there.keys().chain(here.keys()) {
            assert_eq!(there.get(key), here.get(key), "{when}: {name} at {key:?}: kernel, host");
        }
    }
    assert_eq!(there, *here, "{when}: kernel, host");
    Ok(())
}

/// Loses some entries of flows, as an LRU does.
fn lose(kernel: &mut Kernel, host: &HostTables, dice: &mut Dice) -> Result<()> {
    let mut memory = host.memory().clone();
    for (name, table) in [("FLOWS", &mut memory.flows), ("TRANSIENT", &mut memory.transient)] {
        let lost: Vec<_> = table.keys().copied().filter(|_| dice.chance(10)).collect();
        for key in lost {
            table.remove(&key);
            kernel.remove(name, &key)?;
        }
    }
    host.remember(memory);
    Ok(())
}

/// Sends `packets` packets of `make` through `program` and through the host.
fn differ(
    packets: u32,
    seed: u64,
    programs: &[(&str, Way)],
    make: impl Fn(&mut Dice, &HostTables) -> Vec<u8>,
) -> Result<Met> {
    let mut dice = Dice::seeded(seed);
    let mut kernel = Kernel::load(false)?;
    let host = HostTables::new(traffic::image(), steady_tick());
    kernel.write(&host.image())?;
    let mut met = Met::default();
    for number in 0..packets {
        if number % 500 == 499 {
            host.edit(|image| traffic::change(image, &mut dice, clock().0));
            kernel.write(&host.image())?;
            lose(&mut kernel, &host, &mut dice)?;
        }
        let (program, way) = dice.pick(programs);
        let mut frame = make(&mut dice, &host);
        // The device of a test run has no address: what is sent to none is for this host.
        let mine = program != "canary_xdp" && dice.chance(50);
        if mine && let Some(to) = frame.get_mut(..6) {
            to.fill(0);
        }
        let tick = steady_tick();
        let ran = kernel.run(program, &frame)?;
        if clock().0 != tick {
            // Nobody knows which tick the program saw: the host takes over what the kernel has, and goes on from there.
            met.torn += 1;
            let memory = kernel.memory(&host.image())?;
            host.remember(memory);
            continue;
        }
        host.set_now(tick);
        let mut after = frame.clone();
        let (verdict, leave) = host.handle(&mut after, way);
        let context = || format!("packet {number}, {program}, tick {tick}, host says {leave:?}: {frame:02x?}");
        // A test run says that the frame goes elsewhere, not where to; XDP's frames have no peers.
        let direct = host.last_onward() != Onward::Stack && mine;
        met.direct += u64::from(direct);
        assert_eq!(ran.verdict, if direct { Verdict::Reset } else { verdict }, "{}", context());
        if verdict == Verdict::Reset && program != "canary_xdp" {
            // TC cuts what follows the header: a super-packet must not go back whole.
            let reset = canary_common::pipeline::headers(&mut after[..]).expect("a reset is a packet");
            after.truncate(reset.l4 + 20);
        }
        assert_eq!(ran.frame, after, "kernel, host: {}", context());
        match leave {
            None => met.forwarded += 1,
            Some(leave) => *met.left.entry(leave.label()).or_default() += 1,
        }
        if number % 5_000 == 0 {
            assert_same_memory(&kernel, &host, &format!("after packet {number}"))?;
        }
    }
    assert_same_memory(&kernel, &host, "at the end")?;
    println!("{packets} packets: {met:?}");
    assert!(met.torn * 100 < u64::from(packets), "the clock turned under too many packets: {}", met.torn);
    Ok(met)
}

#[test]
fn xdp_does_what_the_host_does() -> Result<()> {
    let met = differ(110_000, 1, &[("canary_xdp", Way::In)], traffic::any)?;
    assert!(met.forwarded > 30_000, "{met:?}");
    // Every reason but those that take two CPUs at once or a full table, and those of sockets.
    let rare = [Leave::Claimed, Leave::TableFull, Leave::Rewrite, Leave::UnknownClient];
    for leave in Leave::ALL.iter().filter(|leave| !rare.contains(leave)) {
        assert!(met.left.contains_key(leave.label()), "no packet was left alone for `{}`: {met:?}", leave.label());
    }
    Ok(())
}

#[test]
fn tc_does_what_the_host_does() -> Result<()> {
    // A test run of TC refuses frames that are shorter than their headers: well-formed packets only.
    let met = differ(
        40_000,
        2,
        &[("canary_in", Way::In), ("canary_in", Way::In), ("canary_out", Way::Out)],
        traffic::proper,
    )?;
    assert!(met.forwarded > 15_000 && met.direct > 1_000, "{met:?}");
    Ok(())
}
