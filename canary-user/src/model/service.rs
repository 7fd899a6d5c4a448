//! Kubernetes Service: virtual addresses, ports and the protocol that Istio sees on them.
use std::net::IpAddr;

use super::{
    meta::{Labels, Meta},
    names::Host,
    problem::{Faults, Invalid, Problem},
    raw::{self, NumberOrName},
    route::read_port,
    settings::Settings,
};
use crate::{
    source::Object,
    state::{Choosing, Protocol},
};

/// A valid Service. Invariants: names and (number, protocol) of its ports are unique.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) meta: Meta,
    pub(crate) host: Host,
    /// Virtual addresses of both families, in order; empty for headless Services and such without an address.
    pub(crate) addresses: Vec<IpAddr>,
    /// Those of them that clients outside of the cluster use.
    pub(crate) external: Vec<IpAddr>,
    /// What clients in the cluster get.
    pub(crate) inside: Policy,
    /// What clients from outside get.
    pub(crate) outside: Policy,
    pub(crate) ports: Vec<Port>,
    pub(crate) selector: Labels,
    pub(crate) publish_not_ready: bool,
    pub(crate) kind: Kind,
    /// A client stays with its endpoint, unless a route or a policy says otherwise.
    pub(crate) client_affinity: bool,
    pub(crate) settings: Settings,
}

/// A traffic policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Any endpoint.
    Cluster,
    /// Those on the node of the client, or the one that it comes to.
    Local,
}

/// What a Service is to canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a virtual address, or would have one in a cluster.
    Virtual,
    /// `clusterIP: None`: clients address endpoints themselves.
    Headless,
    /// `type: ExternalName`: a name in DNS.
    ExternalName,
}

/// A port of a Service or ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty when the only port has no name.
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    pub(crate) application: Application,
    pub(crate) target: Target,
    /// Where every node answers for it.
    pub(crate) on_nodes: Option<u16>,
}

/// Where a port leads on the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Number(u16),
    /// The container port of this name.
    Name(String),
}

/// Which section of a VirtualService applies to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Application {
    /// Endpoints speak HTTP/1.1.
    Http,
    /// HTTP too: endpoints speak HTTP/2, as those of gRPC do.
    Http2,
    Tls,
    Tcp,
    /// Not declared: Istio looks at the first bytes.
    Sniffed,
    /// No VirtualService applies to UDP.
    Udp,
}

impl Application {
    /// As Istio's `ConvertProtocol`: the declared protocol, else the port's name up to the first `-`, else the number.
    pub(super) fn of_port(protocol: Protocol, declared: Option<&str>, name: &str, number: u16) -> Self {
        if protocol == Protocol::Udp {
            return Self::Udp;
        }
        let text = declared.unwrap_or(name).to_ascii_lowercase();
        match text.as_str() {
            "kubernetes.io/h2c" if declared.is_some() => return Self::Http2,
            "kubernetes.io/ws" if declared.is_some() => return Self::Http,
            "kubernetes.io/wss" if declared.is_some() => return Self::Tls,
            _ if text.starts_with("grpc-web") => return Self::Http2,
            _ => {}
        }
        match Self::parse(text.split('-').next().unwrap_or_default()) {
            // SMTP, DNS, MySQL, MongoDB: the server speaks first, so sniffing would wait.
            Self::Sniffed if matches!(number, 25 | 53 | 3_306 | 27_017) => Self::Tcp,
            application => application,
        }
    }

    /// As Istio's `protocol.Parse`.
    pub(super) fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" => Self::Http,
            "http2" | "grpc" | "grpc-web" => Self::Http2,
            "https" | "tls" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" | "hbone" => Self::Tcp,
            "udp" => Self::Udp,
            _ => Self::Sniffed,
        }
    }

    /// For messages.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Http | Self::Http2 => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Sniffed => "not declared",
            Self::Udp => "UDP",
        }
    }
}

impl Service {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Service = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let mut settings = Settings::read(&raw.metadata.annotations, &mut faults);
        let spec = raw.spec;
        let client_affinity = match spec.session_affinity.as_deref() {
            None | Some("" | "None") => false,
            Some("ClientIP") => true,
            Some(other) => {
                let problem = Problem::Value { value: other.into(), expected: "None or ClientIP" };
                faults.push("spec.sessionAffinity", problem);
                false
            }
        };
        if client_affinity {
            settings.choosing = settings.choosing.or(Some(Choosing::KeyedClient));
        }
        let kind = if spec.kind.as_deref() == Some("ExternalName") {
            Kind::ExternalName
        } else if spec.cluster_ip.as_deref() == Some("None") || spec.cluster_ips.iter().any(|ip| ip == "None") {
            Kind::Headless
        } else {
            Kind::Virtual
        };
        let (mut addresses, mut external) = (Vec::new(), Vec::new());
        if kind == Kind::Virtual {
            let cluster_ip = spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".to_owned(), ip));
            let cluster_ips = at("spec.clusterIPs", &spec.cluster_ips);
            let external_ips = at("spec.externalIPs", &spec.external_ips);
            let ingress = raw.status.load_balancer.ingress.iter().enumerate().filter_map(|(index, ingress)| {
                // Some balancers must see the connection themselves; and what keeps clients out must not be passed by.
                let direct = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
                if !direct || !spec.load_balancer_source_ranges.is_empty() {
                    return None;
                }
                Some((format!("status.loadBalancer.ingress[{index}].ip"), ingress.ip.as_ref()?))
            });
            for (field, text) in cluster_ip.chain(cluster_ips).filter(|(_, text)| !text.is_empty()) {
                addresses.extend(faults.take(&field, read_address(text)));
            }
            for (field, text) in external_ips.chain(ingress).filter(|(_, text)| !text.is_empty()) {
                external.extend(faults.take(&field, read_address(text)));
            }
            external.retain(|address| !addresses.contains(address));
            addresses.extend(&external);
            for list in [&mut addresses, &mut external] {
                list.sort();
                list.dedup();
            }
        }
        let mut policy = |field: &str, text: Option<&String>| match text.map(String::as_str) {
            None | Some("" | "Cluster") => Policy::Cluster,
            Some("Local") => Policy::Local,
            Some(other) => {
                faults.push(field, Problem::Value { value: other.into(), expected: "Cluster or Local" });
                Policy::Cluster
            }
        };
        let inside = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_ref());
        let outside = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_ref());
        let ports = read_ports(spec.ports, &mut faults);
        faults.finish(Self {
            meta: Meta::new(object, &raw.metadata),
            host: Host::of_service(&object.name, &object.namespace),
            addresses,
            external,
            inside,
            outside,
            ports,
            selector: spec.selector,
            publish_not_ready: spec.publish_not_ready_addresses,
            kind,
            client_affinity,
            settings,
        })
    }
}

fn at<'a>(path: &str, list: &'a [String]) -> impl Iterator<Item = (String, &'a String)> {
    list.iter().enumerate().map(move |(index, text)| (format!("{path}[{index}]"), text))
}

pub(super) fn read_address(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::Value { value: text.into(), expected: "an IP address" })
}

/// Reads the transport protocol of a port; `None` is SCTP, which passes untouched.
pub(super) fn read_protocol(text: Option<&str>) -> Result<Option<Protocol>, Problem> {
    match text.unwrap_or("TCP") {
        "TCP" => Ok(Some(Protocol::Tcp)),
        "UDP" => Ok(Some(Protocol::Udp)),
        "SCTP" => Ok(None),
        other => Err(Problem::Value {
            value: other.into(),
            expected: "TCP, UDP or SCTP; an application protocol belongs into `appProtocol`",
        }),
    }
}

fn read_ports(raw: Vec<raw::ServicePort>, faults: &mut Faults) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::with_capacity(raw.len());
    let several = raw.len() > 1;
    for (index, port) in raw.into_iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let Some(number) = port.port else {
            faults.push(format!("{path}.port"), Problem::Missing);
            continue;
        };
        let number = faults.take(&format!("{path}.port"), read_port(number));
        let protocol = faults.take(&format!("{path}.protocol"), read_protocol(port.protocol.as_deref()));
        let name = port.name.unwrap_or_default();
        if several && name.is_empty() {
            faults.push(format!("{path}.name"), Problem::Missing);
        }
        let (Some(number), Some(Some(protocol))) = (number, protocol) else {
            continue;
        };
        let target = match port.target_port {
            None | Some(NumberOrName::Number(0)) => Some(Target::Number(number)),
            Some(NumberOrName::Number(target)) => {
                faults.take(&format!("{path}.targetPort"), read_port(target)).map(Target::Number)
            }
            Some(NumberOrName::Name(name)) => Some(Target::Name(name)),
        };
        let Some(target) = target else { continue };
        if !name.is_empty() && ports.iter().any(|seen| seen.name == name) {
            faults.push(format!("{path}.name"), Problem::Duplicate { value: name.clone() });
        }
        if ports.iter().any(|seen| (seen.number, seen.protocol) == (number, protocol)) {
            faults.push(format!("{path}.port"), Problem::Duplicate { value: format!("{number}/{protocol}") });
        }
        let application = Application::of_port(protocol, port.app_protocol.as_deref(), &name, number);
        let node_port = port.node_port.filter(|number| *number != 0);
        let node_port = node_port.and_then(|number| faults.take(&format!("{path}.nodePort"), read_port(number)));
        ports.push(Port { name, number, protocol, application, target, on_nodes: node_port });
    }
    ports
}
