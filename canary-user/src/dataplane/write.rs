//! Carries out plans: one map write for each operation.
use std::mem::offset_of;

use aya::{Pod, maps::PerCpuValues, util::nr_cpus};
use canary_common::abi::{ConnectionCounts, Endpoint, Service, Version};

use super::{
    maps::{MapFailure, Maps},
    plan::Op,
};

impl Maps {
    /// Writes one operation.
    pub(crate) fn write(&mut self, op: &Op) -> Result<(), MapFailure> {
        match op {
            Op::PutEndpoint(slot, endpoint) => self.put_endpoint(*slot, endpoint),
            Op::PutMembers(at, list) => put_block(&mut self.members, *at, list),
            Op::PutNode(at, node) => self.nodes.set(*at, node),
            Op::PutGroup(at, group) => self.groups.set(*at, group),
            Op::PutVersion(slot, it) => {
                zero(&mut self.version_counts, "VERSION_COUNTS", *slot)?;
                self.connection_counts.set(*slot, &ConnectionCounts::default())?;
                self.versions.set(*slot, &Version { group: it.group, pad: 0, name_hash: it.name_hash })
            }
            Op::FlipGroup(slot, group) => self.versions.publish(*slot, offset_of!(Version, group), *group),
            Op::EmptyGroup(slot) => self.versions.publish(*slot, offset_of!(Version, group), 0_u32),
            Op::PutLeaves(at, leaves) => {
                for slot in (*at..).take(leaves.len()) {
                    zero(&mut self.choices, "CHOICES", slot)?;
                }
                put_block(&mut self.leaves, *at, leaves)
            }
            Op::PutSplit(at, split) => self.splits.set(*at, split),
            Op::PutRules(at, rules) => put_block(&mut self.rules, *at, rules),
            Op::PutService(slot, it) => self.service.set(*slot, &Service { rules: it.rules, name_hash: it.name_hash }),
            Op::FlipRules(slot, rules) => self.service.publish(*slot, offset_of!(Service, rules), *rules),
            Op::PutFrontend(key, slot) => {
                self.services.insert(key, slot, 0).map_err(|source| MapFailure::Map { name: "SERVICES", source })
            }
            Op::DelFrontend(key) => {
                self.services.remove(key).map_err(|source| MapFailure::Map { name: "SERVICES", source })
            }
            Op::Drain(slot, by) => self.endpoints.publish(*slot, offset_of!(Endpoint, drain_by), *by),
            Op::DelService(slot) => self.service.set(*slot, &Service::default()),
            Op::DelVersion(slot) => self.versions.set(*slot, &Version::default()),
        }
    }

    /// The generation goes first: flows of the slot's last use must not take the new endpoint for theirs.
    fn put_endpoint(&mut self, slot: u32, endpoint: &Endpoint) -> Result<(), MapFailure> {
        if self.endpoints.get(slot)?.generation != endpoint.generation {
            zero(&mut self.endpoint_counts, "ENDPOINT_COUNTS", slot)?;
            self.endpoints.publish(slot, offset_of!(Endpoint, generation), endpoint.generation)?;
            self.open_connections.set(slot, &0)?;
            self.endpoints.set(slot, &Endpoint { drain_by: 1, ..*endpoint })?;
        }
        self.endpoints.publish(slot, offset_of!(Endpoint, drain_by), endpoint.drain_by)
    }
}

fn put_block<T: Pod>(map: &mut super::maps::Mapped<T>, at: u32, values: &[T]) -> Result<(), MapFailure> {
    (at..).zip(values).try_for_each(|(slot, value)| map.set(slot, value))
}

/// A counter that starts anew, on every CPU.
fn zero<T: Pod + Default>(
    map: &mut aya::maps::PerCpuArray<aya::maps::MapData, T>,
    name: &'static str,
    slot: u32,
) -> Result<(), MapFailure> {
    let failure = |source| MapFailure::Map { name, source };
    let cpus = nr_cpus().map_err(|(_, error)| failure(aya::maps::MapError::IoError(error)))?;
    let zeroes = PerCpuValues::try_from(vec![T::default(); cpus])
        .map_err(|error| failure(aya::maps::MapError::IoError(error)))?;
    map.set(slot, zeroes, 0).map_err(failure)
}
