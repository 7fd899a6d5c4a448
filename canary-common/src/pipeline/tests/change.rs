//! What the agent changes under living flows: weights, endpoints, drains.
use super::*;
use crate::abi::KEYED_FLOW;

fn v(tables: &HostTables, endpoint: SocketAddr) -> u32 {
    let image = tables.image();
    image.endpoints[image.endpoint(endpoint).unwrap() as usize].version
}

fn weigh(tables: &HostTables, service: u32, choosing: u32, weights: &[(&str, u32)]) {
    tables.edit(|image| image.set_rules(service, &[RuleSpec::all(choosing, weights)]));
}

#[test]
fn a_change_of_weights_moves_new_flows_only() {
    let tables = world();
    let clients: Vec<String> = (0..200).map(client).collect();
    let before: Vec<SocketAddr> = clients.iter().map(|client| Talk::tcp(&tables, client).open()).collect();
    weigh(&tables, 0, EXACT, &[("v1", 0), ("v2", 1)]);
    for (client, &endpoint) in clients.iter().zip(&before) {
        let talk = Talk::tcp(&tables, client);
        assert_eq!(talk.send(ACK), Ok(endpoint));
        talk.answer(endpoint, ACK);
    }
    let canary = tables.image().version(0, "v2");
    for number in 200..400 {
        assert_eq!(v(&tables, Talk::tcp(&tables, &client(number)).open()), canary);
    }
    let per_split: Vec<u64> = tables.memory().draws.values().copied().collect();
    assert_eq!(per_split, [200, 200], "a new split counts from zero");
}

#[test]
fn a_half_open_flow_keeps_its_endpoint_too() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(SYN).unwrap();
    weigh(&tables, 0, EXACT, &[("v1", 0), ("v2", 1)]);
    assert_eq!(talk.send(SYN), Ok(endpoint));
    talk.answer(endpoint, SYN | ACK);
    assert_eq!(talk.send(ACK), Ok(endpoint));
}

#[test]
fn weight_zero_gets_no_flow_however_it_is_chosen() {
    for choosing in [EXACT, KEYED_FLOW, KEYED_CLIENT] {
        for weights in [[("v1", 0), ("v2", 7)], [("v1", 7), ("v2", 0)]] {
            let tables = world();
            weigh(&tables, 0, choosing, &weights);
            let never = tables.image().version(0, if weights[0].1 == 0 { "v1" } else { "v2" });
            for number in 0..2_000 {
                // New flows, and flows from the middle, which an exact split chooses by hash.
                let flags = if number % 2 == 0 { SYN } else { ACK };
                let endpoint = Talk::tcp(&tables, &client(number)).send(flags).unwrap();
                assert_ne!(v(&tables, endpoint), never, "{weights:?}");
            }
        }
    }
}

#[test]
fn a_client_keeps_its_version_whatever_happens_to_endpoints() {
    let tables = world();
    let clients: Vec<String> = (0..2_000).map(client).collect();
    let versions = |tables: &HostTables| -> Vec<u32> {
        clients.iter().map(|client| v(tables, Talk::udp(tables, client).send(0).unwrap())).collect()
    };
    let before = versions(&tables);
    let canary = tables.image().version(1, "v2");
    for size in [1_u8, 2, 9] {
        let tables = world();
        tables.edit(|image| {
            let more: Vec<_> =
                (1..=size).map(|host| (SocketAddr::from(([10, 1, 9, host], 8_080)), host.into())).collect();
            image.set_endpoints(canary, &more);
        });
        assert_eq!(versions(&tables), before, "v2 scaled to {size}");
    }
    let got = before.iter().filter(|&&version| version == canary).count();
    assert!((120..=280).contains(&got), "{got} of 2 000 clients at 10 %: six sigma are 80");
}

#[test]
fn raising_a_keyed_canary_takes_no_client_away_from_it() {
    let clients: Vec<String> = (0..2_000).map(client).collect();
    let mut inside: Vec<bool> = vec![false; clients.len()];
    for percent in [0, 1, 5, 10, 50, 99, 100] {
        let tables = world();
        weigh(&tables, 1, KEYED_CLIENT, &[("v1", 100 - percent), ("v2", percent)]);
        let canary = tables.image().version(1, "v2");
        for (client, inside) in clients.iter().zip(&mut inside) {
            let now = v(&tables, Talk::udp(&tables, client).send(0).unwrap()) == canary;
            assert!(now || !*inside, "{client} left the canary at {percent} %");
            *inside = now;
        }
    }
    assert!(inside.iter().all(|&inside| inside), "everybody at 100 %");
}

#[test]
fn a_draining_endpoint_keeps_its_flows_until_the_deadline() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    let slot = tables.image().endpoint(endpoint).unwrap();
    tables.edit(|image| {
        image.drain(slot, START + 5);
        image.set_endpoints(image.version(0, "v1"), &[(at("10.1.0.12:8080"), 1)]);
        image.set_endpoints(image.version(0, "v2"), &[(at("10.1.0.12:8080"), 1)]);
    });
    tables.set_now(START + 4);
    assert_eq!(talk.send(ACK), Ok(endpoint));
    talk.answer(endpoint, ACK);
    assert_ne!(Talk::tcp(&tables, "10.0.0.9:40001").open(), endpoint, "it gets no new ones");
    tables.set_now(START + 5);
    let gone = Out::Left(Leave::EndpointGone, Verdict::Reset);
    assert_eq!(talk.through(talk.client, talk.vip, ACK, Way::In), gone, "the client is told at once");
    assert_eq!(talk.through(endpoint, talk.client, ACK, Way::In), gone, "and so is the endpoint, if it is still there");
    assert_ne!(talk.send(SYN), Ok(endpoint), "a new connection goes elsewhere");
}

#[test]
fn the_reset_of_a_drained_flow_is_what_the_client_expects() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    tables.edit(|image| image.drain(image.endpoint(endpoint).unwrap(), START));
    let mut frame = talk.packet(talk.client, talk.vip, ACK).frame();
    assert_eq!(tables.handle(&mut frame, Way::In), (Verdict::Reset, Some(Leave::EndpointGone)));
    // In the name of the virtual address, at the sequence number that the client acknowledged last (RFC 9293, §3.5.2).
    let transport = crate::host::frame::Transport::Tcp { flags: RST, seq: 2_000, ack: 0 };
    let mut want = Build { transport, ttl: 64, ..Build::tcp(talk.vip, talk.client, RST) }.frame();
    crate::host::frame::put(&mut want, 48, 0); // No window; 0xffff and 0 are the same to the checksum.
    want[..12].rotate_left(6);
    assert_eq!(fault(&frame), None);
    assert_eq!(frame[..want.len()], want);
    assert_eq!(tables.memory().leaves.get("endpoint-gone"), Some(&1));
}

#[test]
fn a_datagram_of_a_drained_flow_goes_to_another_endpoint() {
    let tables = world();
    let talk = Talk::udp(&tables, "10.0.0.9:40000");
    let endpoint = talk.send(0).unwrap();
    talk.answer(endpoint, 0);
    assert_eq!(talk.send(0), Ok(endpoint));
    let others: Vec<_> = [21, 22, 23, 24]
        .map(|host| at(&format!("10.1.0.{host}:8080")))
        .into_iter()
        .filter(|&it| it != endpoint)
        .map(|it| (it, 1))
        .collect();
    tables.edit(|image| {
        image.drain(image.endpoint(endpoint).unwrap(), START);
        for name in ["v1", "v2"] {
            image.set_endpoints(image.version(1, name), &others);
        }
    });
    let next = talk.send(0).unwrap();
    assert_ne!(next, endpoint, "re-chosen at once, not black-holed");
    talk.answer(next, 0);
    assert_eq!(talk.through(endpoint, talk.client, 0, Way::In), Out::Left(Leave::NoService, Verdict::Pass));
}

#[test]
fn a_slot_that_is_used_again_is_not_the_old_endpoint() {
    let tables = world();
    let talk = Talk::tcp(&tables, "10.0.0.9:40000");
    let endpoint = talk.open();
    tables.edit(|image| {
        let slot = image.endpoint(endpoint).unwrap();
        let entry = &mut image.endpoints[slot as usize];
        entry.generation += 1;
        entry.addr_be = addr(at("10.1.0.99:8080").ip());
    });
    assert_eq!(talk.send(ACK), Err(Leave::EndpointGone));
    talk.send(SYN).unwrap();
    assert_eq!(talk.draws(), 2);
}

#[test]
fn endpoints_of_a_version_take_turns_by_weight() {
    let tables = world();
    tables.edit(|image| {
        image.set_endpoints(
            image.version(0, "v1"),
            &[(at("10.1.0.11:8080"), 5), (at("10.1.0.12:8080"), 3), (at("10.1.0.13:8080"), 1)],
        );
    });
    for number in 0..1_000 {
        Talk::tcp(&tables, &client(number)).open();
    }
    let flows: Vec<u64> = tables.memory().endpoints.values().map(|counts| counts.flows).collect();
    assert_eq!(flows.iter().sum::<u64>(), 1_000);
    for (got, want) in flows.into_iter().zip([500_u64, 300, 100, 100]) {
        assert!(got.abs_diff(want) <= 1, "{got} flows, {want} wanted");
    }
}

#[test]
fn a_share_does_not_depend_on_the_number_of_endpoints() {
    for scale in [1_u8, 3, 9] {
        let tables = world();
        tables.edit(|image| {
            let hosts: Vec<_> = (1..=scale).map(|host| (SocketAddr::from(([10, 1, 7, host], 8_080)), 1)).collect();
            image.set_endpoints(image.version(0, "v2"), &hosts);
        });
        let canary = tables.image().version(0, "v2");
        for number in 0..1_000 {
            Talk::tcp(&tables, &client(number)).open();
        }
        assert_eq!(tables.memory().versions[&canary].flows, 100, "{scale} endpoints");
    }
}
