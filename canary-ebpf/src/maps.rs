//! The maps, and what the programs do to single values.
use core::mem::offset_of;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use canary_common::{
    abi::{
        Client, Connection, ConnectionCounts, Counts, Endpoint, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Peer,
        Rule, Service, ServiceKey, Settings, SocketKey, Split, Trace, Version,
    },
    limits,
    packet::Headers,
    pipeline::Choice,
    verdict::Leave,
};

/// `BPF_F_NO_PREALLOC`: a replaced element is freed after a grace period, never reused under a reader.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the agent writes through a mapping, a word at a time.
const MMAPABLE: u32 = 1 << 10;

#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(limits::FRONTEND_ENTRIES, NO_PREALLOC);
#[map]
pub(crate) static SERVICE: Array<Service> = Array::with_max_entries(limits::SERVICES, MMAPABLE);
#[map]
pub(crate) static RULES: Array<Rule> = Array::with_max_entries(limits::RULE_SLOTS, MMAPABLE);
#[map]
pub(crate) static SPLITS: Array<Split> = Array::with_max_entries(limits::SPLIT_SLOTS, MMAPABLE);
#[map]
pub(crate) static NODES: Array<Node> = Array::with_max_entries(limits::NODE_SLOTS, MMAPABLE);
#[map]
pub(crate) static LEAVES: Array<Leaf> = Array::with_max_entries(limits::LEAF_SLOTS, MMAPABLE);
#[map]
pub(crate) static VERSIONS: Array<Version> = Array::with_max_entries(limits::VERSIONS, MMAPABLE);
#[map]
pub(crate) static GROUPS: Array<Group> = Array::with_max_entries(limits::GROUP_SLOTS, MMAPABLE);
#[map]
pub(crate) static MEMBERS: Array<u32> = Array::with_max_entries(limits::MEMBER_SLOTS, MMAPABLE);
#[map]
pub(crate) static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(limits::ENDPOINTS, MMAPABLE);
#[map]
pub(crate) static HOPS: Array<u64> = Array::with_max_entries(limits::ENDPOINTS, MMAPABLE);
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, MMAPABLE);

#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(2 << 20, 0);
#[map]
pub(crate) static TRANSIENT: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(2 << 17, 0);
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Flow> = LruHashMap::with_max_entries(limits::FRAGMENTS, 0);

#[map]
pub(crate) static SOCKETS: LruHashMap<SocketKey, Peer> = LruHashMap::with_max_entries(limits::SOCKETS, 0);

#[map]
pub(crate) static ORIGINS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(limits::ORIGINS, 0);

#[map]
pub(crate) static CLIENTS: HashMap<u64, Client> = HashMap::with_max_entries(limits::CLIENTS, NO_PREALLOC);

#[map]
pub(crate) static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(limits::CONNECTIONS, NO_PREALLOC);
#[map]
pub(crate) static CONNECTION_COUNTS: Array<ConnectionCounts> = Array::with_max_entries(limits::VERSIONS, MMAPABLE);
#[map]
pub(crate) static OPEN_CONNECTIONS: Array<u64> = Array::with_max_entries(limits::ENDPOINTS, MMAPABLE);

#[map]
pub(crate) static CHOICES: PerCpuArray<u64> = PerCpuArray::with_max_entries(limits::LEAF_SLOTS, 0);
#[map]
pub(crate) static VERSION_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(limits::VERSIONS, 0);
#[map]
pub(crate) static ENDPOINT_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub(crate) static LEAVE_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(32, 0);
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub(crate) static TRACE: Array<Trace> = Array::with_max_entries(1, 0);

const _: () = assert!(Leave::ALL.len() <= 32, "every reason has a counter");

/// Where headers, keys and values lie while the pipeline works on them.
///
/// A program's stack has 512 bytes, and a pipeline that is inlined whole would need a place for every call. More: what is
/// read back from a map is an unknown number to the verifier, so that the many ways through the parser meet again in
/// one state, instead of each being followed to the end. A CPU runs one such program at a time (bottom halves are off);
/// dry runs have an element of their own.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) headers: Headers,
    pub(crate) back: FlowKey,
    pub(crate) forth: FlowKey,
    pub(crate) flow: Flow,
    pub(crate) fragment: FragmentKey,
    pub(crate) held: Flow,
    pub(crate) choice: Choice,
}

/// A copy of an element.
#[inline(always)]
pub(crate) fn copy<T: Copy>(map: &Array<T>, slot: u32) -> Option<T> {
    map.get(slot).copied()
}

/// What a socket addresses, or is answered by.
#[inline(always)]
pub(crate) fn peer(key: &SocketKey) -> Option<Peer> {
    // SAFETY: copied out at once; an element of an LRU map may be given to another socket meanwhile, as with any such map.
    unsafe { SOCKETS.get(key) }.copied()
}

/// Adds 1 to a number that other CPUs add to as well, and returns what it was.
#[inline(always)]
pub(crate) fn fetch_add(number: *mut u64) -> u64 {
    fetch_add_of(number, 1)
}

/// Adds to a number that other CPUs add to as well, and returns what it was.
#[inline(always)]
pub(crate) fn fetch_add_of(number: *mut u64, mut value: u64) -> u64 {
    // SAFETY: `number` points into a map value, 8-byte aligned. The core intrinsic with relaxed order silently yields
    // the addend, and `AtomicU64::fetch_add` does not exist for a target without compare-and-swap.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({number} + 0), {value})",
            number = in(reg) number,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Sets flags of a flow that other CPUs may be setting as well: in the word that holds port and flags, for the kernel has
/// no atomic operation on less.
#[inline(always)]
pub(crate) fn set_bits(entry: *mut Flow, flags: u16) {
    const WORD: usize = offset_of!(Flow, port_be);
    const _: () = assert!(WORD.is_multiple_of(4) && offset_of!(Flow, state) == WORD + 2, "port and flags are one word");
    // SAFETY: `entry` points to a map value; little-endian, so the flags are the upper half.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({entry} + {word}) |= {bits}",
            entry = in(reg) entry,
            word = const WORD,
            bits = in(wreg) u32::from(flags) << 16,
            options(nostack),
        );
    }
}

/// Changes this CPU's own counters in a slot.
#[inline(always)]
pub(crate) fn count(map: &PerCpuArray<Counts>, slot: u32, change: impl FnOnce(&mut Counts)) {
    if let Some(counts) = map.get_ptr_mut(slot) {
        // SAFETY: this CPU's own element; programs do not preempt each other on it.
        change(unsafe { &mut *counts });
    }
}

/// Counts a flow in one instruction: whoever interrupts adds to the same number, or has added.
#[inline(always)]
pub(crate) fn count_flow_at_once(map: &PerCpuArray<Counts>, slot: u32) {
    if let Some(counts) = map.get_ptr_mut(slot) {
        // SAFETY: from a lookup; the field is aligned.
        fetch_add(unsafe { &raw mut (*counts).flows });
    }
}

/// Counts a packet that is left alone.
#[inline(always)]
pub(crate) fn count_leave(leave: Leave) {
    if let Some(count) = LEAVE_COUNTS.get_ptr_mut(leave as u32) {
        // SAFETY: this CPU's own element; programs do not preempt each other on it.
        unsafe { *count += 1 };
    }
}

/// Writes what a dry run found.
#[inline(always)]
pub(crate) fn trace(change: impl FnOnce(&mut Trace)) {
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: one agent traces at a time, and programs that handle traffic never write here.
        change(unsafe { &mut *trace });
    }
}
