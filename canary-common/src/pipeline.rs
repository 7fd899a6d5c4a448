//! The way of a packet: parse → known flow, or service → rule → split → version → endpoint → remember → translate.
//!
//! One copy for the kernel and the host: the maps are behind [`Tables`], the frame behind [`Frame`]. Kernel programs are
//! instances over BPF maps, `canary trace` one whose tables remember nothing, the differential test one over hash maps.
mod decide;
mod flows;
mod sockets;

use self::flows::{in_service, look_after, serves};
pub use self::{
    decide::{admit, choose_endpoint, choose_version},
    flows::find_flow,
    sockets::{Chosen, Process, choose_for_socket, chosen_before},
};
use crate::{
    abi::{
        Endpoint, FOR_PACKETS, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Rule, ServiceKey, Settings, Split,
        Version, flow_state, unhop,
    },
    packet::{ETHERNET, Headers, Kind, UDP, parse, parse_fast, plain_ipv6, tcp},
    rewrite::{Frame, translate, translate_fragment, translate_icmp},
    verdict::{Leave, Onward},
};

/// Which flow tables there are: established flows have one of their own, which no flood of new ones can empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Both sides have been heard, neither has ended.
    Established,
    /// Half-open or closing.
    Transient,
}

/// Where a key that was computed may lie: see [`Tables::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// Key of the packets in the other direction.
    Back,
    /// And of those opposite to these: of another flow, whose answers are in this one's way.
    Forth,
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

/// The version that was chosen for a new flow, and what its endpoint is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Service slot.
    pub service: u32,
    /// Index of the rule in the service.
    pub rule: u32,
    /// Version slot.
    pub version: u32,
    /// 1: the choice is exact; 0: keyed. No `bool`: a kernel program reads it back from a map.
    pub exact: u32,
    /// The draw (exact) or the hash (keyed).
    pub draw: u64,
    /// The flow's number in its version (exact), or the half of the hash for endpoints (keyed).
    pub index: u64,
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
    fn place<'a>(&'a self, _spot: Spot, key: &'a FlowKey) -> &'a FlowKey {
        key
    }
    /// The same key, by a reference of which the compiler knows nothing: in a loop it would compute the addresses of all
    /// fields ahead, and keep them on a stack that has no room.
    fn afresh<'a>(&'a self, key: &'a FlowKey) -> &'a FlowKey {
        key
    }
    /// What [`Tables::place`] does, for a flow; [`Tables::held`] gives the last one back.
    fn hold<'a>(&'a self, flow: &'a Flow) -> &'a Flow;
    /// The flow that was held last.
    fn held(&self) -> Flow;
    /// Finds a flow.
    fn find(&self, table: Table, key: &FlowKey) -> Option<Self::Entry>;
    /// Copies a flow out.
    fn flow(&self, entry: Self::Entry) -> Flow;
    /// Sets the time of the last packet.
    fn set_seen(&self, entry: Self::Entry, seen: u32);
    /// Sets flags; those that are set already stay, whatever other CPUs do meanwhile.
    fn mark(&self, entry: Self::Entry, flags: u16);
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
    /// The device that leads to an endpoint: a [`crate::abi::hop`].
    fn hop(&self, endpoint: u32) -> Option<u64>;

    /// Where the later fragments of a datagram go.
    fn fragment(&self, key: &FragmentKey) -> Option<Flow>;
    /// Remembers that.
    fn put_fragment(&self, key: &FragmentKey, flow: &Flow);
    /// Forgets that.
    fn forget_fragment(&self, key: &FragmentKey);

    /// Counts a choice of a split.
    fn count_choice(&self, leaf: u32);
    /// Counts a flow that got an endpoint.
    fn count_flow(&self, version: u32, endpoint: u32);
    /// Counts a packet.
    fn count_packet(&self, version: u32, endpoint: u32, bytes: u32, reply: bool);
    /// Told how a new flow was decided, before it is remembered.
    fn decided(&self, _decision: &Decision) {}
    /// Told the endpoint of a known flow.
    fn known(&self, _flow: &Flow) {}
}

/// How long the later fragments of a datagram are awaited, in ticks: about the 30 s that Linux gives them.
const FRAGMENT_TICKS: u32 = 28;

/// The steps of the long way. In programs, which have size limits, they are copies out of line.
pub trait Steps: Tables {
    /// Finds the flow of a packet: [`find_flow`].
    ///
    /// # Errors
    /// Why the packet is left alone.
    fn find_flow(&self, headers: &Headers, now: u32) -> Result<bool, Leave>;
    /// Decides a flow that is not known: [`admit`], or its halves.
    ///
    /// # Errors
    /// Why the packet is left alone.
    fn admit(&self, headers: &Headers, now: u32) -> Result<(), Leave>;
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
pub fn headers<F: Frame + ?Sized>(frame: &mut F) -> Result<Headers, Leave> {
    if let Some(headers) = parse_fast(frame) {
        return Ok(headers);
    }
    if !plain_ipv6(frame) {
        frame.gather();
    }
    parse(frame)
}

/// What became of a packet on the short way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Express {
    /// Translated: where it goes on.
    Done(Onward),
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
    deliver(frame, tables, way, &headers, entry).map_or(Express::Long, Express::Done)
}

/// Is the destination a service?
#[inline(always)]
fn serviced<T: Tables>(tables: &T, key: &FlowKey) -> bool {
    let address =
        ServiceKey { addr_be: key.dst_be, port_be: key.dst_port_be, protocol: key.protocol, of: FOR_PACKETS, zero: 0 };
    tables.service(&address).is_some()
}

/// Where a translated packet goes on: to the stack, or, of a client, straight to an endpoint that is behind a device of this
/// host, if that is asked for.
#[inline(always)]
fn onward<F: Frame + ?Sized, T: Tables>(tables: &T, way: Way, flow: &Flow, now: u32) -> Onward {
    if !F::PEERS || way == Way::Out || flow.state & flow_state::REPLY != 0 || now >= tables.settings().direct_until {
        return Onward::Stack;
    }
    tables.hop(flow.endpoint).and_then(|hop| unhop(hop, flow.generation)).map_or(Onward::Stack, Onward::Peer)
}

/// Translates a packet of an established flow. `None`, with nothing changed: its endpoint is gone, it was
/// idle, or it is time to look whether it is whole.
#[inline(always)]
fn deliver<F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    way: Way,
    headers: &Headers,
    entry: T::Entry,
) -> Option<Onward> {
    let flow = tables.flow(entry);
    let endpoint = tables.endpoint(flow.endpoint)?;
    let now = tables.now();
    if !serves(&endpoint, &flow, now) {
        return None;
    }
    let reply = flow.state & flow_state::REPLY != 0;
    if flow.seen != now {
        let idle = headers.key.protocol == UDP && now.saturating_sub(flow.seen) > tables.settings().udp_ticks;
        if idle || look_after(&headers.key, &flow, now) {
            return None;
        }
        tables.set_seen(entry, now); // At most once a tick: a write dirties the line for the other CPUs.
    }
    let bytes = frame.len();
    translate(frame, headers, &flow).ok()?;
    tables.count_packet(endpoint.version, flow.endpoint, bytes, reply);
    Some(onward::<F, T>(tables, way, &flow, now))
}

/// Handles one packet: translates it in place, and says where it goes on.
///
/// # Errors
/// Why it is left alone; the frame is as it was.
#[inline(always)]
pub fn balance<F: Frame + ?Sized, T: Steps>(
    frame: &mut F,
    tables: &T,
    way: Way,
    headers: &Headers,
) -> Result<Onward, Leave> {
    match headers.kind {
        Kind::LaterFragment => {
            let flow = tables.fragment(&headers.fragment_key()).ok_or(Leave::UnknownFragment)?;
            // Identifications come round again.
            if tables.now().saturating_sub(flow.seen) > FRAGMENT_TICKS || !in_service(tables, &flow, tables.now()) {
                return Err(Leave::UnknownFragment);
            }
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
            let flow = flow_of(tables, way, headers);
            if headers.kind == Kind::FirstFragment {
                match flow {
                    Ok(flow) => tables.put_fragment(&headers.fragment_key(), &Flow { seen: tables.now(), ..flow }),
                    // An older datagram may have had the same identification.
                    Err(_) => tables.forget_fragment(&headers.fragment_key()),
                }
            }
            let flow = flow?;
            account(frame, tables, &flow);
            translate(frame, headers, &flow)?;
            // A tag is the host's to take off.
            if headers.kind == Kind::Flow && headers.l3 == ETHERNET {
                return Ok(onward::<F, T>(tables, way, &flow, tables.now()));
            }
        }
    }
    Ok(Onward::Stack)
}

/// The flow of a packet: known, or decided now.
#[inline(always)]
fn flow_of<T: Steps>(tables: &T, way: Way, headers: &Headers) -> Result<Flow, Leave> {
    let now = tables.now();
    if tables.find_flow(headers, now)? {
        tables.known(&tables.held());
    } else if way == Way::Out {
        return Err(Leave::NoService);
    } else {
        tables.admit(headers, now)?;
    }
    Ok(tables.held())
}

#[inline(always)]
fn account<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, flow: &Flow) {
    if let Some(endpoint) = tables.endpoint(flow.endpoint) {
        let reply = flow.state & flow_state::REPLY != 0;
        tables.count_packet(endpoint.version, flow.endpoint, frame.len(), reply);
    }
}

#[cfg(test)]
mod tests;
