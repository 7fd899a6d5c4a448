//! Ordered writes that turn one content of the maps into another. Pure; packets may arrive between any two writes.
use std::fmt;

use canary_common::abi::{Endpoint, Group, Leaf, Node, Rule, ServiceKey, Split};

use super::tables::{ServiceSlot, Tables, VersionSlot};

/// One map write. The order of the variants is the order in which writes are safe: what is pointed at is written before
/// what points, and given up after it. What is not reachable is free, and needs no write of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Puts an endpoint into service: a new one, or one that was draining.
    PutEndpoint(u32, Endpoint),
    /// Writes a member list or a ring.
    PutMembers(u32, Vec<u32>),
    /// Writes a node.
    PutNode(u32, Node),
    /// Writes a group.
    PutGroup(u32, Group),
    /// Takes a version slot.
    PutVersion(u32, VersionSlot),
    /// Publishes other endpoints of a version.
    FlipGroup(u32, u32),
    /// Writes a block of leaves and zeroes their counters.
    PutLeaves(u32, Vec<Leaf>),
    /// Writes a split with its counter at zero.
    PutSplit(u32, Split),
    /// Writes a block of rules.
    PutRules(u32, Vec<Rule>),
    /// Takes a service slot.
    PutService(u32, ServiceSlot),
    /// Publishes other rules of a service.
    FlipRules(u32, u64),
    /// Publishes a virtual address.
    PutFrontend(ServiceKey, u32),
    /// Takes a virtual address back.
    DelFrontend(ServiceKey),
    /// Publishes that a version has no endpoints.
    EmptyGroup(u32),
    /// Lets the flows of an endpoint end by a tick.
    Drain(u32, u32),
    /// Gives a service slot back.
    DelService(u32),
    /// Gives a version slot back.
    DelVersion(u32),
}

/// Writes that turn `from` into `to`. The same inputs give the same plan; equal inputs an empty one.
pub(crate) fn diff(from: &Tables, to: &Tables) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut drains = Vec::new();
    for (&slot, wanted) in &to.endpoints {
        match from.endpoints.get(&slot) {
            Some(have) if have == wanted => {}
            Some(have) if have.generation == wanted.generation && wanted.drain_by != 0 => {
                drains.push(Op::Drain(slot, wanted.drain_by));
            }
            _ => ops.push(Op::PutEndpoint(slot, *wanted)),
        }
    }
    ops.extend(changed(&from.members, &to.members, |at, list| Op::PutMembers(at, list.clone())));
    ops.extend(changed(&from.nodes, &to.nodes, |at, node| Op::PutNode(at, *node)));
    ops.extend(changed(&from.groups, &to.groups, |at, group| Op::PutGroup(at, *group)));
    let mut flips = Vec::new();
    let mut empties = Vec::new();
    for (&slot, wanted) in &to.versions {
        match from.versions.get(&slot) {
            Some(have) if have == wanted => {}
            Some(have) if have.name_hash == wanted.name_hash => {
                if wanted.group == 0 {
                    empties.push(Op::EmptyGroup(slot));
                } else {
                    flips.push(Op::FlipGroup(slot, wanted.group));
                }
            }
            _ => ops.push(Op::PutVersion(slot, *wanted)),
        }
    }
    ops.append(&mut flips);
    ops.extend(changed(&from.leaves, &to.leaves, |at, leaves| Op::PutLeaves(at, leaves.clone())));
    ops.extend(changed(&from.splits, &to.splits, |at, split| Op::PutSplit(at, *split)));
    ops.extend(changed(&from.rules, &to.rules, |at, rules| Op::PutRules(at, rules.clone())));
    let mut flips = Vec::new();
    for (&slot, wanted) in &to.services {
        match from.services.get(&slot) {
            Some(have) if have == wanted => {}
            Some(have) if have.name_hash == wanted.name_hash => flips.push(Op::FlipRules(slot, wanted.rules)),
            _ => ops.push(Op::PutService(slot, *wanted)),
        }
    }
    ops.append(&mut flips);
    ops.extend(changed(&from.frontends, &to.frontends, |key, &slot| Op::PutFrontend(key, slot)));
    ops.extend(from.frontends.keys().filter(|key| !to.frontends.contains_key(key)).map(|&key| Op::DelFrontend(key)));
    ops.append(&mut empties);
    ops.append(&mut drains);
    ops.extend(from.services.keys().filter(|slot| !to.services.contains_key(slot)).map(|&slot| Op::DelService(slot)));
    ops.extend(from.versions.keys().filter(|slot| !to.versions.contains_key(slot)).map(|&slot| Op::DelVersion(slot)));
    ops
}

fn changed<K: Ord + Copy, V: PartialEq>(
    from: &std::collections::BTreeMap<K, V>,
    to: &std::collections::BTreeMap<K, V>,
    op: impl Fn(K, &V) -> Op,
) -> Vec<Op> {
    to.iter().filter(|(key, value)| from.get(key) != Some(value)).map(|(&key, value)| op(key, value)).collect()
}

#[cfg(test)]
impl Tables {
    /// The fake data plane: what the kernel's maps do with an operation.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::PutEndpoint(slot, endpoint) => drop(self.endpoints.insert(slot, endpoint)),
            Op::PutMembers(at, list) => drop(self.members.insert(at, list)),
            Op::PutNode(at, node) => drop(self.nodes.insert(at, node)),
            Op::PutGroup(at, group) => drop(self.groups.insert(at, group)),
            Op::PutVersion(slot, version) => drop(self.versions.insert(slot, version)),
            Op::FlipGroup(slot, group) => self.versions.get_mut(&slot).unwrap().group = group,
            Op::EmptyGroup(slot) => self.versions.get_mut(&slot).unwrap().group = 0,
            Op::PutLeaves(at, leaves) => drop(self.leaves.insert(at, leaves)),
            Op::PutSplit(at, split) => drop(self.splits.insert(at, split)),
            Op::PutRules(at, rules) => drop(self.rules.insert(at, rules)),
            Op::PutService(slot, service) => drop(self.services.insert(slot, service)),
            Op::FlipRules(slot, rules) => self.services.get_mut(&slot).unwrap().rules = rules,
            Op::PutFrontend(key, slot) => drop(self.frontends.insert(key, slot)),
            Op::DelFrontend(key) => drop(self.frontends.remove(&key)),
            Op::Drain(slot, by) => self.endpoints.get_mut(&slot).unwrap().drain_by = by,
            Op::DelService(slot) => drop(self.services.remove(&slot)),
            Op::DelVersion(slot) => drop(self.versions.remove(&slot)),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |addr: &[u32; 4], port_be: u16| super::address::socket(*addr, port_be);
        match self {
            Self::PutEndpoint(slot, it) => {
                write!(f, "put endpoint {slot} {} of version {}", address(&it.addr_be, it.port_be), it.version)
            }
            Self::PutMembers(at, list) => write!(f, "put members {at}+{}", list.len()),
            Self::PutNode(at, node) => write!(f, "put node {at} {} of {}", node.light, node.total),
            Self::PutGroup(at, group) => write!(f, "put group {at} of {} endpoints", group.members_len),
            Self::PutVersion(slot, it) => write!(f, "put version {slot} with group {}", it.group),
            Self::FlipGroup(slot, group) => write!(f, "publish version {slot} → group {group}"),
            Self::PutLeaves(at, leaves) => write!(f, "put leaves {at}+{}", leaves.len()),
            Self::PutSplit(at, it) => {
                write!(f, "put split {at} of weight {} over {} versions", it.total, it.leaves_len)
            }
            Self::PutRules(at, rules) => write!(f, "put rules {at}+{}", rules.len()),
            Self::PutService(slot, _) => write!(f, "put service {slot}"),
            Self::FlipRules(slot, rules) => {
                let (base, len) = canary_common::abi::unrange(*rules);
                write!(f, "publish service {slot} → rules {base}+{len}")
            }
            Self::PutFrontend(key, slot) => {
                write!(f, "publish {} → service {slot}", super::address::frontend(key))
            }
            Self::DelFrontend(key) => write!(f, "take back {}", super::address::frontend(key)),
            Self::EmptyGroup(slot) => write!(f, "publish version {slot} → no endpoints"),
            Self::Drain(slot, by) => write!(f, "drain endpoint {slot} until tick {by}"),
            Self::DelService(slot) => write!(f, "free service {slot}"),
            Self::DelVersion(slot) => write!(f, "free version {slot}"),
        }
    }
}
