//! Every program loads, draws are 0, 1, 2, … whoever draws them, and a dry run changes nothing.
use std::{collections::BTreeMap, net::SocketAddr};

use canary_common::{
    abi::{EXACT, KEYED_CLIENT, Trace},
    host::{
        HostTables,
        frame::{Build, fault},
        image::{Image, RuleSpec},
    },
    packet::tcp,
    pipeline::Way,
    verdict::{Leave, Verdict},
};
use canary_tests::kernel::{
    Dice, Kernel, PROGRAMS, Ran, steady_tick,
    traffic::{self, endpoint, frontend},
};

/// The `number`-th client of the first service, in SYN packets or others.
fn packet(number: u32, flags: u8) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let client = SocketAddr::new([10, 100 + a, b, c].into(), 40_000);
    Build::tcp(client, frontend(1, false), flags).frame()
}

fn loaded(image: &Image) -> Kernel {
    let mut kernel = Kernel::load(false).expect("the programs load");
    kernel.write(image).expect("the maps take the image");
    kernel
}

#[test]
fn every_program_loads_with_maps_of_full_size() {
    let kernel = Kernel::load(true).unwrap();
    for name in PROGRAMS {
        let info = kernel.info(name).unwrap();
        let verified = info.verified_instruction_count().expect("kernels since 5.16 say");
        println!("{name}: {verified} instructions verified, {} bytes translated", info.size_translated().unwrap_or(0));
        // The verifier gives up at a million; the rest is room for kernels that walk more states.
        assert!(verified < 750_000, "{name}: {verified}");
    }
}

#[test]
fn draws_are_counted_once_for_each_flow() {
    let image = traffic::image();
    let (kernel, host) = (loaded(&image), HostTables::new(image.clone(), steady_tick()));
    let mut versions = BTreeMap::new();
    for number in 0..1_000 {
        kernel.run("canary_xdp", &packet(number, tcp::SYN)).unwrap();
        let _ = host.handle(&mut packet(number, tcp::SYN), Way::In);
        let decision = host.last_decision().expect("the host has decided a new flow");
        assert_eq!(decision.draw, u64::from(number));
        *versions.entry(decision.version).or_insert(0) += 1;
        // The client repeats itself: neither number may move.
        for _ in 0..3 {
            kernel.run("canary_xdp", &packet(number, tcp::SYN)).unwrap();
        }
        if number % 100 == 0 {
            let memory = kernel.memory(&image).unwrap();
            assert_eq!(memory.draws, BTreeMap::from([(0, u64::from(number) + 1)]));
            let flows =
                memory.versions.iter().map(|(&version, counts)| (version, counts.flows)).collect::<BTreeMap<_, _>>();
            assert_eq!(flows, versions, "the kernel's flows went where the host says");
        }
    }
    let [one, two] = ["v1", "v2"].map(|name| versions[&image.version(0, name)]);
    assert!((899..=901).contains(&one) && one + two == 1_000, "{one} and {two} of 90 : 10");
}

#[test]
fn no_draw_is_lost_when_all_cpus_draw_at_once() {
    const EACH: u32 = 300_000;
    let image = traffic::image();
    let kernel = loaded(&image);
    // Nobody serves datagrams here: they are dropped as they are, so that one frame draws as often as it is sent.
    let split = u32::try_from(image.splits.len()).unwrap() - 1;
    let threads = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap().max(2);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let kernel = &kernel;
            scope.spawn(move || {
                let client = SocketAddr::from(([10, 0, 0, 1], 41_000 + u16::try_from(thread).unwrap()));
                let frame = Build::udp(client, frontend(10, false)).frame();
                let ran = kernel.repeat("canary_xdp", &frame, EACH).unwrap();
                assert_eq!(ran, Ran { verdict: Verdict::Drop, frame });
            });
        }
    });
    let memory = kernel.memory(&image).unwrap();
    let total = u64::from(threads * EACH);
    assert_eq!(memory.draws, BTreeMap::from([(split, total)]), "{threads} threads");
    assert_eq!(memory.leaves, BTreeMap::from([(Leave::NoEndpoint.label(), total)]));
    // Each number was drawn once, or the versions would not have their exact shares: 90 and 10 of a hundred.
    let choices: Vec<u64> = memory.choices.into_values().collect();
    assert_eq!(choices, [total / 10 * 9, total / 10]);
}

/// One flow from its first packet to its last, as a table: (packet, verdict, does it draw?).
#[test]
fn a_connection_in_the_kernel() {
    let image = traffic::image();
    let kernel = loaded(&image);
    let client: SocketAddr = "10.9.9.9:40000".parse().unwrap();
    let vip = frontend(1, false);
    let send = |src, dst, flags| {
        let ran = kernel.run("canary_xdp", &Build::tcp(src, dst, flags).with(b"x").frame()).unwrap();
        assert_eq!(fault(&ran.frame), None);
        ran
    };
    let first = send(client, vip, tcp::SYN);
    let chosen = (1..=4)
        .map(|number| endpoint(1, false, number))
        .find(|&at| Build::tcp(client, at, tcp::SYN).with(b"x").frame() == first.frame)
        .expect("the SYN went to one of the four endpoints, otherwise unchanged");
    let steps = [
        ("syn again", client, vip, tcp::SYN),
        ("syn-ack", chosen, client, tcp::SYN | tcp::ACK),
        ("ack", client, vip, tcp::ACK),
        ("request", client, vip, tcp::ACK),
        ("answer", chosen, client, tcp::ACK),
        ("fin", client, vip, tcp::FIN | tcp::ACK),
        ("fin back", chosen, client, tcp::FIN | tcp::ACK),
        ("last ack", client, vip, tcp::ACK),
    ];
    for (name, src, dst, flags) in steps {
        let want = if src == client { Build::tcp(client, chosen, flags) } else { Build::tcp(vip, client, flags) };
        assert_eq!(send(src, dst, flags).frame, want.with(b"x").frame(), "{name}");
    }
    let memory = kernel.memory(&image).unwrap();
    assert_eq!((memory.flows.len(), memory.transient.len()), (0, 2), "closing: out of the table of established flows");
    assert_eq!(memory.draws, BTreeMap::from([(0, 1)]));
    assert_eq!(memory.leaves, BTreeMap::new());
}

#[test]
fn a_dry_run_changes_nothing() {
    let image = traffic::image();
    let mut kernel = loaded(&image);
    let host = HostTables::new(image.clone(), steady_tick());
    let mut dice = Dice::seeded(3);
    for round in 0..40 {
        // Some traffic first, so that there is something to change.
        for _ in 0..25 {
            let frame = traffic::any(&mut dice, &host);
            kernel.run("canary_xdp", &frame).unwrap();
            host.set_now(steady_tick());
            let _ = host.handle(&mut frame.clone(), Way::In);
        }
        let before = kernel.memory(&image).unwrap();
        for _ in 0..25 {
            let frame = traffic::any(&mut dice, &host);
            kernel.trace(&frame, 0).unwrap();
        }
        assert_eq!(kernel.memory(&image).unwrap(), before, "round {round}");
    }
}

#[test]
fn a_dry_run_says_what_would_happen() {
    let mut image = traffic::image();
    image.set_rules(2, &[RuleSpec::all(KEYED_CLIENT, &[("v1", 50), ("v2", 50)])]);
    let mut kernel = loaded(&image);
    let host = HostTables::new(image.clone(), steady_tick());
    let six: SocketAddr = "[2001:db8:9::9]:40000".parse().unwrap();
    let syn6 = || Build::tcp(six, frontend(3, true), tcp::SYN).frame();
    // Exact: the next draws, one after the other; the program is asked about all of them before the first one is drawn.
    let traces: Vec<Trace> = (0..50).map(|ahead| kernel.trace(&packet(7_000, tcp::SYN), ahead).unwrap()).collect();
    for (ahead, trace) in (0..).zip(&traces) {
        let _ = host.handle(&mut packet(7_000 + ahead, tcp::SYN), Way::In);
        let decision = host.last_decision().unwrap();
        let Trace { service, rule, version, endpoint, draw, known, leave, .. } = *trace;
        assert_eq!((service, rule, version), (decision.service, decision.rule, decision.version), "{ahead} ahead");
        assert_eq!((endpoint, draw, known, leave), (decision.endpoint, u64::from(ahead), 0, 0), "{ahead} ahead");
    }
    // Keyed: the hash.
    let _ = host.handle(&mut syn6(), Way::In);
    let decision = host.last_decision().unwrap();
    let trace = kernel.trace(&syn6(), 0).unwrap();
    assert_eq!((trace.version, trace.endpoint, trace.draw), (decision.version, decision.endpoint, decision.draw));
    // A flow that is known keeps its endpoint, whatever would be drawn next.
    kernel.run("canary_xdp", &packet(1, tcp::SYN)).unwrap();
    let trace = kernel.trace(&packet(1, tcp::SYN), 5).unwrap();
    assert_eq!((trace.known, trace.endpoint, trace.leave), (1, traces[0].endpoint, 0));
    // And reasons.
    let nobody = Build::tcp(SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([203, 0, 113, 200], 80)), tcp::SYN);
    assert_eq!(kernel.trace(&nobody.frame(), 0).unwrap().leave, 1 + Leave::NoService as u32);
    let unmatched = Build::tcp(SocketAddr::from(([10, 0, 0, 9], 1)), frontend(5, false), tcp::SYN);
    assert_eq!(kernel.trace(&unmatched.frame(), 0).unwrap().leave, 1 + Leave::NoRule as u32);
    assert_eq!(image.settings, host.image().settings);
    assert_eq!(EXACT, image.splits[0].choosing, "the first service is exact, or this test asks the wrong one");
}
