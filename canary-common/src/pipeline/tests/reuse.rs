//! A client's port that is used again, for the endpoint itself: answers are those of the flow that asked.
use super::*;

/// What becomes of a packet between the endpoint and the client.
fn direct(talk: &Talk<'_>, src: SocketAddr, dst: SocketAddr, flags: u8) -> Out {
    talk.through(src, dst, flags, Way::In)
}

const UNTOUCHED: Out = Out::Left(Leave::NoService, Verdict::Pass);

#[test]
fn an_ended_flow_does_not_translate_the_answers_of_a_direct_connection() {
    for end in [RST, FIN] {
        let tables = world();
        let talk = Talk::tcp(&tables, "10.0.0.9:40000");
        let endpoint = talk.open();
        assert_eq!(talk.send(end), Ok(endpoint));
        if end == FIN {
            talk.answer(endpoint, FIN);
        }
        // Stragglers of the ended flow are still its own.
        talk.answer(endpoint, ACK);
        assert_eq!(direct(&talk, talk.client, endpoint, SYN), UNTOUCHED);
        assert_eq!(direct(&talk, endpoint, talk.client, SYN | ACK), UNTOUCHED);
        assert_eq!(direct(&talk, talk.client, endpoint, ACK), UNTOUCHED);
        // And the service can be used from that port again.
        talk.open();
    }
}

#[test]
fn a_flow_that_goes_on_keeps_its_answers() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    tables.set_now(START + TRANSIENT_TICKS + 5);
    assert_eq!(direct(&talk, talk.client, endpoint, SYN), UNTOUCHED);
    talk.answer(endpoint, ACK);
    let talk = Talk::tcp(&tables, "10.0.0.9:40001");
    let endpoint = talk.send(SYN).unwrap();
    assert_eq!(direct(&talk, talk.client, endpoint, SYN), UNTOUCHED);
    talk.answer(endpoint, SYN | ACK);
}

#[test]
fn a_datagram_of_an_endpoint_is_an_answer_while_either_side_has_spoken() {
    let late = START + UDP_TICKS + 5;
    for established in [false, true] {
        let tables = world();
        let talk = Talk::udp(&tables, "10.0.0.9:40000");
        let endpoint = talk.send(0).unwrap();
        talk.answer(endpoint, 0);
        if established {
            assert_eq!(talk.send(0), Ok(endpoint));
            talk.answer(endpoint, 0);
        }
        // The client has spoken lately, the endpoint has not.
        tables.set_now(START + UDP_TICKS);
        assert_eq!(talk.send(0), Ok(endpoint));
        tables.set_now(late);
        talk.answer(endpoint, 0);
        // Nobody has.
        tables.set_now(late + UDP_TICKS + 5);
        assert_eq!(direct(&talk, endpoint, talk.client, 0), UNTOUCHED, "established: {established}");
        assert_eq!(talk.entries(), (0, 0));
    }
}
