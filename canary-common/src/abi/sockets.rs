//! What is known of sockets and of the processes that have them.
use super::{Addr, Plain};

map_type! {
    /// What a socket addresses, or what answers it.
    #[repr(align(8))]
    pub struct SocketKey {
        /// Number of the socket, for its life.
        pub cookie: u64,
        /// Virtual address, or address of an endpoint.
        pub addr_be: Addr,
        /// Port.
        pub port_be: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// 0: what the socket addresses; 1: what answers it.
        pub answers: u8,
        /// Zero.
        pub zero: u32,
    }
}
map_type! {
    /// Of a virtual address the endpoint that was chosen; of an endpoint that address. Aligned as [`super::FlowKey`].
    #[repr(align(8))]
    pub struct Peer {
        /// Its address.
        pub addr_be: Addr,
        /// Its port.
        pub port_be: u16,
        /// 1: the endpoint is the proxy.
        pub proxied: u16,
        /// Endpoint slot.
        pub endpoint: u32,
        /// The endpoint's generation when it was chosen.
        pub generation: u32,
        /// Zero.
        pub zero: u32,
    }
}
map_type! {
    /// The addresses of the pod whose cgroup it is; all zero: it has none of that family.
    pub struct Client {
        /// IPv4, mapped.
        pub v4_be: Addr,
        /// IPv6.
        pub v6_be: Addr,
    }
}
map_type! {
    /// A TCP connection that a socket has made to an endpoint.
    pub struct Connection {
        /// When it began, in nanoseconds since boot.
        pub begun: u64,
        /// Version slot.
        pub version: u32,
        /// Endpoint slot.
        pub endpoint: u32,
        /// The endpoint's generation when it was chosen.
        pub generation: u32,
        /// 1: the endpoint has answered.
        pub established: u32,
    }
}
map_type! {
    /// What became of the connections that sockets have made to a version.
    pub struct ConnectionCounts {
        /// Begun.
        pub begun: u64,
        /// Established.
        pub established: u64,
        /// Ended before they were established.
        pub failed: u64,
        /// Ended after that; what follows is counted then.
        pub ended: u64,
        /// Segments that were sent again.
        pub retransmits: u64,
        /// Bytes that endpoints have acknowledged.
        pub bytes_in: u64,
        /// Bytes that came from endpoints.
        pub bytes_out: u64,
        /// Sum of the smoothed round-trip times at the end, in microseconds.
        pub rtt_micros: u64,
        /// Sum of the times from the first SYN to the answer, in microseconds.
        pub handshake_micros: u64,
        /// Those times: see [`handshake_bucket`].
        pub handshakes: [u64; HANDSHAKE_BUCKETS],
    }
}

/// Number of classes of handshakes.
pub const HANDSHAKE_BUCKETS: usize = 20;
/// Handshakes of the first class take up to 2⁴ µs, of each further one twice as long, up to 2²² µs (4.2 s); of the last class longer.
const FIRST: u32 = 4;
#[expect(clippy::cast_possible_truncation, reason = "a small number")]
const LAST: u32 = HANDSHAKE_BUCKETS as u32 - 1;

/// The class of a handshake that took so many microseconds. By halves: the kernel has no instruction that counts zeroes.
#[inline(always)]
#[must_use]
pub const fn handshake_bucket(micros: u64) -> u32 {
    let mut rest = micros.saturating_sub(1) >> FIRST;
    let mut bucket = 0;
    let mut step = 16;
    while step > 0 {
        if rest >> step != 0 {
            rest >>= step;
            bucket += step;
        }
        step /= 2;
    }
    if rest != 0 {
        bucket += 1;
    }
    if bucket < LAST { bucket } else { LAST }
}

/// The longest handshake of a class, in microseconds; `None` for the last one, which has no end.
#[must_use]
pub const fn handshake_end(bucket: u32) -> Option<u64> {
    if bucket < LAST { Some(1 << (bucket + FIRST)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_in_the_first_class_that_is_long_enough() {
        for micros in (0..70_000).chain([1 << 21, (1 << 22) - 1, 1 << 22, (1 << 22) + 1, 1 << 40, u64::MAX]) {
            let expected = (0..=LAST).find(|it| handshake_end(*it).is_none_or(|end| micros <= end));
            assert_eq!(Some(handshake_bucket(micros)), expected, "{micros} µs");
        }
    }
}
