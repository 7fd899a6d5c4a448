//! The life of a flow: half-open, established, closing, over.
use super::{Spot, Table, Tables};
use crate::{
    abi::{Addr, Endpoint, Flow, FlowKey, flow_state},
    packet::{Headers, Kind, UDP, tcp},
    verdict::Leave,
};

/// Finds and holds the flow of a packet. `false`: it is not known, or that flow is over and this packet is another one's.
///
/// # Errors
/// Why the packet is left alone.
#[inline(always)]
pub fn find_flow<T: Tables>(tables: &T, headers: &Headers, now: u32) -> Result<bool, Leave> {
    if let Some(entry) = tables.find(Table::Established, &headers.key) {
        established(tables, headers, entry, now)
    } else if let Some(entry) = tables.find(Table::Transient, &headers.key) {
        transient(tables, headers, entry, now)
    } else {
        Ok(false)
    }
}

/// A packet that opens a flow: SYN, or any UDP packet.
#[inline(always)]
pub(super) const fn opens(protocol: u8, flags: u8) -> bool {
    protocol == UDP || flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// A packet of an established flow.
#[inline(always)]
fn established<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, now: u32) -> Result<bool, Leave> {
    let flow = tables.flow(entry);
    let flow = tables.hold(&flow);
    let back = opposite(&headers.key, flow);
    let back = tables.place(Spot::Back, &back);
    if over(tables, headers, flow, back, now, Table::Established)? {
        forget_both(tables, Table::Established, &headers.key, flow, back);
        forget_both(tables, Table::Transient, &headers.key, flow, back);
        return Ok(false);
    }
    if flow.seen != now {
        tables.set_seen(entry, now);
    }
    let ends = headers.flags & (tcp::FIN | tcp::RST) != 0;
    if ends || look_after(&headers.key, flow, now) {
        restore(tables, Table::Established, headers, flow, back, now);
    }
    if ends {
        close(tables, headers, entry, flow, back, now);
    }
    Ok(true)
}

/// Notes the end of one direction; when both have ended, the flow moves out of the table of established ones.
///
/// A reset may be a lie (RFC 5961): the flow is then like a half-open one, and is established again by an answer and the
/// client's answer to that.
#[inline(always)]
fn close<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, flow: &Flow, back: &FlowKey, now: u32) {
    let reset = headers.flags & tcp::RST != 0;
    if !reset {
        // Noted before the other side is looked at: of two that cross on two CPUs, one sees both.
        tables.mark(entry, flow_state::FIN);
        let other = partner(tables, Table::Established, &headers.key, flow, back);
        if other.is_some_and(|other| tables.flow(other).state & flow_state::FIN == 0) {
            return;
        }
    }
    let state = if reset { flow_state::RESET } else { flow_state::REPLIED | flow_state::CLOSING };
    let here = Flow { state: flow.state & flow_state::REPLY | state, seen: now, ..*flow };
    let there = mirror(&headers.key, &here, now);
    let kept = tables.put(Table::Transient, &headers.key, &here)
        && (taken(tables, Table::Transient, &headers.key, flow, back) || tables.put(Table::Transient, back, &there));
    if kept {
        forget_both(tables, Table::Established, &headers.key, flow, back);
    }
}

/// A packet of a half-open or closing flow.
#[inline(always)]
fn transient<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, now: u32) -> Result<bool, Leave> {
    let flow = tables.flow(entry);
    let flow = tables.hold(&flow);
    if flow.state & flow_state::CLAIMED != 0 {
        return Err(Leave::Claimed);
    }
    let back = opposite(&headers.key, flow);
    let back = tables.place(Spot::Back, &back);
    if over(tables, headers, flow, back, now, Table::Transient)? {
        forget_both(tables, Table::Transient, &headers.key, flow, back);
        return Ok(false);
    }
    if flow.seen != now {
        tables.set_seen(entry, now);
    }
    if flow.state & flow_state::CLOSING != 0 {
        return Ok(true);
    }
    restore(tables, Table::Transient, headers, flow, back, now);
    let reply = flow.state & flow_state::REPLY != 0;
    let replied = flow.state & flow_state::REPLIED != 0;
    let reset = headers.flags & tcp::RST != 0;
    if reset || reply && !replied {
        let news = if reset { flow_state::RESET } else { flow_state::REPLIED };
        tables.mark(entry, news);
        if let Some(other) = partner(tables, Table::Transient, &headers.key, flow, back) {
            tables.mark(other, news);
        }
    } else if !reply
        && replied
        && !lacks_ack(headers)
        && !taken(tables, Table::Established, &headers.key, flow, back)
        && !taken(tables, Table::Transient, &headers.key, flow, back)
    {
        promote(tables, headers, flow, back, now);
    }
    Ok(true)
}

#[inline(always)]
const fn lacks_ack(headers: &Headers) -> bool {
    headers.key.protocol != UDP && headers.flags & (tcp::SYN | tcp::ACK) != tcp::ACK
}

/// The client has answered an answer: the flow is established, in both directions.
#[inline(always)]
fn promote<T: Tables>(tables: &T, headers: &Headers, flow: &Flow, back: &FlowKey, now: u32) {
    let fin = if headers.flags & tcp::FIN != 0 { flow_state::FIN } else { 0 };
    let there = Flow { state: flow_state::REPLIED | fin, seen: now, ..*flow };
    let here = mirror(&headers.key, &Flow { state: flow_state::REPLIED, ..*flow }, now);
    // Its transient entries stay: a packet on another CPU that missed the established table a moment ago finds them.
    // The flow's end writes over them, or newer flows push them out.
    if tables.put(Table::Established, &headers.key, &there) {
        let _ = tables.put(Table::Established, back, &here);
    }
    if flow.state & flow_state::RESET != 0 {
        // They said that it had been reset.
        let _ = tables.put(Table::Transient, &headers.key, &there);
        let _ = tables.put(Table::Transient, back, &here);
    }
}

/// Is it time to look after the other direction's entry? Every 32 ticks: the look marks it as used, so that a stream one way
/// keeps both; but it takes the long way, and a million flows with a packet a second each should not. By their ports not all
/// flows do so in the same tick.
#[inline(always)]
pub(super) const fn look_after(key: &FlowKey, flow: &Flow, now: u32) -> bool {
    let shift = ((key.src_port_be ^ key.dst_port_be) >> 8) as u32;
    (flow.seen.wrapping_add(shift) ^ now.wrapping_add(shift)) >> 5 != 0
}

/// Puts the other direction's entry back, if the table has pushed it out alone.
#[inline(always)]
fn restore<T: Tables>(tables: &T, table: Table, headers: &Headers, flow: &Flow, back: &FlowKey, now: u32) {
    if tables.find(table, back).is_some() {
        return;
    }
    if matches!(table, Table::Established) {
        // Another CPU may be closing the flow just now, or a newer one has the place.
        let closing = tables.find(Table::Transient, back).is_some_and(|other| ended(&tables.flow(other)));
        if closing || taken(tables, Table::Transient, &headers.key, flow, back) {
            return;
        }
    }
    let state = flow.state & (flow_state::REPLY | flow_state::REPLIED | flow_state::RESET);
    let _ = tables.put(table, back, &mirror(&headers.key, &Flow { state, ..*flow }, now));
}

/// The other direction's entry, unless its place is taken by a flow to another virtual address.
#[inline(always)]
fn partner<T: Tables>(tables: &T, table: Table, key: &FlowKey, flow: &Flow, back: &FlowKey) -> Option<T::Entry> {
    let entry = tables.find(table, back)?;
    let other = tables.flow(entry);
    let (addr_be, port_be) = near(key, flow);
    if other.addr_be == addr_be && other.port_be == port_be { Some(entry) } else { None }
}

/// Has another flow the place of the other direction's entry? A table may have pushed that out before.
#[inline(always)]
fn taken<T: Tables>(tables: &T, table: Table, key: &FlowKey, flow: &Flow, back: &FlowKey) -> bool {
    tables.find(table, back).is_some() && partner(tables, table, key, flow, back).is_none()
}

/// Forgets both directions, unless the other one's place is another flow's.
#[inline(always)]
fn forget_both<T: Tables>(tables: &T, table: Table, key: &FlowKey, flow: &Flow, back: &FlowKey) {
    if partner(tables, table, key, flow, back).is_some() {
        tables.forget(table, back);
    }
    tables.forget(table, key);
}

/// Is an entry of a flow that is over, so that this packet is another one's? Its endpoint is gone, or it has ended, or
/// nobody has used it for long.
#[inline(always)]
fn over<T: Tables>(
    tables: &T,
    headers: &Headers,
    flow: &Flow,
    back: &FlowKey,
    now: u32,
    table: Table,
) -> Result<bool, Leave> {
    let protocol = headers.key.protocol;
    if flow.state & flow_state::REPLY != 0 {
        // Then it is no answer: the client has since used the port to talk to the endpoint directly.
        let begins = protocol == UDP || headers.flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK;
        if begins && silent(tables, &headers.key, flow, back, now, table) {
            return Ok(true);
        }
        return if in_service(tables, flow, now) { Ok(false) } else { Err(Leave::EndpointGone) };
    }
    let opens = opens(protocol, headers.flags);
    if !in_service(tables, flow, now) {
        return if opens { Ok(true) } else { Err(Leave::EndpointGone) };
    }
    if !opens {
        return Ok(false);
    }
    // A connection that is opened, or opened again, must not go to an endpoint that gets no new flows.
    Ok(protocol != UDP && drains(tables, flow) || ended(flow) || silent(tables, &headers.key, flow, back, now, table))
}

/// Has a flow been closed from both sides, or reset?
#[inline(always)]
const fn ended(flow: &Flow) -> bool {
    flow.state & (flow_state::CLOSING | flow_state::RESET) != 0
}

/// Is the endpoint of a flow on its way out?
#[inline(always)]
fn drains<T: Tables>(tables: &T, flow: &Flow) -> bool {
    tables.endpoint(flow.endpoint).is_some_and(|endpoint| endpoint.drain_by != 0)
}

/// Have both directions been silent for so long that the flow counts as over?
#[inline(always)]
fn silent<T: Tables>(tables: &T, key: &FlowKey, flow: &Flow, back: &FlowKey, now: u32, table: Table) -> bool {
    if !idle(tables, key.protocol, flow, now, table) {
        return false;
    }
    let other = partner(tables, Table::Established, key, flow, back);
    let other = other.or_else(|| partner(tables, Table::Transient, key, flow, back));
    other.is_none_or(|other| idle(tables, key.protocol, &tables.flow(other), now, table))
}

/// Has this direction been silent for that long?
#[inline(always)]
fn idle<T: Tables>(tables: &T, protocol: u8, flow: &Flow, now: u32, table: Table) -> bool {
    let settings = tables.settings();
    let limit = if protocol == UDP {
        settings.udp_ticks
    } else if matches!(table, Table::Transient) {
        settings.transient_ticks
    } else {
        settings.tcp_ticks
    };
    // Saturating: another CPU may have written the next tick since this one looked at the clock.
    now.saturating_sub(flow.seen) > limit
}

/// Is the way back from an endpoint to a client free? A flow of the same ports to another virtual address, or one to the
/// same address that has lost its other half, may be in the way: what is over, or half, is taken out of it.
#[inline(always)]
pub(super) fn vacant<T: Tables>(tables: &T, key: &FlowKey, addr_be: &Addr, port_be: u16, now: u32) -> bool {
    let key = tables.afresh(key);
    let back =
        FlowKey { src_be: *addr_be, dst_be: key.src_be, src_port_be: port_be, dst_port_be: key.src_port_be, ..*key };
    let back = tables.place(Spot::Back, &back);
    vacate(tables, Table::Established, key, back, now) && vacate(tables, Table::Transient, key, back, now)
}

#[inline(always)]
fn vacate<T: Tables>(tables: &T, table: Table, key: &FlowKey, back: &FlowKey, now: u32) -> bool {
    let Some(entry) = tables.find(table, back) else { return true };
    let flow = tables.flow(entry);
    let flow = tables.hold(&flow);
    let half = flow.addr_be == key.dst_be && flow.port_be == key.dst_port_be;
    if !half {
        let forth = opposite(back, flow);
        let forth = tables.place(Spot::Forth, &forth);
        if in_service(tables, flow, now) && !ended(flow) && !silent(tables, back, flow, forth, now, table) {
            return false;
        }
        tables.forget(table, forth);
    }
    tables.forget(table, back);
    true
}

/// A client opens a connection to somebody who is no service. If that is an endpoint, and the client's port had a flow to
/// it through a service that is over, its entry would still give the answers the virtual address.
#[inline(always)]
pub(super) fn release<T: Tables>(tables: &T, headers: &Headers, now: u32) {
    if headers.kind == Kind::Flow && headers.flags & (tcp::SYN | tcp::ACK) == tcp::SYN {
        let key = &headers.key;
        let _ = vacant(tables, key, &key.dst_be, key.dst_port_be, now);
    }
}

/// Does the endpoint of a flow still answer for it? A slot that was used again has another generation.
#[inline(always)]
pub(super) fn in_service<T: Tables>(tables: &T, flow: &Flow, now: u32) -> bool {
    tables.endpoint(flow.endpoint).is_some_and(|endpoint| serves(&endpoint, flow, now))
}

#[inline(always)]
pub(super) const fn serves(endpoint: &Endpoint, flow: &Flow, now: u32) -> bool {
    endpoint.generation == flow.generation && (endpoint.drain_by == 0 || now < endpoint.drain_by)
}

/// Key of the packets in the other direction.
#[inline(always)]
pub(super) fn opposite(key: &FlowKey, flow: &Flow) -> FlowKey {
    let reply = flow.state & flow_state::REPLY != 0;
    let (src_be, src_port_be, dst_be, dst_port_be) = if reply {
        (key.dst_be, key.dst_port_be, flow.addr_be, flow.port_be)
    } else {
        (flow.addr_be, flow.port_be, key.src_be, key.src_port_be)
    };
    FlowKey { src_be, dst_be, src_port_be, dst_port_be, protocol: key.protocol, pad: 0, zero: 0 }
}

/// The address and port of a packet that its translation changes.
#[inline(always)]
const fn near(key: &FlowKey, flow: &Flow) -> (Addr, u16) {
    if flow.state & flow_state::REPLY != 0 { (key.src_be, key.src_port_be) } else { (key.dst_be, key.dst_port_be) }
}

/// The entry of the other direction, from a packet and its entry; with the same state.
#[inline(always)]
pub(super) fn mirror(key: &FlowKey, flow: &Flow, now: u32) -> Flow {
    let (addr_be, port_be) = near(key, flow);
    Flow {
        addr_be,
        port_be,
        state: flow.state ^ flow_state::REPLY,
        seen: now,
        endpoint: flow.endpoint,
        generation: flow.generation,
    }
}
