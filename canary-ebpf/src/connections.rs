//! What becomes of the TCP connections that processes have made to endpoints: counted when they begin, are established and end,
//! which costs their packets nothing.
use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::sock_ops,
    programs::SockOpsContext,
};
use canary_common::abi::{Connection, ConnectionCounts, HANDSHAKE_BUCKETS, handshake_bucket};

use crate::{
    call::{Connecting, field, field64},
    maps::{CONNECTION_COUNTS, CONNECTIONS, ENDPOINTS, OPEN_CONNECTIONS, copy, fetch_add, fetch_add_of, peer},
    sockets::back,
};

/// `TCP_CLOSE` of the kernel's states of a connection.
const CLOSED: u32 = 7;
const NANOS_PER_MICRO: u64 = 1_000;

/// A socket begins to connect, is connected, or has ended.
#[sock_ops]
pub fn canary_connections(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => begin(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => establish(&ctx),
        BPF_SOCK_OPS_STATE_CB if field::<NEW_STATE>(&ctx) == CLOSED => end(&ctx),
        _ => None,
    };
    1
}

/// The second argument of `BPF_SOCK_OPS_STATE_CB`.
const NEW_STATE: usize = offset_of!(bpf_sock_ops, __bindgen_anon_1) + size_of::<u32>();

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: a valid context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Adds to a counter of a version.
macro_rules! add {
    ($counts:ident.$field:ident, $value:expr) => {
        // SAFETY: `counts` is from a lookup; the field is aligned, and added to in one instruction.
        fetch_add_of(unsafe { &raw mut (*$counts).$field }, $value)
    };
}

/// Notes a connection to an endpoint that was chosen for the socket.
#[inline(always)]
fn begin(ctx: &SockOpsContext) -> Option<()> {
    let peer = peer(&back(&Connecting::new(ctx)?))?;
    let endpoint = copy(&ENDPOINTS, peer.endpoint)?;
    (endpoint.generation == peer.generation).then_some(())?;
    let (cookie, version) = (cookie(ctx), endpoint.version);
    let begun =
        Connection { begun: now(), version, endpoint: peer.endpoint, generation: peer.generation, established: 0 };
    // While an agent replaces another's program both run: one of them counts.
    CONNECTIONS.insert(cookie, begun, BPF_NOEXIST.into()).ok()?;
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags.cast_signed()).is_err() {
        let _ = CONNECTIONS.remove(cookie); // Nobody would tell its end.
        return None;
    }
    let counts = CONNECTION_COUNTS.get_ptr_mut(version)?;
    add!(counts.begun, 1);
    Some(())
}

/// The endpoint has answered.
#[inline(always)]
fn establish(ctx: &SockOpsContext) -> Option<()> {
    let known = CONNECTIONS.get_ptr_mut(cookie(ctx))?;
    // SAFETY: from a lookup; the elements of one socket are written by its events only, which come one after another.
    let Connection { begun, version, endpoint, generation, established } = unsafe { *known };
    if established != 0 {
        return None; // As above.
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*known).established).write_volatile(1) };
    if copy(&ENDPOINTS, endpoint)?.generation == generation {
        fetch_add(OPEN_CONNECTIONS.get_ptr_mut(endpoint)?);
    }
    let counts = CONNECTION_COUNTS.get_ptr_mut(version)?;
    let micros = (now() - begun) / NANOS_PER_MICRO;
    add!(counts.established, 1);
    add!(counts.handshake_micros, micros);
    let bucket = handshake_bucket(micros) as usize;
    if bucket < HANDSHAKE_BUCKETS {
        // SAFETY: from a lookup, and inside the array.
        fetch_add(unsafe { (&raw mut (*counts).handshakes).cast::<u64>().add(bucket) });
    }
    Some(())
}

/// The connection has ended, or was never there.
#[inline(always)]
fn end(ctx: &SockOpsContext) -> Option<()> {
    let cookie = cookie(ctx);
    // SAFETY: the map is not preallocated: an element lives as long as a program may hold it.
    let Connection { version, endpoint, generation, established, .. } = *unsafe { CONNECTIONS.get(cookie) }?;
    let _ = CONNECTIONS.remove(cookie);
    let counts = CONNECTION_COUNTS.get_ptr_mut(version)?;
    add!(counts.retransmits, field::<{ offset_of!(bpf_sock_ops, total_retrans) }>(ctx).into());
    if established == 0 {
        add!(counts.failed, 1);
        return None;
    }
    if copy(&ENDPOINTS, endpoint)?.generation == generation {
        fetch_add_of(OPEN_CONNECTIONS.get_ptr_mut(endpoint)?, u64::MAX); // One less.
    }
    add!(counts.ended, 1);
    add!(counts.bytes_in, field64::<{ offset_of!(bpf_sock_ops, bytes_acked) }>(ctx));
    add!(counts.bytes_out, field64::<{ offset_of!(bpf_sock_ops, bytes_received) }>(ctx));
    // The kernel keeps eight times the time.
    add!(counts.rtt_micros, u64::from(field::<{ offset_of!(bpf_sock_ops, srtt_us) }>(ctx) >> 3));
    Some(())
}

const _: () = assert!(size_of::<ConnectionCounts>().is_multiple_of(8), "counters are aligned");
