//! Where a connection that reached the proxy was meant to go. The proxy is an endpoint like any other: the entry that gives
//! its answers the virtual address back says which address that is. For a socket that was connected to the proxy there is one
//! that says nothing else.
use std::{net::SocketAddr, path::Path};

use aya::maps::{HashMap, Map, MapData};
use canary_common::{
    abi::{Flow, FlowKey, flow_state},
    packet::TCP,
};

use super::{DataplaneError, MapFailure, address, pins::layout_directory};

/// The flow tables, to look up; readable from any thread.
#[derive(Debug)]
pub struct Origins {
    tables: [HashMap<MapData, FlowKey, Flow>; 3],
}

impl Origins {
    /// Opens the tables of the data plane that is pinned under `pin`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pin: &Path) -> Result<Self, DataplaneError> {
        let dir = layout_directory(pin);
        let table = |name: &'static str| {
            let failed = |source| MapFailure::Map { name, source };
            let data = MapData::from_pin(dir.join(name)).map_err(failed)?;
            HashMap::try_from(Map::LruHashMap(data)).map_err(failed)
        };
        Ok(Self { tables: [table("FLOWS")?, table("TRANSIENT")?, table("ORIGINS")?] })
    }

    /// The virtual address that `peer` has connected to, when `local` has accepted the connection; `None` when that came
    /// by no service.
    #[must_use]
    pub fn of(&self, peer: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
        let key = FlowKey {
            src_be: address::words(local.ip().to_canonical()),
            dst_be: address::words(peer.ip().to_canonical()),
            src_port_be: local.port().to_be(),
            dst_port_be: peer.port().to_be(),
            protocol: TCP,
            pad: 0,
            zero: 0,
        };
        let flow = self.tables.iter().find_map(|table| table.get(&key, 0).ok())?;
        let answers = flow.state & (flow_state::REPLY | flow_state::CLAIMED) == flow_state::REPLY;
        answers.then(|| address::socket(flow.addr_be, flow.port_be))
    }
}
