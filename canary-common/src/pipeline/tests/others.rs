//! Packets that are not of a flow but about one: fragments and ICMP errors.
use std::net::IpAddr;

use super::*;
use crate::{
    host::frame::{fragments, icmp_error},
    pipeline::Tables,
};

/// Both fragments of a datagram of 8 + 90 bytes.
fn cut(src: SocketAddr, dst: SocketAddr, id: u32) -> [Vec<u8>; 2] {
    fragments(&Build::udp(src, dst).with(&[5; 90]).frame(), 48, id).unwrap()
}

fn families() -> [(SocketAddr, SocketAddr); 2] {
    [(at("10.0.0.9:40000"), at(VIP_UDP)), (at("[2001:db8:9::9]:40000"), at("[2001:db8::2]:80"))]
}

#[test]
fn fragments_follow_their_first() {
    for (client, vip) in families() {
        let tables = world();
        let talk = Talk { client, vip, ..Talk::udp(&tables, "1.1.1.1:1") };
        let endpoint = talk.send(0).unwrap();
        for (src, dst, to_src, to_dst) in [(client, vip, client, endpoint), (endpoint, client, vip, client)] {
            let [mut first, mut later] = cut(src, dst, 77);
            for frame in [&mut first, &mut later] {
                assert_eq!(tables.handle(frame, Way::In), (Verdict::Pass, None));
            }
            assert_eq!([first, later], cut(to_src, to_dst, 77), "put together they are the translated datagram");
        }
        assert_eq!(tables.memory().fragments.len(), 2);
        let counts = tables.memory().versions.values().next().copied().unwrap();
        assert_eq!((counts.packets_in, counts.packets_out), (3, 2), "every fragment is a packet");
    }
}

#[test]
fn a_first_fragment_may_start_a_flow() {
    for (client, vip) in families() {
        let tables = world();
        let [mut first, mut later] = cut(client, vip, 78);
        assert_eq!(tables.handle(&mut first, Way::In), (Verdict::Pass, None));
        assert_eq!(tables.handle(&mut later, Way::In), (Verdict::Pass, None));
        let talk = Talk { client, vip, ..Talk::udp(&tables, "1.1.1.1:1") };
        let endpoint = talk.send(0).unwrap();
        assert_eq!([first, later], cut(client, endpoint, 78));
    }
}

#[test]
fn a_later_fragment_without_its_first_is_left_to_the_stack() {
    for (client, vip) in families() {
        let tables = world();
        let [_, later] = cut(client, vip, 79);
        let mut frame = later.clone();
        assert_eq!(tables.handle(&mut frame, Way::In), (Verdict::Pass, Some(Leave::UnknownFragment)));
        assert_eq!(frame, later);
        // Nor does another datagram's first fragment help.
        let [mut other, _] = cut(client, vip, 80);
        assert_eq!(tables.handle(&mut other, Way::In), (Verdict::Pass, None));
        assert_eq!(tables.handle(&mut frame, Way::In), (Verdict::Pass, Some(Leave::UnknownFragment)));
    }
}

/// An error about what the client sent, as a router behind the node saw it: after translation.
#[test]
fn an_error_about_a_clients_packet_reaches_the_client_as_about_the_virtual_address() {
    for (family, router) in [(0, "192.0.2.7"), (1, "2001:db8:7::7")] {
        for udp in [false, true] {
            for established in [false, true] {
                let tables = world();
                let (client, vip_udp) = families()[family];
                let vip = if udp { vip_udp } else { [at(VIP), at("[2001:db8::1]:80")][family] };
                let protocol = if udp { UDP } else { TCP };
                let talk = Talk { tables: &tables, protocol, client, vip };
                let endpoint = if established { talk.open() } else { talk.send(SYN).unwrap() };
                let quote = |to: SocketAddr| talk.packet(client, to, ACK).frame()[14..].to_vec();
                let (sent, asked) = (quote(endpoint), quote(vip));
                // Eight bytes of transport header: what every error quotes at least.
                let len = if family == 0 { 28 } else { 48 };
                for from in [router.parse().unwrap(), endpoint.ip()] {
                    let mut error = icmp_error(from, client.ip(), 3, &sent[..len]);
                    assert_eq!(tables.handle(&mut error, Way::In), (Verdict::Pass, None));
                    let by: IpAddr = if from == endpoint.ip() { vip.ip() } else { from };
                    let mut want = asked[..len].to_vec();
                    if udp {
                        // The quoted checksum stays that of the packet as it was sent on.
                        want[len - 2..].copy_from_slice(&sent[len - 2..len]);
                    }
                    assert_eq!(error, icmp_error(by, client.ip(), 3, &want), "family {family}, udp {udp}");
                }
            }
        }
    }
}

/// An error about an answer, as a router before the node saw it: in the name of the virtual address.
#[test]
fn an_error_about_an_answer_reaches_the_endpoint() {
    for (family, router) in [(0, "192.0.2.7"), (1, "2001:db8:7::7")] {
        let tables = world();
        let (client, vip) = (families()[family].0, [at(VIP), at("[2001:db8::1]:80")][family]);
        let talk = Talk { tables: &tables, protocol: TCP, client, vip };
        let endpoint = talk.open();
        let quote = |from: SocketAddr| talk.packet(from, client, ACK).frame()[14..].to_vec();
        let len = if family == 0 { 28 } else { 48 };
        // Fragmentation needed, packet too big: without these, path MTU discovery hangs.
        let kind = if family == 0 { 3 } else { 2 };
        let mut error = icmp_error(router.parse().unwrap(), vip.ip(), kind, &quote(vip)[..len]);
        assert_eq!(tables.handle(&mut error, Way::In), (Verdict::Pass, None));
        assert_eq!(error, icmp_error(router.parse().unwrap(), endpoint.ip(), kind, &quote(endpoint)[..len]));
    }
}

#[test]
fn errors_that_are_not_ours() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let quote = |src: SocketAddr, dst: SocketAddr| talk.packet(src, dst, ACK).frame()[14..42].to_vec();
    let router: IpAddr = "192.0.2.7".parse().unwrap();
    let stranger = at("10.0.0.10:40000");
    let cases = [
        ("about a flow that is not known", icmp_error(router, stranger.ip(), 3, &quote(stranger, endpoint))),
        ("not to the sender of what it quotes", icmp_error(router, stranger.ip(), 3, &quote(talk.client, endpoint))),
        (
            "about the virtual address, from before the node",
            icmp_error(router, talk.client.ip(), 3, &quote(talk.client, talk.vip)),
        ),
    ];
    for (name, error) in cases {
        let mut frame = error.clone();
        assert_eq!(tables.handle(&mut frame, Way::In), (Verdict::Pass, Some(Leave::UnknownIcmp)), "{name}");
        assert_eq!(frame, error, "{name}");
    }
    // While a flow is being chosen there is nothing to translate to.
    let other = Talk::tcp(&tables, "10.0.0.11:40000");
    assert!(tables.claim(&other.key()));
    let mut error = icmp_error(router, other.vip.ip(), 3, &quote(other.vip, other.client));
    assert_eq!(tables.handle(&mut error, Way::In), (Verdict::Pass, Some(Leave::UnknownIcmp)));
}

#[test]
fn an_error_neither_keeps_a_flow_alive_nor_is_it_counted() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let before = tables.memory().clone();
    tables.set_now(START + 9);
    let quote = talk.packet(talk.client, endpoint, ACK).frame();
    let mut error = icmp_error("192.0.2.7".parse().unwrap(), talk.client.ip(), 3, &quote[14..]);
    assert_eq!(tables.handle(&mut error, Way::In), (Verdict::Pass, None));
    assert_eq!(*tables.memory(), before);
}
