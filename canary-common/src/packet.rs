//! From a frame to the flow that it belongs to: one parser for XDP, TC and the host.
//!
//! Ethernet, up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with up to six extension headers, TCP, UDP,
//! and the packet that an ICMP error quotes. Whole headers are read: a header that is cut is [`Leave::Truncated`].
use crate::{
    abi::{Addr, FlowKey, FragmentKey, MAPPED, mapped},
    verdict::Leave,
};

/// A header as it lies on the wire: `repr(C)`, no padding, every bit pattern valid.
///
/// # Safety
/// Exactly that; implementors are read from untrusted bytes.
pub unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),* }
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$ty>())*);
        // SAFETY: `repr(C)`, no padding (asserted), integer fields only.
        unsafe impl Wire for $name {}
    )*};
}

wire! {
    /// Ethernet: addresses in 16-bit words, because a frame is aligned to two bytes at best.
    struct Ethernet { addrs: [u16; 6], kind_be: u16 }
    /// What follows the `EtherType` of a VLAN tag.
    struct Vlan { tci_be: u16, kind_be: u16 }
    struct Ipv4 {
        version_ihl: u8, tos: u8, len_be: u16, id_be: u16, fragment_be: u16,
        ttl: u8, protocol: u8, checksum: u16, src_be: u32, dst_be: u32,
    }
    struct Ipv6 { version: u32, len_be: u16, next: u8, hops: u8, src_be: [u32; 4], dst_be: [u32; 4] }
    struct Extension { next: u8, len: u8, rest_be: u16, id_be: u32 }
    struct Tcp {
        src_be: u16, dst_be: u16, seq_be: u32, ack_be: u32,
        offset: u8, flags: u8, window_be: u16, checksum: u16, urgent_be: u16,
    }
    struct Udp { src_be: u16, dst_be: u16, len_be: u16, checksum: u16 }
    struct Icmp { kind: u8, code: u8, checksum: u16, rest: u32 }
}

// SAFETY: integers have no padding, and every bit pattern is one.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above; arrays of them have no padding either.
unsafe impl Wire for [u32; 4] {}
// SAFETY: as above.
unsafe impl Wire for [u16; 6] {}

/// A frame that can be read with bounds checks.
pub trait Packet {
    /// The header at `offset`, or `None` when the frame ends before it does.
    fn read<T: Wire>(&self, offset: usize) -> Option<T>;

    /// Length of the whole frame in bytes.
    fn len(&self) -> u32;

    /// A frame of no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Packet for [u8] {
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` has the size of `T`, any bit pattern is a `T`, and the read is unaligned.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn len(&self) -> u32 {
        u32::try_from(<[u8]>::len(self)).unwrap_or(u32::MAX)
    }
}

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();
pub(crate) const ETHERNET: usize = size_of::<Ethernet>();

/// TCP flags, in the byte that holds them.
pub mod tcp {
    /// No more data from this side.
    pub const FIN: u8 = 1;
    /// First packet of a connection.
    pub const SYN: u8 = 2;
    /// The connection is gone.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP or UDP packet of the flow `key`.
    Flow,
    /// The first fragment of one.
    FirstFragment,
    /// A later fragment: ports in `key` are zero.
    LaterFragment,
    /// An ICMP error; `key` is the flow in the direction against the packet that it quotes.
    IcmpError,
}

/// The part of a frame that routing looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// What it is about.
    pub kind: Kind,
    /// Addresses are 16 bytes, not 4.
    pub ipv6: bool,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP, UDP or ICMP header.
    pub l4: usize,
    /// Flow, source and destination as in this packet (ICMP errors: see [`Kind::IcmpError`]).
    pub key: FlowKey,
    /// TCP flags; 0 for others.
    pub flags: u8,
    /// Identification of a fragmented datagram.
    pub fragment_id: u32,
    /// ICMP errors: offset of the quoted IP header.
    pub inner_l3: usize,
    /// ICMP errors: offset of the quoted TCP or UDP header.
    pub inner_l4: usize,
}

/// An IP header and what comes after it.
struct Ip {
    ipv6: bool,
    src: Addr,
    dst: Addr,
    protocol: u8,
    next: usize,
    later_fragment: bool,
    more_fragments: bool,
    id: u32,
}

/// Headers of a frame, by the short way where it is the usual packet.
///
/// # Errors
/// Why the frame is nobody's flow.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Headers, Leave> {
    let ethernet: Ethernet = packet.read(0).ok_or(Leave::Truncated)?;
    let mut kind = ethernet.kind_be;
    let mut l3 = ETHERNET;
    for _ in 0..2 {
        if kind != ETHERTYPE_VLAN && kind != ETHERTYPE_QINQ {
            break;
        }
        let tag: Vlan = packet.read(l3).ok_or(Leave::Truncated)?;
        kind = tag.kind_be;
        l3 += size_of::<Vlan>();
    }
    let ip = match kind {
        ETHERTYPE_IPV4 => ipv4(packet, l3)?,
        ETHERTYPE_IPV6 => ipv6::<P, 6>(packet, l3)?,
        _ => return Err(Leave::NotIp),
    };
    let mut headers = Headers {
        kind: Kind::Flow,
        ipv6: ip.ipv6,
        l3,
        l4: ip.next,
        key: key(&ip, 0, 0),
        flags: 0,
        fragment_id: ip.id,
        inner_l3: 0,
        inner_l4: 0,
    };
    if ip.later_fragment {
        headers.kind = Kind::LaterFragment;
        return Ok(headers);
    }
    match ip.protocol {
        TCP => {
            let tcp: Tcp = packet.read(ip.next).ok_or(Leave::Truncated)?;
            headers.flags = tcp.flags;
            headers.key = key(&ip, tcp.src_be, tcp.dst_be);
        }
        UDP => {
            let udp: Udp = packet.read(ip.next).ok_or(Leave::Truncated)?;
            headers.key = key(&ip, udp.src_be, udp.dst_be);
        }
        ICMP if !ip.ipv6 => return icmp_error(packet, headers),
        ICMP6 if ip.ipv6 => return icmp_error(packet, headers),
        _ => return Err(Leave::NotTcpOrUdp),
    }
    if ip.more_fragments {
        headers.kind = Kind::FirstFragment;
    }
    Ok(headers)
}

/// The short way: Ethernet, IPv4 without options or fragments, TCP or UDP. `None`: take the long one.
/// Agrees with [`parse`] wherever it answers (a property test).
#[inline(always)]
pub fn parse_fast<P: Packet + ?Sized>(packet: &P) -> Option<Headers> {
    let ethernet: Ethernet = packet.read(0)?;
    if ethernet.kind_be != ETHERTYPE_IPV4 {
        return None;
    }
    let ip: Ipv4 = packet.read(ETHERNET)?;
    if ip.version_ihl != 0x45 || ip.fragment_be & 0x3fff_u16.to_be() != 0 {
        return None;
    }
    let l4 = ETHERNET + size_of::<Ipv4>();
    let (src_port_be, dst_port_be, flags) = match ip.protocol {
        TCP => {
            let tcp: Tcp = packet.read(l4)?;
            (tcp.src_be, tcp.dst_be, tcp.flags)
        }
        UDP => {
            let udp: Udp = packet.read(l4)?;
            (udp.src_be, udp.dst_be, 0)
        }
        _ => return None,
    };
    Some(Headers {
        kind: Kind::Flow,
        ipv6: false,
        l3: ETHERNET,
        l4,
        key: FlowKey {
            src_be: mapped(ip.src_be),
            dst_be: mapped(ip.dst_be),
            src_port_be,
            dst_port_be,
            protocol: ip.protocol,
            pad: 0,
            zero: 0,
        },
        flags,
        fragment_id: 0,
        inner_l3: 0,
        inner_l4: 0,
    })
}

/// Is this IPv6 without tags and extension headers, whose headers are all within reach?
#[inline(always)]
pub fn plain_ipv6<P: Packet + ?Sized>(packet: &P) -> bool {
    packet.read(0).is_some_and(|ethernet: Ethernet| ethernet.kind_be == ETHERTYPE_IPV6)
        && packet.read(ETHERNET).is_some_and(|ip: Ipv6| matches!(ip.next, TCP | UDP))
        // TCP's header is the longer one: a short UDP packet is gathered to no purpose.
        && packet.read::<Tcp>(ETHERNET + size_of::<Ipv6>()).is_some()
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, l3: usize) -> Result<Ip, Leave> {
    let ip: Ipv4 = packet.read(l3).ok_or(Leave::Truncated)?;
    let ihl = usize::from(ip.version_ihl & 15) * 4;
    if ip.version_ihl >> 4 != 4 || ihl < size_of::<Ipv4>() {
        return Err(Leave::NotIp);
    }
    let fragment = u16::from_be(ip.fragment_be);
    let fragmented = fragment & 0x3fff != 0;
    Ok(Ip {
        ipv6: false,
        src: mapped(ip.src_be),
        dst: mapped(ip.dst_be),
        protocol: ip.protocol,
        next: l3 + ihl,
        later_fragment: fragment & 0x1fff != 0,
        more_fragments: fragment & 0x2000 != 0,
        id: if fragmented { u32::from(ip.id_be) } else { 0 },
    })
}

#[inline(always)]
const fn is_mapped(addr: &Addr) -> bool {
    addr[0] | addr[1] | (addr[2] ^ MAPPED) == 0
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized, const EXTENSIONS: usize>(packet: &P, l3: usize) -> Result<Ip, Leave> {
    let header: Ipv6 = packet.read(l3).ok_or(Leave::Truncated)?;
    // Mapped addresses never appear on a wire; here they would pass for IPv4 services and flows.
    if is_mapped(&header.src_be) || is_mapped(&header.dst_be) {
        return Err(Leave::NotIp);
    }
    let mut ip = Ip {
        ipv6: true,
        src: header.src_be,
        dst: header.dst_be,
        protocol: header.next,
        next: l3 + size_of::<Ipv6>(),
        later_fragment: false,
        more_fragments: false,
        id: 0,
    };
    for _ in 0..=EXTENSIONS {
        match ip.protocol {
            // Hop-by-hop, routing, destination options, mobility: length in units of 8 bytes, the first not counted.
            0 | 43 | 60 | 135 => {
                let extension: Extension = packet.read(ip.next).ok_or(Leave::Truncated)?;
                ip.protocol = extension.next;
                ip.next += usize::from(extension.len) * 8 + 8;
            }
            // Authentication: in units of 4 bytes, the first two not counted.
            51 => {
                let extension: Extension = packet.read(ip.next).ok_or(Leave::Truncated)?;
                ip.protocol = extension.next;
                ip.next += usize::from(extension.len) * 4 + 8;
            }
            44 => {
                let extension: Extension = packet.read(ip.next).ok_or(Leave::Truncated)?;
                let offset = u16::from_be(extension.rest_be);
                ip.protocol = extension.next;
                ip.next += size_of::<Extension>();
                ip.more_fragments = offset & 1 != 0;
                ip.id = extension.id_be;
                if offset & 0xfff8 != 0 {
                    ip.later_fragment = true;
                    return Ok(ip);
                }
            }
            _ => return Ok(ip),
        }
    }
    Err(Leave::ExtensionHeaders)
}

/// An error quotes the packet that caused it; the flow is known under the key of the other direction.
#[inline(always)]
fn icmp_error<P: Packet + ?Sized>(packet: &P, mut headers: Headers) -> Result<Headers, Leave> {
    let icmp: Icmp = packet.read(headers.l4).ok_or(Leave::Truncated)?;
    let inner_l3 = headers.l4 + size_of::<Icmp>();
    let inner = if headers.ipv6 {
        // Unreachable, too big, time exceeded, parameter problem.
        if !matches!(icmp.kind, 1..=4) {
            return Err(Leave::NotTcpOrUdp);
        }
        ipv6::<P, 2>(packet, inner_l3)?
    } else {
        if !matches!(icmp.kind, 3 | 4 | 11 | 12) {
            return Err(Leave::NotTcpOrUdp);
        }
        ipv4(packet, inner_l3)?
    };
    if inner.later_fragment || !matches!(inner.protocol, TCP | UDP) {
        return Err(Leave::UnknownIcmp);
    }
    // Eight bytes are all that an error must quote of the transport header (RFC 792), so both are read as UDP.
    let ports: Udp = packet.read(inner.next).ok_or(Leave::Truncated)?;
    headers.kind = Kind::IcmpError;
    headers.inner_l3 = inner_l3;
    headers.inner_l4 = inner.next;
    headers.key = FlowKey {
        src_be: inner.dst,
        dst_be: inner.src,
        src_port_be: ports.dst_be,
        dst_port_be: ports.src_be,
        protocol: inner.protocol,
        pad: 0,
        zero: 0,
    };
    Ok(headers)
}

#[inline(always)]
fn key(ip: &Ip, src_port_be: u16, dst_port_be: u16) -> FlowKey {
    FlowKey { src_be: ip.src, dst_be: ip.dst, src_port_be, dst_port_be, protocol: ip.protocol, pad: 0, zero: 0 }
}

impl Headers {
    /// Key under which the fragments of this datagram find each other.
    #[inline(always)]
    #[must_use]
    pub fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            src_be: self.key.src_be,
            dst_be: self.key.dst_be,
            id_be: self.fragment_id,
            // IPv6 tells datagrams apart by addresses and identification alone (RFC 8200, §4.5): which extension header
            // comes next in a later fragment says nothing about the transport.
            protocol: if self.ipv6 { 0 } else { u32::from(self.key.protocol) },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
