//! Programs of a cgroup: a process addresses a service, and the kernel connects it to an endpoint.
//!
//! They run in the middle of a process, which may be interrupted; nothing here is kept per CPU but counters.
use aya_ebpf::{
    macros::{cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockOpsContext},
};
use canary_common::{
    abi::{Addr, Endpoint, FOR_SOCKETS, Flow, FlowKey, Peer, ServiceKey, SocketKey, flow_state},
    packet::{TCP, UDP},
    pipeline::{Chosen, choose_for_socket, chosen_before},
    verdict::{Leave, Verdict},
};

use crate::{
    call::{Call, Connecting, refuse},
    maps::{LEAVE_COUNTS, ORIGINS, SOCKETS, fetch_add, peer},
    tables::{Maps, SOCKET},
};

/// Goes on, with the address as it is now.
const ALLOW: i32 = 1;
/// Ends with an error.
const DENY: i32 = 0;
/// `SocketKey::answers`.
const FORTH: u8 = 0;
const BACK: u8 = 1;

/// The key of what a socket addresses ([`FORTH`]), or is answered by ([`BACK`]).
#[inline(always)]
fn key(call: &Call<'_>, answers: u8, protocol: u8, (addr_be, port_be): (Addr, u16)) -> SocketKey {
    SocketKey { cookie: call.cookie(), addr_be, port_be, protocol, answers, zero: 0 }
}

/// The key of who answers a socket that begins to connect.
#[inline(always)]
pub(crate) fn back(connecting: &Connecting<'_>) -> SocketKey {
    let FlowKey { src_be: addr_be, src_port_be: port_be, .. } = connecting.answers();
    SocketKey { cookie: connecting.cookie(), addr_be, port_be, protocol: TCP, answers: BACK, zero: 0 }
}

/// Chooses, remembers, and puts the endpoint in the place of the virtual address.
#[inline(always)]
fn choose(call: &Call<'_>, protocol: u8, datagram: bool) -> Result<(), Leave> {
    let (addr_be, port_be) = call.peer();
    let service = ServiceKey { addr_be, port_be, protocol, of: FOR_SOCKETS, zero: 0 };
    let tables = Maps::<SOCKET>::express();
    let chosen = choose_for_socket(&tables, &service, call.cookie(), call)?;
    let there = key(call, FORTH, protocol, (addr_be, port_be));
    remember(&there, &chosen, call, datagram);
    if call.replace(&chosen.endpoint.addr_be, chosen.endpoint.port_be) { Ok(()) } else { Err(Leave::Rewrite) }
}

/// By which address the socket has its endpoint; and, for one that is not connected, which endpoint it has. A full table
/// forgets others.
#[inline(always)]
fn remember(there: &SocketKey, chosen: &Chosen, call: &Call<'_>, datagram: bool) {
    let Endpoint { addr_be, port_be, generation, .. } = chosen.endpoint;
    let (endpoint, proxied) = (chosen.slot, u16::from(chosen.proxied != 0));
    let back = Peer { addr_be: there.addr_be, port_be: there.port_be, proxied, endpoint, generation, zero: 0 };
    let _ = SOCKETS.insert(key(call, BACK, there.protocol, (addr_be, port_be)), back, 0);
    if datagram {
        let forth = Peer { addr_be, port_be, proxied, endpoint, generation, zero: 0 };
        let _ = SOCKETS.insert(there, forth, 0);
    }
}

/// What becomes of a process that a choice was made for.
#[inline(always)]
fn end(chosen: Result<(), Leave>) -> i32 {
    let Err(leave) = chosen else { return ALLOW };
    // What is nobody's address is not counted: that is nearly everything.
    if leave != Leave::NoService
        && let Some(count) = LEAVE_COUNTS.get_ptr_mut(leave as u32)
    {
        fetch_add(count);
    }
    if leave.verdict() == Verdict::Pass {
        return ALLOW;
    }
    refuse();
    DENY
}

#[inline(always)]
fn connect(call: &Call<'_>) -> i32 {
    call.protocol().map_or(ALLOW, |protocol| end(choose(call, protocol, false)))
}

/// A datagram with an address: to the same endpoint as the one before, or as the socket is connected to by that address, from
/// where alone it takes answers.
#[inline(always)]
fn send(call: &Call<'_>) -> i32 {
    let to = call.peer();
    if let Some((addr_be, port_be)) = call.connected()
        && let Some(peer) = peer(&key(call, BACK, UDP, (addr_be, port_be)))
        && (peer.addr_be, peer.port_be) == to
    {
        return if call.replace(&addr_be, port_be) { ALLOW } else { DENY };
    }
    let there = key(call, FORTH, UDP, to);
    if let Some(peer) = peer(&there)
        && chosen_before(&Maps::<SOCKET>::express(), &peer).is_some()
    {
        return if call.replace(&peer.addr_be, peer.port_be) { ALLOW } else { DENY };
    }
    end(choose(call, UDP, true))
}

/// Who answers, or who is at the other end, by the name that the process knows.
#[inline(always)]
fn name(call: &Call<'_>) -> i32 {
    if let Some(protocol) = call.protocol() {
        let back = key(call, BACK, protocol, call.peer());
        if let Some(peer) = peer(&back) {
            call.replace(&peer.addr_be, peer.port_be);
        }
    }
    ALLOW
}

/// `connect()` of IPv4, TCP and UDP.
#[cgroup_sock_addr(connect4)]
pub fn canary_connect4(ctx: SockAddrContext) -> i32 {
    connect(&Call::new(&ctx, false))
}

/// `connect()` of IPv6, and of IPv4 by a socket of IPv6.
#[cgroup_sock_addr(connect6)]
pub fn canary_connect6(ctx: SockAddrContext) -> i32 {
    connect(&Call::new(&ctx, true))
}

/// `sendto()` of IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn canary_sendmsg4(ctx: SockAddrContext) -> i32 {
    send(&Call::new(&ctx, false))
}

/// `sendto()` of IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn canary_sendmsg6(ctx: SockAddrContext) -> i32 {
    send(&Call::new(&ctx, true))
}

/// `recvfrom()` of IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn canary_recvmsg4(ctx: SockAddrContext) -> i32 {
    name(&Call::new(&ctx, false))
}

/// `recvfrom()` of IPv6, and of IPv4 by a socket of IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn canary_recvmsg6(ctx: SockAddrContext) -> i32 {
    name(&Call::new(&ctx, true))
}

/// `getpeername()` of IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn canary_getpeername4(ctx: SockAddrContext) -> i32 {
    name(&Call::new(&ctx, false))
}

/// `getpeername()` of IPv6, and of IPv4 by a socket of IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn canary_getpeername6(ctx: SockAddrContext) -> i32 {
    name(&Call::new(&ctx, true))
}

/// A socket begins to connect, and has a port by now: if it is the proxy that it connects to, that is told where the process
/// wanted to go.
#[sock_ops]
pub fn canary_sockops(ctx: SockOpsContext) -> u32 {
    if let Some(connecting) = Connecting::new(&ctx)
        && let Some(peer) = peer(&back(&connecting))
        && peer.proxied != 0
    {
        let Peer { addr_be, port_be, endpoint, generation, .. } = peer;
        let origin = Flow { addr_be, port_be, state: flow_state::REPLY, seen: 0, endpoint, generation };
        let _ = ORIGINS.insert(connecting.answers(), origin, 0);
    }
    1
}
