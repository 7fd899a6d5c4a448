//! The choice for a socket, once, when it connects or sends: what follows goes to the endpoint directly and costs nothing here.
//!
//! The same functions choose as for packets, from the same numbers: the shares are exact over both together.
use super::{
    Tables,
    decide::{place_of, rule_for, version_of},
    flows::serves,
};
use crate::{
    abi::{Addr, Endpoint, Flow, FlowKey, KEYED_CLIENT, Peer, ServiceKey, unrange},
    verdict::Leave,
};

/// What a socket gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Slot of the endpoint.
    pub slot: u32,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// 1: it is the proxy.
    pub proxied: u32,
}

/// Whose socket it is. No closure: LLVM would make a function of it, in which the verifier sees computed places.
pub trait Process {
    /// The address that it goes to `there` by, as far as it is known: the one that the socket is bound to, or its pod's of that
    /// family.
    fn client(&self, there: &Addr) -> Option<Addr>;
}

/// Chooses an endpoint for a socket that addresses `service`.
///
/// `process` is asked for the client's address only if that decides. `unique` stands for the source port, which the socket does
/// not have yet: a number that no other socket has.
///
/// # Errors
/// Why the socket is left alone ([`Leave::verdict`] `Pass`), or must not connect.
#[inline(always)]
pub fn choose_for_socket<T: Tables>(
    tables: &T,
    service: &ServiceKey,
    unique: u64,
    process: &impl Process,
) -> Result<Chosen, Leave> {
    let slot = tables.service(service).ok_or(Leave::NoService)?;
    let (base, len) = unrange(tables.rules(slot).ok_or(Leave::NoService)?);
    let first = tables.rule(base).ok_or(Leave::NoRule)?;
    let split = tables.split(first.split).ok_or(Leave::NoRule)?;
    let plain = len == 1 && first.mask_be[0] | first.mask_be[1] | first.mask_be[2] | first.mask_be[3] == 0;
    let (src_be, rule) = if plain && split.choosing != KEYED_CLIENT {
        ([0; 4], first)
    } else {
        let client = process.client(&service.addr_be).ok_or(Leave::UnknownClient)?;
        (client, rule_for(tables, slot, &client).ok_or(Leave::NoRule)?)
    };
    #[expect(clippy::cast_possible_truncation, reason = "all of its bits are somewhere in the key")]
    let key = FlowKey {
        src_be: [src_be[0] ^ unique as u32, src_be[1] ^ (unique >> 32) as u32, src_be[2], src_be[3]],
        dst_be: service.addr_be,
        src_port_be: 0,
        dst_port_be: service.port_be,
        protocol: service.protocol,
        pad: 0,
        zero: 0,
    };
    let choice = version_of(tables, &key, &src_be, true, slot, &rule).ok_or(Leave::NoRule)?;
    let (base, _, place) = place_of(tables, &choice)?;
    let slot = tables.member(base + place).ok_or(Leave::NoEndpoint)?;
    let endpoint = tables.endpoint(slot).ok_or(Leave::NoEndpoint)?;
    tables.count_flow(choice.version, slot);
    Ok(Chosen { slot, endpoint, proxied: split.proxied })
}

/// The endpoint that a socket has sent to before by the same virtual address, if it is still there.
#[inline(always)]
pub fn chosen_before<T: Tables>(tables: &T, peer: &Peer) -> Option<Endpoint> {
    let endpoint = tables.endpoint(peer.endpoint)?;
    let flow = Flow { endpoint: peer.endpoint, generation: peer.generation, ..Flow::default() };
    // Who drains keeps what is open; datagrams have no end, and go elsewhere at once.
    if endpoint.drain_by == 0 && serves(&endpoint, &flow, tables.now()) { Some(endpoint) } else { None }
}
