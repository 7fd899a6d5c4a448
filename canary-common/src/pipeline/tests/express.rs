//! The short way of established flows gives what the long way gives.
use proptest::prelude::*;

use super::*;
use crate::{
    host::frame::Transport,
    pipeline::{Express, express},
    verdict::Onward,
};

/// A step of a conversation: who sends to which service, what, and how much later.
#[derive(Debug, Clone)]
struct Step {
    client: u32,
    /// UDP? From the endpoint?
    kind: (bool, bool),
    flags: u8,
    checksum: bool,
    options: u8,
    later: u32,
    drain: bool,
}

prop_compose! {
    fn steps()(
        client in 0..3_u32, kind in any::<(bool, bool)>(), checksum in any::<bool>(),
        flags in prop_oneof![2 => Just(SYN), 1 => Just(SYN | ACK), 6 => Just(ACK), 1 => Just(FIN), 1 => Just(RST), 1 => any::<u8>()],
        options in prop_oneof![8 => Just(0), 1 => 0..=10_u8],
        later in prop_oneof![8 => Just(0_u32), 4 => 1..4_u32, 1 => Just(UDP_TICKS + 1), 1 => Just(TCP_TICKS + 1)],
        drain in proptest::bool::weighted(0.02),
    ) -> Step {
        Step { client, kind, flags, checksum, options, later, drain }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_ways_do_the_same(steps in proptest::collection::vec(steps(), 1..120)) {
        let (short, long) = (world(), world());
        for tables in [&short, &long] {
            tables.edit(|image| image.lead(1, u32::MAX));
        }
        let mut now = START;
        for step in steps {
            let (udp, reply) = step.kind;
            now += step.later;
            short.set_now(now);
            long.set_now(now);
            let client = client(step.client);
            let talk = if udp { Talk::udp(&short, &client) } else { Talk::tcp(&short, &client) };
            let memory = short.memory();
            let known = memory.flows.get(&talk.key()).or_else(|| memory.transient.get(&talk.key())).copied();
            drop(memory);
            let endpoint = known.map(|flow| {
                SocketAddr::from((flow.addr_be[3].to_ne_bytes(), u16::from_be(flow.port_be)))
            });
            if let Some(flow) = known.filter(|_| step.drain) {
                for tables in [&short, &long] {
                    tables.edit(|image| image.drain(flow.endpoint, now + 2));
                }
            }
            let (src, dst) = match endpoint {
                Some(endpoint) if reply => (endpoint, talk.client),
                _ => (talk.client, talk.vip),
            };
            let mut build = Build { options: step.options, ..talk.packet(src, dst, step.flags) };
            if let Transport::Udp { checksum } = &mut build.transport {
                *checksum = step.checksum;
            }
            let (mut one, mut other) = (build.frame(), build.frame());
            prop_assert_eq!(short.handle(&mut one, Way::In), long.handle_slowly(&mut other, Way::In));
            prop_assert_eq!(one, other);
            prop_assert_eq!(short.last_onward(), long.last_onward());
            prop_assert_eq!(&*short.memory(), &*long.memory());
        }
    }
}

#[test]
fn what_goes_the_short_way() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let short = |flags| {
        let before = tables.memory().clone();
        let mut frame = talk.packet(talk.client, talk.vip, flags).frame();
        let gone = express(&mut frame[..], &tables, Way::In) == Express::Done(Onward::Stack);
        assert!(gone || *tables.memory() == before, "a packet that must go the long way has changed nothing");
        gone
    };
    assert!(!short(SYN) && !short(ACK), "nobody knows it");
    talk.send(SYN).unwrap();
    assert!(!short(ACK), "half-open");
    let talk = Talk::tcp(&tables, "10.0.0.9:40001");
    let endpoint = talk.open();
    let short = |flags| {
        let mut frame = talk.packet(talk.client, talk.vip, flags).frame();
        express(&mut frame[..], &tables, Way::In) == Express::Done(Onward::Stack)
    };
    assert!(short(ACK) && short(ACK | 8), "established");
    assert!(!short(SYN) && !short(FIN) && !short(RST), "news");
    let mut answer = talk.packet(endpoint, talk.client, ACK).frame();
    assert_eq!(express(&mut answer[..], &tables, Way::Out), Express::Done(Onward::Stack), "answers too");
    let stranger = Talk::tcp(&tables, "10.0.0.9:40002");
    let mut elsewhere = stranger.packet(stranger.client, at("10.9.9.9:80"), ACK).frame();
    assert_eq!(express(&mut elsewhere[..], &tables, Way::In), Express::NotOurs, "nobody's packet");
    let mut opening = stranger.packet(stranger.client, stranger.vip, SYN).frame();
    assert_eq!(express(&mut opening[..], &tables, Way::Out), Express::NotOurs, "nothing starts on the way out");
    tables.edit(|image| image.drain(image.endpoint(endpoint).unwrap(), START));
    assert!(!short(ACK), "its endpoint is gone");
}
