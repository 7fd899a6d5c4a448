//! Gives names their slots: from the wanted [`State`] and the observed [`Tables`] to the wanted ones. Pure.
//!
//! What is the same keeps its slot, so that an unchanged split keeps its counter and an unchanged state is an empty plan.
//! What changes takes a free slot: nothing that packets can reach is ever rewritten. Names are found again by their
//! hashes in the maps, so that an agent needs no memory of its own to take over.
mod pools;
mod refusal;
mod splits;
mod versions;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
};

use canary_common::{
    abi::{Endpoint, FOR_PACKETS, FOR_SOCKETS, range, unrange},
    build::name_hash,
    limits,
};

use self::pools::Pools;
pub use self::refusal::LayoutError;
use super::{
    address,
    tables::{ServiceSlot, Tables, VersionSlot},
};
use crate::state::{Service, ServiceId, State};

/// Ticks of a drain whose version is gone, and with it what the user wished.
const DRAIN_SECONDS: u32 = 300;

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

impl Names {
    fn absorb(&mut self, part: Self) {
        self.services.extend(part.services);
        self.versions.extend(part.versions);
        self.splits.extend(part.splits);
    }
}

/// The hash under which a service is found again.
pub(crate) fn service_hash(id: &ServiceId) -> u64 {
    name_hash(id.to_string().as_bytes())
}

/// The hash under which a version is found again.
pub(crate) fn version_hash(id: &ServiceId, version: &str) -> u64 {
    name_hash(format!("{id}\0{version}").as_bytes())
}

/// What came of a state: see [`lower`].
#[derive(Debug)]
pub(crate) struct Lowered {
    /// What the maps should hold.
    pub(crate) tables: Tables,
    /// Who has which slot.
    pub(crate) names: Names,
    /// Services that have no place as they are wanted: they keep what they have, or get nothing.
    pub(crate) refused: Vec<Rejected>,
}

/// A service without a place.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// Which.
    pub(crate) service: ServiceId,
    /// Why.
    pub(crate) error: LayoutError,
    /// It keeps what the maps hold of it; otherwise they hold nothing.
    pub(crate) kept: bool,
}

/// The tables that hold `state`, as close to `observed` as possible, at tick `now`. A service that does not fit keeps
/// what is observed of it, by the names that the slots had (`last`), and does not keep the others from theirs.
///
/// # Errors
/// A state that no compilation yields: nothing is laid out then.
pub(crate) fn lower(observed: &Tables, state: &State, now: u32, last: &Names) -> Result<Lowered, LayoutError> {
    let mut layout = Layout::new(observed, now);
    let mut refused = Vec::new();
    for (id, service) in &state.services {
        match layout.service(id, service) {
            Ok(()) => layout.commit(),
            Err(error) => {
                layout.roll_back();
                let kept = layout.keep(id, service, last);
                refused.push(Rejected { service: id.clone(), error, kept });
            }
        }
    }
    let mut waiting: HashSet<&ServiceId> = HashSet::new();
    waiting.extend(refused.iter().map(|rejected| &rejected.service));
    let packets = state.frontends.iter().map(|(frontend, id)| (frontend, id, FOR_PACKETS));
    let sockets = state.frontends.keys().chain(state.for_sockets.keys());
    let sockets = sockets.filter_map(|frontend| Some((frontend, state.for_socket(frontend)?, FOR_SOCKETS)));
    for (frontend, id, of) in packets.chain(sockets).filter(|(_, id, _)| !waiting.contains(id)) {
        let slot = layout.services.get(&service_hash(id)).filter(|slot| layout.wanted.services.contains_key(slot));
        let Some(&slot) = slot else {
            let problem = "names a service that is not there";
            return Err(LayoutError::Unsound { object: frontend.to_string(), problem });
        };
        layout.wanted.frontends.insert(address::key(frontend, of), slot);
    }
    // Who keeps what it has keeps its addresses, too.
    for (&key, slot) in &observed.frontends {
        if layout.names.services.get(slot).is_some_and(|id| waiting.contains(id)) {
            layout.wanted.frontends.entry(key).or_insert(*slot);
        }
    }
    if layout.wanted.frontends.len() > limits::FRONTEND_ENTRIES as usize {
        return Err(LayoutError::TooMany {
            object: "frontends".into(),
            what: "virtual addresses",
            count: layout.wanted.frontends.len(),
            limit: limits::FRONTEND_ENTRIES,
        });
    }
    layout.retire();
    Ok(Lowered { tables: layout.wanted, names: layout.names, refused })
}

struct Layout<'a> {
    observed: &'a Tables,
    wanted: Tables,
    names: Names,
    /// What the service whose turn it is adds to them, once all of it has a place.
    part: Tables,
    part_names: Names,
    part_versions: HashMap<String, u32>,
    now: u32,
    /// Hash → slot, observed and then wanted.
    services: HashMap<u64, u32>,
    /// Hash → slot, observed.
    versions: HashMap<u64, u32>,
    /// (version, address) → endpoint slot in use, observed.
    endpoints: HashMap<(u32, SocketAddr), u32>,
    /// Version slot → how long its endpoints drain, in ticks.
    drains: HashMap<u32, u32>,
    pools: Pools,
}

impl<'a> Layout<'a> {
    fn new(observed: &'a Tables, now: u32) -> Self {
        let in_use = |endpoint: &&Endpoint| Tables::endpoint_in_use(endpoint, now);
        Self {
            observed,
            wanted: Tables { endpoints: observed.endpoints.clone(), ..Tables::default() },
            names: Names::default(),
            part: Tables::default(),
            part_names: Names::default(),
            part_versions: HashMap::new(),
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
            pools: Pools::around(observed, now),
        }
    }

    /// Gives a service its place in `part`.
    fn service(&mut self, id: &ServiceId, service: &Service) -> Result<(), LayoutError> {
        let hash = service_hash(id);
        let slot = match self.services.get(&hash) {
            Some(&slot) => slot,
            None => self.pools.services.take().map_err(LayoutError::full(id.to_string()))?,
        };
        if let Some(other) = self.names.services.get(&slot) {
            return Err(LayoutError::Unsound { object: format!("{id} and {other}"), problem: "have the same hash" });
        }
        self.part_names.services.insert(slot, id.clone());
        for (name, version) in &service.versions {
            self.version(id, service, name, version)?;
        }
        let rules = self.rules(id, service, slot)?;
        let len = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let had = self.observed.services.get(&slot).map(|it| unrange(it.rules).0);
        let base = match had.filter(|base| self.observed.rules.get(base) == Some(&rules)) {
            Some(base) => base,
            None => self.pools.rules.take(len).map_err(LayoutError::full(id.to_string()))?,
        };
        if len > 0 {
            self.part.rules.insert(base, rules);
        }
        self.part.services.insert(slot, ServiceSlot { name_hash: hash, rules: range(base, len) });
        Ok(())
    }

    /// The service whose turn it was has its place.
    fn commit(&mut self) {
        self.pools.commit();
        self.services.extend(self.part.services.iter().map(|(&slot, it)| (it.name_hash, slot)));
        self.wanted.absorb(std::mem::take(&mut self.part));
        self.names.absorb(std::mem::take(&mut self.part_names));
        self.part_versions.clear();
    }

    /// It has none: what it took is free again.
    fn roll_back(&mut self) {
        self.pools.roll_back();
        self.part = Tables::default();
        self.part_names = Names::default();
        self.part_versions.clear();
    }

    /// Keeps what packets can reach of a service now; `false` when that is nothing.
    fn keep(&mut self, id: &ServiceId, service: &Service, last: &Names) -> bool {
        let Some(&slot) = self.services.get(&service_hash(id)) else { return false };
        let Some(&had) = self.observed.services.get(&slot) else { return false };
        self.part.services.insert(slot, had);
        self.part_names.services.insert(slot, id.clone());
        // Versions of today that it had already, and those that its splits lead to.
        let mut versions: BTreeMap<u32, Option<String>> = service
            .versions
            .keys()
            .filter_map(|name| Some((*self.versions.get(&version_hash(id, name))?, Some(name.clone()))))
            .collect();
        let (base, _) = unrange(had.rules);
        if let Some(rules) = self.observed.rules.get(&base) {
            for rule in rules {
                let Some(split) = self.observed.splits.get(&rule.split) else { continue };
                self.keep_tree(split.root);
                if let Some(leaves) = self.observed.leaves.get(&split.leaves) {
                    for leaf in leaves {
                        versions
                            .entry(leaf.version)
                            .or_insert_with(|| Some(last.versions.get(&leaf.version)?.1.clone()));
                    }
                    self.part.leaves.insert(split.leaves, leaves.clone());
                }
                self.part.splits.insert(rule.split, *split);
                self.part_names.splits.insert(rule.split, (id.clone(), rule.index as usize));
            }
            self.part.rules.insert(base, rules.clone());
        }
        for (slot, name) in versions {
            if let Some(version) = self.observed.versions.get(&slot) {
                self.keep_group(version.group);
                self.part.versions.insert(slot, *version);
            }
            if let Some(name) = name {
                self.part_names.versions.insert(slot, (id.clone(), name));
            }
        }
        self.commit();
        true
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
