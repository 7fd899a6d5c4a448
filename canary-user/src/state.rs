//! The wanted content of the maps, by names: what `compile` puts out and `dataplane` writes.
//!
//! Plain data, ordered, comparable. The same model gives the same state, byte for byte.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod filled;
mod http;
mod policy;
mod tls;
mod traffic;

pub use filled::{End, Part, Piece, Side, parts};
pub use http::{
    EndpointHttp, Follows, HeaderChanges, HeaderOperations, Http, HttpAction, HttpDestination, HttpRoute, HttpRule,
    Redirect, RequestMatch, Rewrite, RewritePart, Splitting, Text, UriRegexRewrite,
};
pub use policy::{Abort, AbortWith, Cors, Delay, Fault, HttpPolicy, Mirror, Percentage, Retries, RetryOn};
pub use tls::{Tls, TlsMatch, TlsRule};
pub use traffic::{Balancing, ConnectionPool, HashKey, Keepalive, OutlierDetection, TrafficPolicy, Warmup};

/// A transport protocol that canary balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An address family. A service with addresses of both has one [`Service`] for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What clients address: one virtual address, port and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Virtual address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Names one port of one service in one address family. Printed as `default/helloworld:5000/tcp` (`…/tcp6`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service, or the host of a ServiceEntry; with [`ON_NODE`] behind it those endpoints that are on this node.
    pub name: String,
    /// Service port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address family of its frontends and endpoints.
    pub family: Family,
}

/// Behind the name of a Service of which only the endpoints on this node count. No name has an `@`.
pub const ON_NODE: &str = "@node";

/// Everything that the maps should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Which service answers at which address. Every id is a key of `services`. Stored as a list in JSON.
    #[serde(with = "as_list")]
    pub frontends: BTreeMap<Frontend, ServiceId>,
    /// Which service sockets get at an address, where that is another, or packets get none. Stored as a list in JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "as_list")]
    pub for_sockets: BTreeMap<Frontend, ServiceId>,
    /// Services by id. Stored as a list in JSON.
    #[serde(with = "as_list")]
    pub services: BTreeMap<ServiceId, Service>,
    /// Addresses of pods by their UIDs, if a rule or a split asks for the client's: sockets have none when they connect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<String, Vec<IpAddr>>,
}

impl State {
    /// Removes a service and its virtual addresses.
    pub(crate) fn without(&mut self, id: &ServiceId) {
        self.services.remove(id);
        self.frontends.retain(|_, owner| owner != id);
        self.for_sockets.retain(|_, owner| owner != id);
    }

    /// The service that a socket gets at an address.
    #[must_use]
    pub fn for_socket(&self, at: &Frontend) -> Option<&ServiceId> {
        self.for_sockets.get(at).or_else(|| self.frontends.get(at))
    }

    /// Addresses of a service; those that only sockets use, too.
    #[must_use]
    pub fn addresses(&self, id: &ServiceId) -> BTreeSet<Frontend> {
        let all = self.frontends.iter().chain(&self.for_sockets);
        all.filter(|(_, owner)| *owner == id).map(|(at, _)| *at).collect()
    }

    /// Takes a service back as it was in another state, with those addresses of it that nobody has now.
    pub(crate) fn restore(&mut self, id: &ServiceId, from: &Self) {
        let Some(service) = from.services.get(id) else { return };
        self.services.insert(id.clone(), service.clone());
        for (had, has) in [(&from.frontends, &mut self.frontends), (&from.for_sockets, &mut self.for_sockets)] {
            for (at, owner) in had.iter().filter(|(_, owner)| *owner == id) {
                has.entry(*at).or_insert_with(|| owner.clone());
            }
        }
    }
}

/// The rules of one service and the versions that they name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// In order; the first whose match holds decides. The last one matches everybody.
    pub rules: Vec<Rule>,
    /// Versions by name. Every name in a split is a key, and so is a destination of weight 0.
    pub versions: BTreeMap<String, Version>,
    /// Rules that need the request: then `rules` lead to the proxy, which follows these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Rules that need the server name of a TLS connection: the same. With `http` for what is no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Service {
    /// Whether a flow's client decides about its version or its endpoint.
    #[must_use]
    pub fn asks_for_clients(&self) -> bool {
        self.rules.iter().any(|rule| !rule.sources.is_empty() || rule.split.choosing == Choosing::KeyedClient)
    }

    /// Whether the proxy follows its rules.
    #[must_use]
    pub const fn is_proxied(&self) -> bool {
        self.http.is_some() || self.tls.is_some()
    }
}

/// Who it is for, and how their flows are split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Name in the VirtualService, or `http[0]`, `tcp[1]`, … by position, or `default` for a service without routes.
    pub name: String,
    /// Client networks; empty matches everybody.
    pub sources: Vec<IpNet>,
    /// How flows are split.
    pub split: Split,
}

/// Versions and their weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// How a version is chosen.
    pub choosing: Choosing,
    /// What happens to the share of a version without endpoints.
    pub dead: DeadVersion,
    /// (version name, weight) in order of names; names unique; sum `1..=u32::MAX`.
    pub weights: Vec<(String, u32)>,
}

/// How a split chooses. `design §5`, `docs/architecture.md`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choosing {
    /// Counted: at most one flow from the exact share (two versions), at most two (three or four), and no more
    /// than the depth of the tree for more.
    #[default]
    Exact,
    /// By a hash of the 5-tuple.
    KeyedFlow,
    /// By a hash of the client's address: a client keeps its version.
    KeyedClient,
}

/// What a split does with the flows of a version that has no endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadVersion {
    /// They fail at once (TCP reset; UDP dropped and counted). Istio's behaviour.
    #[default]
    Fail,
    /// The other versions share them in proportion to their weights.
    Spill,
    /// They go to the endpoints that the version had last.
    Hold,
}

/// The endpoints of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Address → weight inside the version (≥ 1; all equal unless the user says otherwise).
    pub endpoints: BTreeMap<SocketAddr, u32>,
    /// How long flows of an endpoint that went away may go on, in seconds.
    pub drain_seconds: u32,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl ServiceId {
    /// The name of the Service, or the host of the ServiceEntry, whichever of its endpoints count.
    #[must_use]
    pub fn plain_name(&self) -> &str {
        self.name.strip_suffix(ON_NODE).unwrap_or(&self.name)
    }

    /// Its host, as Istio's labels have it.
    #[must_use]
    pub fn host(&self) -> String {
        let name = self.plain_name();
        // The name of a ServiceEntry is its host.
        if name.contains('.') { name.to_owned() } else { format!("{name}.{}.svc.cluster.local", self.namespace) }
    }
}

#[cfg(test)]
impl ServiceId {
    /// One of the namespace `default`, for TCP over IPv4.
    pub(crate) fn tcp(name: &str, port: u16) -> Self {
        let namespace = "default".to_owned();
        Self { namespace, name: name.to_owned(), port, protocol: Protocol::Tcp, family: Family::Ipv4 }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let six = if self.family == Family::Ipv6 { "6" } else { "" };
        write!(f, "{}/{}:{}/{}{six}", self.namespace, self.name, self.port, self.protocol)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.protocol)
    }
}

/// JSON has no maps with structured keys: such maps are lists of pairs there.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}
