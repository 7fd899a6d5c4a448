//! Versions, their groups and endpoints, in slots.
use std::net::SocketAddr;

use canary_common::{
    abi::{EVEN, Endpoint, Group},
    build::{name_hash, ring, ring_size, tree},
    limits,
};

use super::{Layout, LayoutError, ticks, version_hash};
use crate::{
    dataplane::{
        address,
        tables::{Tables, VersionSlot},
    },
    state::{Choosing, DeadVersion, Service, ServiceId, Version},
};

impl Layout<'_> {
    /// Gives a version of a service its slot, and its endpoints theirs.
    pub(super) fn version(
        &mut self,
        id: &ServiceId,
        service: &Service,
        name: &str,
        version: &Version,
    ) -> Result<(), LayoutError> {
        let object = || format!("{id} version {name}");
        let hash = version_hash(id, name);
        let slot = match self.versions.get(&hash) {
            Some(&slot) => slot,
            None => self.pools.versions.take().map_err(LayoutError::full(object()))?,
        };
        self.part_versions.insert(name.into(), slot);
        let taken = self.part_names.versions.insert(slot, (id.clone(), name.into())).is_some();
        if taken || self.names.versions.contains_key(&slot) {
            return Err(LayoutError::Unsound { object: object(), problem: "has the same hash as another version" });
        }
        if version.endpoints.len() > limits::ENDPOINTS_PER_VERSION as usize {
            return Err(LayoutError::TooMany {
                object: object(),
                what: "endpoints",
                count: version.endpoints.len(),
                limit: limits::ENDPOINTS_PER_VERSION,
            });
        }
        let splits = || service.rules.iter().map(|rule| &rule.split);
        let names = |split: &&crate::state::Split| split.weights.iter().any(|(it, weight)| it == name && *weight > 0);
        let holds = splits().filter(names).any(|split| split.dead == DeadVersion::Hold);
        let keyed = splits().filter(names).any(|split| split.choosing != Choosing::Exact);
        let had = self.observed.versions.get(&slot).map_or(0, |it| it.group);
        let group = if version.endpoints.is_empty() && holds { self.keep_group(had) } else { 0 };
        let group = if version.endpoints.is_empty() { group } else { self.group(slot, had, version, keyed, &object)? };
        self.part.versions.insert(slot, VersionSlot { name_hash: hash, group });
        self.drains.insert(slot, ticks(version.drain_seconds));
        Ok(())
    }

    /// Endpoints in slots, and the group of them: the one that there is, if it says the same.
    fn group(
        &mut self,
        version: u32,
        had: u32,
        wanted: &Version,
        keyed: bool,
        object: &impl Fn() -> String,
    ) -> Result<u32, LayoutError> {
        let mut members = Vec::with_capacity(wanted.endpoints.len());
        for &addr in wanted.endpoints.keys() {
            members.push(self.endpoint(version, addr, object)?);
        }
        let weights: Vec<u32> = wanted.endpoints.values().copied().collect();
        let ring_len = if keyed { ring_size(members.len()) } else { 0 };
        let digest = digest(&members, &weights, ring_len);
        let same =
            self.observed.groups.get(&had).is_some_and(|group| {
                group.digest == digest && self.observed.members.get(&group.members) == Some(&members)
            });
        if same {
            return Ok(self.keep_group(had));
        }
        let members_len = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let even = weights.windows(2).all(|pair| pair.first() == pair.last());
        let root = if even {
            EVEN
        } else {
            let tree = tree(&weights, u64::from(digest))
                .ok_or_else(|| LayoutError::Unsound { object: object(), problem: "all endpoints have weight zero" })?;
            self.place_tree(tree.root, &tree.nodes, 0, object)?
        };
        let ring_at =
            if ring_len == 0 { 0 } else { self.pools.members.take(ring_len).map_err(LayoutError::full(object()))? };
        if ring_len > 0 {
            let names: Vec<(u64, u32)> = wanted
                .endpoints
                .iter()
                .map(|(addr, &weight)| (name_hash(addr.to_string().as_bytes()), weight))
                .collect();
            let entries = ring(&names, ring_len);
            let slots = entries.iter().filter_map(|&entry| members.get(entry as usize).copied()).collect();
            self.part.members.insert(ring_at, slots);
        }
        let members_at = self.pools.members.take(members_len).map_err(LayoutError::full(object()))?;
        self.part.members.insert(members_at, members);
        let slot = self.pools.groups.take().map_err(LayoutError::full(object()))?;
        let group = Group { members: members_at, members_len, ring: ring_at, ring_len, root, digest };
        self.part.groups.insert(slot, group);
        Ok(slot)
    }

    /// Keeps a group that packets use now; returns it, or the empty one if there is none.
    pub(super) fn keep_group(&mut self, slot: u32) -> u32 {
        let Some(group) = self.observed.groups.get(&slot) else { return 0 };
        for (at, len) in [(group.members, group.members_len), (group.ring, group.ring_len)] {
            if let Some(list) = self.observed.members.get(&at).filter(|_| len > 0) {
                self.part.members.insert(at, list.clone());
            }
        }
        if group.root != EVEN {
            self.keep_tree(group.root);
        }
        self.part.groups.insert(slot, *group);
        slot
    }

    fn endpoint(&mut self, version: u32, addr: SocketAddr, object: &impl Fn() -> String) -> Result<u32, LayoutError> {
        let slot = match self.endpoints.get(&(version, addr)) {
            Some(&slot) => slot,
            None => self.pools.endpoints.take().map_err(LayoutError::full(object()))?,
        };
        let had = self.wanted.endpoints.get(&slot).copied().unwrap_or_default();
        let endpoint = self.part.endpoints.entry(slot).or_insert(had);
        let fresh = !Tables::endpoint_in_use(endpoint, self.now)
            || endpoint.version != version
            || address::socket(endpoint.addr_be, endpoint.port_be) != addr;
        if fresh {
            *endpoint = Endpoint {
                addr_be: address::words(addr.ip()),
                port_be: addr.port().to_be(),
                pad: 0,
                version,
                generation: endpoint.generation.wrapping_add(1).max(1),
                drain_by: 0,
            };
        }
        endpoint.drain_by = 0;
        Ok(slot)
    }
}

fn digest(members: &[u32], weights: &[u32], ring_len: u32) -> u32 {
    let words = members.iter().chain(weights).chain([&ring_len]);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    let digest = name_hash(&bytes) as u32;
    digest
}
