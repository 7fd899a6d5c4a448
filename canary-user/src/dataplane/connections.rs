//! What became of connections that sockets have made, as the programs have counted it.
use std::collections::BTreeMap;

use canary_common::abi::{ConnectionCounts, handshake_end};

use super::{
    Connections,
    layout::Names,
    maps::{MapFailure, Maps},
};
use crate::state::ServiceId;

impl Maps {
    /// By service and version.
    pub(crate) fn connections(&self, names: &Names) -> Result<BTreeMap<(ServiceId, String), Connections>, MapFailure> {
        let mut draining: BTreeMap<u32, u64> = BTreeMap::new();
        for slot in 0..self.endpoints.len() {
            let endpoint = self.endpoints.get(slot)?;
            if endpoint.generation != 0 && endpoint.drain_by != 0 {
                *draining.entry(endpoint.version).or_default() += self.open_connections.get(slot)?;
            }
        }
        let mut all = BTreeMap::new();
        for (slot, name) in &names.versions {
            let draining = draining.get(slot).copied().unwrap_or_default();
            all.insert(name.clone(), Connections { draining, ..Connections::from(self.connection_counts.get(*slot)?) });
        }
        Ok(all)
    }
}

impl From<ConnectionCounts> for Connections {
    fn from(counts: ConnectionCounts) -> Self {
        Self {
            begun: counts.begun,
            established: counts.established,
            failed: counts.failed,
            ended: counts.ended,
            draining: 0,
            retransmits: counts.retransmits,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            rtt_micros: counts.rtt_micros,
            handshake_micros: counts.handshake_micros,
            handshakes: (0..).map(handshake_end).zip(counts.handshakes).collect(),
        }
    }
}
