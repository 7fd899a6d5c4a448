//! What the parser makes of packets, and why it leaves others alone.
use proptest::prelude::*;

use super::*;
use crate::host::frame::{Build, fragments, icmp_error, put};

const CLIENT: &str = "10.0.0.9:40000";
const SERVER: &str = "203.0.113.1:80";
const CLIENT6: &str = "[2001:db8::9]:40000";
const SERVER6: &str = "[2001:db8:1::1]:80";

fn build(protocol: u8, ipv6: bool) -> Build {
    let (src, dst) = if ipv6 { (CLIENT6, SERVER6) } else { (CLIENT, SERVER) };
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let build = if protocol == TCP { Build::tcp(src, dst, tcp::SYN) } else { Build::udp(src, dst) };
    build.with(b"hello, canary, are you there?")
}

fn tcp4() -> Build {
    build(TCP, false)
}

fn key_of(build: &Build) -> FlowKey {
    FlowKey {
        src_be: crate::host::image::addr(build.src.ip()),
        dst_be: crate::host::image::addr(build.dst.ip()),
        src_port_be: build.src.port().to_be(),
        dst_port_be: build.dst.port().to_be(),
        protocol: build.protocol(),
        pad: 0,
        zero: 0,
    }
}

/// A frame with one thing changed.
fn changed(build: &Build, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = build.frame();
    change(&mut frame);
    frame
}

#[test]
fn what_is_understood() {
    let tagged = |tags: &[u16], protocol, ipv6| Build { tags: tags.to_vec(), ..build(protocol, ipv6) };
    let extended = |kinds: &[u8], protocol| Build { extensions: kinds.to_vec(), ..build(protocol, true) };
    let cases = [
        ("tcp", build(TCP, false), 14, 34),
        ("udp", build(UDP, false), 14, 34),
        ("tcp over ipv6", build(TCP, true), 14, 54),
        ("udp over ipv6", build(UDP, true), 14, 54),
        ("802.1Q", tagged(&[0x8100], TCP, false), 18, 38),
        ("802.1ad", tagged(&[0x88a8], UDP, false), 18, 38),
        ("QinQ", tagged(&[0x88a8, 0x8100], TCP, false), 22, 42),
        ("QinQ, ipv6", tagged(&[0x88a8, 0x8100], UDP, true), 22, 62),
        ("one word of options", Build { options: 1, ..tcp4() }, 14, 38),
        ("ten words of options", Build { options: 10, ..build(UDP, false) }, 14, 74),
        ("hop by hop", extended(&[0], TCP), 14, 62),
        ("routing", extended(&[43], UDP), 14, 62),
        ("destination options", extended(&[60], TCP), 14, 62),
        ("mobility", extended(&[135], TCP), 14, 62),
        ("authentication", extended(&[51], TCP), 14, 70),
        ("authentication in between", extended(&[0, 51, 60], UDP), 14, 86),
        ("six extension headers", extended(&[0, 60, 43, 51, 135, 60], TCP), 14, 110),
    ];
    for (name, build, l3, l4) in cases {
        let flags = if build.protocol() == TCP { tcp::SYN } else { 0 };
        let (ipv6, key) = (build.src.is_ipv6(), key_of(&build));
        let want = Headers { kind: Kind::Flow, ipv6, l3, l4, key, flags, fragment_id: 0, inner_l3: 0, inner_l4: 0 };
        assert_eq!(parse(&build.frame()[..]), Ok(want), "{name}");
    }
}

#[test]
fn what_is_left_alone() {
    let v6 = || build(TCP, true);
    let many = Build { extensions: vec![60; 7], ..v6() };
    let tags = Build { tags: vec![0x8100; 3], ..tcp4() };
    let quoting = |quoted: &[u8]| icmp_error(tcp4().dst.ip(), tcp4().src.ip(), 3, quoted);
    let echo = |kind| icmp_error(tcp4().src.ip(), tcp4().dst.ip(), kind, &tcp4().frame()[14..]);
    let echo6 = |kind| icmp_error(v6().src.ip(), v6().dst.ip(), kind, &v6().frame()[14..]);
    let later = fragments(&build(UDP, false).frame(), 16, 9).unwrap()[1].clone();
    let cases: [(&str, Vec<u8>, Leave); 27] = [
        ("nothing", Vec::new(), Leave::Truncated),
        ("arp", changed(&tcp4(), |f| put(f, 12, 0x0806)), Leave::NotIp),
        ("length instead of type", changed(&tcp4(), |f| put(f, 12, 46)), Leave::NotIp),
        ("three tags", tags.frame(), Leave::NotIp),
        ("cut in the tag", changed(&tags, |f| f.truncate(17)), Leave::Truncated),
        ("ipv6 in an ipv4 frame", changed(&tcp4(), |f| f[14] = 0x65), Leave::NotIp),
        ("ipv4 header of 16 bytes", changed(&tcp4(), |f| f[14] = 0x44), Leave::NotIp),
        ("icmp echo", echo(8), Leave::NotTcpOrUdp),
        ("icmp echo reply", echo(0), Leave::NotTcpOrUdp),
        ("icmp redirect", echo(5), Leave::NotTcpOrUdp),
        ("icmpv6 echo", echo6(128), Leave::NotTcpOrUdp),
        ("neighbour solicitation", echo6(135), Leave::NotTcpOrUdp),
        ("icmpv6 in ipv4", changed(&tcp4(), |f| f[23] = 58), Leave::NotTcpOrUdp),
        ("icmp in ipv6", changed(&v6(), |f| f[20] = 1), Leave::NotTcpOrUdp),
        ("sctp", changed(&tcp4(), |f| f[23] = 132), Leave::NotTcpOrUdp),
        ("esp", changed(&v6(), |f| f[20] = 50), Leave::NotTcpOrUdp),
        ("no next header", changed(&v6(), |f| f[20] = 59), Leave::NotTcpOrUdp),
        ("seven extension headers", many.frame(), Leave::ExtensionHeaders),
        ("cut in ethernet", changed(&tcp4(), |f| f.truncate(13)), Leave::Truncated),
        ("cut in ipv4", changed(&tcp4(), |f| f.truncate(33)), Leave::Truncated),
        ("cut in ipv6", changed(&v6(), |f| f.truncate(53)), Leave::Truncated),
        ("cut in tcp", changed(&tcp4(), |f| f.truncate(53)), Leave::Truncated),
        ("cut in udp", changed(&build(UDP, true), |f| f.truncate(61)), Leave::Truncated),
        ("cut in an extension header", changed(&many, |f| f.truncate(61)), Leave::Truncated),
        ("an error about icmp", quoting(&echo(8)[14..]), Leave::UnknownIcmp),
        ("an error about a later fragment", quoting(&later[14..]), Leave::UnknownIcmp),
        ("an error that quotes seven bytes", quoting(&tcp4().frame()[14..41]), Leave::Truncated),
    ];
    for (name, frame, reason) in cases {
        assert_eq!(parse(&frame[..]), Err(reason), "{name}");
        assert_eq!(parse_fast(&frame[..]), None, "{name}, by the short way");
    }
}

#[test]
fn what_leaves_the_fast_path_goes_the_long_way() {
    let cases = [
        ("options", Build { options: 2, ..tcp4() }.frame()),
        ("a tag", Build { tags: vec![0x8100], ..tcp4() }.frame()),
        ("ipv6", build(UDP, true).frame()),
        ("a first fragment", fragments(&build(UDP, false).frame(), 16, 9).unwrap()[0].clone()),
        ("a later fragment", fragments(&tcp4().frame(), 24, 9).unwrap()[1].clone()),
        ("an icmp error", icmp_error(tcp4().dst.ip(), tcp4().src.ip(), 3, &tcp4().frame()[14..])),
    ];
    for (name, frame) in cases {
        assert_eq!(parse_fast(&frame[..]), None, "{name}");
        assert!(parse(&frame[..]).is_ok(), "{name}");
    }
    for build in [tcp4(), build(UDP, false)] {
        assert!(parse_fast(&build.frame()[..]).is_some(), "the usual packet must take the short way");
    }
}

#[test]
fn fragments_of_one_datagram_find_each_other() {
    for (protocol, ipv6) in [(TCP, false), (UDP, false), (TCP, true), (UDP, true)] {
        let whole = build(protocol, ipv6);
        let [first, later] = fragments(&whole.frame(), 24, 0xbeef).unwrap();
        let (first, later) = (parse(&first[..]).unwrap(), parse(&later[..]).unwrap());
        assert_eq!((first.kind, later.kind), (Kind::FirstFragment, Kind::LaterFragment));
        assert_eq!(first.key, key_of(&whole));
        assert_eq!((later.key.src_port_be, later.key.dst_port_be), (0, 0), "payload is not ports");
        assert_eq!(first.fragment_key(), later.fragment_key());
        assert_eq!(first.flags, if protocol == TCP { tcp::SYN } else { 0 });
        let [_, other] = fragments(&whole.frame(), 24, 0xbeee).unwrap();
        assert_ne!(parse(&other[..]).unwrap().fragment_key(), later.fragment_key());
    }
}

#[test]
fn fragments_of_ipv6_find_each_other_behind_options_of_the_destination() {
    // Only the first fragment shows what comes after the options; the identification alone must do (RFC 8200, §4.5).
    let whole = Build { extensions: vec![60], ..build(UDP, true) };
    let [first, later] = fragments(&whole.frame(), 24, 7).unwrap();
    let (first, later) = (parse(&first[..]).unwrap(), parse(&later[..]).unwrap());
    assert_eq!((first.kind, later.kind), (Kind::FirstFragment, Kind::LaterFragment));
    assert_eq!(first.fragment_key(), later.fragment_key());
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let mut frame = fragments(&build(UDP, true).frame(), 24, 9).unwrap()[0].clone();
    put(&mut frame, 14 + 40 + 2, 0); // Offset 0, no more fragments (RFC 6946).
    let headers = parse(&frame[..]).unwrap();
    assert_eq!((headers.kind, headers.l4), (Kind::Flow, 62));
}

#[test]
fn an_icmp_error_is_about_the_way_back() {
    for (protocol, ipv6) in [(TCP, false), (UDP, false), (TCP, true), (UDP, true)] {
        let about = build(protocol, ipv6);
        let router = if ipv6 { "2001:db8:7::7" } else { "192.0.2.7" }.parse().unwrap();
        let kinds: &[u8] = if ipv6 { &[1, 2, 3, 4] } else { &[3, 4, 11, 12] };
        for &kind in kinds {
            let error = icmp_error(router, about.src.ip(), kind, &about.frame()[14..]);
            let headers = parse(&error[..]).unwrap();
            let key = key_of(&about);
            let back = FlowKey {
                src_be: key.dst_be,
                dst_be: key.src_be,
                src_port_be: key.dst_port_be,
                dst_port_be: key.src_port_be,
                ..key
            };
            assert_eq!((headers.kind, headers.key), (Kind::IcmpError, back), "kind {kind}");
            let ip = if ipv6 { 40 } else { 20 };
            assert_eq!((headers.l4, headers.inner_l3, headers.inner_l4), (14 + ip, 22 + ip, 22 + 2 * ip));
        }
    }
}

/// Bytes that look like packets often enough to come far.
pub(crate) fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0_u8), Just(43), Just(51), Just(60), Just(135)];
    let kinds = prop_oneof![Just(Vec::new()), proptest::collection::vec(kind, 0..8)];
    let tag = prop_oneof![Just(0x8100_u16), Just(0x88a8)];
    let tags = prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(tag, 0..4)];
    let options = prop_oneof![Just(0), 0..=10_u8];
    let base = (any::<bool>(), any::<bool>(), kinds, tags, options, 0..4_u8);
    let changes = proptest::collection::vec((0..120_usize, any::<u8>()), 0..4);
    (base, changes, 0..160_usize).prop_map(|((udp, ipv6, extensions, tags, options, form), changes, len)| {
        let about = Build { tags, options, extensions, ..build(if udp { UDP } else { TCP }, ipv6) };
        let mut frame = match form {
            0 => icmp_error(about.dst.ip(), about.src.ip(), 3, &about.frame()[14..]),
            1 => fragments(&about.frame(), 8, 1).unwrap()[usize::from(udp)].clone(),
            _ => about.frame(),
        };
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(40 + len);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_short_way_agrees_with_the_long_one(frame in mutated()) {
        for len in 0..=frame.len() {
            if let Some(headers) = parse_fast(&frame[..len]) {
                prop_assert_eq!(parse(&frame[..len]), Ok(headers));
            }
        }
    }

    #[test]
    fn nothing_makes_the_parser_panic(frame in prop_oneof![mutated(), proptest::collection::vec(any::<u8>(), 0..200)]) {
        for len in 0..=frame.len() {
            let part = &frame[..len];
            if let Ok(headers) = parse(part) {
                // What it points at is there: the verifier demands it in the kernel, this is the host's side of it.
                let transport = if headers.key.protocol == TCP { 20 } else { 8 };
                match headers.kind {
                    Kind::Flow | Kind::FirstFragment => prop_assert!(headers.l4 + transport <= len),
                    Kind::IcmpError => prop_assert!(headers.inner_l4 + 8 <= len),
                    Kind::LaterFragment => prop_assert!(headers.l3 + 20 <= len),
                }
            }
        }
    }
}

/// Not a property: of the mutated frames, enough must be understood, or the properties above prove nothing.
#[test]
fn mutated_frames_are_often_understood() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut fast, mut long) = (0, 0);
    for _ in 0..1_000 {
        let frame = mutated().new_tree(&mut runner).unwrap().current();
        fast += u32::from(parse_fast(&frame[..]).is_some());
        long += u32::from(parse(&frame[..]).is_ok());
    }
    assert!(fast > 20 && long > 250, "{fast} and {long} of 1 000");
}
