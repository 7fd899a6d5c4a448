//! Service → rule → split → version → endpoint: which endpoint a new flow gets.
use super::{
    Choice, Decision, Spot, Table, Tables,
    flows::{mirror, opens, opposite, release, vacant},
};
use crate::{
    abi::{
        Addr, EVEN, EXACT, FOR_PACKETS, Flow, FlowKey, KEYED_CLIENT, LEAF, NONE, Rule, ServiceKey, Split, flow_state,
        unrange,
    },
    choose,
    limits::{ENDPOINT_DEPTH, RULES_PER_SERVICE, SPLIT_DEPTH, VERSIONS_PER_SPLIT},
    packet::{Headers, tcp},
    verdict::Leave,
};

/// How many endpoints are tried for a flow whose ports are taken.
const NEIGHBOURS: u32 = 4;

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

/// Decides and holds a flow that is not known: its version, and then its endpoint.
///
/// # Errors
/// Those of the two halves.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, headers: &Headers, now: u32) -> Result<(), Leave> {
    choose_endpoint(tables, headers, &choose_version(tables, headers, now)?, now)
}

/// The first half of a flow that is not known: service → rule → split → version. Its key is claimed.
///
/// # Errors
/// Why there is no service, rule or version for it.
#[inline(always)]
pub fn choose_version<T: Tables>(tables: &T, headers: &Headers, now: u32) -> Result<Choice, Leave> {
    let (key, flags) = (&headers.key, headers.flags);
    let address =
        ServiceKey { addr_be: key.dst_be, port_be: key.dst_port_be, protocol: key.protocol, of: FOR_PACKETS, zero: 0 };
    let Some(service) = tables.service(&address) else {
        release(tables, headers, now);
        return Err(Leave::NoService);
    };
    if flags & tcp::RST != 0 {
        return Err(Leave::NoFlow);
    }
    let rule = rule_for(tables, service, &key.src_be).ok_or(Leave::NoRule)?;
    // Claimed before anything is drawn: a repeated SYN must not use up a number.
    if !tables.claim(key) {
        return Err(Leave::Claimed);
    }
    let chosen = version_of(tables, key, &key.src_be, opens(key.protocol, flags), service, &rule);
    if chosen.is_none() {
        tables.forget(Table::Transient, key);
    }
    chosen.ok_or(Leave::NoRule)
}

/// Split → version.
#[inline(always)]
pub(super) fn version_of<T: Tables>(
    tables: &T,
    key: &FlowKey,
    client: &Addr,
    opens: bool,
    service: u32,
    rule: &Rule,
) -> Option<Choice> {
    let split = tables.split(rule.split)?;
    // A packet from the middle of a flow that is not known (its entry was evicted, or another node had it) must not
    // use up a number; a keyed choice at least sends all packets of the flow the same way.
    let exact = split.choosing == EXACT && opens;
    let (leaf, draw, index) = if exact {
        let draw = tables.draw(rule.split)?;
        let (leaf, index) = descend::<T, SPLIT_DEPTH>(tables, split.root, draw)?;
        (leaf, draw, index)
    } else {
        let hash = if split.choosing == KEYED_CLIENT {
            choose::hash_client(client, split.salt)
        } else {
            choose::hash_flow(key, split.salt)
        };
        if opens {
            let _ = tables.draw(rule.split); // Keyed choices are numbered too: what `verify` compares with.
        }
        (keyed_leaf(tables, &split, choose::version_half(hash))?, hash, u64::from(choose::endpoint_half(hash)))
    };
    if opens {
        tables.count_choice(leaf);
    }
    let version = tables.leaf(leaf)?.version;
    Some(Choice { service, rule: rule.index, version, exact: u32::from(exact), draw, index })
}

/// The second half: version → endpoint; the flow is held, and both directions are remembered.
///
/// # Errors
/// Why there is no endpoint for it, or no place to remember it.
#[inline(always)]
pub fn choose_endpoint<T: Tables>(tables: &T, headers: &Headers, choice: &Choice, now: u32) -> Result<(), Leave> {
    let key = &headers.key;
    let chosen = endpoint_of(tables, key, choice, now);
    let &Choice { service, rule, version, draw, .. } = choice;
    let endpoint = if let Ok(slot) = chosen { slot } else { NONE };
    tables.decided(&Decision { service, rule, version, endpoint, draw });
    let remembered = chosen.and_then(|slot| remember(tables, headers, slot, now));
    match remembered {
        Ok(()) => tables.count_flow(version, endpoint),
        Err(_) => tables.forget(Table::Transient, key),
    }
    remembered
}

/// Remembers and holds a new flow.
#[inline(always)]
fn remember<T: Tables>(tables: &T, headers: &Headers, slot: u32, now: u32) -> Result<(), Leave> {
    let key = &headers.key;
    let endpoint = tables.endpoint(slot).ok_or(Leave::NoEndpoint)?;
    let flow = Flow {
        addr_be: endpoint.addr_be,
        port_be: endpoint.port_be,
        // A flow picked up in its middle has been answered before.
        state: if opens(key.protocol, headers.flags) { 0 } else { flow_state::REPLIED },
        seen: now,
        endpoint: slot,
        generation: endpoint.generation,
    };
    let flow = tables.hold(&flow);
    let back = opposite(key, flow);
    let back = tables.place(Spot::Back, &back);
    let here = mirror(key, flow, now);
    if tables.put(Table::Transient, key, flow) && tables.put(Table::Transient, back, &here) {
        Ok(())
    } else {
        Err(Leave::TableFull)
    }
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

/// The endpoint of a version for a number (exact) or a hash (keyed); a neighbour of it, if the client has a flow from the
/// same port to that endpoint by another address: the endpoint could not tell the two apart.
#[inline(always)]
fn endpoint_of<T: Tables>(tables: &T, key: &FlowKey, choice: &Choice, now: u32) -> Result<u32, Leave> {
    let (base, len, mut place) = place_of(tables, choice)?;
    for _ in 0..NEIGHBOURS {
        let slot = tables.member(base + place).ok_or(Leave::NoEndpoint)?;
        let endpoint = tables.endpoint(slot).ok_or(Leave::NoEndpoint)?;
        if vacant(tables, key, &endpoint.addr_be, endpoint.port_be, now) {
            return Ok(slot);
        }
        place = if place + 1 < len { place + 1 } else { 0 };
    }
    Err(Leave::PortTaken)
}

/// The endpoint of a version for a number or a hash: base and length of the list, and the place in it.
#[inline(always)]
pub(super) fn place_of<T: Tables>(tables: &T, choice: &Choice) -> Result<(u32, u32, u32), Leave> {
    let version = tables.version(choice.version).ok_or(Leave::NoEndpoint)?;
    let group = tables.group(version.group).ok_or(Leave::NoEndpoint)?;
    if group.members_len == 0 {
        return Err(Leave::NoEndpoint);
    }
    let (exact, index) = (choice.exact != 0, choice.index);
    let ring = !exact && group.ring_len != 0;
    let (base, len) = if ring { (group.ring, group.ring_len) } else { (group.members, group.members_len) };
    #[expect(clippy::cast_possible_truncation, reason = "a hash has 32 bits; a remainder is smaller than its divisor")]
    let place = if !exact {
        choose::scale(index as u32, len)
    } else if group.root == EVEN {
        (index % u64::from(len)) as u32
    } else {
        descend::<T, ENDPOINT_DEPTH>(tables, group.root, index).ok_or(Leave::NoEndpoint)?.0
    };
    Ok((base, len, place))
}
