//! The life of a flow: half-open, established, closing, idle.
use super::*;
use crate::{abi::flow_state, pipeline::Tables};

#[test]
fn a_connection_from_syn_to_fin() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(SYN).unwrap();
    assert_eq!(talk.entries(), (0, 2), "half-open: both ways, in the table of transient flows");
    talk.answer(endpoint, SYN | ACK);
    assert_eq!(talk.entries(), (0, 2), "an answer alone establishes nothing: a server answers floods too");
    assert_eq!(talk.send(ACK), Ok(endpoint));
    assert_eq!(talk.entries(), (2, 2), "established; the transient entries stay behind it");
    assert_eq!(talk.send(ACK), Ok(endpoint));
    talk.answer(endpoint, ACK);
    assert_eq!(talk.send(FIN), Ok(endpoint));
    assert_eq!(talk.entries(), (2, 2), "one side has ended, the other may go on");
    talk.answer(endpoint, ACK);
    talk.answer(endpoint, FIN);
    assert_eq!(talk.entries(), (0, 2), "closing");
    assert_eq!(talk.send(ACK), Ok(endpoint), "the last ACK still finds its way");
    assert_eq!(talk.draws(), 1);
}

#[test]
fn a_connection_over_ipv6() {
    let tables = world();
    let talk =
        Talk { client: at("[2001:db8:9::9]:40000"), vip: at("[2001:db8::1]:80"), ..Talk::tcp(&tables, "1.1.1.1:1") };
    let endpoint = talk.open();
    assert_eq!(endpoint.port(), 8_080);
    talk.answer(endpoint, FIN);
    assert_eq!(talk.send(FIN), Ok(endpoint));
    assert_eq!(talk.entries(), (0, 2));
}

#[test]
fn a_repeated_syn_does_not_draw_again() {
    let tables = world();
    for number in 0..100 {
        let client = client(number);
        let talk = Talk::tcp(&tables, &client);
        let endpoint = talk.send(SYN);
        for _ in 0..5 {
            assert_eq!(talk.send(SYN), endpoint);
        }
        assert_eq!(talk.draws(), u64::from(number) + 1);
    }
    let memory = tables.memory();
    assert_eq!(memory.versions.values().map(|counts| counts.flows).sum::<u64>(), 100);
    assert_eq!(memory.versions.values().map(|counts| counts.packets_in).sum::<u64>(), 600);
}

#[test]
fn a_thousand_connections_are_split_900_to_100() {
    let tables = world();
    for number in 0..1_000 {
        Talk::tcp(&tables, &client(number)).open();
    }
    let flows: Vec<u64> = tables.memory().versions.values().map(|counts| counts.flows).collect();
    assert_eq!(flows, [900, 100]);
    let endpoints: Vec<u64> = tables.memory().endpoints.values().map(|counts| counts.flows).collect();
    assert_eq!(endpoints, [300, 300, 300, 100], "round robin inside v1");
    assert_eq!(tables.memory().choices.values().copied().collect::<Vec<_>>(), [900, 100]);
}

#[test]
fn a_new_connection_after_the_end_draws_anew() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    assert_eq!(talk.send(FIN), Ok(endpoint));
    talk.answer(endpoint, FIN);
    talk.send(SYN).unwrap();
    assert_eq!(talk.draws(), 2, "the same ports, another connection");
    assert_eq!(talk.entries().0, 0);
}

#[test]
fn fins_may_cross_and_repeat() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    talk.answer(endpoint, FIN);
    talk.answer(endpoint, FIN);
    assert_eq!(talk.entries(), (2, 2), "a repeated FIN is not the other side's");
    assert_eq!(talk.send(FIN), Ok(endpoint));
    assert_eq!(talk.send(FIN), Ok(endpoint));
    assert_eq!(talk.entries(), (0, 2));
}

#[test]
fn a_fin_with_the_first_ack_counts() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(SYN).unwrap();
    talk.answer(endpoint, SYN | ACK);
    assert_eq!(talk.send(FIN), Ok(endpoint));
    assert_eq!(talk.entries(), (2, 2), "established; the transient entries stay behind it");
    talk.answer(endpoint, FIN);
    assert_eq!(talk.entries(), (0, 2));
}

#[test]
fn a_reset_ends_a_flow_from_either_side() {
    for by_client in [true, false] {
        for half_open in [true, false] {
            let tables = world();
            let talk = Talk::tcp(&tables, "10.0.0.9:40000");
            let endpoint = if half_open { talk.send(SYN).unwrap() } else { talk.open() };
            if by_client {
                assert_eq!(talk.send(RST), Ok(endpoint));
            } else {
                talk.answer(endpoint, RST);
            }
            assert_eq!(talk.entries(), (0, 2), "by client: {by_client}, half open: {half_open}");
            let reset = |flow: &crate::abi::Flow| flow.state & flow_state::RESET != 0;
            assert!(tables.memory().transient.values().all(reset), "both ways know of it");
            talk.send(SYN).unwrap();
            assert_eq!(talk.draws(), 2);
        }
    }
}

#[test]
fn an_idle_flow_gives_way_to_a_new_one() {
    // (name, table that the flow is in, its idle time): just before, the SYN belongs to the flow; just after, it does not.
    for (name, establish, limit) in [("half-open", false, TRANSIENT_TICKS), ("established", true, TCP_TICKS)] {
        for (after, draws) in [(limit, 1), (limit + 1, 2)] {
            let tables = world();
            let talk = Talk::tcp(&tables, "10.0.0.9:40000");
            if establish {
                talk.open();
            } else {
                talk.send(SYN).unwrap();
            }
            tables.set_now(START + after);
            talk.send(SYN).unwrap();
            assert_eq!(talk.draws(), draws, "{name}, {after} ticks later");
        }
    }
}

#[test]
fn an_idle_connection_may_go_on() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    tables.set_now(START + 10 * TCP_TICKS);
    assert_eq!(talk.send(ACK), Ok(endpoint), "idle times end what nobody uses, not what somebody does");
    talk.answer(endpoint, ACK);
    assert_eq!(talk.draws(), 1);
}

#[test]
fn every_packet_keeps_its_direction_alive() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    tables.set_now(START + 200);
    assert_eq!(talk.send(ACK), Ok(endpoint));
    talk.answer(endpoint, ACK);
    assert!(tables.memory().flows.values().all(|flow| flow.seen == START + 200));
    tables.set_now(START + 200 + TCP_TICKS);
    assert_eq!(talk.send(SYN), Ok(endpoint), "idle since its last packet, not since its first");
}

#[test]
fn a_flow_that_another_cpu_has_just_touched_is_not_idle() {
    let tables = world();
    let talk = Talk::udp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(0).unwrap();
    tables.set_now(START - 1); // This CPU looked at the clock before the other one wrote.
    assert_eq!(talk.send(0), Ok(endpoint));
    assert_eq!(talk.draws(), 1);
}

#[test]
fn udp_is_a_flow_after_question_answer_question() {
    let tables = world();
    let talk = Talk::udp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(0).unwrap();
    assert_eq!(talk.entries(), (0, 2));
    assert_eq!(talk.send(0), Ok(endpoint));
    talk.answer(endpoint, 0);
    assert_eq!(talk.entries(), (0, 2));
    assert_eq!(talk.send(0), Ok(endpoint));
    assert_eq!(talk.entries(), (2, 2), "established; the transient entries stay behind it");
    assert_eq!(talk.draws(), 1);
    for (after, draws) in [(UDP_TICKS, 1), (2 * UDP_TICKS + 1, 2)] {
        tables.set_now(START + after);
        talk.send(0).unwrap();
        assert_eq!(talk.draws(), draws, "{after} ticks later");
    }
}

#[test]
fn flows_are_told_apart_by_all_five() {
    let tables = world();
    let base = Talk::tcp(&tables, "10.0.0.9:40000");
    base.send(SYN).unwrap();
    Talk::tcp(&tables, "10.0.0.9:40001").send(SYN).unwrap();
    Talk::tcp(&tables, "10.0.0.10:40000").send(SYN).unwrap();
    assert_eq!(base.draws(), 3);
    assert_eq!(base.entries(), (0, 6));
    // The same ports by UDP are no service.
    let udp = Talk { protocol: UDP, ..Talk::tcp(&tables, "10.0.0.9:40000") };
    assert_eq!(udp.send(0), Err(Leave::NoService));
}

#[test]
fn packets_and_bytes_are_counted_both_ways() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let len = talk.packet(talk.client, talk.vip, ACK).frame().len() as u64;
    let memory = tables.memory();
    let counts = crate::abi::Counts { flows: 1, packets_in: 2, bytes_in: 2 * len, packets_out: 1, bytes_out: len };
    let slot = tables.image().endpoint(endpoint).unwrap();
    assert_eq!(memory.endpoints[&slot], counts);
    assert_eq!(memory.versions.values().copied().collect::<Vec<_>>(), [counts]);
    assert!(memory.leaves.is_empty());
}

#[test]
fn a_packet_from_the_middle_of_a_flow_is_picked_up_without_a_draw() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(ACK).unwrap();
    assert_eq!((talk.draws(), talk.entries()), (0, (0, 2)), "an exact split has given nothing away");
    assert!(tables.memory().choices.is_empty(), "a choice is of a new flow");
    assert_eq!(talk.send(ACK), Ok(endpoint));
    assert_eq!(talk.entries(), (2, 2), "it has been answered before");
    talk.answer(endpoint, ACK);
    // Another node, with empty tables, sends the same flow to the same endpoint.
    assert_eq!(Talk::tcp(&world(), "10.0.0.9:40000").send(ACK), Ok(endpoint));
}

#[test]
fn while_a_flow_is_being_chosen_its_packets_wait() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    assert!(tables.claim(&talk.key()));
    assert_eq!(talk.through(talk.client, talk.vip, SYN, Way::In), Out::Left(Leave::Claimed, Verdict::Drop));
    assert_eq!(talk.draws(), 0);
    assert!(!tables.claim(&talk.key()), "one claim at a time");
}

#[test]
fn answers_at_egress_are_translated_and_nothing_starts_there() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    assert_eq!(talk.through(talk.client, talk.vip, SYN, Way::Out), Out::Left(Leave::NoService, Verdict::Pass));
    assert_eq!((talk.draws(), talk.entries()), (0, (0, 0)));
    let endpoint = talk.send(SYN).unwrap();
    assert_eq!(talk.through(endpoint, talk.client, SYN | ACK, Way::Out), Out::Sent(talk.vip, talk.client));
    assert_eq!(talk.send(ACK), Ok(endpoint));
    // Not even when a flow has ended: at egress its end is the end.
    let udp = Talk::udp(&tables, "10.0.0.9:40000");
    udp.send(0).unwrap();
    tables.set_now(START + UDP_TICKS + 1);
    assert_eq!(udp.through(udp.client, udp.vip, 0, Way::Out), Out::Left(Leave::NoService, Verdict::Pass));
}
