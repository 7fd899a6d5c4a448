//! Translated frames equal frames that were made for the other end from the start.
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::{
    host::{
        frame::{Build, Transport, fault, fragments, icmp_error, layers, put, word},
        image::addr,
    },
    packet::{Kind, parse, tcp},
};

/// The entry that sends a packet's destination (its source, for answers) to `to`.
fn entry(to: SocketAddr, reply: bool) -> Flow {
    let state = if reply { flow_state::REPLY } else { 0 };
    Flow { addr_be: addr(to.ip()), port_be: to.port().to_be(), state, ..Flow::default() }
}

fn translated(build: &Build, to: SocketAddr, reply: bool) -> Build {
    if reply { Build { src: to, ..build.clone() } } else { Build { dst: to, ..build.clone() } }
}

fn apply(frame: &[u8], flow: &Flow) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let headers = parse(&frame[..]).unwrap();
    match headers.kind {
        Kind::IcmpError => translate_icmp(&mut frame[..], &headers, flow),
        Kind::LaterFragment => translate_fragment(&mut frame[..], &headers, flow),
        Kind::Flow | Kind::FirstFragment => translate(&mut frame[..], &headers, flow),
    }
    .unwrap();
    frame
}

/// Ends of one family; words of zeros and ones are frequent, because there checksums have two zeros.
fn end(ipv6: bool) -> BoxedStrategy<SocketAddr> {
    let word = || prop_oneof![4 => any::<u16>(), 1 => Just(0_u16), 1 => Just(0xffff_u16)];
    (proptest::array::uniform8(word()), word())
        .prop_map(move |(mut words, port)| {
            if words[..5] == [0; 5] {
                words[0] = 0x2001; // Mapped addresses are refused by the parser.
            }
            let ip = if ipv6 {
                IpAddr::from(words)
            } else {
                let [a, b, ..] = words.map(u16::to_be_bytes);
                IpAddr::from([a[0], a[1], b[0], b[1]])
            };
            SocketAddr::new(ip, port)
        })
        .boxed() // Strategies by value fill a test thread's stack.
}

prop_compose! {
    fn ends()(ipv6 in any::<bool>())(src in end(ipv6), dst in end(ipv6), to in end(ipv6)) -> [SocketAddr; 3] {
        [src, dst, to]
    }
}

prop_compose! {
    fn builds()(
        [src, dst, to] in ends(), (tcp, checksum, tagged) in any::<(bool, bool, bool)>(), flags in any::<u8>(),
        seq in any::<u32>(), options in 0..=10_u8,
        extensions in proptest::collection::vec(prop_oneof![Just(0_u8), Just(51), Just(60)], 0..3),
        payload in proptest::collection::vec(any::<u8>(), 0..80),
    ) -> (Build, SocketAddr) {
        let transport = if tcp { Transport::Tcp { flags, seq, ack: !seq } } else { Transport::Udp { checksum } };
        let tags = if tagged { vec![0x8100] } else { Vec::new() };
        (Build { tags, options, extensions, transport, payload, ..Build::tcp(src, dst, 0) }, to)
    }
}

/// Copies the transport checksum of one quote into another, as far as they reach.
fn keep_checksum(from: &[u8], into: &mut [u8], build: &Build) {
    let layers = layers(&build.frame()).unwrap();
    let at = layers.l4 - layers.l3 + if build.protocol() == TCP { 16 } else { 6 };
    for (into, from) in into.iter_mut().zip(from).skip(at).take(2) {
        *into = *from;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_translated_packet_equals_one_made_so((build, to) in builds(), reply: bool) {
        let got = apply(&build.frame(), &entry(to, reply));
        let want = translated(&build, to, reply).frame();
        prop_assert_eq!(fault(&got), None);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn there_and_back_is_the_same_packet((build, to) in builds(), reply: bool) {
        let back = if reply { build.src } else { build.dst };
        let there = apply(&build.frame(), &entry(to, reply));
        prop_assert_eq!(apply(&there, &entry(back, reply)), build.frame());
    }

    #[test]
    fn translated_fragments_are_fragments_of_the_translated_datagram((build, to) in builds(), reply: bool, id: u16) {
        let build = Build { extensions: Vec::new(), tags: Vec::new(), payload: vec![7; 61], ..build };
        let [first, later] = fragments(&build.frame(), 24, id.into()).unwrap();
        let whole = translated(&build, to, reply).frame();
        let want = fragments(&whole, 24, id.into()).unwrap();
        prop_assert_eq!([apply(&first, &entry(to, reply)), apply(&later, &entry(to, reply))], want);
        prop_assert_eq!(fault(&whole), None, "put together, their checksum is right");
    }

    /// A quoted packet keeps its transport checksum (usually it is cut off anyway); all else is as if the error had been
    /// made about the translated packet, and the error's own checksum is right.
    #[test]
    fn a_translated_error_equals_one_made_so(
        (build, to) in builds(), reply: bool, kind in 0..4_usize, cut in 8..60_usize, by_endpoint: bool, seven: [u8; 4],
    ) {
        let build = Build { tags: Vec::new(), extensions: Vec::new(), ..build };
        let ipv6 = build.src.is_ipv6();
        // `build` was sent translated: what the error quotes. An answer's entry undoes a translated destination, a
        // client's entry a translated source.
        let header = layers(&build.frame()).unwrap().l4;
        let mut quoted = build.frame()[14..].to_vec();
        quoted.truncate(header - 14 + cut);
        let old = if reply { build.dst } else { build.src };
        let router = if ipv6 { IpAddr::from([0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, 7]) } else { IpAddr::from(seven) };
        let from = if reply && by_endpoint { old.ip() } else { router };
        let kind = if ipv6 { [1, 2, 3, 4][kind] } else { [3, 4, 11, 12][kind] };
        let error = icmp_error(from, build.src.ip(), kind, &quoted);
        prop_assert_eq!(fault(&error), None);

        let got = apply(&error, &entry(to, reply));
        let after = if reply { Build { dst: to, ..build.clone() } } else { Build { src: to, ..build.clone() } };
        let mut requoted = after.frame()[14..].to_vec();
        requoted.truncate(header - 14 + cut);
        keep_checksum(&quoted, &mut requoted, &build);
        let (from, at) = if reply {
            (if from == old.ip() { to.ip() } else { from }, build.src.ip())
        } else {
            (from, to.ip())
        };
        prop_assert_eq!(fault(&got), None);
        prop_assert_eq!(got, icmp_error(from, at, kind, &requoted));
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let (src, dst) = ("10.0.0.9:5000".parse().unwrap(), "203.0.113.1:53".parse().unwrap());
    let build = Build { transport: Transport::Udp { checksum: false }, ..Build::udp(src, dst) };
    let frame = apply(&build.frame(), &entry("10.1.0.1:5353".parse().unwrap(), false));
    assert_eq!(word(&frame, 34 + 6), 0);
    assert_eq!(fault(&frame), None);
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() {
    let (src, dst) = ("10.0.0.9:5000".parse().unwrap(), "203.0.113.1:53".parse().unwrap());
    let mut met = 0;
    for port in 1..=u16::MAX {
        // A payload that makes the whole sum 0xffff once the packet is translated to this port.
        let to = SocketAddr::new("10.1.0.1".parse().unwrap(), port);
        let goal = Build::udp(src, to).with(&[0, 0]);
        let payload = word(&goal.frame(), 40).to_be_bytes();
        let build = Build::udp(src, dst).with(&payload);
        if port % 257 == 0 {
            let frame = apply(&build.frame(), &entry(to, false));
            assert_eq!(word(&frame, 40), 0xffff, "port {port}");
            assert_eq!(fault(&frame), None);
            met += 1;
        }
    }
    assert!(met > 200);
}

#[test]
fn an_error_to_somebody_else_is_left_alone() {
    let (src, dst) = ("10.0.0.9:5000".parse().unwrap(), "10.1.0.1:8080".parse().unwrap());
    let quoted = Build::tcp(src, dst, tcp::ACK).frame();
    let mut frame = icmp_error(dst.ip(), "10.0.0.10".parse().unwrap(), 3, &quoted[14..]);
    let before = frame.clone();
    let headers = parse(&frame[..]).unwrap();
    let flow = entry("203.0.113.1:80".parse().unwrap(), true);
    assert_eq!(translate_icmp(&mut frame[..], &headers, &flow), Err(Leave::UnknownIcmp));
    assert_eq!(frame, before);
}

/// What RFC 9293, §3.10.7.1 answers to a packet for which there is no connection.
fn rfc_reset(build: &Build) -> Build {
    let Transport::Tcp { flags, seq, ack } = build.transport else { panic!("resets are TCP's") };
    let transport = if flags & tcp::ACK != 0 {
        Transport::Tcp { flags: tcp::RST, seq: ack, ack: 0 }
    } else {
        let length = u32::try_from(build.payload.len()).unwrap()
            + u32::from(flags & tcp::SYN != 0)
            + u32::from(flags & tcp::FIN != 0);
        Transport::Tcp { flags: tcp::RST | tcp::ACK, seq: 0, ack: seq.wrapping_add(length) }
    };
    Build { src: build.dst, dst: build.src, transport, payload: Vec::new(), ttl: 64, ..build.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_reset_is_what_the_rfc_says((build, _) in builds(), flags: u8, seq: u32) {
        let transport = Transport::Tcp { flags: flags & !tcp::RST, seq, ack: !seq };
        let build = Build { transport, options: 0, extensions: Vec::new(), ..build };
        let mut frame = build.frame();
        let headers = parse(&frame[..]).unwrap();
        reset(&mut frame[..], &headers).unwrap();

        let mut want = rfc_reset(&build).frame();
        put(&mut want, headers.l4 + 14, 0); // The window: nobody is there to receive.
        let window_sum = 0xffff; // The builder's window, which is zero in one's complement: no checksum to mend.
        prop_assert_eq!(window_sum, word(&rfc_reset(&build).frame(), headers.l4 + 14));
        let (macs, _) = want.split_at_mut(12);
        macs.rotate_left(6);
        prop_assert_eq!(fault(&frame), None);
        prop_assert_eq!(&frame[..want.len()], &want[..]);
        prop_assert_eq!(frame.len(), build.frame().len(), "the frame keeps its length");
    }
}

#[test]
fn what_is_never_answered_with_a_reset() {
    let (src, dst) = ("10.0.0.9:5000".parse().unwrap(), "203.0.113.1:80".parse().unwrap());
    let (src6, dst6) = ("[2001:db8::9]:5000".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap());
    let syn = Build::tcp(src, dst, tcp::SYN).with(&[7; 40]);
    let cases = [
        ("a reset", Build::tcp(src, dst, tcp::RST).frame()),
        ("a reset that acknowledges", Build::tcp(src, dst, tcp::RST | tcp::ACK).frame()),
        ("udp", Build::udp(src, dst).frame()),
        ("a packet with options", Build { options: 1, ..syn.clone() }.frame()),
        ("a packet with extension headers", Build { extensions: vec![0], ..Build::tcp(src6, dst6, tcp::SYN) }.frame()),
        ("a first fragment", fragments(&syn.frame(), 24, 1).unwrap()[0].clone()),
        ("a later fragment", fragments(&syn.frame(), 24, 1).unwrap()[1].clone()),
        ("an icmp error", icmp_error(dst.ip(), src.ip(), 3, &syn.frame()[14..])),
    ];
    for (name, frame) in cases {
        let mut after = frame.clone();
        let headers = parse(&frame[..]).unwrap();
        assert_eq!(reset(&mut after[..], &headers), None, "{name}");
        assert_eq!(after, frame, "{name}: untouched");
    }
}
