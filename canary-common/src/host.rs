//! The maps in memory: the pipeline on a laptop, for tests, simulations and comparison with the kernel.
//!
//! [`HostTables`] does what `canary-ebpf/src/maps.rs` does, but that nothing is ever evicted. [`image`] describes the
//! tables that the agent writes, [`frame`] makes packets.
pub mod frame;
pub mod image;

use core::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;

use crate::{
    abi::{
        Counts, Endpoint, Flow, FlowKey, FragmentKey, Group, Leaf, Node, Rule, ServiceKey, Settings, Split, Version,
        flow_state,
    },
    host::image::Image,
    packet::Headers,
    pipeline::{Decision, Express, Steps, Table, Tables, Way, admit, balance, express, find_flow, headers},
    rewrite::reset,
    verdict::{Leave, Onward, Verdict},
};

/// What packets leave behind in the maps. Counters that are zero have no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Map `FLOWS`.
    pub flows: BTreeMap<FlowKey, Flow>,
    /// Map `TRANSIENT`.
    pub transient: BTreeMap<FlowKey, Flow>,
    /// Map `FRAGMENTS`.
    pub fragments: BTreeMap<FragmentKey, Flow>,
    /// `Split::draws` of the map `SPLITS`.
    pub draws: BTreeMap<u32, u64>,
    /// Map `CHOICES`.
    pub choices: BTreeMap<u32, u64>,
    /// Map `VERSION_COUNTS`.
    pub versions: BTreeMap<u32, Counts>,
    /// Map `ENDPOINT_COUNTS`.
    pub endpoints: BTreeMap<u32, Counts>,
    /// Map `LEAVE_COUNTS`, by label.
    pub leaves: BTreeMap<&'static str, u64>,
}

/// The maps in the host's memory.
#[derive(Debug, Default)]
pub struct HostTables {
    image: RefCell<Image>,
    memory: RefCell<Memory>,
    now: Cell<u32>,
    decision: Cell<Option<Decision>>,
    onward: Cell<Onward>,
    held: Cell<Flow>,
}

impl HostTables {
    /// Tables with this content, at tick `now`.
    #[must_use]
    pub fn new(image: Image, now: u32) -> Self {
        Self { image: RefCell::new(image), now: Cell::new(now), ..Self::default() }
    }

    /// Sets the clock.
    pub fn set_now(&self, now: u32) {
        self.now.set(now);
    }

    /// What the agent wrote.
    pub fn image(&self) -> Ref<'_, Image> {
        self.image.borrow()
    }

    /// Does what the agent does: changes the tables under the packets.
    pub fn edit<R>(&self, change: impl FnOnce(&mut Image) -> R) -> R {
        change(&mut self.image.borrow_mut())
    }

    /// What packets have left behind.
    pub fn memory(&self) -> Ref<'_, Memory> {
        self.memory.borrow()
    }

    /// Replaces that.
    pub fn remember(&self, memory: Memory) {
        self.memory.replace(memory);
    }

    /// How the last new flow was decided; asking forgets it.
    pub fn last_decision(&self) -> Option<Decision> {
        self.decision.take()
    }

    /// Handles a packet as the kernel programs do (`run` in `canary-ebpf/src/main.rs`).
    pub fn handle(&self, frame: &mut [u8], way: Way) -> (Verdict, Option<Leave>) {
        match express(frame, self, way) {
            Express::Done(onward) => self.passed(onward),
            Express::NotOurs => {
                self.count_leave(Leave::NoService);
                (Verdict::Pass, Some(Leave::NoService))
            }
            Express::Long => self.handle_slowly(frame, way),
        }
    }

    /// The same without the short way of established flows.
    pub fn handle_slowly(&self, frame: &mut [u8], way: Way) -> (Verdict, Option<Leave>) {
        let leave = match headers(frame) {
            Ok(headers) => match balance(frame, self, way, &headers) {
                Ok(onward) => return self.passed(onward),
                Err(leave) => {
                    if leave.verdict() == Verdict::Reset && reset(frame, &headers).is_some() {
                        self.count_leave(leave);
                        return (Verdict::Reset, Some(leave));
                    }
                    leave
                }
            },
            Err(leave) => leave,
        };
        self.count_leave(leave);
        (if leave.verdict() == Verdict::Pass { Verdict::Pass } else { Verdict::Drop }, Some(leave))
    }

    fn passed(&self, onward: Onward) -> (Verdict, Option<Leave>) {
        self.onward.set(onward);
        (Verdict::Pass, None)
    }

    /// Where the last packet that was translated goes on; asking forgets it.
    pub fn last_onward(&self) -> Onward {
        self.onward.take()
    }

    fn count_leave(&self, leave: Leave) {
        *self.memory.borrow_mut().leaves.entry(leave.label()).or_default() += 1;
    }

    fn change(&self, (table, key): (Table, FlowKey), change: impl FnOnce(&mut Flow)) {
        if let Some(flow) = self.memory.borrow_mut().table(table).get_mut(&key) {
            change(flow);
        }
    }

    fn count(&self, version: u32, endpoint: u32, change: impl Fn(&mut Counts)) {
        let mut memory = self.memory.borrow_mut();
        change(memory.versions.entry(version).or_default());
        change(memory.endpoints.entry(endpoint).or_default());
    }
}

impl Memory {
    fn table(&mut self, table: Table) -> &mut BTreeMap<FlowKey, Flow> {
        match table {
            Table::Established => &mut self.flows,
            Table::Transient => &mut self.transient,
        }
    }
}

fn copy<T: Copy>(entries: &[T], slot: u32) -> Option<T> {
    entries.get(slot as usize).copied()
}

impl Tables for HostTables {
    type Entry = (Table, FlowKey);

    fn now(&self) -> u32 {
        self.now.get()
    }
    fn settings(&self) -> Settings {
        self.image.borrow().settings
    }

    fn hold<'a>(&'a self, flow: &'a Flow) -> &'a Flow {
        self.held.set(*flow);
        flow
    }
    fn held(&self) -> Flow {
        self.held.get()
    }
    fn find(&self, table: Table, key: &FlowKey) -> Option<Self::Entry> {
        self.memory.borrow_mut().table(table).contains_key(key).then_some((table, *key))
    }
    fn flow(&self, (table, key): Self::Entry) -> Flow {
        self.memory.borrow_mut().table(table).get(&key).copied().unwrap_or_default()
    }
    fn set_seen(&self, entry: Self::Entry, seen: u32) {
        self.change(entry, |flow| flow.seen = seen);
    }
    fn mark(&self, entry: Self::Entry, flags: u16) {
        self.change(entry, |flow| flow.state |= flags);
    }
    fn claim(&self, key: &FlowKey) -> bool {
        let mut memory = self.memory.borrow_mut();
        let free = !memory.transient.contains_key(key);
        if free {
            memory.transient.insert(*key, Flow { state: flow_state::CLAIMED, ..Flow::default() });
        }
        free
    }
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        self.memory.borrow_mut().table(table).insert(*key, *flow);
        true
    }
    fn forget(&self, table: Table, key: &FlowKey) {
        self.memory.borrow_mut().table(table).remove(key);
    }

    fn service(&self, key: &ServiceKey) -> Option<u32> {
        self.image.borrow().frontends.iter().find(|(frontend, _)| frontend == key).map(|&(_, service)| service)
    }
    fn rules(&self, service: u32) -> Option<u64> {
        copy(&self.image.borrow().services, service).map(|service| service.rules)
    }
    fn rule(&self, slot: u32) -> Option<Rule> {
        copy(&self.image.borrow().rules, slot)
    }
    fn split(&self, slot: u32) -> Option<Split> {
        copy(&self.image.borrow().splits, slot)
    }
    fn draw(&self, slot: u32) -> Option<u64> {
        self.split(slot)?;
        let mut memory = self.memory.borrow_mut();
        let draws = memory.draws.entry(slot).or_default();
        *draws += 1;
        Some(*draws - 1)
    }
    fn node(&self, slot: u32) -> Option<Node> {
        copy(&self.image.borrow().nodes, slot)
    }
    fn leaf(&self, slot: u32) -> Option<Leaf> {
        copy(&self.image.borrow().leaves, slot)
    }
    fn version(&self, slot: u32) -> Option<Version> {
        copy(&self.image.borrow().versions, slot)
    }
    fn group(&self, slot: u32) -> Option<Group> {
        copy(&self.image.borrow().groups, slot)
    }
    fn member(&self, slot: u32) -> Option<u32> {
        copy(&self.image.borrow().members, slot)
    }
    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        copy(&self.image.borrow().endpoints, slot)
    }
    fn hop(&self, endpoint: u32) -> Option<u64> {
        copy(&self.image.borrow().hops, endpoint)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Flow> {
        self.memory.borrow().fragments.get(key).copied()
    }
    fn put_fragment(&self, key: &FragmentKey, flow: &Flow) {
        self.memory.borrow_mut().fragments.insert(*key, *flow);
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        self.memory.borrow_mut().fragments.remove(key);
    }

    fn count_choice(&self, leaf: u32) {
        *self.memory.borrow_mut().choices.entry(leaf).or_default() += 1;
    }
    fn count_flow(&self, version: u32, endpoint: u32) {
        self.count(version, endpoint, |counts| counts.flows += 1);
    }
    fn count_packet(&self, version: u32, endpoint: u32, bytes: u32, reply: bool) {
        self.count(version, endpoint, |counts| counts.packet(bytes, reply));
    }
    fn decided(&self, decision: &Decision) {
        self.decision.set(Some(*decision));
    }
}

impl Steps for HostTables {
    fn find_flow(&self, headers: &Headers, now: u32) -> Result<bool, Leave> {
        find_flow(self, headers, now)
    }
    fn admit(&self, headers: &Headers, now: u32) -> Result<(), Leave> {
        admit(self, headers, now)
    }
}

#[cfg(test)]
mod tests;
