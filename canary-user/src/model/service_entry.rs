//! ServiceEntry and WorkloadEntry: services and endpoints that Kubernetes does not know.
use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::Number;

use super::{
    meta::{Labels, Meta},
    names::{ExportTo, Host},
    problem::{Faults, Invalid, Problem},
    raw,
    route::{read_port, read_weight},
    service::{Application, Port, Target, read_address},
    settings::{Settings, read_network},
};
use crate::{source::Object, state::Protocol};

/// A valid ServiceEntry. Invariants: at least one host; names and numbers of its ports are unique.
#[derive(Debug, Clone)]
pub(crate) struct ServiceEntry {
    pub(crate) meta: Meta,
    pub(crate) hosts: Vec<Host>,
    /// Single addresses; networks are in `networks`.
    pub(crate) addresses: Vec<IpAddr>,
    /// Networks of more than one address, by index in `spec.addresses`.
    pub(crate) networks: Vec<(usize, IpNet)>,
    pub(crate) ports: Vec<Port>,
    pub(crate) resolution: Resolution,
    pub(crate) backends: Backends,
    pub(crate) export_to: ExportTo,
    pub(crate) settings: Settings,
}

/// How Istio finds the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// It does not: connections go where they are addressed to.
    None,
    Static,
    Dns,
    DnsRoundRobin,
}

/// Where a ServiceEntry's endpoints come from.
#[derive(Debug, Clone)]
pub(crate) enum Backends {
    Inline(Vec<Workload>),
    /// `WorkloadEntries` and Pods of the namespace with these labels; `None` selects nothing.
    Selected(Option<Labels>),
}

/// A WorkloadEntry, or an endpoint of a ServiceEntry.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) address: Address,
    pub(crate) labels: Labels,
    /// Weight inside the version, at least 1.
    pub(crate) weight: u32,
    /// Port by the name of the service's port: wins over its target.
    pub(crate) ports: BTreeMap<String, u16>,
}

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Ip(IpAddr),
    /// A name, a Unix socket or nothing: not ours to resolve.
    Other(String),
}

/// A valid WorkloadEntry.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadEntry {
    pub(crate) meta: Meta,
    pub(crate) workload: Workload,
}

impl ServiceEntry {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::ServiceEntry> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let settings = Settings::read(&raw.metadata.annotations, &mut faults);
        let Some(spec) = raw.spec else {
            return Err(vec![Invalid { field: "spec".into(), problem: Problem::Missing }]);
        };
        let hosts = read_hosts(&spec.hosts, &mut faults);
        let resolution = match spec.resolution.as_deref() {
            None | Some("" | "NONE") => Resolution::None,
            Some("STATIC") => Resolution::Static,
            Some("DNS") => Resolution::Dns,
            Some("DNS_ROUND_ROBIN") => Resolution::DnsRoundRobin,
            Some(other) => {
                let expected = "one of NONE, STATIC, DNS, DNS_ROUND_ROBIN";
                faults.push("spec.resolution", Problem::Value { value: other.into(), expected });
                Resolution::None
            }
        };
        let (mut addresses, mut networks) = (Vec::new(), Vec::new());
        for (index, text) in spec.addresses.iter().enumerate() {
            let field = format!("spec.addresses[{index}]");
            let Some(network) = faults.take(&field, read_network(text)) else {
                continue;
            };
            if text.contains('/') && matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
                faults.push(field, Problem::CidrNeedsStatic);
            } else if network.prefix_len() == network.max_prefix_len() {
                addresses.push(network.addr());
            } else {
                networks.push((index, network));
            }
        }
        addresses.sort();
        addresses.dedup();
        let ports = read_ports(spec.ports, &mut faults);
        check_endpoints(&spec.endpoints, spec.workload_selector.is_some(), resolution, &mut faults);
        let backends = match spec.workload_selector {
            Some(selector) => {
                for (key, value) in &selector.labels {
                    if key.contains('*') || value.contains('*') {
                        let field = format!("spec.workloadSelector.labels.{key}");
                        faults.push(field, Problem::SelectorWildcard);
                    }
                }
                Backends::Selected(Some(selector.labels).filter(|labels| !labels.is_empty()))
            }
            None => Backends::Inline(read_inline(spec.endpoints, &ports, resolution, &mut faults)),
        };
        faults.finish(Self {
            meta: Meta::new(object, &raw.metadata),
            hosts,
            addresses,
            networks,
            ports,
            resolution,
            backends,
            export_to: ExportTo::read(&spec.export_to, &object.namespace),
            settings,
        })
    }
}

fn read_hosts(written: &[String], faults: &mut Faults) -> Vec<Host> {
    if written.is_empty() {
        faults.push("spec.hosts", Problem::Missing);
    }
    let mut hosts: Vec<Host> = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if text == "*" {
            faults.push(field, Problem::WildcardAlone);
            continue;
        }
        // Unlike those of a VirtualService these names are never completed.
        hosts.extend(faults.take(&field, Host::literal(text)));
    }
    hosts
}

fn read_ports(raw: Vec<raw::ServiceEntryPort>, faults: &mut Faults) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::with_capacity(raw.len());
    for (index, port) in raw.into_iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let number = faults.take(&format!("{path}.number"), read_port(port.number.unwrap_or(0)));
        let target = match port.target_port {
            None | Some(0) => number,
            Some(target) => faults.take(&format!("{path}.targetPort"), read_port(target)),
        };
        let name = port.name.unwrap_or_default();
        if name.is_empty() {
            faults.push(format!("{path}.name"), Problem::Missing);
        } else if ports.iter().any(|seen| seen.name == name) {
            faults.push(format!("{path}.name"), Problem::Duplicate { value: name.clone() });
        }
        let (Some(number), Some(target)) = (number, target) else {
            continue;
        };
        if ports.iter().any(|seen| seen.number == number) {
            faults.push(format!("{path}.number"), Problem::Duplicate { value: number.to_string() });
        }
        let application = Application::parse(port.protocol.as_deref().unwrap_or_default());
        let protocol = if application == Application::Udp { Protocol::Udp } else { Protocol::Tcp };
        ports.push(Port { name, number, protocol, application, target: Target::Number(target), on_nodes: None });
    }
    ports
}

/// What Istio's validation says about the list of endpoints as a whole.
fn check_endpoints(endpoints: &[raw::WorkloadEntry], selector: bool, resolution: Resolution, faults: &mut Faults) {
    if endpoints.is_empty() {
        return;
    }
    let field = "spec.endpoints";
    if selector {
        faults.push(field, Problem::Exclusive { first: "`workloadSelector`", second: "`endpoints`" });
    } else if resolution == Resolution::None {
        faults.push(field, Problem::Resolution { resolution: "NONE", what: "set endpoints" });
    } else if resolution == Resolution::DnsRoundRobin && endpoints.len() > 1 {
        faults.push(field, Problem::Resolution { resolution: "DNS_ROUND_ROBIN", what: "have multiple endpoints" });
    }
}

fn read_inline(
    raw: Vec<raw::WorkloadEntry>,
    ports: &[Port],
    resolution: Resolution,
    faults: &mut Faults,
) -> Vec<Workload> {
    let mut workloads = Vec::with_capacity(raw.len());
    for (index, entry) in raw.into_iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        for name in entry.ports.keys() {
            if !ports.iter().any(|port| port.name == *name) {
                faults.push(format!("{path}.ports.{name}"), Problem::UnknownPortName { name: name.clone() });
            }
        }
        let Some(workload) = Workload::read(entry, &path, faults) else {
            continue;
        };
        if let (Resolution::Static, Address::Other(text)) = (resolution, &workload.address)
            && !text.is_empty()
            && !text.starts_with("unix://")
        {
            let value = text.clone();
            faults.push(
                format!("{path}.address"),
                Problem::Value { value, expected: "an IP address (resolution is STATIC)" },
            );
        }
        workloads.push(workload);
    }
    workloads
}

impl Workload {
    fn read(raw: raw::WorkloadEntry, path: &str, faults: &mut Faults) -> Option<Self> {
        let text = raw.address.unwrap_or_default();
        if text.is_empty() && raw.network.as_deref().unwrap_or_default().is_empty() {
            faults.push(format!("{path}.address"), Problem::Missing);
        }
        if let Some(socket) = text.strip_prefix("unix://") {
            check_socket(socket, !raw.ports.is_empty(), path, faults);
        }
        let weight = raw.weight.unwrap_or_else(|| Number::from(1));
        // 0 is protobuf's "not set".
        let weight = faults.take(&format!("{path}.weight"), read_weight(&weight))?.max(1);
        let mut ports = BTreeMap::new();
        for (name, number) in raw.ports {
            let number = faults.take(&format!("{path}.ports.{name}"), read_port(number));
            ports.extend(number.map(|number| (name, number)));
        }
        let address = read_address(&text).map_or(Address::Other(text), Address::Ip);
        Some(Self { address, labels: raw.labels, weight, ports })
    }
}

fn check_socket(socket: &str, has_ports: bool, path: &str, faults: &mut Faults) {
    let expected = if !socket.starts_with('/') && !socket.starts_with('@') {
        "an absolute path or an abstract socket"
    } else if socket.ends_with('/') {
        "a socket, but a directory"
    } else if has_ports {
        "an address that can have ports"
    } else {
        return;
    };
    faults.push(format!("{path}.address"), Problem::Value { value: format!("unix://{socket}"), expected });
}

impl WorkloadEntry {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::WorkloadEntry> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let Some(spec) = raw.spec else {
            return Err(vec![Invalid { field: "spec".into(), problem: Problem::Missing }]);
        };
        let workload = Workload::read(spec, "spec", &mut faults);
        let workload = faults.finish(workload)?;
        let Some(mut workload) = workload else {
            return Err(Vec::new());
        };
        // As Istio: labels of the spec and of the metadata together; the metadata's win.
        workload.labels.extend(raw.metadata.labels.clone());
        Ok(Self { meta: Meta::new(object, &raw.metadata), workload })
    }
}
