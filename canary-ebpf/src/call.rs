//! Calls of processes as the programs of a cgroup see them: the address of a socket, which can be replaced.
use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_socket_cookie, bpf_set_retval},
    programs::{SockAddrContext, SockOpsContext},
};
use canary_common::{
    abi::{Addr, Client, FlowKey, MAPPED, mapped},
    limits::CGROUP_DEPTH,
    packet::{TCP, UDP},
    pipeline::Process,
};

use crate::maps::CLIENTS;

/// The address that a program was called for.
pub(crate) struct Call<'a> {
    context: &'a SockAddrContext,
    v6: bool,
}

impl<'a> Call<'a> {
    /// Of an address of IPv4, or of one of IPv6.
    #[inline(always)]
    pub(crate) const fn new(context: &'a SockAddrContext, v6: bool) -> Self {
        Self { context, v6 }
    }

    #[inline(always)]
    fn addr(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    /// Address and port that the process named, or that answered it.
    #[inline(always)]
    pub(crate) fn peer(&self) -> (Addr, u16) {
        // SAFETY: a valid context; fields are read one by one, as the verifier asks for.
        unsafe {
            let addr = if self.v6 {
                let words = &raw const (*self.addr()).user_ip6;
                let word = |at: usize| words.cast::<u32>().add(at).read_volatile();
                [word(0), word(1), word(2), word(3)]
            } else {
                mapped((&raw const (*self.addr()).user_ip4).read_volatile())
            };
            #[expect(clippy::cast_possible_truncation, reason = "a port in the lower half of its word")]
            (addr, (&raw const (*self.addr()).user_port).read_volatile() as u16)
        }
    }

    /// Puts another one in its place. `false`: a socket of IPv4 has no room for that one.
    #[inline(always)]
    pub(crate) fn replace(&self, addr: &Addr, port_be: u16) -> bool {
        if !self.v6 && addr[2] != MAPPED {
            return false;
        }
        // SAFETY: as above; words are written whole.
        unsafe {
            if self.v6 {
                let words = (&raw mut (*self.addr()).user_ip6).cast::<u32>();
                words.write_volatile(addr[0]);
                words.add(1).write_volatile(addr[1]);
                words.add(2).write_volatile(addr[2]);
                words.add(3).write_volatile(addr[3]);
            } else {
                (&raw mut (*self.addr()).user_ip4).write_volatile(addr[3]);
            }
            (&raw mut (*self.addr()).user_port).write_volatile(u32::from(port_be));
        }
        true
    }

    /// TCP or UDP, if it is one of them.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> Option<u8> {
        // SAFETY: as above.
        let protocol = unsafe { (&raw const (*self.addr()).protocol).read_volatile() };
        if protocol == u32::from(TCP) {
            Some(TCP)
        } else if protocol == u32::from(UDP) {
            Some(UDP)
        } else {
            None
        }
    }

    /// Number of the socket.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: a valid context.
        unsafe { bpf_get_socket_cookie(self.context.as_ptr()) }
    }

    /// Address and port that the socket is connected to, if it is.
    #[inline(always)]
    pub(crate) fn connected(&self) -> Option<(Addr, u16)> {
        // SAFETY: as in `client`.
        unsafe {
            let socket = (&raw const (*self.addr()).__bindgen_anon_1.sk).read_volatile();
            let port_be = (&raw const (*socket).dst_port).read_volatile();
            if port_be == 0 {
                return None;
            }
            let addr = if self.v6 {
                let words = &raw const (*socket).dst_ip6;
                let word = |at: usize| words.cast::<u32>().add(at).read_volatile();
                [word(0), word(1), word(2), word(3)]
            } else {
                mapped((&raw const (*socket).dst_ip4).read_volatile())
            };
            Some((addr, port_be))
        }
    }

    /// The address that the socket is bound to, if it is. One that is not has none before the kernel has looked for a route.
    #[inline(always)]
    fn bound(&self) -> Option<Addr> {
        // SAFETY: a valid context, whose socket is never null in these programs; fields are read one by one.
        let addr = unsafe {
            let socket = (&raw const (*self.addr()).__bindgen_anon_1.sk).read_volatile();
            if self.v6 {
                let words = &raw const (*socket).src_ip6;
                let word = |at: usize| words.cast::<u32>().add(at).read_volatile();
                [word(0), word(1), word(2), word(3)]
            } else {
                mapped((&raw const (*socket).src_ip4).read_volatile())
            }
        };
        let any = addr[0] | addr[1] | addr[3] == 0 && (addr[2] == 0 || addr[2] == MAPPED);
        if any { None } else { Some(addr) }
    }
}

impl Process for Call<'_> {
    #[inline(always)]
    fn client(&self, there: &Addr) -> Option<Addr> {
        if let Some(bound) = self.bound() {
            return Some(bound);
        }
        let Client { v4_be, v6_be } = pod()?;
        let addr = if there[0] | there[1] == 0 && there[2] == MAPPED { v4_be } else { v6_be };
        if addr[0] | addr[1] | addr[2] | addr[3] == 0 { None } else { Some(addr) }
    }
}

/// The addresses of the pod that the process belongs to: processes of a pod are in cgroups below its own.
#[inline(always)]
fn pod() -> Option<Client> {
    for level in 1..CGROUP_DEPTH {
        // SAFETY: a helper without pointers.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return None;
        }
        // SAFETY: the map is not preallocated: an element lives as long as a program may hold it.
        if let Some(client) = unsafe { CLIENTS.get(id) } {
            return Some(*client);
        }
    }
    None
}

/// Places of addresses in the context of `sock_ops`.
const REMOTE4: usize = offset_of!(bpf_sock_ops, remote_ip4);
const LOCAL4: usize = offset_of!(bpf_sock_ops, local_ip4);
const REMOTE6: usize = offset_of!(bpf_sock_ops, remote_ip6);
const LOCAL6: usize = offset_of!(bpf_sock_ops, local_ip6);

/// Reads a field of the context, by one instruction with a constant place: LLVM would compute the place of one of two words,
/// and the verifier takes no pointer into a context that was computed.
macro_rules! read {
    ($width:literal, $context:expr, $at:expr) => {{
        let value: u64;
        // SAFETY: a valid context, and a field of it.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(", $width, " *)({context} + {at})"),
                context = in(reg) $context.ops,
                value = lateout(reg) value,
                at = const $at,
                options(pure, readonly, nostack),
            );
        }
        value
    }};
}

/// A field of four bytes.
#[inline(always)]
pub(crate) fn field<const AT: usize>(context: &SockOpsContext) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "32 bits are read")]
    let word = read!("u32", context, AT) as u32;
    word
}

/// A field of eight bytes.
#[inline(always)]
pub(crate) fn field64<const AT: usize>(context: &SockOpsContext) -> u64 {
    read!("u64", context, AT)
}

/// A TCP socket whose SYN is about to leave.
pub(crate) struct Connecting<'a> {
    context: &'a SockOpsContext,
    v6: bool,
}

impl<'a> Connecting<'a> {
    /// One, if that is what is told.
    #[inline(always)]
    pub(crate) fn new(context: &'a SockOpsContext) -> Option<Self> {
        const INET6: u32 = 10;
        (context.op() == BPF_SOCK_OPS_TCP_CONNECT_CB).then_some(())?;
        let word = [field::<REMOTE6>(context), field::<{ REMOTE6 + 4 }>(context), field::<{ REMOTE6 + 8 }>(context)];
        let mapped = word[0] | word[1] == 0 && word[2] == MAPPED;
        Some(Self { context, v6: context.family() == INET6 && !mapped })
    }

    /// Number of the socket.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: a valid context.
        unsafe { bpf_get_socket_cookie(self.context.as_ptr()) }
    }

    /// The key of the answers that it waits for.
    #[inline(always)]
    pub(crate) fn answers(&self) -> FlowKey {
        let context = self.context;
        let (src_be, dst_be) = if self.v6 {
            let remote = [field::<REMOTE6>(context), field::<{ REMOTE6 + 4 }>(context)];
            let remote = [remote[0], remote[1], field::<{ REMOTE6 + 8 }>(context), field::<{ REMOTE6 + 12 }>(context)];
            let local = [field::<LOCAL6>(context), field::<{ LOCAL6 + 4 }>(context)];
            let local = [local[0], local[1], field::<{ LOCAL6 + 8 }>(context), field::<{ LOCAL6 + 12 }>(context)];
            (remote, local)
        } else {
            (mapped(field::<REMOTE4>(context)), mapped(field::<LOCAL4>(context)))
        };
        #[expect(clippy::cast_possible_truncation, reason = "ports: this one in the upper half, that one in the lower")]
        let (remote, local) = ((self.context.remote_port() >> 16) as u16, self.context.local_port() as u16);
        FlowKey { src_be, dst_be, src_port_be: remote, dst_port_be: local.to_be(), protocol: TCP, pad: 0, zero: 0 }
    }
}

/// Makes the call of the process fail with ECONNREFUSED, as a reset does to whoever connects.
#[inline(always)]
pub(crate) fn refuse() {
    const REFUSED: i32 = -111;
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(REFUSED) };
}
