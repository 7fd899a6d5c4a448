//! Who serves: `EndpointSlices` and Pods.
use std::net::IpAddr;

use super::{
    meta::{Key, Labels, Meta},
    problem::{Faults, Invalid, Problem},
    raw,
    route::read_port,
    service::{read_address, read_protocol},
};
use crate::{source::Object, state::Protocol};

/// The label that says whose endpoints a slice holds.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A valid EndpointSlice of addresses (not of names).
#[derive(Debug, Clone)]
pub(crate) struct EndpointSlice {
    pub(crate) meta: Meta,
    /// The Service; `None` for a slice that belongs to nobody.
    pub(crate) service: Option<Key>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
    pub(crate) ports: Vec<SlicePort>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ready: bool,
    /// It answers, though it may be about to end.
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// The Pod behind it, if it says so.
    pub(crate) pod: Option<Key>,
    /// The node that it is on.
    pub(crate) node: Option<Box<str>>,
    /// For whom it is meant, if that is said.
    pub(crate) hints: Option<Box<Hints>>,
}

/// Clients that an endpoint is meant for: who is there uses it, if there is an endpoint for everybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hints {
    pub(crate) zones: Vec<Box<str>>,
    pub(crate) nodes: Vec<Box<str>>,
}

/// A port of a slice.
#[derive(Debug, Clone)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    /// `None` means every port.
    pub(crate) number: Option<u16>,
    pub(crate) protocol: Protocol,
}

impl EndpointSlice {
    /// Reads a slice; `Ok(None)` for `addressType: FQDN`, which has no addresses.
    pub(super) fn read(object: &Object) -> Result<Option<Self>, Vec<Invalid>> {
        let raw: raw::EndpointSlice = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let is_v6 = match raw.address_type.as_deref() {
            Some("IPv4") => false,
            Some("IPv6") => true,
            Some("FQDN") => return Ok(None),
            Some(other) => {
                faults.push("addressType", Problem::Value { value: other.into(), expected: "IPv4, IPv6 or FQDN" });
                false
            }
            None => {
                faults.push("addressType", Problem::Missing);
                false
            }
        };
        let mut endpoints = Vec::with_capacity(raw.endpoints.len());
        for (index, endpoint) in raw.endpoints.into_iter().enumerate() {
            let mut addresses = Vec::with_capacity(endpoint.addresses.len());
            for (entry, text) in endpoint.addresses.iter().enumerate() {
                let field = format!("endpoints[{index}].addresses[{entry}]");
                let Some(address) = faults.take(&field, read_address(text)) else {
                    continue;
                };
                if address.is_ipv6() == is_v6 || raw.address_type.is_none() {
                    addresses.push(address);
                } else {
                    let expected = "of the slice's `addressType`";
                    faults.push(field, Problem::Value { value: text.clone(), expected });
                }
            }
            let pod = endpoint.target_ref.filter(|target| target.kind.as_deref().is_none_or(|kind| kind == "Pod"));
            let pod = pod.and_then(|target| {
                Some(Key::new(target.namespace.unwrap_or_else(|| object.namespace.clone()), target.name?))
            });
            let terminating = endpoint.conditions.terminating.unwrap_or(false);
            // Absent means ready, says the API; absent `ready` of an endpoint that does not serve means it is not.
            let ready = endpoint.conditions.ready.unwrap_or(endpoint.conditions.serving.unwrap_or(true));
            let serving = endpoint.conditions.serving.unwrap_or(ready);
            let hints = endpoint.hints.map(|raw::Hints { for_zones, for_nodes }| {
                let names = |list: Vec<raw::Named>| list.into_iter().map(|it| it.name).collect();
                Box::new(Hints { zones: names(for_zones), nodes: names(for_nodes) })
            });
            let node = endpoint.node_name;
            endpoints.push(SliceEndpoint { addresses, ready, serving, terminating, pod, node, hints });
        }
        let mut ports = Vec::with_capacity(raw.ports.len());
        for (index, port) in raw.ports.into_iter().enumerate() {
            let path = format!("ports[{index}]");
            let protocol = faults.take(&format!("{path}.protocol"), read_protocol(port.protocol.as_deref()));
            let number = port.port.map(|number| faults.take(&format!("{path}.port"), read_port(number)));
            let Some(Some(protocol)) = protocol else {
                continue;
            };
            ports.push(SlicePort { name: port.name.unwrap_or_default(), number: number.flatten(), protocol });
        }
        let service = raw.metadata.labels.get(SERVICE_LABEL).map(|name| Key::new(&object.namespace, name));
        faults.finish(Some(Self { meta: Meta::new(object, &raw.metadata), service, endpoints, ports }))
    }
}

/// A valid Pod.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "a Pod may be all of these at once, and the API says each by itself")]
pub(crate) struct Pod {
    pub(crate) meta: Meta,
    /// Names it for ever; none of a Pod written by hand.
    pub(crate) uid: Option<String>,
    /// Both families.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// It has ended: its address may be another's by now.
    pub(crate) finished: bool,
    /// Its addresses are the node's: they do not name it.
    pub(crate) host_network: bool,
    /// The node that it is on.
    pub(crate) node: Option<Box<str>>,
    /// Named container ports.
    ports: Vec<(String, Protocol, u16)>,
}

impl Pod {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Pod = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let mut addresses = Vec::new();
        if let Some(text) = raw.status.pod_ip.as_ref().filter(|text| !text.is_empty()) {
            addresses.extend(faults.take("status.podIP", read_address(text)));
        }
        for (index, ip) in raw.status.pod_ips.iter().enumerate() {
            let field = format!("status.podIPs[{index}].ip");
            addresses.extend(ip.ip.as_ref().and_then(|text| faults.take(&field, read_address(text))));
        }
        addresses.sort();
        addresses.dedup();
        // A Pod written by hand has no conditions: what has an address and is not said to be otherwise is ready.
        let runs = raw.status.phase.as_deref().is_none_or(|phase| phase == "Running");
        let condition = raw.status.conditions.iter().find(|condition| condition.kind.as_deref() == Some("Ready"));
        let ready = runs && condition.is_none_or(|condition| condition.status.as_deref() == Some("True"));
        let mut ports = Vec::new();
        for (index, container) in raw.spec.containers.iter().enumerate() {
            for (entry, port) in container.ports.iter().enumerate() {
                let path = format!("spec.containers[{index}].ports[{entry}]");
                let protocol = faults.take(&format!("{path}.protocol"), read_protocol(port.protocol.as_deref()));
                let (Some(Some(protocol)), Some(name), Some(number)) = (protocol, &port.name, port.number) else {
                    continue;
                };
                let number = faults.take(&format!("{path}.containerPort"), read_port(number));
                ports.extend(number.map(|number| (name.clone(), protocol, number)));
            }
        }
        faults.finish(Self {
            meta: Meta::new(object, &raw.metadata),
            uid: raw.metadata.uid,
            addresses,
            ready,
            terminating: raw.metadata.deletion_timestamp.is_some(),
            finished: matches!(raw.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            host_network: raw.spec.host_network,
            node: raw.spec.node_name,
            ports,
        })
    }

    /// The container port of this name.
    pub(crate) fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports.find(|(seen, of, _)| seen == name && *of == protocol).map(|(_, _, number)| *number)
    }

    /// Labels, for selectors and subsets.
    pub(crate) fn labels(&self) -> &Labels {
        &self.meta.labels
    }
}
