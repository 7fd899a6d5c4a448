//! Service → rule → split → version → endpoint: which endpoint a new flow gets.
use super::{Decision, Tables};
use crate::{
    abi::{Addr, EVEN, EXACT, Endpoint, Flow, FlowKey, KEYED_CLIENT, LEAF, NONE, Rule, Split, flow_state, unrange},
    choose,
    limits::{ENDPOINT_DEPTH, RULES_PER_SERVICE, SPLIT_DEPTH, VERSIONS_PER_SPLIT},
    verdict::Leave,
};

/// First rule of the service whose network holds the client.
#[inline(always)]
pub(super) fn rule_for<T: Tables>(tables: &T, service: u32, client: &Addr) -> Option<Rule> {
    let (base, len) = unrange(tables.rules(service)?);
    for at in 0..RULES_PER_SERVICE {
        if at >= len {
            return None;
        }
        let rule = tables.rule(base + at)?;
        let inside = (client[0] & rule.mask_be[0]) ^ rule.net_be[0]
            | (client[1] & rule.mask_be[1]) ^ rule.net_be[1]
            | (client[2] & rule.mask_be[2]) ^ rule.net_be[2]
            | (client[3] & rule.mask_be[3]) ^ rule.net_be[3];
        if inside == 0 {
            return Some(rule);
        }
    }
    None
}

/// Splits → version → endpoint.
#[inline(always)]
pub(super) fn decide<T: Tables>(
    tables: &T,
    key: &FlowKey,
    opens: bool,
    service: u32,
    rule: &Rule,
) -> Result<Flow, Leave> {
    let split = tables.split(rule.split).ok_or(Leave::NoRule)?;
    // A packet from the middle of a flow that is not known (its entry was evicted, or another node had it) must not
    // use up a number; a keyed choice at least sends all packets of the flow the same way.
    let exact = split.choosing == EXACT && opens;
    let (leaf, index) = if exact {
        let draw = tables.draw(rule.split).ok_or(Leave::NoRule)?;
        let (leaf, index) = descend::<T, SPLIT_DEPTH>(tables, split.root, draw).ok_or(Leave::NoRule)?;
        (leaf, (draw, index))
    } else {
        let hash = if split.choosing == KEYED_CLIENT {
            choose::hash_client(&key.src_be, split.salt)
        } else {
            choose::hash_flow(key, split.salt)
        };
        if opens {
            let _ = tables.draw(rule.split); // Keyed choices are numbered too: what `verify` compares with.
        }
        let leaf = keyed_leaf(tables, &split, choose::version_half(hash)).ok_or(Leave::NoRule)?;
        (leaf, (hash, u64::from(choose::endpoint_half(hash))))
    };
    let (draw, index) = index;
    if opens {
        tables.count_choice(leaf);
    }
    let version = tables.leaf(leaf).ok_or(Leave::NoRule)?.version;
    let mut decision = Decision { service, rule: rule.index, version, endpoint: NONE, draw };
    let chosen = endpoint_of(tables, version, index, exact);
    if let Some((slot, _)) = chosen {
        decision.endpoint = slot;
    }
    tables.decided(&decision);
    let (slot, endpoint) = chosen.ok_or(Leave::NoEndpoint)?;
    tables.count_flow(version, slot);
    Ok(Flow {
        addr_be: endpoint.addr_be,
        port_be: endpoint.port_be,
        // A flow picked up in its middle has been answered before.
        state: if opens { 0 } else { flow_state::REPLIED },
        seen: 0,
        endpoint: slot,
        generation: endpoint.generation,
    })
}

/// Goes down a tree of two-way splits: leaf number, and the flow's number inside the leaf.
#[inline(always)]
fn descend<T: Tables, const DEPTH: u32>(tables: &T, root: u32, n: u64) -> Option<(u32, u64)> {
    let (mut at, mut n) = (root, n);
    for _ in 0..DEPTH {
        if at & LEAF != 0 {
            break;
        }
        let node = tables.node(at)?;
        (at, n) = choose::two_way(&node, n);
    }
    if at & LEAF == 0 { None } else { Some((at & !LEAF, n)) }
}

/// The leaf in whose range a hash falls.
#[inline(always)]
fn keyed_leaf<T: Tables>(tables: &T, split: &Split, hash: u32) -> Option<u32> {
    let point = choose::scale(hash, split.total);
    for at in 0..VERSIONS_PER_SPLIT {
        if at >= split.leaves_len {
            return None;
        }
        if point < tables.leaf(split.leaves + at)?.end {
            return Some(split.leaves + at);
        }
    }
    None
}

/// The endpoint of a version for a number (exact) or a hash (keyed).
#[inline(always)]
fn endpoint_of<T: Tables>(tables: &T, version: u32, index: u64, exact: bool) -> Option<(u32, Endpoint)> {
    let group = tables.group(tables.version(version)?.group)?;
    if group.members_len == 0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a hash has 32 bits; a remainder is smaller than its divisor")]
    let place = if !exact && group.ring_len != 0 {
        group.ring + choose::scale(index as u32, group.ring_len)
    } else if !exact {
        group.members + choose::scale(index as u32, group.members_len)
    } else if group.root == EVEN {
        group.members + (index % u64::from(group.members_len)) as u32
    } else {
        group.members + descend::<T, ENDPOINT_DEPTH>(tables, group.root, index)?.0
    };
    let slot = tables.member(place)?;
    Some((slot, tables.endpoint(slot)?))
}
