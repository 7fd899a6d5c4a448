//! Data through the virtual address arrives as it was sent: checksums with offloads on, super-packets, fragments.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what these functions assert is what the tests prove"
)]
use std::{io::Read, thread};

use anyhow::{Context, Result};
use canary_common::host::frame::{Build, fragments};
use canary_tests::{
    probe::{self, wire},
    stage::{Setting, Stage},
    story::{FRONT, Hook},
    tally::Weights,
};

/// One pod, whose server has made room for the test's own sockets.
fn one_pod(hook: Hook, ipv6: bool) -> Result<Stage> {
    let weights = Weights { v1: 1, v2: 0 };
    let mut stage = Stage::new(&Setting { pods: (1, 0), weights, ..Setting::new(hook, ipv6) })?;
    stage.story.pod("helloworld-v1-1")?.crash()?;
    Ok(stage)
}

fn wrong_checksums(stage: &Stage) -> Result<u64> {
    let pods = stage.story.pods().iter().map(canary_tests::story::Pod::namespace);
    let mut sum = 0;
    for namespace in pods.chain([&*stage.story.client, &stage.story.node]) {
        sum += probe::wrong_checksums(namespace)?;
    }
    Ok(sum)
}

const BULK: usize = 24 << 20;

/// 24 MB both ways at the same time, on one connection. Every byte is right and no receiver found a wrong checksum.
fn bulk(hook: Hook, ipv6: bool) -> Result<()> {
    let stage = one_pod(hook, ipv6)?;
    let listener = probe::listen(stage.story.pods()[0].namespace())?;
    let server = thread::spawn(move || probe::exchange_bulk(&listener.accept()?.0, BULK));
    let client = probe::connect(&stage.story.client, stage.target())?;
    probe::exchange_bulk(&client, BULK).context("the client")?;
    server.join().unwrap().context("the server")?;
    assert_eq!(wrong_checksums(&stage)?, 0);
    let (packets, bytes) =
        (probe::of_version(&stage.agent, "v1", "packets_in")?, probe::of_version(&stage.agent, "v1", "bytes_in")?);
    assert!(bytes > BULK as u64, "{bytes}");
    if hook == Hook::Tc {
        assert!(bytes / packets > 3_000, "no super-packets, so nothing is proved: {bytes} bytes in {packets} packets");
    }
    Ok(())
}

#[test]
fn a_bulk_transfer_with_offloads_is_right_by_tc_over_ipv4() -> Result<()> {
    bulk(Hook::Tc, false)
}

#[test]
fn a_bulk_transfer_with_offloads_is_right_by_tc_over_ipv6() -> Result<()> {
    bulk(Hook::Tc, true)
}

#[test]
fn a_bulk_transfer_is_right_by_xdp_over_ipv4() -> Result<()> {
    bulk(Hook::Xdp, false)
}

#[test]
fn a_bulk_transfer_is_right_by_xdp_over_ipv6() -> Result<()> {
    bulk(Hook::Xdp, true)
}

/// Every length from empty to what fits into one packet, there and back.
fn datagrams_of_all_lengths(hook: Hook, ipv6: bool) -> Result<()> {
    let stage = one_pod(hook, ipv6)?;
    let lengths: Vec<usize> = (0..70).chain((70..1_452).step_by(23)).chain(1_440..=1_452).collect();
    let server = probe::receive(stage.story.pods()[0].namespace())?;
    let count = lengths.len();
    let server = thread::spawn(move || probe::echo(&server, count));
    let client = probe::datagrams(&stage.story.client, stage.target())?;
    let data: Vec<u8> = (0..2_000_u32).map(|at| at.wrapping_mul(167).to_le_bytes()[0]).collect();
    let mut buffer = [0; 2_048];
    for length in lengths {
        client.send(&data[..length])?;
        let got = client.recv(&mut buffer).with_context(|| format!("{length} bytes"))?;
        assert_eq!(&buffer[..got], &data[..length], "{length} bytes");
    }
    server.join().unwrap()?;
    assert_eq!(wrong_checksums(&stage)?, 0);
    Ok(())
}

#[test]
fn datagrams_of_all_lengths_arrive_whole() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        for ipv6 in [false, true] {
            datagrams_of_all_lengths(hook, ipv6).with_context(|| format!("{hook:?}, IPv6: {ipv6}"))?;
        }
    }
    Ok(())
}

/// Ten datagrams handed over as one super-packet (`UDP_SEGMENT`), as QUIC servers do.
fn segmented_datagrams(ipv6: bool) -> Result<()> {
    let stage = one_pod(Hook::Tc, ipv6)?;
    let server = probe::receive(stage.story.pods()[0].namespace())?;
    let server = thread::spawn(move || probe::echo(&server, 10));
    let client = probe::datagrams(&stage.story.client, stage.target())?;
    probe::set_option(&client, libc::SOL_UDP, libc::UDP_SEGMENT, 1_200)?;
    let data: Vec<u8> = (0..12_000_u32).map(|at| at.wrapping_mul(167).to_le_bytes()[0]).collect();
    client.send(&data)?;
    let mut buffer = [0; 2_048];
    for segment in data.chunks(1_200) {
        let got = client.recv(&mut buffer)?;
        assert_eq!(&buffer[..got], segment);
    }
    server.join().unwrap()?;
    assert_eq!(wrong_checksums(&stage)?, 0);
    assert_eq!(probe::of_all(&stage.agent, "packets_in")?, 1, "no super-packet, so nothing is proved");
    Ok(())
}

#[test]
fn segmented_datagrams_arrive_whole() -> Result<()> {
    segmented_datagrams(false)?;
    segmented_datagrams(true)
}

/// RFC 768: a datagram without a checksum stays one.
#[test]
fn a_datagram_without_a_checksum_stays_without() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        let stage = one_pod(hook, false)?;
        let server = probe::receive(stage.story.pods()[0].namespace())?;
        let server = thread::spawn(move || probe::echo(&server, 1));
        let client = probe::datagrams(&stage.story.client, stage.target())?;
        probe::set_option(&client, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
        let pod = wire::Wire::new(stage.story.pods()[0].namespace(), "eth0")?;
        client.send(b"no sum")?;
        let frame = pod.next(|frame| frame.ends_with(b"no sum") || frame.get(42..48) == Some(b"no sum"))?;
        let frame = frame.context("nothing came")?;
        assert_eq!(frame[40..42], [0, 0], "the checksum field");
        client.recv(&mut [0; 16])?;
        server.join().unwrap()?;
    }
    Ok(())
}

/// Datagrams of three fragments, both ways, over several pods: each arrives whole, so all fragments were at one pod.
fn fragmented(hook: Hook, ipv6: bool) -> Result<()> {
    let mut stage = Stage::new(&Setting { weights: Weights { v1: 50, v2: 50 }, ..Setting::new(hook, ipv6) })?;
    let names: Vec<String> = stage.story.endpoints().into_iter().map(|endpoint| endpoint.pod).collect();
    for name in &names {
        let pod = stage.story.pod(name)?;
        pod.crash()?;
        let server = probe::receive(pod.namespace())?;
        // Ends by itself when nothing more comes.
        thread::spawn(move || probe::echo(&server, usize::MAX));
    }
    let data: Vec<u8> = (0..4_000_u32).map(|at| at.wrapping_mul(167).to_le_bytes()[0]).collect();
    let mut buffer = [0; 4_096];
    for number in 0..12 {
        let client = probe::datagrams(&stage.story.client, stage.target())?;
        for round in 0..3 {
            client.send(&data)?;
            let got = client.recv(&mut buffer).with_context(|| format!("flow {number}, datagram {round}"))?;
            assert_eq!(&buffer[..got], &data);
        }
    }
    let reassembled = if ipv6 { "Ip6ReasmOKs" } else { "Ip.ReasmOKs" };
    assert_eq!(probe::counter(&stage.story.client, reassembled)?, 36, "answers that came in fragments");
    let mut at_pods = Vec::new();
    for pod in stage.story.pods() {
        at_pods.push(probe::counter(pod.namespace(), reassembled)?);
    }
    assert_eq!(at_pods.iter().sum::<u64>(), 36, "{at_pods:?}");
    assert!(at_pods.iter().all(|&count| count > 0), "every pod had some: {at_pods:?}");
    assert_eq!(wrong_checksums(&stage)?, 0);
    let packets = [probe::of_all(&stage.agent, "packets_in")?, probe::of_all(&stage.agent, "packets_out")?];
    assert_eq!(packets, [36 * 3; 2], "every fragment is counted");
    assert_eq!(probe::leaves(&stage.agent, "unknown-fragment")?, 0);
    Ok(())
}

#[test]
fn fragmented_datagrams_arrive_whole_by_tc() -> Result<()> {
    fragmented(Hook::Tc, false)?;
    fragmented(Hook::Tc, true)
}

#[test]
fn fragmented_datagrams_arrive_whole_by_xdp() -> Result<()> {
    fragmented(Hook::Xdp, false)?;
    fragmented(Hook::Xdp, true)
}

/// A later fragment that comes before the first one belongs to nobody yet: it is left alone and counted; what comes in
/// order goes to a pod.
#[test]
fn a_fragment_before_its_first_is_left_alone_and_counted() -> Result<()> {
    for (hook, ipv6) in [(Hook::Tc, false), (Hook::Xdp, false), (Hook::Tc, true), (Hook::Xdp, true)] {
        let stage = one_pod(hook, ipv6)?;
        let server = probe::receive(stage.story.pods()[0].namespace())?;
        server.set_read_timeout(Some(std::time::Duration::from_millis(300)))?;
        let from = if ipv6 { "[fd00:1::2]:4242" } else { "10.0.0.2:4242" }.parse()?;
        let (here, there) = (wire::mac(&stage.story.client, "eth0")?, wire::mac(&stage.story.node, FRONT)?);
        let cable = wire::Wire::new(&stage.story.client, "eth0")?;
        let frame = wire::between(Build::udp(from, stage.target()).with(&[7; 64]).frame(), here, there);
        let cut = |id| fragments(&frame, 32, id).context("no fragments");
        let [first, later] = cut(77)?;
        cable.send(&later)?;
        cable.send(&first)?;
        assert!(server.recv(&mut [0; 128]).is_err(), "half a datagram cannot arrive");
        assert_eq!(probe::leaves(&stage.agent, "unknown-fragment")?, 1, "{hook:?}, IPv6: {ipv6}");
        let [first, later] = cut(78)?;
        cable.send(&first)?;
        cable.send(&later)?;
        assert_eq!(server.recv(&mut [0; 128])?, 64, "{hook:?}, IPv6: {ipv6}");
        assert_eq!(probe::leaves(&stage.agent, "unknown-fragment")?, 1);
    }
    Ok(())
}

/// The other end closes in the middle of a transfer, properly: what was sent arrives whole, then the end.
#[test]
fn a_half_closed_connection_still_carries_the_other_direction() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        let stage = one_pod(hook, false)?;
        let listener = probe::listen(stage.story.pods()[0].namespace())?;
        let server = thread::spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            assert_eq!(stream.read(&mut [0; 16])?, 0, "the client has closed its direction");
            thread::sleep(std::time::Duration::from_millis(1_500)); // more than a tick
            std::io::Write::write_all(&mut stream, &vec![9; 100_000])?;
            Ok(())
        });
        let mut client = probe::connect(&stage.story.client, stage.target())?;
        client.shutdown(std::net::Shutdown::Write)?;
        let mut all = Vec::new();
        client.read_to_end(&mut all)?;
        assert_eq!(all.len(), 100_000, "{hook:?}");
        server.join().unwrap()?;
    }
    Ok(())
}
