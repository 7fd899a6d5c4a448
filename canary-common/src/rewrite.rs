//! Translates packets: new destination (or source), new port, right checksums.
use crate::{
    abi::{Addr, Flow, flow_state},
    checksum::{diff_addr, diff16, diff32, fold, update},
    packet::{Headers, Ipv4, Ipv6, Packet, TCP, UDP, Wire},
    verdict::Leave,
};

/// A frame that can be rewritten.
pub trait Frame: Packet {
    /// Whether it can be put to the other end of a device.
    const PEERS: bool = false;

    /// Brings headers that lie elsewhere within reach of [`Packet::read`].
    #[inline(always)]
    fn gather(&mut self) {}

    /// Writes `value` at `offset`; `None` when the frame ends before it does.
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Writes an IPv6 address at `offset`.
    #[inline(always)]
    fn write_addr(&mut self, offset: usize, addr: &Addr) -> Option<()> {
        self.write(offset, *addr)
    }

    /// Cuts the frame after `len` bytes, where that is worth something: the IP header says where a packet ends, but a
    /// super-packet would be cut to pieces on its way out.
    #[inline(always)]
    fn cut(&mut self, _len: usize) {}

    /// Brings the IPv4 header checksum at `offset` up to date: what it covers changed by `diff`.
    #[inline(always)]
    fn fix_header(&mut self, offset: usize, diff: u32) -> Option<()> {
        let checksum: u16 = self.read(offset)?;
        self.write(offset, update(checksum, diff))
    }

    /// Brings a TCP, UDP or ICMP checksum up to date: the pseudo-header changed by `pseudo`, what follows by `data`.
    /// They are apart because an unfinished checksum (`CHECKSUM_PARTIAL`) covers the pseudo-header only.
    #[inline(always)]
    fn fix_transport(&mut self, offset: usize, pseudo: u32, data: u32, flavour: Flavour) -> Option<()> {
        let checksum: u16 = self.read(offset)?;
        if flavour.udp && checksum == 0 {
            return Some(()); // The sender made none (RFC 768).
        }
        let checksum = update(checksum, pseudo + data);
        self.write(offset, if flavour.udp && checksum == 0 { 0xffff } else { checksum })
    }
}

/// What a transport checksum has to know of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavour {
    /// Zero means that there is none.
    pub udp: bool,
    /// The pseudo-header is IPv6's.
    pub ipv6: bool,
}

impl Frame for [u8] {
    const PEERS: bool = true;

    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        let bytes = self.get_mut(offset..)?.get_mut(..size_of::<T>())?;
        // SAFETY: `bytes` has the size of `T`, and the write is unaligned.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Some(())
    }
}

const IPV4_CHECKSUM: usize = 10;

#[inline(always)]
const fn addr_offset(headers: &Headers, source: bool) -> usize {
    headers.l3
        + match (headers.ipv6, source) {
            (false, true) => 12,
            (false, false) => 16,
            (true, true) => 8,
            (true, false) => 24,
        }
}

#[inline(always)]
const fn addr_diff(ipv6: bool, from: &Addr, to: &Addr) -> u32 {
    if ipv6 { diff_addr(from, to) } else { diff32(from[3], to[3]) }
}

/// Writes an address into an IP header at its `offset`.
#[inline(always)]
fn put_addr<F: Frame + ?Sized>(frame: &mut F, ipv6: bool, offset: usize, addr: &Addr) -> Option<()> {
    if ipv6 { frame.write_addr(offset, addr) } else { frame.write(offset, addr[3]) }
}

/// Applies `flow` to a packet of it.
///
/// # Errors
/// [`Leave::Rewrite`] when the frame cannot be written.
#[inline(always)]
pub fn translate<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow) -> Result<(), Leave> {
    packet(frame, headers, flow).ok_or(Leave::Rewrite)
}

#[inline(always)]
fn packet<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow) -> Option<()> {
    let source = flow.state & flow_state::REPLY != 0;
    let key = &headers.key;
    let (old_addr, old_port) = if source { (key.src_be, key.src_port_be) } else { (key.dst_be, key.dst_port_be) };
    let pseudo = addr_diff(headers.ipv6, &old_addr, &flow.addr_be);
    let data = diff16(old_port, flow.port_be);
    let udp = key.protocol == UDP;
    let checksum = headers.l4 + if udp { 6 } else { 16 };
    frame.fix_transport(checksum, pseudo, data, Flavour { udp, ipv6: headers.ipv6 })?;
    frame.write(headers.l4 + if source { 0 } else { 2 }, flow.port_be)?;
    if !headers.ipv6 {
        frame.fix_header(headers.l3 + IPV4_CHECKSUM, pseudo)?;
    }
    put_addr(frame, headers.ipv6, addr_offset(headers, source), &flow.addr_be)
}

/// Applies `flow` to a later fragment: it has no ports and no transport checksum.
///
/// # Errors
/// [`Leave::Rewrite`] when the frame cannot be written.
#[inline(always)]
pub fn translate_fragment<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow) -> Result<(), Leave> {
    later_fragment(frame, headers, flow).ok_or(Leave::Rewrite)
}

#[inline(always)]
fn later_fragment<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow) -> Option<()> {
    let source = flow.state & flow_state::REPLY != 0;
    let old_addr = if source { headers.key.src_be } else { headers.key.dst_be };
    if !headers.ipv6 {
        frame.fix_header(headers.l3 + IPV4_CHECKSUM, addr_diff(false, &old_addr, &flow.addr_be))?;
    }
    put_addr(frame, headers.ipv6, addr_offset(headers, source), &flow.addr_be)
}

/// Applies to an ICMP error what `flow` does to packets *against* the one that it quotes: an error about an answer goes
/// to the endpoint, one about a client's packet says that it was about the virtual address.
///
/// # Errors
/// [`Leave::UnknownIcmp`] when the error is not addressed to the sender of what it quotes; [`Leave::Rewrite`].
#[inline(always)]
pub fn translate_icmp<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow) -> Result<(), Leave> {
    let (src, dst) = outer(frame, headers).ok_or(Leave::Rewrite)?;
    if dst != headers.key.dst_be {
        return Err(Leave::UnknownIcmp);
    }
    icmp(frame, headers, flow, &src).ok_or(Leave::Rewrite)
}

#[inline(always)]
fn outer<F: Frame + ?Sized>(frame: &F, headers: &Headers) -> Option<(Addr, Addr)> {
    if headers.ipv6 {
        let ip: Ipv6 = frame.read(headers.l3)?;
        Some((ip.src_be, ip.dst_be))
    } else {
        let ip: Ipv4 = frame.read(headers.l3)?;
        Some((crate::abi::mapped(ip.src_be), crate::abi::mapped(ip.dst_be)))
    }
}

#[inline(always)]
fn icmp<F: Frame + ?Sized>(frame: &mut F, headers: &Headers, flow: &Flow, outer_src: &Addr) -> Option<()> {
    let ipv6 = headers.ipv6;
    let key = &headers.key;
    let answer = flow.state & flow_state::REPLY != 0;
    // The quoted packet runs against `key`: what a client's packet is rewritten to stands as the quoted source.
    let (old_addr, old_port) = if answer { (key.src_be, key.src_port_be) } else { (key.dst_be, key.dst_port_be) };
    let change = addr_diff(ipv6, &old_addr, &flow.addr_be);
    let ports = diff16(old_port, flow.port_be);
    let (inner_addr, inner_port) = match (ipv6, answer) {
        (false, true) => (headers.inner_l3 + 16, headers.inner_l4 + 2),
        (false, false) => (headers.inner_l3 + 12, headers.inner_l4),
        (true, true) => (headers.inner_l3 + 24, headers.inner_l4 + 2),
        (true, false) => (headers.inner_l3 + 8, headers.inner_l4),
    };
    // The error itself: to the endpoint, or in the name of the virtual address if the endpoint sent it.
    let outer = if answer { *outer_src == old_addr } else { true };
    // An IPv4 header and its checksum change by opposite amounts, which cancel out in the ICMP checksum.
    let (pseudo, data) = match (ipv6, outer) {
        (true, true) => (change, change + ports),
        (true, false) => (0, change + ports),
        (false, _) => (0, ports),
    };
    frame.fix_transport(headers.l4 + 2, pseudo, data, Flavour { udp: false, ipv6 })?;
    if !ipv6 {
        frame.fix_header(headers.inner_l3 + IPV4_CHECKSUM, change)?;
    }
    put_addr(frame, ipv6, inner_addr, &flow.addr_be)?;
    frame.write(inner_port, flow.port_be)?;
    if !outer {
        return Some(());
    }
    if !ipv6 {
        frame.fix_header(headers.l3 + IPV4_CHECKSUM, change)?;
    }
    put_addr(frame, ipv6, addr_offset(headers, answer), &flow.addr_be)
}

/// Turns a TCP packet into the reset that answers it (RFC 9293, §3.5.2), in place: the frame keeps its length, the IP
/// header says where it ends. `None`, with the frame untouched, for packets that get none: resets, fragments, options.
#[inline(always)]
pub fn reset<F: Frame + ?Sized>(frame: &mut F, headers: &Headers) -> Option<()> {
    use crate::packet::{Kind, Tcp, tcp};
    if headers.kind != Kind::Flow || headers.key.protocol != TCP || headers.flags & tcp::RST != 0 {
        return None;
    }
    let ip_len: usize = if headers.ipv6 { 40 } else { 20 };
    if headers.l4 != headers.l3 + ip_len {
        return None;
    }
    let old: Tcp = frame.read(headers.l4)?;
    let total = if headers.ipv6 {
        u32::from(u16::from_be(frame.read::<Ipv6>(headers.l3)?.len_be))
    } else {
        u32::from(u16::from_be(frame.read::<Ipv4>(headers.l3)?.len_be)).wrapping_sub(20)
    };
    let payload = total.wrapping_sub(u32::from(old.offset >> 4) * 4) & 0xffff;
    let (seq_be, ack_be, flags) = if old.flags & tcp::ACK != 0 {
        (old.ack_be, 0, tcp::RST)
    } else {
        let consumed = payload + u32::from(old.flags & tcp::SYN != 0) + u32::from(old.flags & tcp::FIN != 0);
        (0, u32::from_be(old.seq_be).wrapping_add(consumed).to_be(), tcp::RST | tcp::ACK)
    };
    let mut answer = Tcp {
        src_be: old.dst_be,
        dst_be: old.src_be,
        seq_be,
        ack_be,
        offset: 5 << 4,
        flags,
        window_be: 0,
        checksum: 0,
        urgent_be: 0,
    };
    let wanted = reset_checksum(headers, &answer);
    // By a difference from the old one, the pseudo-header's part apart: an unfinished checksum stays an unfinished one.
    answer.checksum = old.checksum;
    frame.write(headers.l4, answer)?;
    #[expect(clippy::cast_possible_truncation, reason = "a length of 16 bits")]
    let pseudo = diff16((total as u16).to_be(), 20_u16.to_be());
    let data = diff16(fold(u32::from(!old.checksum) + pseudo), !wanted);
    frame.fix_transport(headers.l4 + 16, pseudo, data, Flavour { udp: false, ipv6: headers.ipv6 })?;
    if headers.ipv6 {
        let ip: Ipv6 = frame.read(headers.l3)?;
        let back = Ipv6 { len_be: 20_u16.to_be(), hops: 64, src_be: ip.dst_be, dst_be: ip.src_be, ..ip };
        frame.write(headers.l3, back)?;
    } else {
        let ip: Ipv4 = frame.read(headers.l3)?;
        let mut back = Ipv4 { len_be: 40_u16.to_be(), ttl: 64, src_be: ip.dst_be, dst_be: ip.src_be, ..ip };
        let lengths = diff16(ip.len_be, back.len_be);
        let lives = diff16(u16::from_be_bytes([ip.ttl, 0]).to_be(), u16::from_be_bytes([64, 0]).to_be());
        back.checksum = update(ip.checksum, lengths + lives);
        frame.write(headers.l3, back)?;
    }
    let mac: [u16; 6] = frame.read(0)?;
    frame.write(0, [mac[3], mac[4], mac[5], mac[0], mac[1], mac[2]])?;
    frame.cut(headers.l4 + size_of::<Tcp>());
    Some(())
}

/// A checksum from scratch: the pseudo-header (the same both ways) and a header without options or data.
#[inline(always)]
fn reset_checksum(headers: &Headers, tcp: &crate::packet::Tcp) -> u16 {
    let key = &headers.key;
    let words = |addr: &Addr| {
        let halves = |word: u32| (word & 0xffff) + (word >> 16);
        let tail = halves(addr[3]);
        if headers.ipv6 { halves(addr[0]) + halves(addr[1]) + halves(addr[2]) + tail } else { tail }
    };
    let pair = |a: u8, b: u8| u32::from(u16::from_ne_bytes([a, b]));
    let sum = words(&key.src_be)
        + words(&key.dst_be)
        + u32::from(u16::from(TCP).to_be())
        + u32::from(20_u16.to_be())
        + u32::from(tcp.src_be)
        + u32::from(tcp.dst_be)
        + (tcp.seq_be & 0xffff)
        + (tcp.seq_be >> 16)
        + (tcp.ack_be & 0xffff)
        + (tcp.ack_be >> 16)
        + pair(tcp.offset, tcp.flags);
    !crate::checksum::fold(sum)
}

#[cfg(test)]
mod tests;
