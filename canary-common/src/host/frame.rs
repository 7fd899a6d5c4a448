//! Frames made by hand and judged by hand, for tests: shares no code with the parser and the rewriting under test.
//!
//! Checksums are full sums here, never updates, so that a mistake in one is not repeated in the other.
use std::{
    net::{IpAddr, SocketAddr},
    vec,
    vec::Vec,
};

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags, sequence and acknowledgement numbers.
    Tcp {
        /// Flags.
        flags: u8,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
    },
    /// UDP, with a checksum or with 0 in its place.
    Udp {
        /// Is there a checksum?
        checksum: bool,
    },
}

/// A frame to be: change the fields, then call [`Build::frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Source. Its family is the frame's.
    pub src: SocketAddr,
    /// Destination, of the same family.
    pub dst: SocketAddr,
    /// `EtherType`s of the VLAN tags, from the outside in.
    pub tags: Vec<u16>,
    /// Words of IPv4 options.
    pub options: u8,
    /// IPv6 extension headers by number: 0, 43, 51, 60 and 135, each the shortest that is legal.
    pub extensions: Vec<u8>,
    /// TCP or UDP.
    pub transport: Transport,
    /// What comes after the transport header.
    pub payload: Vec<u8>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
}

impl Build {
    fn new(src: SocketAddr, dst: SocketAddr, transport: Transport) -> Self {
        let (tags, extensions, payload) = (Vec::new(), Vec::new(), Vec::new());
        Self { src, dst, tags, options: 0, extensions, transport, payload, ttl: 61, id: 0x1234 }
    }

    /// A TCP packet.
    #[must_use]
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self::new(src, dst, Transport::Tcp { flags, seq: 1_000, ack: 2_000 })
    }

    /// A UDP packet with a checksum.
    #[must_use]
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        Self::new(src, dst, Transport::Udp { checksum: true })
    }

    /// The same with a payload.
    #[must_use]
    pub fn with(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// IP protocol number of the transport.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        if matches!(self.transport, Transport::Tcp { .. }) { 6 } else { 17 }
    }

    /// The bytes, all checksums complete.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let (mut extensions, first) = self.extension_bytes();
        extensions.extend(self.segment());
        let mut frame = ethernet(self.src.is_ipv6(), &self.tags);
        frame.extend(ip(self.src.ip(), self.dst.ip(), first, &extensions, self.ttl, self.id, self.options));
        frame
    }

    /// Extension headers, and the number that the IPv6 header names first.
    fn extension_bytes(&self) -> (Vec<u8>, u8) {
        let mut bytes = Vec::new();
        if self.src.is_ipv4() {
            return (bytes, self.protocol());
        }
        let followers = self.extensions.iter().skip(1).copied().chain([self.protocol()]);
        for (&kind, next) in self.extensions.iter().zip(followers) {
            // Authentication counts words of four bytes less two, the others words of eight less one.
            let (len, unit) = if kind == 51 { (16, 2) } else { (8, 0) };
            bytes.extend([next, unit]);
            bytes.extend(vec![0; len - 2]);
        }
        (bytes, self.extensions.first().copied().unwrap_or(self.protocol()))
    }

    fn segment(&self) -> Vec<u8> {
        let mut bytes = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (at, summed) = match self.transport {
            Transport::Tcp { flags, seq, ack } => {
                bytes.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
                bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                (16, true)
            }
            Transport::Udp { checksum } => {
                bytes.extend(length(8 + self.payload.len()));
                bytes.extend([0, 0]);
                (6, checksum)
            }
        };
        bytes.extend(&self.payload);
        if summed {
            let sum = pseudo(self.src.ip(), self.dst.ip(), self.protocol(), bytes.len()) + sum(&bytes);
            let checksum = match !folded(sum) {
                0 if self.protocol() == 17 => 0xffff,
                checksum => checksum,
            };
            put(&mut bytes, at, checksum);
        }
        bytes
    }
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

/// Overwrites two bytes; nothing when they are not there.
pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The two bytes at an offset; 0 where the frame has ended.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> u16 {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    u16::from_be_bytes([byte(at), byte(at + 1)])
}

/// Sum of big-endian words, an odd byte padded.
fn sum(bytes: &[u8]) -> u64 {
    (0..bytes.len()).step_by(2).map(|at| u64::from(word(bytes, at))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    sum(&octets(src)) + sum(&octets(dst)) + u64::from(protocol) + len as u64
}

fn ethernet(ipv6: bool, tags: &[u16]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (number, tag) in (7_u16..).zip(tags) {
        frame.extend([tag.to_be_bytes(), number.to_be_bytes()].concat());
    }
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame
}

/// An IP packet around `payload`.
fn ip(src: IpAddr, dst: IpAddr, next: u8, payload: &[u8], ttl: u8, id: u16, options: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    if src.is_ipv6() {
        packet.extend([0x60, 0x0a, 0xbc, 0xde]);
        packet.extend(length(payload.len()));
        packet.extend([next, ttl]);
        packet.extend([octets(src), octets(dst)].concat());
    } else {
        let header = 20 + usize::from(options) * 4;
        packet.extend([0x45 + options, 0]);
        packet.extend(length(header + payload.len()));
        packet.extend(id.to_be_bytes());
        packet.extend([0x40, 0, ttl, next, 0, 0]);
        packet.extend([octets(src), octets(dst)].concat());
        packet.extend(vec![1; usize::from(options) * 4]); // No operation.
        let checksum = !folded(sum(&packet));
        put(&mut packet, 10, checksum);
    }
    packet.extend(payload);
    packet
}

/// An ICMP error from `from` to `to` that quotes the IP packet `quoted`.
#[must_use]
pub fn icmp_error(from: IpAddr, to: IpAddr, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 1, 0, 0, 0, 0, 5, 0];
    message.extend(quoted);
    let (protocol, extra) = if from.is_ipv6() { (58, pseudo(from, to, 58, message.len())) } else { (1, 0) };
    let checksum = !folded(extra + sum(&message));
    put(&mut message, 2, checksum);
    let mut frame = ethernet(from.is_ipv6(), &[]);
    frame.extend(ip(from, to, protocol, &message, 63, 0x77, 0));
    frame
}

/// What a frame is, read by other code than the parser's: where its layers start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// IP header.
    pub l3: usize,
    /// Transport header, or what a later fragment has in its place.
    pub l4: usize,
    /// Transport protocol.
    pub protocol: u8,
    /// IPv6?
    pub ipv6: bool,
    /// A fragment, first or later?
    pub fragment: bool,
}

/// The layers of a well-formed frame.
#[must_use]
pub fn layers(frame: &[u8]) -> Option<Layers> {
    let mut l3 = 14;
    while matches!(word(frame, l3 - 2), 0x8100 | 0x88a8) {
        l3 += 4;
    }
    let byte = |at: usize| frame.get(at).copied();
    match word(frame, l3 - 2) {
        0x0800 => Some(Layers {
            l3,
            l4: l3 + usize::from(byte(l3)? & 15) * 4,
            protocol: byte(l3 + 9)?,
            ipv6: false,
            fragment: word(frame, l3 + 6) & 0x3fff != 0,
        }),
        0x86dd => {
            let (mut l4, mut protocol, mut fragment, mut later) = (l3 + 40, byte(l3 + 6)?, false, false);
            while !later && matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135) {
                let len = usize::from(byte(l4 + 1)?);
                if protocol == 44 {
                    fragment = word(frame, l4 + 2) & 0xfff9 != 0;
                    later = word(frame, l4 + 2) & 0xfff8 != 0; // What follows is not a header.
                }
                let step = match protocol {
                    44 => 8,
                    51 => len * 4 + 8,
                    _ => len * 8 + 8,
                };
                protocol = byte(l4)?;
                l4 += step;
            }
            Some(Layers { l3, l4, protocol, ipv6: true, fragment })
        }
        _ => None,
    }
}

/// What is wrong with the checksums of a well-formed frame; `None`: nothing. A fragment's transport is not looked at.
#[must_use]
pub fn fault(frame: &[u8]) -> Option<&'static str> {
    let Some(Layers { l3, l4, protocol, ipv6, fragment }) = layers(frame) else {
        return Some("not an IP frame");
    };
    let end = if ipv6 { l3 + 40 + usize::from(word(frame, l3 + 4)) } else { l3 + usize::from(word(frame, l3 + 2)) };
    if !ipv6 && folded(sum(frame.get(l3..l4)?)) != 0xffff {
        return Some("IPv4 header checksum");
    }
    let Some(segment) = frame.get(l4..end) else {
        return Some("shorter than it says");
    };
    let (from, len) = if ipv6 { (l3 + 8, 32) } else { (l3 + 12, 8) };
    let ends = sum(frame.get(from..from + len)?) + u64::from(protocol) + segment.len() as u64;
    let total = match protocol {
        _ if fragment => return None,
        17 if word(segment, 6) == 0 => return None,
        1 => sum(segment),
        6 | 17 | 58 => sum(segment) + ends,
        _ => return Some("unknown transport"),
    };
    (folded(total) != 0xffff).then_some("transport checksum")
}

/// Cuts a frame's IP payload after `first` bytes (a multiple of 8) into two fragments.
#[must_use]
pub fn fragments(frame: &[u8], first: usize, id: u32) -> Option<[Vec<u8>; 2]> {
    let Layers { l3, ipv6, .. } = layers(frame)?;
    let header = if ipv6 { 40 } else { layers(frame)?.l4 - l3 };
    let (head, payload) = frame.split_at_checked(l3 + header)?;
    let (one, two) = payload.split_at_checked(first)?;
    let part = |bytes: &[u8], offset: usize, more: u16| {
        let mut part = head.to_vec();
        let offset = u16::try_from(offset).unwrap_or(0);
        if ipv6 {
            let extra = 8 + bytes.len();
            part.get_mut(l3 + 4..l3 + 6)?.copy_from_slice(&length(extra));
            let next = core::mem::replace(part.get_mut(l3 + 6)?, 44);
            part.extend([next, 0]);
            part.extend((offset | more).to_be_bytes());
            part.extend(id.to_be_bytes());
        } else {
            put(&mut part, l3 + 2, u16::from_be_bytes(length(header + bytes.len())));
            put(&mut part, l3 + 4, u16::try_from(id & 0xffff).unwrap_or(0));
            put(&mut part, l3 + 6, (offset / 8) | (more << 13));
            put(&mut part, l3 + 10, 0);
            let checksum = !folded(sum(part.get(l3..)?));
            put(&mut part, l3 + 10, checksum);
        }
        part.extend(bytes);
        Some(part)
    };
    Some([part(one, 0, 1)?, part(two, first, 0)?])
}

#[cfg(test)]
mod tests;
