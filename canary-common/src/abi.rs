//! The maps' keys and values: what kernel programs and agent agree on, byte for byte.
//!
//! Addresses are four big-endian words, IPv4 as `::ffff:a.b.c.d`. `_be` is network byte order, straight off the wire.
//! `LAYOUT` is part of the pin directory's name: change it with any change here.

/// Version of everything in this module.
pub const LAYOUT: u32 = 1;

/// Time unit of flows and drains: 2³⁰ ns, about 1.07 s. Shifting is cheaper than dividing.
pub const TICK_SHIFT: u32 = 30;

/// An IPv6 address, or an IPv4 one mapped into IPv6: network byte order, four words as they lie in memory.
pub type Addr = [u32; 4];

/// The third word of a mapped IPv4 address, as it lies in memory on a little-endian machine.
pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// Field types allowed in a map: any bit pattern is a valid value. `bool`, enums and `Option` are not.
pub trait Plain {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Declares a map type; a hidden pad byte or a field that can hold an invalid value does not compile.
macro_rules! map_type {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(C)]
        pub struct $name { $($(#[$doc])* pub $field: $ty),* }

        const _: () = {
            const fn plain<T: Plain>() {}
            $(plain::<$ty>();)*
            assert!(size_of::<$name>() == 0 $(+ size_of::<$ty>())*, "implicit padding");
        };

        // SAFETY: `repr(C)`, no implicit padding and only `Plain` fields: proved by the constants above.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

mod sockets;

pub use sockets::{
    Client, Connection, ConnectionCounts, HANDSHAKE_BUCKETS, Peer, SocketKey, handshake_bucket, handshake_end,
};

map_type! {
    /// Where a service answers. Aligned as [`FlowKey`].
    #[repr(align(8))]
    pub struct ServiceKey {
        /// Virtual address.
        pub addr_be: Addr,
        /// Port.
        pub port_be: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// [`FOR_PACKETS`] or [`FOR_SOCKETS`].
        pub of: u8,
        /// Zero.
        pub zero: u32,
    }
}
map_type! {
    /// A service. `rules` is the one word that publishes a change: base in the low half, length in the high one.
    pub struct Service {
        /// First rule and number of rules: see [`range`].
        pub rules: u64,
        /// Hash of the service's name; 0: the slot is free.
        pub name_hash: u64,
    }
}
map_type! {
    /// A client network and the split for it.
    pub struct Rule {
        /// Network, masked.
        pub net_be: Addr,
        /// Mask; all zero matches everybody.
        pub mask_be: Addr,
        /// Split slot.
        pub split: u32,
        /// Index of the rule in the service: several networks may share one.
        pub index: u32,
    }
}
map_type! {
    /// A split. Immutable but for `draws`, which has a cache line of its own.
    pub struct Split {
        /// Indices drawn (exact), choices made (keyed).
        pub draws: u64,
        /// Mixed into the hash of a keyed choice, so that services do not share their canaries.
        pub salt: u64,
        /// Tree of the exact choice: node, or leaf with [`LEAF`].
        pub root: u32,
        /// First leaf.
        pub leaves: u32,
        /// Number of leaves.
        pub leaves_len: u32,
        /// Sum of the weights.
        pub total: u32,
        /// [`EXACT`], [`KEYED_FLOW`] or [`KEYED_CLIENT`].
        pub choosing: u32,
        /// 1: its endpoint is the proxy, which must be told where a connection was meant to go.
        pub proxied: u32,
        /// Zero: fills the cache line.
        pub pad: [u32; 6],
    }
}
map_type! {
    /// A two-way jittered split: see `choose`.
    pub struct Node {
        /// Seed, multiplied beforehand.
        pub seed: u64,
        /// Weight of both sides.
        pub total: u32,
        /// Weight of the lighter side, at least 1.
        pub light: u32,
        /// total / light.
        pub quotient: u32,
        /// total % light.
        pub remainder: u32,
        /// Child on the lighter side: node, or leaf with [`LEAF`].
        pub to_light: u32,
        /// Child on the heavier side.
        pub to_heavy: u32,
    }
}
map_type! {
    /// A version's place in a split.
    pub struct Leaf {
        /// Version slot.
        pub version: u32,
        /// Exclusive end of its range on 0..total, for keyed choices.
        pub end: u32,
    }
}
map_type! {
    /// A version. `group` is the word that publishes a change of its endpoints.
    pub struct Version {
        /// Group slot.
        pub group: u32,
        /// Zero.
        pub pad: u32,
        /// Hash of the names of service and version; 0: the slot is free.
        pub name_hash: u64,
    }
}
map_type! {
    /// An immutable set of endpoints.
    pub struct Group {
        /// First member.
        pub members: u32,
        /// Number of members; 0: nobody to send to.
        pub members_len: u32,
        /// First slot of the Maglev ring.
        pub ring: u32,
        /// Slots of the ring; 0: no keyed split uses this version.
        pub ring_len: u32,
        /// Tree of endpoint weights, or [`EVEN`].
        pub root: u32,
        /// Hash of members and weights: an agent recognizes a group that it need not write again.
        pub digest: u32,
    }
}
map_type! {
    /// An endpoint. Immutable while flows may refer to its generation, but for `drain_by`.
    pub struct Endpoint {
        /// Address.
        pub addr_be: Addr,
        /// Port.
        pub port_be: u16,
        /// Zero.
        pub pad: u16,
        /// Version slot.
        pub version: u32,
        /// Counts the slot's uses; 0: never used.
        pub generation: u32,
        /// Tick at which its flows end; 0: in service.
        pub drain_by: u32,
    }
}
map_type! {
    /// Both ends of a packet as it is seen: of a client's packet (to the virtual address) or of an endpoint's answer.
    /// Aligned to 8, because LLVM writes it by eights and the verifier wants those aligned on the stack.
    #[repr(align(8))]
    pub struct FlowKey {
        /// Source address.
        pub src_be: Addr,
        /// Destination address.
        pub dst_be: Addr,
        /// Source port.
        pub src_port_be: u16,
        /// Destination port.
        pub dst_port_be: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero. Two numbers, no array: LLVM would call `memset` for that.
        pub pad: u8,
        /// Zero.
        pub zero: u16,
    }
}
map_type! {
    /// What to do with a packet of a flow: one entry for each direction.
    pub struct Flow {
        /// New destination (client's packets: the endpoint) or new source (answers: the virtual address).
        pub addr_be: Addr,
        /// New port.
        pub port_be: u16,
        /// Flags: see [`flow_state`].
        pub state: u16,
        /// Tick of the last packet.
        pub seen: u32,
        /// Endpoint slot.
        pub endpoint: u32,
        /// The endpoint's generation when it was chosen.
        pub generation: u32,
    }
}
map_type! {
    /// A fragmented datagram.
    pub struct FragmentKey {
        /// Source address.
        pub src_be: Addr,
        /// Destination address.
        pub dst_be: Addr,
        /// Identification.
        pub id_be: u32,
        /// IP protocol number; 0 for IPv6, which does not tell datagrams apart by it.
        pub protocol: u32,
    }
}
map_type! {
    /// Flows, packets and bytes of a version or an endpoint, on one CPU.
    pub struct Counts {
        /// New flows.
        pub flows: u64,
        /// Packets from clients.
        pub packets_in: u64,
        /// Bytes from clients: whole frames.
        pub bytes_in: u64,
        /// Packets to clients.
        pub packets_out: u64,
        /// Bytes to clients.
        pub bytes_out: u64,
    }
}
impl Counts {
    /// Counts a packet: from a client, or an answer.
    #[inline(always)]
    pub fn packet(&mut self, bytes: u32, reply: bool) {
        if reply {
            self.packets_out += 1;
            self.bytes_out += u64::from(bytes);
        } else {
            self.packets_in += 1;
            self.bytes_in += u64::from(bytes);
        }
    }
}
map_type! {
    /// What a dry run saw. `u32::MAX` in a slot: it did not come that far.
    pub struct Trace {
        /// In: which of the coming draws to show; 0 is the next one.
        pub ahead: u32,
        /// 1 + the reason why the packet is left alone; 0: it is forwarded.
        pub leave: u32,
        /// Service slot.
        pub service: u32,
        /// Index of the rule.
        pub rule: u32,
        /// Version slot.
        pub version: u32,
        /// Endpoint slot.
        pub endpoint: u32,
        /// The draw (exact) or the hash (keyed).
        pub draw: u64,
        /// 1: the flow is in the table.
        pub known: u32,
        /// Zero.
        pub pad: u32,
    }
}
map_type! {
    /// Settings of the programs: element 0 of `SETTINGS`.
    pub struct Settings {
        /// Idle time of established TCP flows, in ticks.
        pub tcp_ticks: u32,
        /// Idle time of UDP flows.
        pub udp_ticks: u32,
        /// Idle time of half-open and closing flows.
        pub transient_ticks: u32,
        /// Tick until which clients' packets go straight to endpoints behind a veth; 0: never. The agent puts it off.
        pub direct_until: u32,
    }
}

/// An element of `HOPS`: the device whose other end leads to the endpoint in this slot, and the generation of the endpoint
/// that it is about. One word, written by one store: a slot that was given to another endpoint has no device until its own
/// is written. 0: no device.
#[inline(always)]
#[must_use]
pub const fn hop(device: u32, generation: u32) -> u64 {
    (device as u64) << 32 | generation as u64
}

/// The device of a [`hop`], if it is about this generation.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
pub const fn unhop(hop: u64, generation: u32) -> Option<u32> {
    let device = (hop >> 32) as u32;
    if device != 0 && hop as u32 == generation { Some(device) } else { None }
}

/// Marks a reference to a leaf in `Split::root`, `Group::root` and `Node::to_*`.
pub const LEAF: u32 = 1 << 31;
/// `Group::root` of endpoints with equal weights: round robin.
pub const EVEN: u32 = u32::MAX;
/// A slot that is not there.
pub const NONE: u32 = u32::MAX;

/// `ServiceKey::of`: for packets.
pub const FOR_PACKETS: u8 = 0;
/// `ServiceKey::of`: for sockets that connect or send.
pub const FOR_SOCKETS: u8 = 1;

/// `Split::choosing`: counted.
pub const EXACT: u32 = 0;
/// `Split::choosing`: by the 5-tuple.
pub const KEYED_FLOW: u32 = 1;
/// `Split::choosing`: by the client's address.
pub const KEYED_CLIENT: u32 = 2;

/// Flags of [`Flow::state`].
pub mod flow_state {
    /// The entry translates the source of answers; otherwise the destination of a client's packets.
    pub const REPLY: u16 = 1;
    /// Both sides have been heard.
    pub const REPLIED: u16 = 2;
    /// This direction has sent FIN.
    pub const FIN: u16 = 4;
    /// FIN both ways.
    pub const CLOSING: u16 = 8;
    /// Being chosen at this moment on some CPU.
    pub const CLAIMED: u16 = 16;
    /// RST, whose sequence number nobody here can check.
    pub const RESET: u16 = 32;
}

/// Base and length in one word, so that one store publishes both.
#[inline(always)]
#[must_use]
pub const fn range(base: u32, len: u32) -> u64 {
    (len as u64) << 32 | base as u64
}

/// Base and length of a [`range`].
#[inline(always)]
#[must_use]
pub const fn unrange(word: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the base")]
    (word as u32, (word >> 32) as u32)
}

/// Maps an IPv4 address, four bytes as they lie on the wire, into [`Addr`].
#[inline(always)]
#[must_use]
pub const fn mapped(addr_be: u32) -> Addr {
    [0, 0, MAPPED, addr_be]
}
