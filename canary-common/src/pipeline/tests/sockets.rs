//! What sockets get, on tables in memory.
use std::net::IpAddr;

use super::{START, Talk, VIP, VIP_UDP, at, world};
use crate::{
    abi::{Addr, EXACT, FOR_SOCKETS, KEYED_FLOW, Peer, ServiceKey},
    host::{
        HostTables,
        image::{RuleSpec, addr},
    },
    packet::{TCP, UDP},
    pipeline::{Chosen, Process, choose_for_socket, chosen_before},
    verdict::Leave,
};

fn service(text: &str, protocol: u8) -> ServiceKey {
    let address = at(text);
    ServiceKey { addr_be: addr(address.ip()), port_be: address.port().to_be(), protocol, of: FOR_SOCKETS, zero: 0 }
}

fn client(text: &str) -> Addr {
    addr(text.parse::<IpAddr>().unwrap())
}

/// A process whose address is known, or not.
struct Known(Option<Addr>);

impl Process for Known {
    fn client(&self, _there: &Addr) -> Option<Addr> {
        self.0
    }
}

/// Whether a socket got the only endpoint of v2.
fn is_canary(tables: &HostTables, cookie: u64) -> Result<bool, Leave> {
    let chosen = choose_for_socket(tables, &service(VIP, TCP), cookie, &Known(None))?;
    Ok(chosen.endpoint.addr_be == client("10.1.0.14"))
}

#[test]
fn shares_are_exact_over_sockets_and_packets_together() {
    let tables = world();
    let mut canaries = 0;
    for number in 1..=200_u16 {
        let canary = if number % 3 == 0 {
            Talk::tcp(&tables, &format!("192.0.2.1:{number}")).open() == at("10.1.0.14:8080")
        } else {
            is_canary(&tables, number.into()).unwrap()
        };
        canaries += u16::from(canary);
        // Ten times the share of a tenth, and never one flow off.
        assert!((canaries * 10).abs_diff(number) <= 10, "{canaries} of {number}");
    }
    assert_eq!(canaries, 20);
    let mut flows: Vec<u64> = tables.memory().versions.values().map(|counts| counts.flows).collect();
    flows.sort_unstable();
    assert_eq!(flows, [20, 180]);
}

#[test]
fn nobodys_address_draws_nothing_and_what_is_the_proxys_is_marked() {
    let tables = world();
    let chosen = |tables: &HostTables, at: &str| choose_for_socket(tables, &service(at, TCP), 1, &Known(None));
    assert_eq!(chosen(&tables, "203.0.113.1:81"), Err(Leave::NoService));
    assert!(tables.memory().draws.is_empty());
    assert_eq!(chosen(&tables, VIP).unwrap().proxied, 0);
    tables.edit(|image| image.splits.iter_mut().for_each(|split| split.proxied = 1));
    assert_eq!(chosen(&tables, VIP).unwrap().proxied, 1);
}

#[test]
fn rules_that_ask_for_the_client_wait_for_packets_unless_it_is_known() {
    let tables = world();
    tables.edit(|image| {
        let slot = image.frontends.iter().find(|(key, _)| *key == service(VIP, TCP)).unwrap().1;
        let v2 = RuleSpec::all(EXACT, &[("v2", 1)]).only("192.0.2.0".parse().unwrap(), 24);
        image.set_rules(slot, &[v2, RuleSpec::all(EXACT, &[("v1", 1)])]);
    });
    let chosen = |of: Option<Addr>| {
        let chosen = choose_for_socket(&tables, &service(VIP, TCP), 1, &Known(of))?;
        Ok(chosen.endpoint.addr_be == client("10.1.0.14"))
    };
    assert_eq!(chosen(None), Err(Leave::UnknownClient));
    assert_eq!(chosen(Some(client("192.0.2.9"))), Ok(true));
    assert_eq!(chosen(Some(client("198.51.100.9"))), Ok(false));
    // Keyed by the client, it decides without any network, too.
    assert_eq!(choose_for_socket(&tables, &service(VIP_UDP, UDP), 1, &Known(None)), Err(Leave::UnknownClient));
    let of = |socket, who: Addr| choose_for_socket(&tables, &service(VIP_UDP, UDP), socket, &Known(Some(who))).unwrap();
    for number in 0..50 {
        let who = client(&format!("198.51.100.{number}"));
        assert_eq!(of(1, who).slot, of(2, who).slot, "whatever the socket");
    }
}

#[test]
fn keyed_by_flow_sockets_differ_by_their_numbers() {
    let tables = world();
    tables.edit(|image| {
        let slot = image.frontends.iter().find(|(key, _)| *key == service(VIP, TCP)).unwrap().1;
        image.set_rules(slot, &[RuleSpec::all(KEYED_FLOW, &[("v1", 1), ("v2", 1)])]);
    });
    let canaries = (0..1_000).filter(|cookie| is_canary(&tables, *cookie).unwrap()).count();
    assert!((400..600).contains(&canaries), "{canaries}");
}

#[test]
fn an_endpoint_that_drains_or_is_gone_is_chosen_anew() {
    let tables = world();
    let Chosen { slot, endpoint, .. } = choose_for_socket(&tables, &service(VIP, TCP), 1, &Known(None)).unwrap();
    let peer = Peer {
        addr_be: endpoint.addr_be,
        port_be: endpoint.port_be,
        proxied: 0,
        endpoint: slot,
        generation: endpoint.generation,
        zero: 0,
    };
    assert_eq!(chosen_before(&tables, &peer), Some(endpoint));
    assert_eq!(chosen_before(&tables, &Peer { generation: peer.generation + 1, ..peer }), None);
    tables.edit(|image| image.drain(slot, START + 100));
    assert_eq!(chosen_before(&tables, &peer), None);
}
