//! The content of the control maps, slot by slot: what is observed, what is wanted, and when it is sound.
use std::collections::{BTreeMap, BTreeSet};

use canary_common::abi::{EVEN, Endpoint, Group, LEAF, Leaf, Node, Rule, ServiceKey, Split, unrange};

/// A service slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServiceSlot {
    /// Hash of its name.
    pub(crate) name_hash: u64,
    /// Its rules: a `range`.
    pub(crate) rules: u64,
}

/// A version slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VersionSlot {
    /// Hash of the names of service and version.
    pub(crate) name_hash: u64,
    /// Group slot; 0 is the empty group.
    pub(crate) group: u32,
}

/// What is reachable, and the slots that carry a name or a generation. A split's `draws` is not part of it: always 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Virtual address → service slot.
    pub(crate) frontends: BTreeMap<ServiceKey, u32>,
    /// Service slots in use.
    pub(crate) services: BTreeMap<u32, ServiceSlot>,
    /// Blocks of rules by their first slot.
    pub(crate) rules: BTreeMap<u32, Vec<Rule>>,
    /// Splits.
    pub(crate) splits: BTreeMap<u32, Split>,
    /// Blocks of leaves by their first slot.
    pub(crate) leaves: BTreeMap<u32, Vec<Leaf>>,
    /// Nodes of splits and groups.
    pub(crate) nodes: BTreeMap<u32, Node>,
    /// Version slots in use.
    pub(crate) versions: BTreeMap<u32, VersionSlot>,
    /// Groups that versions point to.
    pub(crate) groups: BTreeMap<u32, Group>,
    /// Member lists and rings by their first slot.
    pub(crate) members: BTreeMap<u32, Vec<u32>>,
    /// Endpoint slots that were ever used.
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
}

impl Tables {
    /// Is the endpoint in a slot in use at `now`: in service, or still draining?
    pub(crate) fn endpoint_in_use(endpoint: &Endpoint, now: u32) -> bool {
        endpoint.generation != 0 && (endpoint.drain_by == 0 || now < endpoint.drain_by)
    }

    /// Takes over what `part` holds.
    pub(crate) fn absorb(&mut self, part: Self) {
        self.frontends.extend(part.frontends);
        self.services.extend(part.services);
        self.rules.extend(part.rules);
        self.splits.extend(part.splits);
        self.leaves.extend(part.leaves);
        self.nodes.extend(part.nodes);
        self.versions.extend(part.versions);
        self.groups.extend(part.groups);
        self.members.extend(part.members);
        self.endpoints.extend(part.endpoints);
    }

    /// Nodes below `root`, itself included.
    pub(crate) fn tree(&self, root: u32) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            if at == EVEN || at & LEAF != 0 || !seen.insert(at) {
                continue;
            }
            if let Some(node) = self.nodes.get(&at) {
                open.extend([node.to_light, node.to_heavy]);
            }
        }
        seen
    }

    /// The first dangling reference, in words; `None` when there is none. No packet may meet one at any moment.
    pub(crate) fn dangling(&self) -> Option<String> {
        for (key, service) in &self.frontends {
            let Some(slot) = self.services.get(service) else {
                return Some(format!("frontend {key:?} → service {service}"));
            };
            let (base, len) = unrange(slot.rules);
            let Some(rules) = self.rules.get(&base).filter(|rules| rules.len() == len as usize || len == 0) else {
                if len == 0 {
                    continue;
                }
                return Some(format!("service {service} → rules {base}+{len}"));
            };
            for rule in rules.iter().take(len as usize) {
                if let Some(dangling) = self.dangling_split(rule.split) {
                    return Some(format!("rule of service {service} → {dangling}"));
                }
            }
        }
        self.versions.iter().find_map(|(version, slot)| {
            self.dangling_group(slot.group).map(|dangling| format!("version {version} → {dangling}"))
        })
    }

    fn dangling_split(&self, slot: u32) -> Option<String> {
        let Some(split) = self.splits.get(&slot) else { return Some(format!("split {slot}")) };
        let Some(leaves) = self.leaves.get(&split.leaves).filter(|leaves| leaves.len() == split.leaves_len as usize)
        else {
            return Some(format!("split {slot} → leaves {}+{}", split.leaves, split.leaves_len));
        };
        if let Some(leaf) = leaves.iter().find(|leaf| !self.versions.contains_key(&leaf.version)) {
            return Some(format!("split {slot} → version {}", leaf.version));
        }
        self.dangling_tree(split.root, split.leaves, split.leaves + split.leaves_len)
            .map(|dangling| format!("split {slot} → {dangling}"))
    }

    fn dangling_tree(&self, root: u32, from: u32, to: u32) -> Option<String> {
        let outside = |at: u32| at & LEAF != 0 && !(from..to).contains(&(at & !LEAF));
        if outside(root) {
            return Some(format!("leaf {}", root & !LEAF));
        }
        for at in self.tree(root) {
            let Some(node) = self.nodes.get(&at) else { return Some(format!("node {at}")) };
            if outside(node.to_light) || outside(node.to_heavy) {
                return Some(format!("node {at} → leaf"));
            }
        }
        None
    }

    fn dangling_group(&self, slot: u32) -> Option<String> {
        if slot == 0 {
            return None;
        }
        let Some(group) = self.groups.get(&slot) else { return Some(format!("group {slot}")) };
        for (base, len) in [(group.members, group.members_len), (group.ring, group.ring_len)] {
            if len == 0 {
                continue;
            }
            let Some(members) = self.members.get(&base).filter(|members| members.len() == len as usize) else {
                return Some(format!("group {slot} → members {base}+{len}"));
            };
            for member in members {
                // A new flow must never get an endpoint that is going away.
                if !self.endpoints.get(member).is_some_and(|it| it.generation != 0 && it.drain_by == 0) {
                    return Some(format!("group {slot} → endpoint {member}"));
                }
            }
        }
        if group.root == EVEN { None } else { self.dangling_tree(group.root, 0, group.members_len) }
    }
}
