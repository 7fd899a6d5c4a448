//! Why packets are left alone, each reason by name, and which rule decides.
use super::*;
use crate::host::frame::Transport;

/// Services that refuse: one with rules for some clients only, one whose versions are empty, by TCP and UDP.
fn refusing() -> HostTables {
    let tables = world();
    tables.edit(|image| {
        let nobody = |name: &str, frontend: &str, protocol| ServiceSpec {
            name: name.into(),
            frontends: vec![(at(frontend), protocol)],
            versions: vec![("v1".into(), vec![])],
            rules: vec![RuleSpec::all(EXACT, &[("v1", 1)])],
        };
        image.add(&nobody("empty", "203.0.113.7:80", TCP));
        image.add(&nobody("empty-udp", "203.0.113.7:80", UDP));
        image.add(&nobody("empty-six", "[2001:db8::7]:80", TCP));
        let only =
            |net: &str, prefix, version| RuleSpec::all(EXACT, &[(version, 1)]).only(net.parse().unwrap(), prefix);
        image.add(&ServiceSpec {
            name: "choosy".into(),
            frontends: vec![(at("203.0.113.8:80"), TCP), (at("203.0.113.9:443"), TCP)],
            versions: vec![
                ("office".into(), vec![(at("10.2.0.1:8080"), 1)]),
                ("lab".into(), vec![(at("10.2.0.2:8080"), 1)]),
                ("rest".into(), vec![(at("10.2.0.3:8080"), 1)]),
            ],
            rules: vec![
                only("192.0.2.128", 25, "office"),
                only("192.0.2.0", 24, "lab").only("198.51.100.7".parse().unwrap(), 32),
                only("10.0.0.0", 8, "rest"),
            ],
        });
        image.add(&ServiceSpec {
            name: "choosy-six".into(),
            frontends: vec![(at("[2001:db8::8]:80"), TCP)],
            versions: vec![
                ("office".into(), vec![(at("[2001:db8:2::1]:8080"), 1)]),
                ("rest".into(), vec![(at("[2001:db8:2::2]:8080"), 1)]),
            ],
            rules: vec![only("2001:db8:5:8000::", 49, "office"), RuleSpec::all(EXACT, &[("rest", 1)])],
        });
    });
    tables
}

#[test]
fn the_first_rule_that_holds_decides() {
    let tables = refusing();
    let cases = [
        ("203.0.113.8:80", "192.0.2.129:1000", Ok("10.2.0.1:8080"), 0),
        ("203.0.113.8:80", "192.0.2.127:1000", Ok("10.2.0.2:8080"), 1),
        ("203.0.113.8:80", "198.51.100.7:1000", Ok("10.2.0.2:8080"), 1),
        ("203.0.113.8:80", "198.51.100.8:1000", Err(Leave::NoRule), 0),
        ("203.0.113.8:80", "10.255.255.255:1000", Ok("10.2.0.3:8080"), 2),
        ("203.0.113.8:80", "11.0.0.0:1000", Err(Leave::NoRule), 0),
        ("203.0.113.9:443", "192.0.2.255:1000", Ok("10.2.0.1:8080"), 0),
        ("[2001:db8::8]:80", "[2001:db8:5:8000::1]:1000", Ok("[2001:db8:2::1]:8080"), 0),
        ("[2001:db8::8]:80", "[2001:db8:5:ffff::1]:1000", Ok("[2001:db8:2::1]:8080"), 0),
        ("[2001:db8::8]:80", "[2001:db8:5:7fff::1]:1000", Ok("[2001:db8:2::2]:8080"), 1),
    ];
    for (vip, client, endpoint, rule) in cases {
        let talk = Talk { vip: at(vip), ..Talk::tcp(&tables, client) };
        assert_eq!(talk.send(SYN), endpoint.map(at), "{client} to {vip}");
        if endpoint.is_ok() {
            assert_eq!(tables.last_decision().map(|decision| decision.rule), Some(rule), "{client} to {vip}");
        }
    }
}

#[test]
fn reasons_of_packets_by_name() {
    let tcp = |vip: &str, flags| Build::tcp(at("172.16.0.9:40000"), at(vip), flags);
    let udp = |vip: &str| Build::udp(at("172.16.0.9:40000"), at(vip));
    let six = |vip: &str| Build::tcp(at("[2001:db8:9::9]:40000"), at(vip), SYN);
    let cases = [
        ("another address", tcp("203.0.113.99:80", SYN), Leave::NoService, Verdict::Pass),
        ("another port", tcp("203.0.113.1:81", SYN), Leave::NoService, Verdict::Pass),
        ("another protocol", udp("203.0.113.1:80"), Leave::NoService, Verdict::Pass),
        ("a mapped address over ipv6", six("[::ffff:203.0.113.1]:80"), Leave::NotIp, Verdict::Pass),
        ("no rule for this client", tcp("203.0.113.8:80", SYN), Leave::NoRule, Verdict::Reset),
        ("no endpoint", tcp("203.0.113.7:80", SYN), Leave::NoEndpoint, Verdict::Reset),
        ("no endpoint, ipv6", six("[2001:db8::7]:80"), Leave::NoEndpoint, Verdict::Reset),
        ("no endpoint for a datagram", udp("203.0.113.7:80"), Leave::NoEndpoint, Verdict::Drop),
        ("a reset of nothing", tcp("203.0.113.1:80", RST), Leave::NoFlow, Verdict::Drop),
        ("a reset of nothing, acknowledged", tcp("203.0.113.1:80", RST | ACK), Leave::NoFlow, Verdict::Drop),
    ];
    for (name, build, leave, verdict) in cases {
        let tables = refusing();
        let mut frame = build.frame();
        assert_eq!(tables.handle(&mut frame, Way::In), (verdict, Some(leave)), "{name}");
        if verdict == Verdict::Reset {
            assert_eq!(fault(&frame), None, "{name}");
            assert_ne!(frame, build.frame(), "{name}");
        } else {
            assert_eq!(frame, build.frame(), "{name}: untouched");
        }
        let memory = tables.memory();
        assert_eq!(
            (memory.flows.len(), memory.transient.len()),
            (0, 0),
            "{name}: nothing is remembered, nothing claimed"
        );
        assert_eq!(memory.leaves.get(leave.label()), Some(&1), "{name}: counted");
    }
}

#[test]
fn a_refused_connection_is_refused_again_and_again() {
    let tables = refusing();
    let talk = Talk { vip: at("203.0.113.7:80"), ..Talk::tcp(&tables, "10.0.0.9:40000") };
    for draws in 1..4 {
        assert_eq!(talk.send(SYN), Err(Leave::NoEndpoint));
        // Each try is a new connection to the client: it has been told of the end of the one before.
        assert_eq!(talk.draws(), draws);
    }
    tables.edit(|image| {
        let slot = image.frontends.iter().find(|(key, _)| *key == service_key(&talk)).map(|&(_, service)| service);
        image.set_endpoints(image.version(slot.unwrap(), "v1"), &[(at("10.3.0.1:80"), 1)]);
    });
    assert_eq!(talk.send(SYN), Ok(at("10.3.0.1:80")), "until somebody is there");
}

fn service_key(talk: &Talk<'_>) -> crate::abi::ServiceKey {
    let key = talk.key();
    crate::abi::ServiceKey {
        addr_be: key.dst_be,
        port_be: key.dst_port_be,
        protocol: key.protocol,
        of: crate::abi::FOR_PACKETS,
        zero: 0,
    }
}

#[test]
fn the_reset_that_refuses_a_connection_acknowledges_its_syn() {
    let tables = refusing();
    let (client, vip) = (at("10.0.0.9:40000"), at("203.0.113.7:80"));
    let mut frame = Build::tcp(client, vip, SYN).frame();
    assert_eq!(tables.handle(&mut frame, Way::In), (Verdict::Reset, Some(Leave::NoEndpoint)));
    let transport = Transport::Tcp { flags: RST | ACK, seq: 0, ack: 1_001 };
    let mut want = Build { transport, ttl: 64, ..Build::tcp(vip, client, RST) }.frame();
    crate::host::frame::put(&mut want, 48, 0); // No window; 0xffff and 0 are the same to the checksum.
    want[..12].rotate_left(6);
    assert_eq!(frame, want);
}

#[test]
fn labels_and_numbers_of_reasons_are_their_own() {
    for (number, leave) in (0..).zip(Leave::ALL) {
        assert_eq!(Leave::from_number(number), *leave);
        assert_eq!(*leave as u32, number);
        assert_eq!(Leave::ALL.iter().filter(|other| other.label() == leave.label()).count(), 1);
    }
    assert_eq!(Leave::from_number(u32::MAX), Leave::NotIp);
}
