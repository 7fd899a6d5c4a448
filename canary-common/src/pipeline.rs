//! The way of a packet: parse → known flow, or service → rule → split → version → endpoint → remember → translate.
//!
//! One copy for the kernel and the host: the maps are behind [`Tables`], the frame behind [`Frame`]. Kernel programs are
//! instances over BPF maps, `canary trace` one whose tables remember nothing, the differential test one over hash maps.
mod decide;

use self::decide::{decide, rule_for};
use crate::{
    abi::{
        Endpoint, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Rule, ServiceKey, Settings, Split, Version, flow_state,
    },
    packet::{Headers, Kind, UDP, parse, parse_fast, tcp},
    rewrite::{Frame, translate, translate_fragment, translate_icmp},
    verdict::Leave,
};

/// Which flow tables there are: established flows have one of their own, which no flood of new ones can empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Both sides have been heard, neither has ended.
    Established,
    /// Half-open or closing.
    Transient,
}

/// How a new flow was decided: for `canary trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Service slot.
    pub service: u32,
    /// Index of the rule in the service.
    pub rule: u32,
    /// Version slot, or [`crate::abi::NONE`].
    pub version: u32,
    /// Endpoint slot, or [`crate::abi::NONE`].
    pub endpoint: u32,
    /// The draw (exact) or the hash (keyed).
    pub draw: u64,
}

/// The maps, as the pipeline sees them. All values are copies.
pub trait Tables {
    /// An entry of a flow table that was found and can be changed word by word.
    type Entry: Copy;

    /// Ticks since boot (2³⁰ ns).
    fn now(&self) -> u32;
    /// Settings.
    fn settings(&self) -> Settings;

    /// Moves a key that was computed to where helpers can look at it; a place with room on the stack keeps it.
    fn place<'a>(&'a self, key: &'a FlowKey) -> &'a FlowKey {
        key
    }
    /// Finds a flow.
    fn find(&self, table: Table, key: &FlowKey) -> Option<Self::Entry>;
    /// Copies a flow out.
    fn flow(&self, entry: Self::Entry) -> Flow;
    /// Sets the time of the last packet.
    fn set_seen(&self, entry: Self::Entry, seen: u32);
    /// Sets the flags.
    fn set_state(&self, entry: Self::Entry, state: u16);
    /// Reserves a place in the transient table; `false` when the flow is there already.
    fn claim(&self, key: &FlowKey) -> bool;
    /// Inserts or overwrites; `false` when the table refuses.
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes, if it is there.
    fn forget(&self, table: Table, key: &FlowKey);

    /// Service slot of a virtual address.
    fn service(&self, key: &ServiceKey) -> Option<u32>;
    /// The word that names a service's rules.
    fn rules(&self, service: u32) -> Option<u64>;
    /// A rule.
    fn rule(&self, slot: u32) -> Option<Rule>;
    /// A split.
    fn split(&self, slot: u32) -> Option<Split>;
    /// Takes the next number of a split.
    fn draw(&self, slot: u32) -> Option<u64>;
    /// A node.
    fn node(&self, slot: u32) -> Option<Node>;
    /// A leaf.
    fn leaf(&self, slot: u32) -> Option<Leaf>;
    /// A version.
    fn version(&self, slot: u32) -> Option<Version>;
    /// A group.
    fn group(&self, slot: u32) -> Option<Group>;
    /// A place in the pool of endpoint numbers.
    fn member(&self, slot: u32) -> Option<u32>;
    /// An endpoint.
    fn endpoint(&self, slot: u32) -> Option<Endpoint>;

    /// Where the later fragments of a datagram go.
    fn fragment(&self, key: &FragmentKey) -> Option<Flow>;
    /// Remembers that.
    fn put_fragment(&self, key: &FragmentKey, flow: &Flow);

    /// Counts a choice of a split.
    fn count_choice(&self, leaf: u32);
    /// Counts a flow that got an endpoint.
    fn count_flow(&self, version: u32, endpoint: u32);
    /// Counts a packet.
    fn count_packet(&self, version: u32, endpoint: u32, bytes: u32, reply: bool);
    /// Decides a flow that is not known: [`admit`], or a copy of it out of line, where programs have size limits.
    ///
    /// # Errors
    /// Why the packet is left alone.
    fn admit(&self, headers: &Headers, now: u32) -> Result<Flow, Leave>;
    /// Told how a new flow was decided, before it is remembered.
    fn decided(&self, _decision: &Decision) {}
    /// Told the endpoint of a known flow.
    fn known(&self, _flow: &Flow) {}
}

/// Which packets start flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At ingress: clients' packets and answers.
    In,
    /// At egress: answers only. What a host sends itself is not canary's here.
    Out,
}

/// Headers of a frame.
///
/// # Errors
/// Why the frame is nobody's flow.
#[inline(always)]
pub fn headers<F: Frame + ?Sized>(frame: &F) -> Result<Headers, Leave> {
    match parse_fast(frame) {
        Some(headers) => Ok(headers),
        None => parse(frame),
    }
}

/// What became of a packet on the short way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Express {
    /// Translated.
    Done,
    /// Nobody's packet: [`Leave::NoService`].
    NotOurs,
    /// Nothing was done: take the long way.
    Long,
}

/// The short way of the two usual packets, without options, tags or news: of an established flow, and of no flow and no
/// service at all. The long way gives the same for every packet that goes this one (a property test).
#[inline(always)]
pub fn express<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, way: Way) -> Express {
    let Some(headers) = parse_fast(frame) else { return Express::Long };
    let key = headers.key; // A place of its own: whole headers on the stack would cost copies.
    let Some(entry) = tables.find(Table::Established, &key) else {
        // A connection that is opened to somebody else may find an ended flow in its way: see `release`.
        let ours = || way == Way::In && (headers.flags & (tcp::SYN | tcp::ACK) == tcp::SYN || serviced(tables, &key));
        return if tables.find(Table::Transient, &key).is_some() || ours() { Express::Long } else { Express::NotOurs };
    };
    if headers.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
        return Express::Long;
    }
    if deliver(frame, tables, &headers, entry).is_some() { Express::Done } else { Express::Long }
}

/// Is the destination a service?
#[inline(always)]
fn serviced<T: Tables>(tables: &T, key: &FlowKey) -> bool {
    let address = ServiceKey { addr_be: key.dst_be, port_be: key.dst_port_be, protocol: key.protocol, pad: [0; 5] };
    tables.service(&address).is_some()
}

/// Translates a packet of an established flow. `None`, with nothing changed: its endpoint is gone, or it was idle.
#[inline(always)]
fn deliver<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, headers: &Headers, entry: T::Entry) -> Option<()> {
    let flow = tables.flow(entry);
    let endpoint = tables.endpoint(flow.endpoint)?;
    let now = tables.now();
    if !serves(&endpoint, &flow, now) {
        return None;
    }
    let reply = flow.state & flow_state::REPLY != 0;
    if flow.seen != now {
        if headers.key.protocol == UDP && now.saturating_sub(flow.seen) > tables.settings().udp_ticks {
            return None;
        }
        tables.set_seen(entry, now); // At most once a tick: a write dirties the line for the other CPUs.
    }
    let bytes = frame.len();
    translate(frame, headers, &flow).ok()?;
    tables.count_packet(endpoint.version, flow.endpoint, bytes, reply);
    Some(())
}

/// Handles one packet: translates it in place.
///
/// # Errors
/// Why it is left alone; the frame is as it was.
#[inline(always)]
pub fn balance<F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    way: Way,
    headers: &Headers,
) -> Result<(), Leave> {
    match headers.kind {
        Kind::LaterFragment => {
            let flow = tables.fragment(&headers.fragment_key()).ok_or(Leave::UnknownFragment)?;
            translate_fragment(frame, headers, &flow)?;
            account(frame, tables, &flow);
        }
        Kind::IcmpError => {
            let entry = tables
                .find(Table::Established, &headers.key)
                .or_else(|| tables.find(Table::Transient, &headers.key))
                .ok_or(Leave::UnknownIcmp)?;
            let flow = tables.flow(entry);
            if flow.state & flow_state::CLAIMED != 0 {
                return Err(Leave::UnknownIcmp); // Its endpoint is being chosen: nobody can have answered yet.
            }
            translate_icmp(frame, headers, &flow)?;
        }
        Kind::Flow | Kind::FirstFragment => {
            let flow = flow_of(tables, way, headers)?;
            if headers.kind == Kind::FirstFragment {
                tables.put_fragment(&headers.fragment_key(), &flow);
            }
            account(frame, tables, &flow);
            translate(frame, headers, &flow)?;
        }
    }
    Ok(())
}

#[inline(always)]
fn account<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, flow: &Flow) {
    if let Some(endpoint) = tables.endpoint(flow.endpoint) {
        let reply = flow.state & flow_state::REPLY != 0;
        tables.count_packet(endpoint.version, flow.endpoint, frame.len(), reply);
    }
}

/// The flow of a packet: known, or decided now.
#[inline(always)]
fn flow_of<T: Tables>(tables: &T, way: Way, headers: &Headers) -> Result<Flow, Leave> {
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
const fn opens(protocol: u8, flags: u8) -> bool {
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
    if headers.key.protocol == UDP && flow.state & flow_state::REPLY != 0 {
        return Ok(idle(tables, UDP, flow, now, table) && unasked(tables, headers, flow, now, table));
    }
    Ok(opens && (flow.state & flow_state::CLOSING != 0 || idle(tables, headers.key.protocol, flow, now, table)))
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
fn release<T: Tables>(tables: &T, headers: &Headers, now: u32) {
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
const fn serves(endpoint: &Endpoint, flow: &Flow, now: u32) -> bool {
    endpoint.generation == flow.generation && (endpoint.drain_by == 0 || now < endpoint.drain_by)
}

/// Key of the packets in the other direction.
#[inline(always)]
fn opposite(key: &FlowKey, flow: &Flow) -> FlowKey {
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
fn answers(key: &FlowKey, flow: &Flow, state: u16, now: u32) -> Flow {
    Flow {
        addr_be: key.dst_be,
        port_be: key.dst_port_be,
        state: state | flow_state::REPLY,
        seen: now,
        endpoint: flow.endpoint,
        generation: flow.generation,
    }
}

/// A flow that is not known: service → rule → split → version → endpoint, and both directions are remembered.
///
/// # Errors
/// Why there is no service, rule, version or endpoint for it.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, headers: &Headers, now: u32) -> Result<Flow, Leave> {
    let (key, flags) = (&headers.key, headers.flags);
    let address = ServiceKey { addr_be: key.dst_be, port_be: key.dst_port_be, protocol: key.protocol, pad: [0; 5] };
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
    let remembered = decide(tables, key, opens(key.protocol, flags), service, &rule).and_then(|flow| {
        let flow = Flow { seen: now, ..flow };
        let back = opposite(key, &flow);
        let back = tables.place(&back);
        let here = answers(key, &flow, flow.state, now);
        if tables.put(Table::Transient, key, &flow) && tables.put(Table::Transient, back, &here) {
            Ok(flow)
        } else {
            Err(Leave::TableFull)
        }
    });
    if remembered.is_err() {
        tables.forget(Table::Transient, key);
    }
    remembered
}

#[cfg(test)]
mod tests;
