//! The life of a flow: half-open, established, closing, over.
use super::{Table, Tables, Way};
use crate::{
    abi::{Endpoint, Flow, FlowKey, flow_state},
    packet::{Headers, Kind, UDP, tcp},
    verdict::Leave,
};

/// The flow of a packet: known, or decided now.
#[inline(always)]
pub(super) fn flow_of<T: Tables>(tables: &T, way: Way, headers: &Headers) -> Result<Flow, Leave> {
    let now = tables.now();
    let known = if let Some(entry) = tables.find(Table::Established, &headers.key) {
        established(tables, headers, entry, now)?
    } else if let Some(entry) = tables.find(Table::Transient, &headers.key) {
        transient(tables, headers, entry, now)?
    } else {
        None
    };
    if let Some(flow) = known {
        tables.known(&flow);
        return Ok(flow);
    }
    if way == Way::Out {
        return Err(Leave::NoService);
    }
    tables.admit(headers, now)
}

/// A packet that opens a flow: SYN, or any UDP packet.
#[inline(always)]
pub(super) const fn opens(protocol: u8, flags: u8) -> bool {
    protocol == UDP || flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// `None`: the entry is of a flow that has ended, and this packet opens a new one.
#[inline(always)]
fn established<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, now: u32) -> Result<Option<Flow>, Leave> {
    let flow = tables.flow(entry);
    if over(tables, headers, &flow, now, Table::Established)? {
        let back = opposite(&headers.key, &flow);
        let back = tables.place(&back);
        tables.forget(Table::Established, back);
        tables.forget(Table::Established, &headers.key);
        tables.forget(Table::Transient, back);
        tables.forget(Table::Transient, &headers.key);
        return Ok(None);
    }
    if flow.seen != now {
        tables.set_seen(entry, now);
    }
    if headers.flags & (tcp::FIN | tcp::RST) != 0 {
        close(tables, headers, entry, &flow, now);
    }
    Ok(Some(flow))
}

/// Notes the end of one direction; when both have ended, the flow moves out of the table of established ones.
#[inline(always)]
fn close<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, flow: &Flow, now: u32) {
    let back = opposite(&headers.key, flow);
    let back = tables.place(&back);
    let Some(other) = tables.find(Table::Established, back) else {
        return;
    };
    let other = tables.flow(other);
    if headers.flags & tcp::RST == 0 && other.state & flow_state::FIN == 0 {
        tables.set_state(entry, flow.state | flow_state::FIN);
        return;
    }
    let state = |of: &Flow| of.state & flow_state::REPLY | flow_state::REPLIED | flow_state::CLOSING;
    let here = Flow { state: state(flow), seen: now, ..*flow };
    let there = Flow { state: state(&other), seen: now, ..other };
    if tables.put(Table::Transient, &headers.key, &here) && tables.put(Table::Transient, back, &there) {
        tables.forget(Table::Established, &headers.key);
        tables.forget(Table::Established, back);
    }
}

/// A packet of a half-open or closing flow. `None` as for [`established`].
#[inline(always)]
fn transient<T: Tables>(tables: &T, headers: &Headers, entry: T::Entry, now: u32) -> Result<Option<Flow>, Leave> {
    let flow = tables.flow(entry);
    if flow.state & flow_state::CLAIMED != 0 {
        return Err(Leave::Claimed);
    }
    let back = opposite(&headers.key, &flow);
    let back = tables.place(&back);
    if over(tables, headers, &flow, now, Table::Transient)? {
        tables.forget(Table::Transient, back);
        tables.forget(Table::Transient, &headers.key);
        return Ok(None);
    }
    if flow.seen != now {
        tables.set_seen(entry, now);
    }
    let reply = flow.state & flow_state::REPLY != 0;
    let replied = flow.state & flow_state::REPLIED != 0;
    if flow.state & flow_state::CLOSING != 0 {
        return Ok(Some(flow));
    }
    let reset = headers.flags & tcp::RST != 0;
    if reset || reply && !replied {
        let news = if reset { flow_state::CLOSING } else { flow_state::REPLIED };
        tables.set_state(entry, flow.state | news);
        if let Some(other) = tables.find(Table::Transient, back) {
            tables.set_state(other, tables.flow(other).state | news);
        }
    } else if !reply && replied && !lacks_ack(headers) {
        promote(tables, headers, &flow, back, now);
    }
    Ok(Some(flow))
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
    let here = answers(&headers.key, flow, flow_state::REPLIED, now);
    // Its transient entries stay: a packet on another CPU that missed the established table a moment ago finds them.
    // The flow's end writes over them, or newer flows push them out.
    if tables.put(Table::Established, &headers.key, &there) {
        let _ = tables.put(Table::Established, back, &here);
    }
}

/// Has this flow ended, so that this packet opens a new one? Its endpoint is gone, or it was closed or idle.
#[inline(always)]
fn over<T: Tables>(tables: &T, headers: &Headers, flow: &Flow, now: u32, table: Table) -> Result<bool, Leave> {
    let opens = opens(headers.key.protocol, headers.flags) && flow.state & flow_state::REPLY == 0;
    if !in_service(tables, flow, now) {
        return if opens { Ok(true) } else { Err(Leave::EndpointGone) };
    }
    // A connection that is opened, or opened again, must not go to an endpoint that gets no new flows.
    if opens && headers.key.protocol != UDP && drains(tables, flow) {
        return Ok(true);
    }
    if headers.key.protocol == UDP && flow.state & flow_state::REPLY != 0 {
        return Ok(idle(tables, UDP, flow, now, table) && unasked(tables, headers, flow, now, table));
    }
    Ok(opens && (flow.state & flow_state::CLOSING != 0 || idle(tables, headers.key.protocol, flow, now, table)))
}

/// Is the endpoint of a flow on its way out?
#[inline(always)]
fn drains<T: Tables>(tables: &T, flow: &Flow) -> bool {
    tables.endpoint(flow.endpoint).is_some_and(|endpoint| endpoint.drain_by != 0)
}

/// Has this direction been silent for so long that the flow counts as ended?
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

/// Is the client silent as well, to whom an answer would go? Then the datagram is no answer: the client has since used
/// the port to talk to the endpoint directly.
#[inline(always)]
fn unasked<T: Tables>(tables: &T, headers: &Headers, flow: &Flow, now: u32, table: Table) -> bool {
    let asking = opposite(&headers.key, flow);
    let asking = tables.place(&asking);
    let entry = tables.find(Table::Established, asking).or_else(|| tables.find(Table::Transient, asking));
    entry.is_none_or(|entry| idle(tables, UDP, &tables.flow(entry), now, table))
}

/// A client opens a connection to somebody who is no service. If that is an endpoint, and the client's port had a flow to
/// it through a service that has ended, its entry would still give the answers the virtual address.
#[inline(always)]
pub(super) fn release<T: Tables>(tables: &T, headers: &Headers, now: u32) {
    if headers.kind != Kind::Flow || headers.flags & (tcp::SYN | tcp::ACK) != tcp::SYN {
        return;
    }
    let key = &headers.key;
    let back = FlowKey {
        src_be: key.dst_be,
        dst_be: key.src_be,
        src_port_be: key.dst_port_be,
        dst_port_be: key.src_port_be,
        ..*key
    };
    let back = tables.place(&back);
    let Some(entry) = tables.find(Table::Transient, back) else { return };
    let flow = tables.flow(entry);
    if flow.state & flow_state::CLOSING != 0 || idle(tables, key.protocol, &flow, now, Table::Transient) {
        tables.forget(Table::Transient, back);
    }
}

/// Does the endpoint of a flow still answer for it? A slot that was used again has another generation.
#[inline(always)]
fn in_service<T: Tables>(tables: &T, flow: &Flow, now: u32) -> bool {
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
    FlowKey { src_be, dst_be, src_port_be, dst_port_be, protocol: key.protocol, pad: [0; 3] }
}

/// The entry that gives answers the virtual address back, from a client's packet and its entry.
#[inline(always)]
pub(super) fn answers(key: &FlowKey, flow: &Flow, state: u16, now: u32) -> Flow {
    Flow {
        addr_be: key.dst_be,
        port_be: key.dst_port_be,
        state: state | flow_state::REPLY,
        seen: now,
        endpoint: flow.endpoint,
        generation: flow.generation,
    }
}
