//! The maps' tables as plain vectors, slot by slot, and a builder that fills them from a short description.
//!
//! The agent has its own writer, with slots to free and plans to order; this one only ever appends. Tests fill the host's
//! tables and the kernel's maps from one image, so that both sides start from the same words.
use std::{
    collections::BTreeMap,
    format,
    net::{IpAddr, SocketAddr},
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    abi::{
        Addr, EVEN, Endpoint, FOR_PACKETS, FOR_SOCKETS, Group, LEAF, Leaf, NONE, Node, Rule, Service, ServiceKey,
        Settings, Split, Version, hop, mapped, range,
    },
    build::{Tree, name_hash, ring, ring_size, tree},
};

/// A rule to be: who it is for, and how their flows are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// Client networks (address and prefix length); empty matches everybody.
    pub sources: Vec<(IpAddr, u8)>,
    /// `EXACT`, `KEYED_FLOW` or `KEYED_CLIENT`.
    pub choosing: u32,
    /// Version names and weights.
    pub weights: Vec<(String, u32)>,
}

impl RuleSpec {
    /// A rule for everybody.
    #[must_use]
    pub fn all(choosing: u32, weights: &[(&str, u32)]) -> Self {
        let weights = weights.iter().map(|&(name, weight)| (name.to_string(), weight)).collect();
        Self { sources: Vec::new(), choosing, weights }
    }

    /// The same for one network.
    #[must_use]
    pub fn only(mut self, network: IpAddr, prefix: u8) -> Self {
        self.sources.push((network, prefix));
        self
    }
}

/// A service to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Name: seeds follow from it.
    pub name: String,
    /// Virtual addresses and protocol numbers.
    pub frontends: Vec<(SocketAddr, u8)>,
    /// Versions: name, and endpoints with weights.
    pub versions: Vec<(String, Vec<(SocketAddr, u32)>)>,
    /// Rules in order.
    pub rules: Vec<RuleSpec>,
}

/// Content of all maps that the agent writes; the index is the slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Map `SERVICES`.
    pub frontends: Vec<(ServiceKey, u32)>,
    /// Map `SERVICE`.
    pub services: Vec<Service>,
    /// Map `RULES`.
    pub rules: Vec<Rule>,
    /// Map `SPLITS`.
    pub splits: Vec<Split>,
    /// Map `NODES`.
    pub nodes: Vec<Node>,
    /// Map `LEAVES`.
    pub leaves: Vec<Leaf>,
    /// Map `VERSIONS`.
    pub versions: Vec<Version>,
    /// Map `GROUPS`.
    pub groups: Vec<Group>,
    /// Map `MEMBERS`.
    pub members: Vec<u32>,
    /// Map `ENDPOINTS`.
    pub endpoints: Vec<Endpoint>,
    /// Map `HOPS`, as far as there are any.
    pub hops: Vec<u64>,
    /// Map `SETTINGS`.
    pub settings: Settings,
    /// Version slots by (service slot, name).
    pub names: BTreeMap<(u32, String), u32>,
}

/// An address as the maps hold it.
#[must_use]
pub fn addr(addr: IpAddr) -> Addr {
    match addr {
        IpAddr::V4(addr) => mapped(u32::from_ne_bytes(addr.octets())),
        IpAddr::V6(addr) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(addr.octets().as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            words
        }
    }
}

/// Number of entries as a slot. Tests stay far below the limits.
fn slot<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(NONE)
}

fn absolute(child: u32, nodes: u32, leaves: u32) -> u32 {
    if child & LEAF != 0 { child + leaves } else { child + nodes }
}

impl Image {
    /// No services; idle times in ticks: established TCP, UDP, half-open or closing.
    #[must_use]
    pub fn new(tcp_ticks: u32, udp_ticks: u32, transient_ticks: u32) -> Self {
        Self { settings: Settings { tcp_ticks, udp_ticks, transient_ticks, direct_until: 0 }, ..Self::default() }
    }

    /// Adds a service; returns its slot.
    pub fn add(&mut self, spec: &ServiceSpec) -> u32 {
        let service = slot(&self.services);
        self.services.push(Service { rules: 0, name_hash: name_hash(spec.name.as_bytes()) });
        for (name, endpoints) in &spec.versions {
            let version = slot(&self.versions);
            let name_hash = name_hash(format!("{}/{name}", spec.name).as_bytes());
            self.versions.push(Version { group: NONE, pad: 0, name_hash });
            self.names.insert((service, name.clone()), version);
            self.set_endpoints(version, endpoints);
        }
        self.set_rules(service, &spec.rules);
        for &(frontend, protocol) in &spec.frontends {
            let port_be = frontend.port().to_be();
            for of in [FOR_PACKETS, FOR_SOCKETS] {
                let key = ServiceKey { addr_be: addr(frontend.ip()), port_be, protocol, of, zero: 0 };
                self.frontends.push((key, service));
            }
        }
        service
    }

    /// Slot of a version.
    #[must_use]
    pub fn version(&self, service: u32, name: &str) -> u32 {
        self.names.get(&(service, name.to_string())).copied().unwrap_or(NONE)
    }

    /// Slot of the newest endpoint with this address.
    #[must_use]
    pub fn endpoint(&self, at: SocketAddr) -> Option<u32> {
        let found =
            self.endpoints.iter().rposition(|it| it.addr_be == addr(at.ip()) && it.port_be == at.port().to_be());
        found.and_then(|found| u32::try_from(found).ok())
    }

    /// Gives a service new rules: new splits, a new block, and then the one word.
    pub fn set_rules(&mut self, service: u32, rules: &[RuleSpec]) {
        let mut block = Vec::new();
        for (index, rule) in (0..).zip(rules) {
            let split = self.split(service, rule);
            let everybody = [(Addr::default(), Addr::default())];
            let networks: Vec<_> = rule.sources.iter().map(|&(network, prefix)| masked(network, prefix)).collect();
            for &(net_be, mask_be) in if networks.is_empty() { &everybody[..] } else { &networks } {
                block.push(Rule { net_be, mask_be, split, index });
            }
        }
        let (base, len) = (slot(&self.rules), slot(&block));
        self.rules.extend(block);
        if let Some(service) = self.services.get_mut(service as usize) {
            service.rules = range(base, len);
        }
    }

    fn split(&mut self, service: u32, rule: &RuleSpec) -> u32 {
        let (leaves, nodes) = (slot(&self.leaves), slot(&self.nodes));
        let weights: Vec<u32> = rule.weights.iter().map(|&(_, weight)| weight).collect();
        let mut total = 0;
        for (name, weight) in &rule.weights {
            total += weight;
            self.leaves.push(Leaf { version: self.version(service, name), end: total });
        }
        let seed = self.services.get(service as usize).map_or(0, |service| service.name_hash);
        let Tree { root, nodes: grown } = tree(&weights, seed).unwrap_or(Tree { root: LEAF, nodes: Vec::new() });
        self.nodes.extend(grown.into_iter().map(|node| Node {
            to_light: absolute(node.to_light, nodes, leaves),
            to_heavy: absolute(node.to_heavy, nodes, leaves),
            ..node
        }));
        self.splits.push(Split {
            salt: seed,
            root: absolute(root, nodes, leaves),
            leaves,
            leaves_len: slot(&weights),
            total,
            choosing: rule.choosing,
            ..Split::default()
        });
        slot(&self.splits) - 1
    }

    /// Gives a version these endpoints: those that it has keep their slots, the others get new ones.
    pub fn set_endpoints(&mut self, version: u32, endpoints: &[(SocketAddr, u32)]) {
        let slots: Vec<u32> = endpoints.iter().map(|&(at, _)| self.endpoint_slot(version, at)).collect();
        let weights: Vec<u32> = endpoints.iter().map(|&(_, weight)| weight).collect();
        let names: Vec<(u64, u32)> =
            endpoints.iter().map(|&(at, weight)| (name_hash(at.to_string().as_bytes()), weight)).collect();
        let members = slot(&self.members);
        self.members.extend(&slots);
        let ring_at = slot(&self.members);
        let places = ring(&names, ring_size(names.len()));
        self.members.extend(places.iter().filter_map(|&place| slots.get(place as usize)));
        let nodes = slot(&self.nodes);
        let even = weights.iter().all(|weight| weights.first() == Some(weight));
        let root = match tree(&weights, 7) {
            Some(tree) if !even => {
                self.nodes.extend(tree.nodes.into_iter().map(|node| Node {
                    to_light: absolute(node.to_light, nodes, 0),
                    to_heavy: absolute(node.to_heavy, nodes, 0),
                    ..node
                }));
                absolute(tree.root, nodes, 0)
            }
            _ => EVEN,
        };
        let (members_len, ring_len) = (slot(&slots), slot(&places));
        self.groups.push(Group { members, members_len, ring: ring_at, ring_len, root, digest: 0 });
        let group = slot(&self.groups) - 1;
        if let Some(version) = self.versions.get_mut(version as usize) {
            version.group = group;
        }
    }

    /// Puts every `n`-th endpoint behind a device, number 100 and its slot, until a tick.
    pub fn lead(&mut self, n: usize, until: u32) {
        let device = |(slot, endpoint): (u32, &Endpoint)| {
            if (slot as usize).is_multiple_of(n) { hop(100 + slot, endpoint.generation) } else { 0 }
        };
        self.hops = (0..).zip(&self.endpoints).map(device).collect();
        self.settings.direct_until = until;
    }

    fn endpoint_slot(&mut self, version: u32, at: SocketAddr) -> u32 {
        let serves =
            |slot: &u32| self.endpoints.get(*slot as usize).is_some_and(|it| it.version == version && it.drain_by == 0);
        if let Some(slot) = self.endpoint(at).filter(serves) {
            return slot;
        }
        let port_be = at.port().to_be();
        // Slot 0 with generation 1 would equal an entry of zeros in one field too many; start elsewhere.
        let generation = 3 + slot(&self.endpoints);
        self.endpoints.push(Endpoint { addr_be: addr(at.ip()), port_be, pad: 0, version, generation, drain_by: 0 });
        slot(&self.endpoints) - 1
    }

    /// Ends the flows of an endpoint at a tick.
    pub fn drain(&mut self, endpoint: u32, by: u32) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint as usize) {
            endpoint.drain_by = by;
        }
    }
}

/// A network and its mask; an IPv4 prefix lies in the last word, and the words before it must be those of a mapped address.
fn masked(network: IpAddr, prefix: u8) -> (Addr, Addr) {
    let bits = u128::MAX.checked_shl(128 - u32::from(prefix) - if network.is_ipv4() { 96 } else { 0 }).unwrap_or(0);
    let IpAddr::V6(mask) = IpAddr::from(bits.to_be_bytes()) else {
        return (Addr::default(), Addr::default());
    };
    let (net, mask) = (addr(network), addr(mask.into()));
    ([net[0] & mask[0], net[1] & mask[1], net[2] & mask[2], net[3] & mask[3]], mask)
}
