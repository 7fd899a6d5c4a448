//! Gives names their slots: from the wanted [`State`] and the observed [`Tables`] to the wanted ones. Pure.
//!
//! What is the same keeps its slot, so that an unchanged split keeps its counter and an unchanged state is an empty plan.
//! What changes takes a free slot: nothing that packets can reach is ever rewritten. Names are found again by their
//! hashes in the maps, so that an agent needs no memory of its own to take over.
mod versions;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
};

use canary_common::{
    abi::{EXACT, Endpoint, KEYED_CLIENT, KEYED_FLOW, LEAF, Leaf, Node, Rule, Split, range, unrange},
    build::{name_hash, tree},
    limits,
};

use super::{
    address,
    slots::{Ranges, Slots},
    tables::{ServiceSlot, Tables, VersionSlot},
};
use crate::state::{Choosing, DeadVersion, Service, ServiceId, State};

/// Ticks of a drain whose version is gone, and with it what the user wished.
const DRAIN_SECONDS: u32 = 300;

/// What does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// A pool of slots is full.
    #[error("{object}: no room for {what}, all {limit} are taken")]
    Full {
        /// Whose turn it was.
        object: String,
        /// What there is none left of.
        what: &'static str,
        /// How many there are.
        limit: u32,
    },
    /// One object is too large.
    #[error("{object}: {count} {what}, but {limit} are the limit")]
    TooMany {
        /// Which.
        object: String,
        /// What it has too many of.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: u32,
    },
    /// A state that `compile` never makes.
    #[error("{object}: {problem}")]
    Unsound {
        /// Which.
        object: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Which name has which slot: for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Service slots.
    pub(crate) services: BTreeMap<u32, ServiceId>,
    /// Version slots.
    pub(crate) versions: BTreeMap<u32, (ServiceId, String)>,
    /// Split slots with the index of their rule.
    pub(crate) splits: BTreeMap<u32, (ServiceId, usize)>,
}

/// The hash under which a service is found again.
pub(crate) fn service_hash(id: &ServiceId) -> u64 {
    name_hash(id.to_string().as_bytes())
}

/// The hash under which a version is found again.
pub(crate) fn version_hash(id: &ServiceId, version: &str) -> u64 {
    name_hash(format!("{id}\0{version}").as_bytes())
}

/// The tables that hold `state`, as close to `observed` as possible, at tick `now`.
///
/// # Errors
/// What exceeds a limit: nothing is laid out then.
pub(crate) fn lower(observed: &Tables, state: &State, now: u32) -> Result<(Tables, Names), LayoutError> {
    let mut layout = Layout::new(observed, now);
    for (id, service) in &state.services {
        layout.service(id, service)?;
    }
    for (frontend, id) in &state.frontends {
        let slot = layout.services.get(&service_hash(id)).copied().ok_or_else(|| LayoutError::Unsound {
            object: frontend.to_string(),
            problem: "names a service that is not there",
        })?;
        layout.wanted.frontends.insert(address::key(frontend), slot);
    }
    if layout.wanted.frontends.len() > limits::FRONTENDS as usize {
        return Err(LayoutError::TooMany {
            object: "frontends".into(),
            what: "virtual addresses",
            count: layout.wanted.frontends.len(),
            limit: limits::FRONTENDS,
        });
    }
    layout.retire();
    Ok((layout.wanted, layout.names))
}

struct Layout<'a> {
    observed: &'a Tables,
    wanted: Tables,
    names: Names,
    now: u32,
    /// Hash → slot, observed and then wanted.
    services: HashMap<u64, u32>,
    versions: HashMap<u64, u32>,
    /// (version, address) → endpoint slot in use.
    endpoints: HashMap<(u32, SocketAddr), u32>,
    /// Version slot → how long its endpoints drain, in ticks.
    drains: HashMap<u32, u32>,
    service_slots: Slots,
    version_slots: Slots,
    endpoint_slots: Slots,
    split_slots: Slots,
    group_slots: Slots,
    rule_ranges: Ranges,
    leaf_ranges: Ranges,
    node_ranges: Ranges,
    member_ranges: Ranges,
}

impl<'a> Layout<'a> {
    fn new(observed: &'a Tables, now: u32) -> Self {
        let in_use = |endpoint: &&Endpoint| Tables::endpoint_in_use(endpoint, now);
        let len = |list: usize| u32::try_from(list).unwrap_or(u32::MAX);
        Self {
            observed,
            wanted: Tables { endpoints: observed.endpoints.clone(), ..Tables::default() },
            names: Names::default(),
            now,
            services: observed.services.iter().map(|(&slot, it)| (it.name_hash, slot)).collect(),
            versions: observed.versions.iter().map(|(&slot, it)| (it.name_hash, slot)).collect(),
            endpoints: observed
                .endpoints
                .iter()
                .filter(|(_, it)| in_use(it))
                .map(|(&slot, it)| ((it.version, address::socket(it.addr_be, it.port_be)), slot))
                .collect(),
            drains: HashMap::new(),
            service_slots: Slots::new("services", limits::SERVICES, observed.services.keys().copied()),
            version_slots: Slots::new("versions", limits::VERSIONS, observed.versions.keys().copied()),
            endpoint_slots: Slots::new(
                "endpoints",
                limits::ENDPOINTS,
                observed.endpoints.iter().filter(|(_, it)| in_use(it)).map(|(&slot, _)| slot),
            ),
            split_slots: Slots::new("splits", limits::SPLIT_SLOTS, observed.splits.keys().copied()),
            // Group 0 is the empty one.
            group_slots: Slots::new("groups", limits::GROUP_SLOTS, observed.groups.keys().copied().chain([0])),
            rule_ranges: Ranges::new(
                "rules",
                limits::RULE_SLOTS,
                observed.rules.iter().map(|(&at, it)| (at, len(it.len()))),
            ),
            leaf_ranges: Ranges::new(
                "leaves",
                limits::LEAF_SLOTS,
                observed.leaves.iter().map(|(&at, it)| (at, len(it.len()))),
            ),
            node_ranges: Ranges::new("nodes", limits::NODE_SLOTS, observed.nodes.keys().map(|&at| (at, 1))),
            member_ranges: Ranges::new(
                "members",
                limits::MEMBER_SLOTS,
                observed.members.iter().map(|(&at, it)| (at, len(it.len()))),
            ),
        }
    }

    fn service(&mut self, id: &ServiceId, service: &Service) -> Result<(), LayoutError> {
        let hash = service_hash(id);
        let slot = match self.services.get(&hash) {
            Some(&slot) => slot,
            None => self.service_slots.take(|| id.to_string())?,
        };
        self.services.insert(hash, slot);
        if let Some(other) = self.names.services.insert(slot, id.clone()) {
            return Err(LayoutError::Unsound { object: format!("{id} and {other}"), problem: "have the same hash" });
        }
        for (name, version) in &service.versions {
            self.version(id, service, name, version)?;
        }
        let rules = self.rules(id, service, slot)?;
        let len = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let had = self.observed.services.get(&slot).map(|it| unrange(it.rules).0);
        let base = match had.filter(|base| self.observed.rules.get(base) == Some(&rules)) {
            Some(base) => base,
            None => self.rule_ranges.take(len, || id.to_string())?,
        };
        if len > 0 {
            self.wanted.rules.insert(base, rules);
        }
        self.wanted.services.insert(slot, ServiceSlot { name_hash: hash, rules: range(base, len) });
        Ok(())
    }

    fn rules(&mut self, id: &ServiceId, service: &Service, slot: u32) -> Result<Vec<Rule>, LayoutError> {
        // Splits of this service that packets use now, to be recognized by what they say.
        let mut known: Vec<u32> = self
            .observed
            .services
            .get(&slot)
            .and_then(|it| self.observed.rules.get(&unrange(it.rules).0))
            .map(|rules| rules.iter().map(|rule| rule.split).collect())
            .unwrap_or_default();
        known.dedup();
        let mut rules = Vec::new();
        for (index, rule) in service.rules.iter().enumerate() {
            let split = self.split(id, service, index, &mut known)?;
            self.names.splits.insert(split, (id.clone(), index));
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if rule.sources.is_empty() {
                rules.push(Rule { net_be: [0; 4], mask_be: [0; 4], split, index });
            }
            rules.extend(rule.sources.iter().map(|net| {
                let (net_be, mask_be) = address::network(net);
                Rule { net_be, mask_be, split, index }
            }));
        }
        if rules.len() > limits::RULES_PER_SERVICE as usize {
            return Err(LayoutError::TooMany {
                object: id.to_string(),
                what: "rules and client networks",
                count: rules.len(),
                limit: limits::RULES_PER_SERVICE,
            });
        }
        Ok(rules)
    }

    /// Weights as they are programmed: with `spill`, versions without endpoints leave theirs to the others.
    fn effective(service: &Service, index: usize) -> Vec<(String, u32)> {
        let Some(split) = service.rules.get(index).map(|rule| &rule.split) else { return Vec::new() };
        let dead = |name: &str| service.versions.get(name).is_none_or(|version| version.endpoints.is_empty());
        let all_dead = split.weights.iter().all(|(name, weight)| *weight == 0 || dead(name));
        let spills = split.dead == DeadVersion::Spill && !all_dead;
        split
            .weights
            .iter()
            .map(|(name, weight)| (name.clone(), if spills && dead(name) { 0 } else { *weight }))
            .collect()
    }

    fn split(
        &mut self,
        id: &ServiceId,
        service: &Service,
        index: usize,
        known: &mut Vec<u32>,
    ) -> Result<u32, LayoutError> {
        let object = || format!("{id} rule {index}");
        let unsound = |problem| LayoutError::Unsound { object: object(), problem };
        let weights = Self::effective(service, index);
        if weights.len() > limits::VERSIONS_PER_SPLIT as usize {
            return Err(LayoutError::TooMany {
                object: object(),
                what: "versions",
                count: weights.len(),
                limit: limits::VERSIONS_PER_SPLIT,
            });
        }
        let mut leaves = Vec::with_capacity(weights.len());
        let mut end = 0_u32;
        for (name, weight) in &weights {
            let version = self.versions.get(&version_hash(id, name)).copied();
            end = end.checked_add(*weight).ok_or_else(|| unsound("weights add up to more than 4294967295"))?;
            leaves.push(Leaf { version: version.ok_or_else(|| unsound("names a version that is not there"))?, end });
        }
        let salt = service_hash(id);
        let choosing = match service.rules.get(index).map(|rule| rule.split.choosing) {
            Some(Choosing::KeyedFlow) => KEYED_FLOW,
            Some(Choosing::KeyedClient) => KEYED_CLIENT,
            _ => EXACT,
        };
        let same = known.iter().position(|slot| {
            self.observed.splits.get(slot).is_some_and(|it| {
                it.choosing == choosing && it.salt == salt && self.observed.leaves.get(&it.leaves) == Some(&leaves)
            })
        });
        if let Some(at) = same {
            let slot = known.remove(at); // In order: rules that say the same keep their splits.
            if let Some(split) = self.observed.splits.get(&slot) {
                self.keep_tree(split.root);
                self.wanted.leaves.insert(split.leaves, leaves);
                self.wanted.splits.insert(slot, *split);
                return Ok(slot);
            }
        }
        let plain: Vec<u32> = weights.iter().map(|(_, weight)| *weight).collect();
        let tree = tree(&plain, salt).ok_or_else(|| unsound("all weights are zero"))?;
        let leaves_len = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let base = self.leaf_ranges.take(leaves_len, object)?;
        let root = self.place_tree(tree.root, &tree.nodes, base, object)?;
        self.wanted.leaves.insert(base, leaves);
        let slot = self.split_slots.take(object)?;
        let split = Split { draws: 0, salt, root, leaves: base, leaves_len, total: end, choosing, pad: [0; 7] };
        self.wanted.splits.insert(slot, split);
        Ok(slot)
    }

    /// Copies a tree into free nodes; its leaves count from `leaf_base`. Returns the root's reference.
    fn place_tree(
        &mut self,
        root: u32,
        nodes: &[Node],
        leaf_base: u32,
        object: impl Fn() -> String,
    ) -> Result<u32, LayoutError> {
        let len = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let base = if len == 0 { 0 } else { self.node_ranges.take(len, object)? };
        let moved = |at: u32| if at & LEAF != 0 { at + leaf_base } else { at + base };
        for (at, node) in (base..).zip(nodes) {
            let node = Node { to_light: moved(node.to_light), to_heavy: moved(node.to_heavy), ..*node };
            self.wanted.nodes.insert(at, node);
        }
        Ok(moved(root))
    }

    fn keep_tree(&mut self, root: u32) {
        for at in self.observed.tree(root) {
            if let Some(node) = self.observed.nodes.get(&at) {
                self.wanted.nodes.insert(at, *node);
            }
        }
    }

    /// Endpoints that no group has any more begin to drain; versions that are no longer wanted keep their slots as long
    /// as an endpoint of theirs drains.
    fn retire(&mut self) {
        let lists = self.wanted.groups.values().filter_map(|group| self.wanted.members.get(&group.members));
        let members: HashSet<u32> = lists.flatten().copied().collect();
        let mut draining = HashSet::new();
        for (slot, endpoint) in &mut self.wanted.endpoints {
            if endpoint.generation != 0 && endpoint.drain_by == 0 && !members.contains(slot) {
                let drain = self.drains.get(&endpoint.version).copied().unwrap_or_else(|| ticks(DRAIN_SECONDS));
                endpoint.drain_by = self.now.saturating_add(drain).max(1);
            }
            if Tables::endpoint_in_use(endpoint, self.now) {
                draining.insert(endpoint.version);
            }
        }
        for (&slot, version) in &self.observed.versions {
            if !self.wanted.versions.contains_key(&slot) && draining.contains(&slot) {
                self.wanted.versions.insert(slot, VersionSlot { name_hash: version.name_hash, group: 0 });
            }
        }
    }
}

/// Seconds in ticks of 2³⁰ ns, rounded up.
pub(crate) fn ticks(seconds: u32) -> u32 {
    let ticks = (u64::from(seconds) * 1_000_000_000).div_ceil(1 << canary_common::abi::TICK_SHIFT);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
