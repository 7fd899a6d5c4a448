//! All interleavings of one flow's packets on two CPUs with the agent's steps on its slot.
//!
//! One slot and one flow are enough: slots are words of their own, and other flows only make the agent wait. Packets leave the
//! client in order, are taken up in order, and are then handled in steps that interleave as they like. The breadth of the
//! search is bounded by the number of changes, repeated SYNs and packets under way, not by depth: it ends when there is no new state.
use std::collections::{HashSet, VecDeque};

use super::super::{Place, Slot};

const ENDPOINTS: u32 = 3;

/// What the agent may do wrong: each must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It settles while flows that live have no record.
    SettlesEarly,
    /// It settles while a program that runs has seen the slot as it was before.
    SettlesWithoutGrace,
    /// It releases while a record says another endpoint.
    ReleasesEarly,
    /// It releases while a program that runs has seen the slot before it settled.
    ReleasesWithoutGrace,
    /// A second change takes the first one's endpoint for `base`.
    MovesBase,
    /// Connections that open in a tracked slot are not recorded.
    ForgetsOpened,
    /// A packet without room for its record goes where a record would have sent it.
    FollowsRefused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Packet {
    Opens,
    Goes,
}

/// A packet on a CPU: how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    Idle,
    /// The slot has been read.
    Read(Packet, Slot),
    /// A record has to be made.
    Insert(Packet, Slot, u32),
    /// It leaves for an endpoint.
    Leave(Packet, Slot, u32),
}

impl Work {
    const fn slot(self) -> Option<Slot> {
        match self {
            Self::Idle => None,
            Self::Read(_, slot) | Self::Insert(_, slot, _) | Self::Leave(_, slot, _) => Some(slot),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    /// No answer yet; so many SYNs may still be sent.
    Opening(u8),
    /// Answered by this endpoint.
    Open(u32),
    /// Silent for longer than the idle time.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    slot: Slot,
    record: Option<u32>,
    client: Client,
    /// Packets that have left the client, the oldest first.
    wire: [Option<Packet>; 2],
    /// Endpoints whose answers are on their way to the client, a bit each.
    answers: u8,
    cpus: [Work; 2],
    changes: u8,
    /// Has a packet of the flow reached an endpoint?
    begun: bool,
    /// A SYN goes on without a record.
    loose: bool,
    /// And was repeated after a change: the exception.
    repeated: bool,
}

struct Search {
    fault: Fault,
    /// Connections, or datagrams: every packet may be the first.
    tcp: bool,
    seen: HashSet<World>,
    queue: VecDeque<World>,
    /// Flows that went to another endpoint.
    moved: Vec<World>,
    /// The same after a repeated SYN.
    excepted: usize,
}

impl Search {
    fn run(fault: Fault, tcp: bool, changes: u8) -> Self {
        let start = World {
            slot: Slot::new(0),
            record: None,
            client: Client::Opening(2),
            wire: [None; 2],
            answers: 0,
            cpus: [Work::Idle; 2],
            changes,
            begun: false,
            loose: false,
            repeated: false,
        };
        let mut search =
            Self { fault, tcp, seen: HashSet::new(), queue: VecDeque::new(), moved: Vec::new(), excepted: 0 };
        search.reach(start);
        while let Some(world) = search.queue.pop_front() {
            search.client(world);
            search.agent(world);
            for cpu in 0..world.cpus.len() {
                search.program(world, cpu);
            }
        }
        search
    }

    fn reach(&mut self, world: World) {
        if self.seen.insert(world) {
            self.queue.push_back(world);
        }
    }

    fn send(&mut self, world: World, packet: Packet) {
        if let Some(free) = world.wire.iter().position(Option::is_none) {
            let mut next = world;
            next.wire[free] = Some(packet);
            self.reach(next);
        }
    }

    fn client(&mut self, world: World) {
        match world.client {
            Client::Opening(left @ 1..) => {
                self.send(World { client: Client::Opening(left - 1), ..world }, Packet::Opens);
            }
            Client::Open(_) => self.send(world, Packet::Goes),
            Client::Opening(0) | Client::Over => {}
        }
        for endpoint in (0..ENDPOINTS).filter(|endpoint| world.answers >> endpoint & 1 != 0) {
            let answers = world.answers & !(1 << endpoint);
            let client = if matches!(world.client, Client::Opening(_)) { Client::Open(endpoint) } else { world.client };
            self.reach(World { client, answers, ..world });
        }
    }

    fn agent(&mut self, world: World) {
        let slot = world.slot;
        // Whatever runs began after the last step: a grace period has passed.
        let none_runs_with = |wrong: &dyn Fn(Slot) -> bool| !world.cpus.iter().filter_map(|it| it.slot()).any(wrong);
        if world.changes > 0 {
            for endpoint in (0..ENDPOINTS).filter(|&endpoint| endpoint != slot.current()) {
                let from = if self.fault == Fault::MovesBase { slot.settle() } else { slot };
                self.reach(World { slot: from.change(endpoint), changes: world.changes - 1, ..world });
            }
        }
        if slot.base() != slot.current()
            && (self.fault == Fault::SettlesWithoutGrace
                || none_runs_with(&|it| it.base() != slot.base() || !it.is_tracked()))
        {
            // Whoever has no record now has been silent for the idle time.
            let silent = world.begun && world.record.is_none() && self.fault != Fault::SettlesEarly;
            let client = if silent { Client::Over } else { world.client };
            self.reach(World { slot: slot.settle(), client, ..world });
        }
        let differs = world.record.is_some_and(|it| it != slot.current()) && world.client != Client::Over;
        if slot.is_tracked()
            && slot.base() == slot.current()
            && (self.fault == Fault::ReleasesEarly || !differs)
            && (self.fault == Fault::ReleasesWithoutGrace || none_runs_with(&|it| it != slot))
        {
            self.reach(World { slot: slot.release(), ..world });
        }
    }

    fn program(&mut self, world: World, cpu: usize) {
        let mut next = world;
        match world.cpus[cpu] {
            Work::Idle => {
                let [Some(packet), behind] = world.wire else { return };
                next.wire = [behind, None];
                next.loose |= self.tcp && packet == Packet::Opens && !world.slot.is_tracked();
                next.cpus[cpu] = Work::Read(packet, world.slot);
                self.reach(next);
            }
            Work::Read(packet, slot) => {
                let opens = self.tcp && packet == Packet::Opens;
                next.cpus[cpu] = match slot.place(opens, || world.record) {
                    Place::Straight(endpoint) | Place::Recorded(endpoint) => Work::Leave(packet, slot, endpoint),
                    Place::Record(endpoint) if opens && self.fault == Fault::ForgetsOpened => {
                        Work::Leave(packet, slot, endpoint)
                    }
                    Place::Record(endpoint) => Work::Insert(packet, slot, endpoint),
                };
                self.reach(next);
            }
            Work::Insert(packet, slot, endpoint) => {
                let record = world.record.unwrap_or(endpoint);
                next.record = Some(record);
                next.repeated |= world.record.is_none() && packet == Packet::Opens && world.loose;
                next.cpus[cpu] = Work::Leave(packet, slot, record);
                self.reach(next);
                if world.record.is_none() {
                    let goes_on = self.tcp && packet == Packet::Goes;
                    let refused =
                        if self.fault == Fault::FollowsRefused { Some(endpoint) } else { slot.refused(goes_on) };
                    let left = refused.map_or(Work::Idle, |endpoint| Work::Leave(packet, slot, endpoint));
                    next = world;
                    next.cpus[cpu] = left;
                    self.reach(next);
                }
            }
            Work::Leave(packet, _, endpoint) => {
                next.cpus[cpu] = Work::Idle;
                next.begun = true;
                if packet == Packet::Opens {
                    next.answers |= 1 << endpoint;
                }
                if packet == Packet::Goes
                    && let Client::Open(answered) = world.client
                    && answered != endpoint
                {
                    if world.repeated {
                        self.excepted += 1;
                    } else {
                        self.moved.push(world);
                    }
                    return; // It is broken: what comes after says nothing more.
                }
                self.reach(next);
            }
        }
    }
}

#[test]
fn no_flow_moves_whatever_happens_in_whatever_order() {
    for tcp in [true, false] {
        let search = Search::run(Fault::None, tcp, 3);
        assert!(search.seen.len() > 10_000, "{} states are no search", search.seen.len());
        assert_eq!(search.moved.first(), None, "TCP: {tcp}");
    }
}

/// The exception that is promised is there: whoever finds a way to do without it corrects the promise.
#[test]
fn a_syn_that_is_repeated_after_a_change_may_open_anew() {
    assert!(Search::run(Fault::None, true, 1).excepted > 0);
    assert_eq!(Search::run(Fault::None, false, 1).excepted, 0);
}

#[test]
fn every_fault_is_found() {
    for fault in [
        Fault::SettlesEarly,
        Fault::SettlesWithoutGrace,
        Fault::ReleasesEarly,
        Fault::ReleasesWithoutGrace,
        Fault::MovesBase,
        Fault::ForgetsOpened,
        Fault::FollowsRefused,
    ] {
        assert!(!Search::run(fault, true, 2).moved.is_empty(), "{fault:?} does no harm");
    }
}
