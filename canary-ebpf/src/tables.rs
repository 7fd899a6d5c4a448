//! The pipeline's view of the maps: `Maps<LIVE>` and `Maps<SOCKET>` change them, `Maps<DRY>` only looks.
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_coarse_ns,
};
use canary_common::{
    abi::{
        Endpoint, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Rule, ServiceKey, Settings, Split, TICK_SHIFT,
        Version, flow_state,
    },
    packet::Headers,
    pipeline::{Choice, Decision, Spot, Table, Tables},
};

use crate::maps::{
    CHOICES, ENDPOINT_COUNTS, ENDPOINTS, FLOWS, FRAGMENTS, GROUPS, HOPS, LEAVES, MEMBERS, NODES, RULES, SCRATCH,
    SERVICE, SERVICES, SETTINGS, SPLITS, Scratch, TRACE, TRANSIENT, VERSION_COUNTS, VERSIONS, copy, count,
    count_flow_at_once, fetch_add, set_bits, trace,
};

/// Changes the maps.
pub(crate) const LIVE: u8 = 0;
/// Only looks: for `canary trace`.
pub(crate) const DRY: u8 = 1;
/// Changes the maps, in the middle of a process: a packet may be handled on this CPU at any moment, or another process.
/// Counters are added to in one instruction, and there is no scratch.
pub(crate) const SOCKET: u8 = 2;

/// The same pointer, of which LLVM knows nothing: it would compute the addresses of all fields ahead of a loop, and keep them
/// on a stack that has no room.
#[inline(always)]
fn unknown<T>(mut pointer: *mut T) -> *mut T {
    // SAFETY: changes nothing. Not empty: two lines of debug information for one instruction do not load.
    unsafe {
        #[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer is moved to itself, nothing else")]
        {
            core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nomem, nostack));
        }
    }
    pointer
}

/// The maps as [`Tables`].
#[derive(Clone, Copy)]
pub(crate) struct Maps<const MODE: u8> {
    scratch: *mut Scratch,
}

impl<const MODE: u8> Maps<MODE> {
    /// The maps; `None` never happens, but the verifier wants to see it handled.
    #[inline(always)]
    pub(crate) fn new() -> Option<Self> {
        Some(Self { scratch: SCRATCH.get_ptr_mut(u32::from(MODE == DRY))? })
    }

    /// The maps without scratch: for [`canary_common::pipeline::express`], which needs none.
    #[inline(always)]
    pub(crate) const fn express() -> Self {
        Self { scratch: core::ptr::null_mut() }
    }

    /// The scratch, by a pointer that LLVM knows nothing about: see [`unknown`].
    #[inline(always)]
    fn scratch(self) -> *mut Scratch {
        unknown(self.scratch)
    }

    /// Puts the headers of this run where [`Maps::headers`] of a later look-up finds them.
    #[inline(always)]
    pub(crate) fn keep(self, headers: Headers) {
        // SAFETY: this CPU's own element, for this run.
        unsafe { (*self.scratch()).headers = headers };
    }

    /// The headers that were kept.
    #[inline(always)]
    pub(crate) fn headers(&self) -> &Headers {
        // SAFETY: as above; `keep` came first in this run.
        unsafe { &(*self.scratch()).headers }
    }

    /// Puts the choice of this run where [`Maps::choice`] finds it.
    #[inline(always)]
    pub(crate) fn keep_choice(self, choice: Choice) {
        // SAFETY: as above.
        unsafe { (*self.scratch()).choice = choice };
    }

    /// The choice that was kept.
    #[inline(always)]
    pub(crate) fn choice(&self) -> &Choice {
        // SAFETY: as above; `keep_choice` came first in this run.
        unsafe { &(*self.scratch()).choice }
    }

    #[inline(always)]
    fn value(&self, flow: &Flow) -> &Flow {
        // SAFETY: as above.
        unsafe {
            (*self.scratch()).flow = *flow;
            &(*self.scratch()).flow
        }
    }

    #[inline(always)]
    fn fragment_key(&self, key: &FragmentKey) -> &FragmentKey {
        // SAFETY: as above.
        unsafe {
            (*self.scratch()).fragment = *key;
            &(*self.scratch()).fragment
        }
    }
}

impl<const MODE: u8> Tables for Maps<MODE> {
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
    fn place<'a>(&'a self, spot: Spot, key: &'a FlowKey) -> &'a FlowKey {
        // SAFETY: this CPU's own element, for this run.
        unsafe {
            let place = match spot {
                Spot::Back => &mut (*self.scratch()).back,
                Spot::Forth => &mut (*self.scratch()).forth,
            };
            *place = *key;
            place
        }
    }
    #[inline(always)]
    fn afresh<'a>(&'a self, key: &'a FlowKey) -> &'a FlowKey {
        // SAFETY: the same reference.
        unsafe { &*unknown(core::ptr::from_ref(key).cast_mut()) }
    }
    #[inline(always)]
    fn hold<'a>(&'a self, flow: &'a Flow) -> &'a Flow {
        // SAFETY: as above.
        unsafe {
            (*self.scratch()).held = *flow;
            &(*self.scratch()).held
        }
    }
    #[inline(always)]
    fn held(&self) -> Flow {
        // SAFETY: as above.
        unsafe { (*self.scratch()).held }
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
        if MODE != DRY {
            // SAFETY: as above; one aligned word.
            unsafe { (&raw mut (*entry).seen).write_volatile(seen) };
        }
    }
    #[inline(always)]
    fn mark(&self, entry: *mut Flow, flags: u16) {
        if MODE != DRY {
            set_bits(entry, flags);
        }
    }
    #[inline(always)]
    fn claim(&self, key: &FlowKey) -> bool {
        if MODE == DRY {
            return true;
        }
        let claimed = Flow { state: flow_state::CLAIMED, ..Flow::default() };
        TRANSIENT.insert(key, self.value(&claimed), u64::from(BPF_NOEXIST)).is_ok()
    }
    #[inline(always)]
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        if MODE == DRY {
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
        if MODE != DRY {
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
        if MODE != DRY {
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
    fn hop(&self, endpoint: u32) -> Option<u64> {
        // SAFETY: from a lookup; volatile, so that the word is read once.
        Some(unsafe { HOPS.get_ptr(endpoint)?.read_volatile() })
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Flow> {
        // SAFETY: copied out at once; see `flow`.
        unsafe { FRAGMENTS.get(self.fragment_key(key)) }.copied()
    }
    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, flow: &Flow) {
        if MODE != DRY {
            let _ = FRAGMENTS.insert(self.fragment_key(key), self.value(flow), u64::from(BPF_ANY));
        }
    }

    #[inline(always)]
    fn forget_fragment(&self, key: &FragmentKey) {
        if MODE != DRY {
            let _ = FRAGMENTS.remove(self.fragment_key(key));
        }
    }

    #[inline(always)]
    fn count_choice(&self, leaf: u32) {
        if MODE != DRY
            && let Some(count) = CHOICES.get_ptr_mut(leaf)
        {
            if MODE == SOCKET {
                fetch_add(count);
            } else {
                // SAFETY: this CPU's own element.
                unsafe { *count += 1 };
            }
        }
    }
    #[inline(always)]
    fn count_flow(&self, version: u32, endpoint: u32) {
        if MODE == DRY {
            return;
        }
        if MODE == SOCKET {
            count_flow_at_once(&VERSION_COUNTS, version);
            count_flow_at_once(&ENDPOINT_COUNTS, endpoint);
            return;
        }
        count(&VERSION_COUNTS, version, |counts| counts.flows += 1);
        count(&ENDPOINT_COUNTS, endpoint, |counts| counts.flows += 1);
    }
    #[inline(always)]
    fn count_packet(&self, version: u32, endpoint: u32, bytes: u32, reply: bool) {
        if MODE == DRY {
            return;
        }
        count(&VERSION_COUNTS, version, |counts| counts.packet(bytes, reply));
        count(&ENDPOINT_COUNTS, endpoint, |counts| counts.packet(bytes, reply));
    }
    #[inline(always)]
    fn decided(&self, decision: &Decision) {
        if MODE == DRY {
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
        if MODE == DRY {
            trace(|trace| {
                trace.known = 1;
                trace.endpoint = flow.endpoint;
            });
        }
    }
}
