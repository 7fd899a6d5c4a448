//! Half a flow, whose other half the table has pushed out, meets a flow that has taken its place.
use super::{leftovers::*, *};
use crate::host::image::Image;

#[test]
fn the_end_of_half_a_flow_is_not_the_end_of_another() {
    for (last, after) in [(FIN, 1), (RST, 1), (ACK, 40), (SYN, TCP_TICKS + 1)] {
        let tables = shared(ONE);
        let (one, other) = pair(&tables);
        let endpoint = one.open();
        lose(&tables, is_answer);
        assert_eq!(other.open(), endpoint);
        tables.set_now(START + after);
        assert_eq!(other.send(ACK), Ok(endpoint));
        other.answer(endpoint, ACK);
        let _ = one.send(last);
        other.answer(endpoint, ACK);
        assert_eq!(other.send(ACK), Ok(endpoint), "flags {last:#x}");
    }
}

#[test]
fn half_a_closed_flow_does_not_stop_one_that_opens() {
    let tables = shared(ONE);
    let (one, other) = pair(&tables);
    let endpoint = one.open();
    one.send(FIN).unwrap();
    one.answer(endpoint, FIN);
    lose(&tables, is_answer);
    assert_eq!(other.send(SYN), Ok(endpoint));
    let _ = one.send(SYN);
    other.answer(endpoint, SYN | ACK);
}

#[test]
fn what_an_old_endpoint_repeats_does_not_take_a_new_connection() {
    let tables = shared(TWO);
    let (talk, _) = pair(&tables);
    let first = talk.open();
    lose(&tables, |flow| !is_answer(flow));
    tables.set_now(START + 40);
    let second = talk.send(SYN).unwrap();
    assert_ne!(first, second);
    talk.answer(first, ACK);
    talk.answer(second, SYN | ACK);
    assert_eq!(talk.send(ACK), Ok(second));
}

#[test]
fn idle_times_of_datagrams_are_the_same_on_both_ways() {
    for idle in [3, 10, 20, 60] {
        let over = |slowly: bool| {
            (1..100_u32).find(|after| {
                let mut image = Image::new(TCP_TICKS, idle, TRANSIENT_TICKS);
                image.add(&ServiceSpec {
                    name: "u".into(),
                    frontends: vec![(at(VIP_UDP), UDP)],
                    versions: vec![("v1".into(), vec![(at(ONE[0]), 1)])],
                    rules: vec![RuleSpec::all(EXACT, &[("v1", 1)])],
                });
                let tables = HostTables::new(image, START);
                let talk = Talk::udp(&tables, "10.0.0.9:40000");
                talk.open();
                tables.set_now(START + after);
                let mut frame = Build::udp(talk.client, talk.vip).with(b"hello").frame();
                let handled =
                    if slowly { tables.handle_slowly(&mut frame, Way::In) } else { tables.handle(&mut frame, Way::In) };
                assert_eq!(handled, (Verdict::Pass, None));
                talk.draws() == 2
            })
        };
        assert_eq!((over(true), over(false)), (Some(idle + 1), Some(idle + 1)));
    }
}
