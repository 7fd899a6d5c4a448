//! Frames as XDP and TC see them: the only pointer arithmetic of the kernel side.
#![expect(clippy::cast_possible_truncation, reason = "offsets and lengths of frames are below 2³²")]
use core::mem::offset_of;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use canary_common::{
    abi::Addr,
    packet::{Packet, Wire},
    rewrite::{Flavour, Frame},
};

/// Headers lie below this offset (`canary_common::packet` reads at most 6 extension headers of 2 KiB, and 2 quoted ones).
/// The mask changes nothing; it is the bound that the verifier asks for.
const REACH: usize = 0x7fff;

#[inline(always)]
fn at(start: usize, end: usize, offset: usize, size: usize) -> Option<usize> {
    let at = start + (offset & REACH);
    if at + size > end { None } else { Some(at) }
}

/// Reads one of a context's two packet pointers, `OFFSET` bytes into it.
///
/// In the context they are numbers of 32 bits, that the kernel turns into pointers as they are loaded. By a load of 32
/// bits LLVM is free to widen the number with an instruction that makes the pointer a number again to the verifier.
///
/// # Safety
/// `ctx` is the program's context, and its field at `OFFSET` is `data` or `data_end`.
#[inline(always)]
unsafe fn packet_pointer<C, const OFFSET: usize>(ctx: *mut C) -> usize {
    let pointer: usize;
    // SAFETY: reads the field only.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            ctx = in(reg) ctx,
            offset = const OFFSET,
            pointer = lateout(reg) pointer,
            options(pure, readonly, nostack),
        );
    }
    pointer
}

/// A frame in XDP: read and written where it lies. Checksums are complete there, as hardware delivers them.
pub(crate) struct XdpFrame {
    start: usize,
    end: usize,
}

impl XdpFrame {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        // SAFETY: a valid context, and these fields.
        unsafe {
            Self {
                start: packet_pointer::<_, { offset_of!(xdp_md, data) }>(ctx.ctx),
                end: packet_pointer::<_, { offset_of!(xdp_md, data_end) }>(ctx.ctx),
            }
        }
    }
}

impl Packet for XdpFrame {
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let at = at(self.start, self.end, offset, size_of::<T>())?;
        // SAFETY: inside the frame (checked just now), any bit pattern is a `T`, unaligned read.
        Some(unsafe { (at as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        let at = at(self.start, self.end, offset, size_of::<T>())?;
        // SAFETY: inside the frame (checked just now), unaligned write.
        unsafe { (at as *mut T).write_unaligned(value) };
        Some(())
    }
}

/// A frame in TC: read where it lies, written by helpers, which know about unfinished checksums and shared data.
pub(crate) struct TcFrame {
    skb: *mut __sk_buff,
}

/// Headers to pull into the linear part: Ethernet, two tags, IPv6, extensions, TCP.
const HEADERS: u32 = 128;

impl TcFrame {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T) -> Option<()> {
        let size = size_of::<T>() as u32;
        // SAFETY: the helper checks the bounds; headers and integers are initialized and without padding.
        let done = unsafe { bpf_skb_store_bytes(self.skb, offset as u32, core::ptr::from_ref(value).cast(), size, 0) };
        if done == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: a valid context, and these fields.
        unsafe {
            (
                packet_pointer::<_, { offset_of!(__sk_buff, data) }>(self.skb),
                packet_pointer::<_, { offset_of!(__sk_buff, data_end) }>(self.skb),
            )
        }
    }
}

impl Packet for TcFrame {
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let (start, end) = self.bounds();
        let at = at(start, end, offset, size_of::<T>())?;
        // SAFETY: inside the linear part (checked just now), any bit pattern is a `T`, unaligned read.
        Some(unsafe { (at as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: a valid context.
        unsafe { (*self.skb).len }
    }
}

/// `BPF_F_IPV6` of `bpf_l4_csum_replace`: newer than the bindings, and older kernels refuse it.
const BPF_F_IPV6: u64 = 1 << 7;

impl Frame for TcFrame {
    const PEERS: bool = true;

    #[inline(always)]
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        self.store(offset, &value)
    }

    /// Not at once for every frame: where data lies apart from the headers, as what this host sends does, pulling some
    /// of it in means to allocate and to copy.
    #[inline(always)]
    fn gather(&mut self) {
        let (start, end) = self.bounds();
        let wanted = if self.len() < HEADERS { self.len() } else { HEADERS };
        if start + wanted as usize > end {
            // SAFETY: a valid context. When it fails the parser finds the frame truncated.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// LLVM would write an address to the stack by eights, but aligned to four, which the verifier refuses.
    #[inline(always)]
    fn write_addr(&mut self, offset: usize, addr: &Addr) -> Option<()> {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.store(offset, &pair(addr[0], addr[1]))?;
        self.store(offset + size_of::<u64>(), &pair(addr[2], addr[3]))
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) {
        // SAFETY: a valid context; the helper checks the length, and a frame that it leaves as it was is valid too.
        unsafe { bpf_skb_change_tail(self.skb, len as u32, 0) };
    }

    #[inline(always)]
    fn fix_header(&mut self, offset: usize, diff: u32) -> Option<()> {
        // SAFETY: the helper checks the bounds. Size 0: `to` is a difference of sums.
        let done = unsafe { bpf_l3_csum_replace(self.skb, offset as u32, 0, u64::from(diff), 0) };
        if done == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn fix_transport(&mut self, offset: usize, pseudo: u32, data: u32, flavour: Flavour) -> Option<()> {
        let mangled = if flavour.udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let offset = offset as u32;
        if pseudo != 0 {
            let flags = mangled | u64::from(BPF_F_PSEUDO_HDR);
            // SAFETY: the helper checks the bounds.
            let replace = |flags| unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(pseudo), flags) };
            // With IPv6, addresses and checksum cancel out in the sum of the whole frame: the kernel has to know.
            let refused = !flavour.ipv6 || replace(flags | BPF_F_IPV6) != 0;
            if refused && replace(flags) != 0 {
                return None;
            }
        }
        // SAFETY: the helper checks the bounds.
        let done = unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(data), mangled) };
        if done == 0 { Some(()) } else { None }
    }
}
