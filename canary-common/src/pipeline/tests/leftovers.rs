//! What flows leave behind, and what tables lose: entries of flows that are over, half a flow, resets that are lies.
use super::*;
use crate::{abi::flow_state, host::frame::fragments, host::image::Image};

/// Services that share their endpoints, as `helloworld` and `helloworld-stable` do.
pub(super) fn shared(endpoints: &[&str]) -> HostTables {
    let mut image = Image::new(TCP_TICKS, UDP_TICKS, TRANSIENT_TICKS);
    for (name, vip) in [("all", VIP), ("stable", OTHER_VIP)] {
        image.add(&ServiceSpec {
            name: name.into(),
            frontends: vec![(at(vip), TCP)],
            versions: vec![("v1".into(), endpoints.iter().map(|endpoint| (at(endpoint), 1)).collect())],
            rules: vec![RuleSpec::all(EXACT, &[("v1", 1)])],
        });
    }
    HostTables::new(image, START)
}

const OTHER_VIP: &str = "203.0.113.7:80";
pub(super) const ONE: &[&str] = &["10.1.0.11:8080"];
pub(super) const TWO: &[&str] = &["10.1.0.11:8080", "10.1.0.12:8080"];

/// One client port to both services.
pub(super) fn pair(tables: &HostTables) -> (Talk<'_>, Talk<'_>) {
    let one = Talk::tcp(tables, "10.0.0.9:40000");
    let other = Talk { vip: at(OTHER_VIP), ..Talk::tcp(tables, "10.0.0.9:40000") };
    (one, other)
}

/// Loses entries, as an LRU does.
pub(super) fn lose(tables: &HostTables, lost: impl Fn(&crate::abi::Flow) -> bool) {
    let mut memory = tables.memory().clone();
    memory.flows.retain(|_, flow| !lost(flow));
    memory.transient.retain(|_, flow| !lost(flow));
    tables.remember(memory);
}

pub(super) fn is_answer(flow: &crate::abi::Flow) -> bool {
    flow.state & flow_state::REPLY != 0
}

#[test]
fn a_direct_connection_is_not_answered_by_the_virtual_address() {
    // (how the flow through the service ended, ticks since, does the direct SYN pass here?)
    for (closed, after, seen) in
        [(true, 0, true), (true, 1_000_000, true), (false, 1_000_000, true), (true, 99, false), (false, 999, false)]
    {
        let tables = world();
        let talk = Talk::tcp(&tables, "10.0.0.9:40000");
        let endpoint = talk.open();
        if closed {
            talk.send(FIN).unwrap();
            talk.answer(endpoint, FIN);
            talk.send(ACK).unwrap();
        }
        tables.set_now(START + after);
        let nobodys = Out::Left(Leave::NoService, Verdict::Pass);
        if seen {
            assert_eq!(talk.through(talk.client, endpoint, SYN, Way::In), nobodys);
        }
        let answer = talk.through(endpoint, talk.client, SYN | ACK, Way::In);
        assert_eq!(answer, nobodys, "closed {closed}, {after} ticks ago, SYN seen {seen}");
        assert_eq!(talk.through(endpoint, talk.client, ACK, Way::In), nobodys);
    }
}

#[test]
fn a_repeated_syn_ack_of_a_living_flow_is_an_answer() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(SYN).unwrap();
    tables.set_now(START + TRANSIENT_TICKS);
    assert_eq!(talk.send(SYN), Ok(endpoint));
    tables.set_now(START + 2 * TRANSIENT_TICKS);
    talk.answer(endpoint, SYN | ACK); // Its own entry has been silent for long, the client has not.
}

#[test]
fn one_client_port_to_two_services_gets_two_endpoints() {
    let tables = shared(TWO);
    let (one, other) = pair(&tables);
    let (first, second) = (one.open(), other.open());
    assert_ne!(first, second, "the endpoint could not tell the two apart");
    one.answer(first, ACK);
    other.answer(second, ACK);
}

#[test]
fn a_port_that_no_endpoint_has_free_is_reset() {
    let tables = shared(ONE);
    let (one, other) = pair(&tables);
    for open in [false, true] {
        let endpoint = if open { one.open() } else { one.send(SYN).unwrap() };
        let taken = Out::Left(Leave::PortTaken, Verdict::Reset);
        assert_eq!(other.through(other.client, other.vip, SYN, Way::In), taken, "open: {open}");
        one.answer(endpoint, if open { ACK } else { SYN | ACK });
    }
}

#[test]
fn a_flow_that_is_over_gives_its_port_to_another_service() {
    for (name, after) in [("closed", 0), ("reset", 0), ("idle", TCP_TICKS + 1)] {
        let tables = shared(ONE);
        let (one, other) = pair(&tables);
        let endpoint = one.open();
        match name {
            "closed" => {
                one.send(FIN).unwrap();
                one.answer(endpoint, FIN);
            }
            "reset" => assert_eq!(one.send(RST), Ok(endpoint)),
            _ => {}
        }
        tables.set_now(START + after);
        assert_eq!(other.open(), endpoint, "{name}");
        other.answer(endpoint, ACK);
        assert!(one.send(SYN).is_err(), "{name}: now it is the first one's turn to wait");
    }
}

#[test]
fn what_is_left_of_a_flow_gives_way_to_the_next() {
    let tables = shared(ONE);
    let (one, other) = pair(&tables);
    let endpoint = one.open();
    lose(&tables, |flow| !is_answer(flow));
    assert_eq!(one.open(), endpoint, "the half that stayed is of the same address");
    one.answer(endpoint, ACK);
    // Another endpoint came to live at the address, and the slot has another generation.
    tables.edit(|image| image.endpoints.iter_mut().for_each(|endpoint| endpoint.generation += 1));
    assert_eq!(other.open(), endpoint);
    other.answer(endpoint, ACK);
}

#[test]
fn a_stream_one_way_is_no_idle_flow() {
    let tables = world();
    let talk = Talk::udp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let entries = talk.entries();
    for tick in 1..=3 * UDP_TICKS {
        tables.set_now(START + tick);
        talk.answer(endpoint, 0);
    }
    assert_eq!(talk.send(0), Ok(endpoint));
    assert_eq!((talk.draws(), talk.entries()), (1, entries));
}

#[test]
fn half_an_established_flow_is_made_whole() {
    for answers in [true, false] {
        let tables = world();
        let talk = Talk::tcp(&tables, "10.0.0.9:40000");
        let endpoint = talk.open();
        let whole = tables.memory().flows.clone();
        lose(&tables, |flow| is_answer(flow) == answers);
        tables.set_now(START + 64);
        if answers {
            assert_eq!(talk.send(ACK), Ok(endpoint));
            talk.answer(endpoint, ACK);
        } else {
            talk.answer(endpoint, ACK);
            assert_eq!(talk.send(ACK), Ok(endpoint));
        }
        let now: Vec<_> = tables.memory().flows.iter().map(|(key, flow)| (*key, flow.addr_be, flow.state)).collect();
        let then: Vec<_> = whole.iter().map(|(key, flow)| (*key, flow.addr_be, flow.state)).collect();
        assert_eq!(now, then, "lost answers: {answers}");
        assert_eq!(talk.draws(), 1);
    }
}

#[test]
fn half_a_flow_can_end() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    lose(&tables, is_answer);
    assert_eq!(talk.send(FIN), Ok(endpoint));
    talk.answer(endpoint, FIN);
    assert_eq!(talk.entries(), (0, 2));
    talk.open();
    assert_eq!(talk.draws(), 2);
}

#[test]
fn half_a_half_open_flow_is_made_whole() {
    for answers in [true, false] {
        let tables = world();
        let talk = Talk::tcp(&tables, "10.0.0.9:40000");
        let endpoint = talk.send(SYN).unwrap();
        lose(&tables, |flow| is_answer(flow) == answers);
        if answers {
            assert_eq!(talk.send(SYN), Ok(endpoint));
        }
        talk.answer(endpoint, SYN | ACK);
        assert_eq!(talk.send(ACK), Ok(endpoint), "answers lost: {answers}");
        assert_eq!((talk.draws(), talk.entries()), (1, (2, 2)));
    }
}

#[test]
fn a_reset_that_was_a_lie_changes_nothing() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    for _ in 0..2 {
        assert_eq!(talk.send(RST), Ok(endpoint)); // Not the client's; the endpoint ignores its sequence number.
        assert_eq!(talk.entries(), (0, 2));
        assert_eq!(talk.send(ACK), Ok(endpoint), "an ACK alone proves nothing: it may have been under way");
        assert_eq!(talk.entries(), (0, 2));
        talk.answer(endpoint, ACK);
        assert_eq!(talk.send(ACK), Ok(endpoint));
        assert_eq!(talk.entries(), (2, 2), "both have gone on");
    }
    assert_eq!(talk.draws(), 1);
    assert!(!tables.memory().transient.values().any(|flow| flow.state & flow_state::RESET != 0));
}

#[test]
fn stragglers_do_not_open_a_reset_flow_again() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    assert_eq!(talk.send(RST), Ok(endpoint));
    talk.answer(endpoint, ACK); // Sent before the reset came.
    assert_eq!(talk.send(RST), Ok(endpoint)); // So does the client answer it.
    assert_eq!(talk.entries(), (0, 2));
    talk.send(SYN).unwrap();
    assert_eq!(talk.draws(), 2);
}

#[test]
fn the_later_fragments_of_an_older_datagram_are_not_followed() {
    let datagram = |vip: SocketAddr| fragments(&Build::udp(at("10.0.0.9:40000"), vip).with(&[5; 90]).frame(), 48, 77);
    let vip = at(VIP_UDP);
    let left = (Verdict::Pass, Some(Leave::UnknownFragment));
    let sent = || {
        let tables = world();
        let [mut first, _] = datagram(vip).unwrap();
        assert_eq!(tables.handle(&mut first, Way::In), (Verdict::Pass, None));
        tables
    };
    for (after, expected) in [(28, (Verdict::Pass, None)), (29, left)] {
        let tables = sent();
        tables.set_now(START + after);
        assert_eq!(tables.handle(&mut datagram(vip).unwrap()[1], Way::In), expected, "{after} ticks later");
    }
    // The same identification, but a datagram to the host itself.
    let tables = sent();
    let [mut first, mut later] = datagram(SocketAddr::new(vip.ip(), 9_999)).unwrap();
    assert_eq!(tables.handle(&mut first, Way::In), (Verdict::Pass, Some(Leave::NoService)));
    assert_eq!(tables.handle(&mut later, Way::In), left);
    // Its endpoint is gone, and the slot is another's.
    let tables = sent();
    tables.edit(|image| image.endpoints.iter_mut().for_each(|endpoint| endpoint.generation += 1));
    assert_eq!(tables.handle(&mut datagram(vip).unwrap()[1], Way::In), left);
}
