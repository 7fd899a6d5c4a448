//! Reads the maps back: what packets can reach, and what was counted.
use aya::maps::{MapData, MapError, PerCpuArray};
use canary_common::{
    abi::{self, EVEN, LEAF, flow_state, unrange},
    verdict::Leave,
};

use super::{
    Counters, Counts, EndpointCounts, FlowRecord, SplitCounts, address, device,
    layout::Names,
    maps::{MapFailure, Maps},
    tables::{ServiceSlot, Tables, VersionSlot},
};

impl Maps {
    /// What packets can reach, and slots with a name or a generation.
    pub(crate) fn observe(&self) -> Result<Tables, MapFailure> {
        let mut tables = Tables::default();
        for entry in &self.services {
            let (key, slot) = entry.map_err(|source| MapFailure::Map { name: "SERVICES", source })?;
            tables.frontends.insert(key, slot);
        }
        for slot in 0..self.service.len() {
            let service = self.service.get(slot)?;
            if service.name_hash != 0 {
                let it = ServiceSlot { name_hash: service.name_hash, rules: service.rules };
                tables.services.insert(slot, it);
                self.observe_rules(&mut tables, service.rules)?;
            }
        }
        for slot in 0..self.versions.len() {
            let version = self.versions.get(slot)?;
            if version.name_hash != 0 {
                let it = VersionSlot { name_hash: version.name_hash, group: version.group };
                tables.versions.insert(slot, it);
                self.observe_group(&mut tables, version.group)?;
            }
        }
        for slot in 0..self.endpoints.len() {
            let endpoint = self.endpoints.get(slot)?;
            if endpoint.generation != 0 {
                tables.endpoints.insert(slot, endpoint);
            }
        }
        Ok(tables)
    }

    fn observe_rules(&self, tables: &mut Tables, word: u64) -> Result<(), MapFailure> {
        let (base, len) = unrange(word);
        let rules = (base..).take(len as usize).map(|slot| self.rules.get(slot)).collect::<Result<Vec<_>, _>>()?;
        for rule in &rules {
            if tables.splits.contains_key(&rule.split) {
                continue;
            }
            let split = abi::Split { draws: 0, ..self.splits.get(rule.split)? };
            let leaves = (split.leaves..)
                .take(split.leaves_len as usize)
                .map(|slot| self.leaves.get(slot))
                .collect::<Result<Vec<_>, _>>()?;
            self.observe_tree(tables, split.root)?;
            tables.leaves.insert(split.leaves, leaves);
            tables.splits.insert(rule.split, split);
        }
        if len > 0 {
            tables.rules.insert(base, rules);
        }
        Ok(())
    }

    fn observe_group(&self, tables: &mut Tables, slot: u32) -> Result<(), MapFailure> {
        if slot == 0 || tables.groups.contains_key(&slot) {
            return Ok(());
        }
        let group = self.groups.get(slot)?;
        for (base, len) in [(group.members, group.members_len), (group.ring, group.ring_len)] {
            if len > 0 {
                let list =
                    (base..).take(len as usize).map(|slot| self.members.get(slot)).collect::<Result<Vec<_>, _>>()?;
                tables.members.insert(base, list);
            }
        }
        self.observe_tree(tables, group.root)?;
        tables.groups.insert(slot, group);
        Ok(())
    }

    fn observe_tree(&self, tables: &mut Tables, root: u32) -> Result<(), MapFailure> {
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            if at == EVEN || at & LEAF != 0 || tables.nodes.contains_key(&at) {
                continue;
            }
            let node = self.nodes.get(at)?;
            tables.nodes.insert(at, node);
            open.extend([node.to_light, node.to_heavy]);
        }
        Ok(())
    }

    /// All counters, under the names of the last plan.
    pub(crate) fn counters(&self, names: &Names, now: u32) -> Result<Counters, MapFailure> {
        let mut counters = Counters::default();
        let direct = now < self.settings.get(0)?.direct_until;
        for (&slot, (id, version)) in &names.versions {
            let counts = total(&self.version_counts, "VERSION_COUNTS", slot)?;
            counters.versions.insert((id.clone(), version.clone()), counts);
        }
        for slot in 0..self.endpoints.len() {
            let endpoint = self.endpoints.get(slot)?;
            if !Tables::endpoint_in_use(&endpoint, now) {
                continue;
            }
            let Some((id, version)) = names.versions.get(&endpoint.version) else { continue };
            let addr = address::socket(endpoint.addr_be, endpoint.port_be);
            let drains_for_seconds = (endpoint.drain_by != 0).then(|| seconds(endpoint.drain_by - now));
            let counts = total(&self.endpoint_counts, "ENDPOINT_COUNTS", slot)?;
            let device = abi::unhop(self.hops.get(slot)?, endpoint.generation).filter(|_| direct);
            let it = EndpointCounts { counts, drains_for_seconds, direct: device.and_then(device::name) };
            counters.endpoints.insert((id.clone(), version.clone(), addr), it);
        }
        for (&slot, (id, rule)) in &names.splits {
            counters.splits.push(self.split_counts(names, slot, id, *rule)?);
        }
        counters.splits.sort_by(|a, b| (&a.service, a.rule).cmp(&(&b.service, b.rule)));
        for &leave in Leave::ALL {
            counters.leaves.insert(leave.label(), sum(&self.leave_counts, "LEAVE_COUNTS", leave as u32)?);
        }
        Ok(counters)
    }

    fn split_counts(
        &self,
        names: &Names,
        slot: u32,
        id: &crate::state::ServiceId,
        rule: usize,
    ) -> Result<SplitCounts, MapFailure> {
        let split = self.splits.get(slot)?;
        let mut versions = Vec::with_capacity(split.leaves_len as usize);
        let mut before = 0;
        for at in (split.leaves..).take(split.leaves_len as usize) {
            let leaf = self.leaves.get(at)?;
            let name = names.versions.get(&leaf.version).map_or_else(String::new, |(_, name)| name.clone());
            versions.push((name, leaf.end - before, sum(&self.choices, "CHOICES", at)?));
            before = leaf.end;
        }
        Ok(SplitCounts { service: id.clone(), rule, draws: split.draws, versions })
    }

    /// Up to `limit` flows that have not ended.
    pub(crate) fn flows(&self, names: &Names, limit: usize, now: u32) -> Result<Vec<FlowRecord>, MapFailure> {
        let settings = self.settings.get(0)?;
        let mut records = Vec::new();
        for (table, name, established) in [(&self.flows, "FLOWS", true), (&self.transient, "TRANSIENT", false)] {
            for entry in table {
                if records.len() >= limit {
                    return Ok(records);
                }
                let (key, flow) = match entry {
                    Ok(entry) => entry,
                    // Evicted between finding its key and reading it.
                    Err(MapError::KeyNotFound) => continue,
                    Err(source) => return Err(MapFailure::Map { name, source }),
                };
                let idle = now.saturating_sub(flow.seen);
                let lasts = match (address::protocol(key.protocol), established) {
                    (crate::state::Protocol::Udp, _) => settings.udp_ticks,
                    (_, true) => settings.tcp_ticks,
                    (_, false) => settings.transient_ticks,
                };
                // A flow that was established keeps its transient entry; see `promote` in the pipeline.
                let twice = !established && self.flows.get(&key, 0).is_ok();
                if flow.state & (flow_state::REPLY | flow_state::CLAIMED) != 0 || idle > lasts || twice {
                    continue;
                }
                let endpoint = self.endpoints.get(flow.endpoint).ok().filter(|it| it.generation == flow.generation);
                let version = endpoint.and_then(|it| names.versions.get(&it.version));
                records.push(FlowRecord {
                    client: address::socket(key.src_be, key.src_port_be),
                    frontend: crate::state::Frontend {
                        addr: address::addr(key.dst_be),
                        port: u16::from_be(key.dst_port_be),
                        protocol: address::protocol(key.protocol),
                    },
                    endpoint: address::socket(flow.addr_be, flow.port_be),
                    service: version.map(|(id, _)| id.clone()),
                    version: version.map(|(_, name)| name.clone()),
                    state: match (established, flow.state & flow_state::CLOSING != 0) {
                        (true, _) => "established",
                        (false, true) => "closing",
                        (false, false) => "half-open",
                    },
                    idle_seconds: seconds(idle),
                });
            }
        }
        Ok(records)
    }
}

/// Ticks in seconds, rounded to the nearest.
fn seconds(ticks: u32) -> u32 {
    let nanos = u64::from(ticks) << abi::TICK_SHIFT;
    u32::try_from((nanos + 500_000_000) / 1_000_000_000).unwrap_or(u32::MAX)
}

fn sum(map: &PerCpuArray<MapData, u64>, name: &'static str, slot: u32) -> Result<u64, MapFailure> {
    let values = map.get(&slot, 0).map_err(|source| MapFailure::Map { name, source })?;
    Ok(values.iter().sum())
}

fn total(map: &PerCpuArray<MapData, abi::Counts>, name: &'static str, slot: u32) -> Result<Counts, MapFailure> {
    let values = map.get(&slot, 0).map_err(|source| MapFailure::Map { name, source })?;
    let mut total = Counts::default();
    for counts in values.iter() {
        total.flows += counts.flows;
        total.packets_in += counts.packets_in;
        total.bytes_in += counts.bytes_in;
        total.packets_out += counts.packets_out;
        total.bytes_out += counts.bytes_out;
    }
    Ok(total)
}

/// The name of a reason, by its number.
pub(crate) fn leave_label(number: u32) -> Option<&'static str> {
    Leave::ALL.iter().find(|&&leave| leave as u32 == number).map(|leave| leave.label())
}
