//! The node that canary is on.
use std::net::IpAddr;

use super::{
    problem::{Faults, Invalid},
    raw,
    service::read_address,
};
use crate::source::Object;

/// The label that names the zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A valid Node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where it can be reached, from inside and outside of the cluster.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) zone: Option<String>,
}

impl Node {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Node = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let mut addresses = Vec::new();
        for (index, raw::NodeAddress { kind, address }) in raw.status.addresses.iter().enumerate() {
            // The others are names.
            if let (Some("InternalIP" | "ExternalIP"), Some(text)) = (kind.as_deref(), address) {
                addresses.extend(faults.take(&format!("status.addresses[{index}].address"), read_address(text)));
            }
        }
        addresses.sort();
        addresses.dedup();
        let zone = raw.metadata.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned();
        faults.finish(Self { name: object.name.clone(), addresses, zone })
    }
}
