//! The judge of frames must be strict, or it proves nothing.
use super::*;

fn samples() -> Vec<Vec<u8>> {
    let pairs = [("10.0.0.9:4000", "203.0.113.1:80"), ("[2001:db8::9]:4000", "[2001:db8:1::1]:80")];
    let mut frames = Vec::new();
    for (src, dst) in pairs {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        for build in [Build::tcp(src, dst, 2).with(b"odd"), Build::udp(src, dst).with(b"payload!")] {
            let build = Build { tags: vec![0x8100], ..build };
            frames.push(build.frame());
            frames.push(icmp_error(dst.ip(), src.ip(), if src.is_ipv6() { 1 } else { 3 }, &build.frame()[18..]));
        }
    }
    frames
}

#[test]
fn frames_are_made_without_fault() {
    for frame in samples() {
        assert_eq!(fault(&frame), None, "{frame:02x?}");
    }
}

#[test]
fn any_wrong_bit_that_a_checksum_covers_is_a_fault() {
    for frame in samples() {
        let Layers { l3, l4, ipv6, .. } = layers(&frame).unwrap();
        let covered: Vec<usize> = if ipv6 { (l3 + 8..frame.len()).collect() } else { (l3 + 10..frame.len()).collect() };
        for at in covered {
            // Changed lengths and zeroed checksums are other matters.
            if at < l4 || at >= l4 + 8 {
                let mut wrong = frame.clone();
                wrong[at] ^= 0x10;
                assert!(fault(&wrong).is_some(), "byte {at} of {frame:02x?}");
            }
        }
    }
}

#[test]
fn udp_without_a_checksum_is_no_fault() {
    let (src, dst) = ("10.0.0.9:4000".parse().unwrap(), "203.0.113.1:80".parse().unwrap());
    let build = Build { transport: Transport::Udp { checksum: false }, ..Build::udp(src, dst) };
    assert_eq!(fault(&build.frame()), None);
    assert_eq!(word(&build.frame(), 40), 0);
}
