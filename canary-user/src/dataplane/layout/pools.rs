//! The pools that slots are taken from, as one: what a service took is kept, or given back as a whole.
use canary_common::limits;

use crate::dataplane::{
    slots::{Ranges, Slots},
    tables::Tables,
};

/// Free slots of every kind.
pub(super) struct Pools {
    pub(super) services: Slots,
    pub(super) versions: Slots,
    pub(super) endpoints: Slots,
    pub(super) splits: Slots,
    pub(super) groups: Slots,
    pub(super) rules: Ranges,
    pub(super) leaves: Ranges,
    pub(super) nodes: Ranges,
    pub(super) members: Ranges,
}

impl Pools {
    /// What is free around the tables that are observed at tick `now`.
    pub(super) fn around(observed: &Tables, now: u32) -> Self {
        let len = |list: usize| u32::try_from(list).unwrap_or(u32::MAX);
        let endpoints = observed.endpoints.iter().filter(|(_, it)| Tables::endpoint_in_use(it, now));
        let rules = observed.rules.iter().map(|(&at, it)| (at, len(it.len())));
        let leaves = observed.leaves.iter().map(|(&at, it)| (at, len(it.len())));
        let members = observed.members.iter().map(|(&at, it)| (at, len(it.len())));
        Self {
            services: Slots::new("services", limits::SERVICES, observed.services.keys().copied()),
            versions: Slots::new("versions", limits::VERSIONS, observed.versions.keys().copied()),
            endpoints: Slots::new("endpoints", limits::ENDPOINTS, endpoints.map(|(&slot, _)| slot)),
            splits: Slots::new("splits", limits::SPLIT_SLOTS, observed.splits.keys().copied()),
            // Group 0 is the empty one.
            groups: Slots::new("groups", limits::GROUP_SLOTS, observed.groups.keys().copied().chain([0])),
            rules: Ranges::new("rules", limits::RULE_SLOTS, rules),
            leaves: Ranges::new("leaves", limits::LEAF_SLOTS, leaves),
            nodes: Ranges::new("nodes", limits::NODE_SLOTS, observed.nodes.keys().map(|&at| (at, 1))),
            members: Ranges::new("members", limits::MEMBER_SLOTS, members),
        }
    }

    /// Keeps what was taken since the last call.
    pub(super) fn commit(&mut self) {
        self.slots().into_iter().for_each(Slots::commit);
        self.ranges().into_iter().for_each(Ranges::commit);
    }

    /// Gives it back.
    pub(super) fn roll_back(&mut self) {
        self.slots().into_iter().for_each(Slots::roll_back);
        self.ranges().into_iter().for_each(Ranges::roll_back);
    }

    fn slots(&mut self) -> [&mut Slots; 5] {
        [&mut self.services, &mut self.versions, &mut self.endpoints, &mut self.splits, &mut self.groups]
    }

    fn ranges(&mut self) -> [&mut Ranges; 4] {
        [&mut self.rules, &mut self.leaves, &mut self.nodes, &mut self.members]
    }
}
