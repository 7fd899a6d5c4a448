//! A world of services and the packets that meet it: mostly proper ones of a few flows, some mangled, some noise.
use std::net::{IpAddr, SocketAddr};

use canary_common::{
    abi::{EXACT, Flow, KEYED_CLIENT, KEYED_FLOW},
    host::{
        HostTables,
        frame::{Build, Transport, fragments, icmp_error},
        image::{Image, RuleSpec, ServiceSpec, addr},
    },
    packet::{TCP, UDP, tcp},
};

use super::Dice;

/// Idle times, in ticks of about a second: short, so that flows end while a test runs.
const TICKS: [u32; 3] = [3, 2, 1];

/// An endpoint address of a service.
#[must_use]
pub fn endpoint(service: u8, ipv6: bool, number: u8) -> SocketAddr {
    let ip = if ipv6 {
        IpAddr::from([0x2001_u16, 0xdb8, 0x10, service.into(), 0, 0, 0, number.into()])
    } else {
        IpAddr::from([10, 1, service, number])
    };
    SocketAddr::new(ip, 8_080)
}

/// The virtual address of a service.
#[must_use]
pub fn frontend(service: u8, ipv6: bool) -> SocketAddr {
    let ip = if ipv6 {
        IpAddr::from([0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, service.into()])
    } else {
        IpAddr::from([203, 0, 113, service])
    };
    SocketAddr::new(ip, 80)
}

fn spec(service: u8, ipv6: bool, protocol: u8, endpoints: &[(&str, &[u32])], rules: Vec<RuleSpec>) -> ServiceSpec {
    let mut number = 0;
    let mut next = |&weight: &u32| {
        number += 1;
        (endpoint(service, ipv6, number), weight)
    };
    let versions =
        endpoints.iter().map(|(name, weights)| ((*name).to_string(), weights.iter().map(&mut next).collect()));
    ServiceSpec {
        name: format!("default/service-{service}"),
        versions: versions.collect(),
        frontends: vec![(frontend(service, ipv6), protocol)],
        rules,
    }
}

/// Services of every kind that the data plane tells apart.
#[must_use]
pub fn image() -> Image {
    let [tcp_ticks, udp_ticks, transient_ticks] = TICKS;
    let mut image = Image::new(tcp_ticks, udp_ticks, transient_ticks);
    let ten = |choosing| vec![RuleSpec::all(choosing, &[("v1", 90), ("v2", 10)])];
    image.add(&spec(1, false, TCP, &[("v1", &[1, 1, 1]), ("v2", &[1])], ten(EXACT)));
    image.add(&spec(2, false, UDP, &[("v1", &[1, 1]), ("v2", &[1])], ten(KEYED_FLOW)));
    image.add(&spec(3, true, TCP, &[("v1", &[1, 1]), ("v2", &[3, 1])], ten(KEYED_CLIENT)));
    image.add(&spec(4, true, UDP, &[("v1", &[5, 3, 1]), ("v2", &[1])], ten(EXACT)));
    let only = |net: [u8; 4], prefix| RuleSpec::all(EXACT, &[("v2", 1)]).only(net.into(), prefix);
    image.add(&spec(
        5,
        false,
        TCP,
        &[("v1", &[1]), ("v2", &[1])],
        vec![
            only([10, 0, 0, 1], 32),
            RuleSpec::all(EXACT, &[("v1", 1), ("v2", 0)]).only([10, 0, 0, 0].into(), 30).only([10, 0, 0, 5].into(), 32),
        ],
    ));
    let many: Vec<(String, u32)> = (0..64).map(|n| (format!("v{n}"), 1 + n)).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
    let names: Vec<(&str, &[u32])> = many.iter().map(|&(name, _)| (name, &[1_u32][..])).collect();
    image.add(&spec(6, false, TCP, &names, vec![RuleSpec::all(EXACT, &many)]));
    image.add(&spec(7, true, TCP, &names, vec![RuleSpec::all(KEYED_FLOW, &many)]));
    // v2 has nobody: its share is refused.
    image.add(&spec(8, false, TCP, &[("v1", &[1]), ("v2", &[])], vec![RuleSpec::all(EXACT, &[("v1", 1), ("v2", 1)])]));
    image.add(&spec(9, true, TCP, &[("v1", &[1]), ("v2", &[])], vec![RuleSpec::all(EXACT, &[("v1", 1), ("v2", 1)])]));
    // Others at the endpoints of 1 and 3: a client's port may be taken.
    let sharing = |service, ipv6, spec| ServiceSpec {
        name: format!("default/service-{service}"),
        frontends: vec![(frontend(service, ipv6), TCP)],
        ..spec
    };
    image.add(&sharing(11, false, spec(1, false, TCP, &[("v1", &[1, 1]), ("v2", &[1])], ten(EXACT))));
    image.add(&sharing(12, true, spec(3, true, TCP, &[("v1", &[1]), ("v2", &[1])], ten(KEYED_CLIENT))));
    image.add(&spec(10, false, UDP, &[("v1", &[]), ("v2", &[])], ten(EXACT)));
    image.lead(2, u32::MAX);
    image
}

/// (number, IPv6, protocol) of the services of [`image`].
pub const SERVICES: [(u8, bool, u8); 12] = [
    (1, false, TCP),
    (2, false, UDP),
    (3, true, TCP),
    (4, true, UDP),
    (5, false, TCP),
    (6, false, TCP),
    (7, true, TCP),
    (8, false, TCP),
    (9, true, TCP),
    (10, false, UDP),
    (11, false, TCP),
    (12, true, TCP),
];

/// Changes something that an agent changes: weights, endpoints, drains.
pub fn change(image: &mut Image, dice: &mut Dice, tick: u32) {
    match dice.roll(4) {
        0 => {
            let weights = [("v1", dice.word(100)), ("v2", 1 + dice.word(100))];
            image.set_rules(0, &[RuleSpec::all(EXACT, &weights)]);
        }
        1 => {
            let weights = [("v1", dice.word(100)), ("v2", 1 + dice.word(100))];
            image.set_rules(2, &[RuleSpec::all(dice.pick(&[EXACT, KEYED_CLIENT, KEYED_FLOW]), &weights)]);
        }
        2 => {
            // One endpoint leaves with some time to drain, and perhaps another one comes.
            let (service, ipv6, _) = dice.pick(&SERVICES[..4]);
            let version = image.version(u32::from(service) - 1, "v1");
            let leaver = endpoint(service, ipv6, dice.pick(&[1, 2, 3]));
            let mut others: Vec<_> = (1..4).map(|number| (endpoint(service, ipv6, number), 1)).collect();
            others.retain(|&(at, _)| at != leaver);
            if let Some(slot) = image
                .endpoint(leaver)
                .filter(|&slot| image.endpoints.get(slot as usize).is_some_and(|it| it.drain_by == 0))
            {
                image.drain(slot, tick + 1 + dice.word(2));
            }
            image.set_endpoints(version, &others);
        }
        _ => {
            let weights: Vec<_> = (1..4).map(|number| (endpoint(4, true, number), u32::from(number) * 3 - 2)).collect();
            image.set_endpoints(image.version(3, "v1"), &weights);
        }
    }
}

fn client(dice: &mut Dice, ipv6: bool) -> SocketAddr {
    let number = 1 + dice.roll(6);
    let port = 40_000 + u16::try_from(dice.roll(4)).unwrap_or(0);
    let last = u8::try_from(number).unwrap_or(0);
    let ip = if ipv6 {
        IpAddr::from([0x2001_u16, 0xdb8, 9, 0, 0, 0, 0, last.into()])
    } else {
        IpAddr::from([10, 0, 0, last])
    };
    SocketAddr::new(ip, port)
}

fn socket(flow: &Flow, ipv6: bool) -> SocketAddr {
    let [.., last] = flow.addr_be;
    let segments = flow.addr_be.map(u32::from_be);
    let whole = segments.iter().fold(0_u128, |all, &word| all << 32 | u128::from(word));
    let ip = if ipv6 { IpAddr::from(whole.to_be_bytes()) } else { IpAddr::from(last.to_ne_bytes()) };
    SocketAddr::new(ip, u16::from_be(flow.port_be))
}

fn dress(dice: &mut Dice, build: &mut Build) {
    let len = if dice.chance(5) { dice.roll(1_200) } else { dice.roll(40) };
    build.payload = (0..len).map(|_| dice.byte()).collect();
    if dice.chance(10) {
        build.tags = (0..=dice.roll(2)).map(|_| dice.pick(&[0x8100, 0x88a8])).collect();
    }
    if dice.chance(10) {
        build.options = u8::try_from(dice.roll(11)).unwrap_or(0);
    }
    if dice.chance(15) {
        build.extensions = (0..dice.roll(8)).map(|_| dice.pick(&[0, 43, 51, 60, 135])).collect();
    }
    match &mut build.transport {
        Transport::Tcp { flags, seq, ack } => {
            let usual =
                [tcp::SYN, tcp::SYN | tcp::ACK, tcp::ACK, tcp::ACK, tcp::ACK, tcp::ACK | tcp::FIN, tcp::ACK | 8];
            *flags = match dice.roll(20) {
                0 => dice.byte(),
                1 => dice.pick(&[tcp::RST, tcp::RST | tcp::ACK]),
                _ => dice.pick(&usual),
            };
            (*seq, *ack) = (dice.word(u32::MAX), dice.word(u32::MAX));
        }
        Transport::Udp { checksum } => *checksum = !dice.chance(20),
    }
}

/// A packet of a client, or of the endpoint that `tables` remember for it: well-formed.
pub fn proper(dice: &mut Dice, tables: &HostTables) -> Vec<u8> {
    let (service, ipv6, protocol) = dice.pick(&SERVICES);
    let (client, vip) = (client(dice, ipv6), frontend(service, ipv6));
    let key = canary_common::abi::FlowKey {
        src_be: addr(client.ip()),
        dst_be: addr(vip.ip()),
        src_port_be: client.port().to_be(),
        dst_port_be: vip.port().to_be(),
        protocol,
        pad: 0,
        zero: 0,
    };
    let memory = tables.memory();
    let known = memory.flows.get(&key).or_else(|| memory.transient.get(&key)).map(|flow| socket(flow, ipv6));
    let new = |src, dst| if protocol == TCP { Build::tcp(src, dst, tcp::SYN) } else { Build::udp(src, dst) };
    let answer = known.filter(|_| dice.chance(50));
    let mut build = match answer {
        Some(endpoint) => new(endpoint, client),
        // To the endpoint itself: nobody's, but a flow that is over may be in its way.
        None if dice.chance(5) => new(client, known.unwrap_or(vip)),
        None => new(client, vip),
    };
    dress(dice, &mut build);
    match dice.roll(20) {
        // An error about a packet that was sent on: the client's as the endpoint saw it, or the answer as the client did.
        0 => {
            let endpoint = known.unwrap_or(vip);
            let (mut about, to) =
                if dice.chance(50) { (new(client, endpoint), client) } else { (new(vip, client), vip) };
            dress(dice, &mut about);
            (about.tags, about.extensions) = (Vec::new(), Vec::new());
            let mut quoted = about.frame().split_off(14);
            if dice.chance(80) {
                quoted.truncate(if ipv6 { 48 } else { 28 } + dice.index(40));
            }
            let from = if dice.chance(50) { endpoint.ip() } else { frontend(99, ipv6).ip() };
            let kind = dice.pick(if ipv6 { &[1, 2, 3, 4, 128] } else { &[3, 4, 11, 12, 8] });
            let to = if dice.chance(95) { to.ip() } else { from };
            icmp_error(from, to, kind, &quoted)
        }
        1 => {
            build.tags = Vec::new();
            build.payload.resize(64, 1);
            let id = dice.word(30);
            let both = fragments(&build.frame(), 24, id);
            let later = dice.chance(60);
            both.map_or_else(|| build.frame(), |[first, second]| if later { second } else { first })
        }
        _ => build.frame(),
    }
}

/// Any packet: proper, mangled, cut, or noise. At least 14 bytes, which the kernel wants of a test run.
pub fn any(dice: &mut Dice, tables: &HostTables) -> Vec<u8> {
    let mut frame = proper(dice, tables);
    match dice.roll(20) {
        0 | 1 => {
            for _ in 0..=dice.roll(4) {
                // Headers more often than payload.
                let reach = if dice.chance(80) { frame.len().min(90) } else { frame.len() };
                if let Some(byte) = frame.get_mut(dice.index(reach)) {
                    *byte = dice.byte();
                }
            }
        }
        2 => {
            let len = frame.len() - 14;
            frame.truncate(14 + dice.index(len));
        }
        3 => frame = (0..14 + dice.roll(120)).map(|_| dice.byte()).collect(),
        4 => frame.extend(std::iter::repeat_n(0, dice.index(30))), // Padding.
        _ => {}
    }
    frame
}
