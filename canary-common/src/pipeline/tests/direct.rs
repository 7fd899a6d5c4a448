//! Packets that go past the stack: those of clients, to endpoints behind a device, as long as the agent lives.
use super::*;
use crate::verdict::Onward;

/// Where the packets of an open flow go on: the client's and the answers.
fn onward(tables: &HostTables, talk: &Talk<'_>, endpoint: SocketAddr) -> [Onward; 2] {
    [(talk.client, talk.vip), (endpoint, talk.client)].map(|(src, dst)| {
        assert_eq!(tables.handle(&mut talk.packet(src, dst, ACK).frame(), Way::In), (Verdict::Pass, None));
        tables.last_onward()
    })
}

#[test]
fn clients_packets_go_straight_answers_by_the_stack() {
    let tables = world();
    tables.edit(|image| image.lead(1, u32::MAX));
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    talk.send(SYN).unwrap();
    let opening = tables.last_onward();
    let endpoint = talk.open();
    let slot = tables.image().endpoint(endpoint).unwrap();
    assert_eq!(opening, Onward::Peer(100 + slot), "the first packet, too");
    assert_eq!(onward(&tables, &talk, endpoint), [Onward::Peer(100 + slot), Onward::Stack]);
    let mut packet = talk.packet(talk.client, talk.vip, ACK).frame();
    assert_eq!(tables.handle(&mut packet, Way::Out), (Verdict::Pass, None));
    assert_eq!(tables.last_onward(), Onward::Stack, "what leaves here is not to be put elsewhere");
}

#[test]
fn it_needs_a_device_for_this_very_endpoint_and_an_agent_that_lives() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let slot = tables.image().endpoint(endpoint).unwrap();
    let goes_on = || onward(&tables, &talk, endpoint)[0];
    assert_eq!(goes_on(), Onward::Stack, "no device is known");
    tables.edit(|image| image.lead(1, START + 1));
    assert_eq!(goes_on(), Onward::Peer(100 + slot));
    tables.set_now(START + 1);
    assert_eq!(goes_on(), Onward::Stack, "nobody has put it off");
    tables.edit(|image| {
        image.settings.direct_until = u32::MAX;
        let generation = image.endpoints[slot as usize].generation;
        image.hops[slot as usize] = hop(7, generation - 1);
    });
    assert_eq!(goes_on(), Onward::Stack, "the device of another endpoint");
}
