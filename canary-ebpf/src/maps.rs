//! The maps, and the pipeline's view of them: `Maps<LIVE>` changes them, `Maps<DRY>` only looks.
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use canary_common::{
    abi::{
        Counts, Endpoint, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Rule, Service, ServiceKey, Settings, Split,
        TICK_SHIFT, Trace, Version, flow_state,
    },
    limits,
    packet::Headers,
    pipeline::{Decision, Table, Tables, admit},
    verdict::Leave,
};

/// `BPF_F_NO_PREALLOC`: a replaced element is freed after a grace period, never reused under a reader.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the agent writes through a mapping, a word at a time.
const MMAPABLE: u32 = 1 << 10;

#[map]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(limits::FRONTENDS, NO_PREALLOC);
#[map]
static SERVICE: Array<Service> = Array::with_max_entries(limits::SERVICES, MMAPABLE);
#[map]
static RULES: Array<Rule> = Array::with_max_entries(limits::RULE_SLOTS, MMAPABLE);
#[map]
static SPLITS: Array<Split> = Array::with_max_entries(limits::SPLIT_SLOTS, MMAPABLE);
#[map]
static NODES: Array<Node> = Array::with_max_entries(limits::NODE_SLOTS, MMAPABLE);
#[map]
static LEAVES: Array<Leaf> = Array::with_max_entries(limits::LEAF_SLOTS, MMAPABLE);
#[map]
static VERSIONS: Array<Version> = Array::with_max_entries(limits::VERSIONS, MMAPABLE);
#[map]
static GROUPS: Array<Group> = Array::with_max_entries(limits::GROUP_SLOTS, MMAPABLE);
#[map]
static MEMBERS: Array<u32> = Array::with_max_entries(limits::MEMBER_SLOTS, MMAPABLE);
#[map]
static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(limits::ENDPOINTS, MMAPABLE);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, MMAPABLE);

#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(2 << 20, 0);
#[map]
static TRANSIENT: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(2 << 17, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, Flow> = LruHashMap::with_max_entries(limits::FRAGMENTS, 0);

#[map]
static CHOICES: PerCpuArray<u64> = PerCpuArray::with_max_entries(limits::LEAF_SLOTS, 0);
#[map]
static VERSION_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(limits::VERSIONS, 0);
#[map]
static ENDPOINT_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(limits::ENDPOINTS, 0);
#[map]
static LEAVE_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(32, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);
#[map]
static TRACE: Array<Trace> = Array::with_max_entries(1, 0);

const _: () = assert!(Leave::ALL.len() <= 32, "every reason has a counter");

/// Changes the maps.
pub(crate) const LIVE: bool = true;
/// Only looks: for `canary trace`.
pub(crate) const DRY: bool = false;

/// Where headers, keys and values lie while the pipeline works on them.
///
/// A program's stack has 512 bytes, and a pipeline that is inlined whole would need a place for every call. More: what is
/// read back from a map is an unknown number to the verifier, so that the many ways through the parser meet again in
/// one state, instead of each being followed to the end. A CPU runs one such program at a time (bottom halves are off);
/// dry runs have an element of their own.
#[repr(C)]
struct Scratch {
    headers: Headers,
    key: FlowKey,
    flow: Flow,
    fragment: FragmentKey,
    decided: Flow,
}

/// The maps as [`Tables`].
#[derive(Clone, Copy)]
pub(crate) struct Maps<const LIVE: bool> {
    scratch: *mut Scratch,
}

impl<const LIVE: bool> Maps<LIVE> {
    /// The maps; `None` never happens, but the verifier wants to see it handled.
    #[inline(always)]
    pub(crate) fn new() -> Option<Self> {
        Some(Self { scratch: SCRATCH.get_ptr_mut(u32::from(!LIVE))? })
    }

    /// The maps without scratch: for [`canary_common::pipeline::express`], which needs none.
    #[inline(always)]
    pub(crate) const fn express() -> Self {
        Self { scratch: core::ptr::null_mut() }
    }

    /// Puts the headers of this run where [`Maps::headers`] of a later look-up finds them.
    #[inline(always)]
    pub(crate) fn keep(self, headers: Headers) {
        // SAFETY: this CPU's own element, for this run.
        unsafe { (*self.scratch).headers = headers };
    }

    /// The headers that were kept.
    #[inline(always)]
    pub(crate) fn headers(&self) -> &Headers {
        // SAFETY: as above; `keep` came first in this run.
        unsafe { &(*self.scratch).headers }
    }

    #[inline(always)]
    fn value(&self, flow: &Flow) -> &Flow {
        // SAFETY: as above.
        unsafe {
            (*self.scratch).flow = *flow;
            &(*self.scratch).flow
        }
    }

    #[inline(always)]
    fn fragment_key(&self, key: &FragmentKey) -> &FragmentKey {
        // SAFETY: as above.
        unsafe {
            (*self.scratch).fragment = *key;
            &(*self.scratch).fragment
        }
    }
}

#[inline(always)]
fn copy<T: Copy>(map: &Array<T>, slot: u32) -> Option<T> {
    map.get(slot).copied()
}

/// Adds 1 to a number that other CPUs add to as well, and returns what it was.
#[inline(always)]
fn fetch_add(number: *mut u64) -> u64 {
    let mut value = 1_u64;
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

/// Changes this CPU's own counters in a slot.
#[inline(always)]
fn count(map: &PerCpuArray<Counts>, slot: u32, change: impl FnOnce(&mut Counts)) {
    if let Some(counts) = map.get_ptr_mut(slot) {
        // SAFETY: this CPU's own element; programs do not preempt each other on it.
        change(unsafe { &mut *counts });
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

/// Admits the flow in the scratch. 0: it is decided; else 1 + the reason against it.
#[inline(always)]
fn admit_scratch<const LIVE: bool>(now: u32) -> u32 {
    let Some(maps) = Maps::<LIVE>::new() else { return 1 };
    match admit(&maps, maps.headers(), now) {
        Ok(flow) => {
            // SAFETY: as above.
            unsafe { (*maps.scratch).decided = flow };
            0
        }
        Err(leave) => 1 + leave as u32,
    }
}

// A global function is verified once, by itself: inlined into every way that leads to it, the choice of a new flow
// would exceed a million verified instructions. Scalars only, so that LLVM keeps the signature.

/// [`admit`] for traffic.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit_live(now: u32) -> u32 {
    admit_scratch::<LIVE>(now)
}

/// [`admit`] for dry runs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit_dry(now: u32) -> u32 {
    admit_scratch::<DRY>(now)
}

impl<const LIVE: bool> Tables for Maps<LIVE> {
    type Entry = *mut Flow;

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        let nanos = unsafe { bpf_ktime_get_coarse_ns() };
        #[expect(clippy::cast_possible_truncation, reason = "ticks fill 32 bits in 146 years")]
        let ticks = (nanos >> TICK_SHIFT) as u32;
        ticks
    }
    #[inline(always)]
    fn settings(&self) -> Settings {
        copy(&SETTINGS, 0).unwrap_or_default()
    }

    #[inline(always)]
    fn place<'a>(&'a self, key: &'a FlowKey) -> &'a FlowKey {
        // SAFETY: this CPU's own element, for this run.
        unsafe {
            (*self.scratch).key = *key;
            &(*self.scratch).key
        }
    }
    #[inline(always)]
    fn find(&self, table: Table, key: &FlowKey) -> Option<*mut Flow> {
        match table {
            Table::Established => FLOWS.get_ptr_mut(key),
            Table::Transient => TRANSIENT.get_ptr_mut(key),
        }
    }
    #[inline(always)]
    fn flow(&self, entry: *mut Flow) -> Flow {
        // SAFETY: `entry` came from a lookup in this run. An LRU element may be given to another flow meanwhile; the
        // copy is then of that flow, as with any LRU map.
        unsafe { *entry }
    }
    #[inline(always)]
    fn set_seen(&self, entry: *mut Flow, seen: u32) {
        if LIVE {
            // SAFETY: as above; one aligned word.
            unsafe { (&raw mut (*entry).seen).write_volatile(seen) };
        }
    }
    #[inline(always)]
    fn set_state(&self, entry: *mut Flow, state: u16) {
        if LIVE {
            // SAFETY: as above.
            unsafe { (&raw mut (*entry).state).write_volatile(state) };
        }
    }
    #[inline(always)]
    fn claim(&self, key: &FlowKey) -> bool {
        if !LIVE {
            return true;
        }
        let claimed = Flow { state: flow_state::CLAIMED, ..Flow::default() };
        TRANSIENT.insert(key, self.value(&claimed), u64::from(BPF_NOEXIST)).is_ok()
    }
    #[inline(always)]
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        if !LIVE {
            return true;
        }
        let flow = self.value(flow);
        match table {
            Table::Established => FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_ok(),
            Table::Transient => TRANSIENT.insert(key, flow, u64::from(BPF_ANY)).is_ok(),
        }
    }
    #[inline(always)]
    fn forget(&self, table: Table, key: &FlowKey) {
        if LIVE {
            let _ = match table {
                Table::Established => FLOWS.remove(key),
                Table::Transient => TRANSIENT.remove(key),
            };
        }
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<u32> {
        // SAFETY: the map is not preallocated: an element lives as long as a program may hold it.
        unsafe { SERVICES.get(key) }.copied()
    }
    #[inline(always)]
    fn rules(&self, service: u32) -> Option<u64> {
        let service = SERVICE.get_ptr(service)?;
        // SAFETY: from a lookup; volatile, so that the word that publishes is read once.
        Some(unsafe { (&raw const (*service).rules).read_volatile() })
    }
    #[inline(always)]
    fn rule(&self, slot: u32) -> Option<Rule> {
        copy(&RULES, slot)
    }
    #[inline(always)]
    fn split(&self, slot: u32) -> Option<Split> {
        copy(&SPLITS, slot)
    }
    #[inline(always)]
    fn draw(&self, slot: u32) -> Option<u64> {
        let split = SPLITS.get_ptr_mut(slot)?;
        // SAFETY: from a lookup.
        let draws = unsafe { &raw mut (*split).draws };
        if LIVE {
            return Some(fetch_add(draws));
        }
        let ahead = TRACE.get(0).map_or(0, |trace| trace.ahead);
        // SAFETY: as above.
        Some(unsafe { draws.read_volatile() } + u64::from(ahead))
    }
    #[inline(always)]
    fn node(&self, slot: u32) -> Option<Node> {
        copy(&NODES, slot)
    }
    #[inline(always)]
    fn leaf(&self, slot: u32) -> Option<Leaf> {
        copy(&LEAVES, slot)
    }
    #[inline(always)]
    fn version(&self, slot: u32) -> Option<Version> {
        copy(&VERSIONS, slot)
    }
    #[inline(always)]
    fn group(&self, slot: u32) -> Option<Group> {
        copy(&GROUPS, slot)
    }
    #[inline(always)]
    fn member(&self, slot: u32) -> Option<u32> {
        copy(&MEMBERS, slot)
    }
    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        copy(&ENDPOINTS, slot)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Flow> {
        // SAFETY: copied out at once; see `flow`.
        unsafe { FRAGMENTS.get(self.fragment_key(key)) }.copied()
    }
    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, flow: &Flow) {
        if LIVE {
            let _ = FRAGMENTS.insert(self.fragment_key(key), self.value(flow), u64::from(BPF_ANY));
        }
    }

    #[inline(always)]
    fn count_choice(&self, leaf: u32) {
        if LIVE && let Some(count) = CHOICES.get_ptr_mut(leaf) {
            // SAFETY: this CPU's own element.
            unsafe { *count += 1 };
        }
    }
    #[inline(always)]
    fn count_flow(&self, version: u32, endpoint: u32) {
        if !LIVE {
            return;
        }
        count(&VERSION_COUNTS, version, |counts| counts.flows += 1);
        count(&ENDPOINT_COUNTS, endpoint, |counts| counts.flows += 1);
    }
    #[inline(always)]
    fn count_packet(&self, version: u32, endpoint: u32, bytes: u32, reply: bool) {
        if !LIVE {
            return;
        }
        let packet = |counts: &mut Counts| {
            if reply {
                counts.packets_out += 1;
                counts.bytes_out += u64::from(bytes);
            } else {
                counts.packets_in += 1;
                counts.bytes_in += u64::from(bytes);
            }
        };
        count(&VERSION_COUNTS, version, packet);
        count(&ENDPOINT_COUNTS, endpoint, packet);
    }
    #[inline(always)]
    fn admit(&self, _: &Headers, now: u32) -> Result<Flow, Leave> {
        let number = if LIVE { admit_live(now) } else { admit_dry(now) };
        if number != 0 {
            return Err(Leave::from_number(number - 1));
        }
        // SAFETY: as above.
        Ok(unsafe { (*self.scratch).decided })
    }
    #[inline(always)]
    fn decided(&self, decision: &Decision) {
        if !LIVE {
            trace(|trace| {
                trace.service = decision.service;
                trace.rule = decision.rule;
                trace.version = decision.version;
                trace.endpoint = decision.endpoint;
                trace.draw = decision.draw;
            });
        }
    }
    #[inline(always)]
    fn known(&self, flow: &Flow) {
        if !LIVE {
            trace(|trace| {
                trace.known = 1;
                trace.endpoint = flow.endpoint;
            });
        }
    }
}
