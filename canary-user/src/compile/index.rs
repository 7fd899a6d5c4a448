//! Finds objects of the model by what others call them: one pass over the model, then look-ups.
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::model::{
    Broken, Concerns, DestinationRule, EndpointSlice, Host, Key, Labels, Meta, Model, Pod, Port, Service, ServiceEntry,
    Settings, VirtualService, selects,
};

/// The model, with look-ups.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) model: &'a Model,
    slices: BTreeMap<&'a Key, Vec<&'a EndpointSlice>>,
    pods_by_address: HashMap<IpAddr, &'a Pod>,
    /// By namespace and one label: a selector looks through the Pods of its first label only.
    pods_by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>,
    services_by_host: HashMap<&'a Host, &'a Service>,
    /// Entries of full names, oldest first.
    entries_by_host: HashMap<&'a Host, Vec<&'a ServiceEntry>>,
    /// Entries with a wildcard, the most specific first.
    wildcard_entries: Vec<(&'a Host, &'a ServiceEntry)>,
    routes_by_host: HashMap<&'a Host, Vec<&'a VirtualService>>,
    wildcard_routes: Vec<(&'a Host, &'a VirtualService)>,
    rules_by_namespace: BTreeMap<&'a str, Vec<&'a DestinationRule>>,
}

/// What a destination's host stands for, and what a service's clients address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backend<'a> {
    Service(&'a Service),
    Entry(&'a ServiceEntry),
}

impl<'a> Backend<'a> {
    pub(super) fn meta(self) -> &'a Meta {
        match self {
            Self::Service(service) => &service.meta,
            Self::Entry(entry) => &entry.meta,
        }
    }

    pub(super) fn ports(self) -> &'a [Port] {
        match self {
            Self::Service(service) => &service.ports,
            Self::Entry(entry) => &entry.ports,
        }
    }

    pub(super) fn hosts(self) -> &'a [Host] {
        match self {
            Self::Service(service) => std::slice::from_ref(&service.host),
            Self::Entry(entry) => &entry.hosts,
        }
    }

    pub(super) fn addresses(self) -> &'a [IpAddr] {
        match self {
            Self::Service(service) => &service.addresses,
            Self::Entry(entry) => &entry.addresses,
        }
    }

    pub(super) fn settings(self) -> Settings {
        match self {
            Self::Service(service) => service.settings,
            Self::Entry(entry) => entry.settings,
        }
    }

    /// What its [`ServiceId`](crate::state::ServiceId) calls it.
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Service(service) => &service.meta.key.name,
            Self::Entry(entry) => entry.hosts.first().map_or("", Host::as_str),
        }
    }
}

impl<'a> Index<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let mut index = Self {
            model,
            slices: BTreeMap::new(),
            pods_by_address: HashMap::new(),
            pods_by_label: HashMap::new(),
            services_by_host: model.services().values().map(|service| (&service.host, &**service)).collect(),
            entries_by_host: HashMap::new(),
            wildcard_entries: Vec::new(),
            routes_by_host: HashMap::new(),
            wildcard_routes: Vec::new(),
            rules_by_namespace: BTreeMap::new(),
        };
        for slice in model.slices() {
            if let Some(service) = &slice.service {
                index.slices.entry(service).or_default().push(slice);
            }
        }
        for pod in model.pods().values() {
            for (label, value) in pod.labels() {
                index.pods_by_label.entry((&pod.meta.key.namespace, label, value)).or_default().push(pod);
            }
            if !pod.host_network && !pod.terminating && !pod.finished {
                for address in &pod.addresses {
                    index.pods_by_address.entry(*address).or_insert(pod);
                }
            }
        }
        for entry in model.service_entries() {
            for host in &entry.hosts {
                if host.is_wildcard() {
                    index.wildcard_entries.push((host, entry));
                } else {
                    index.entries_by_host.entry(host).or_default().push(entry);
                }
            }
        }
        // Stable: the oldest stays first among equals.
        index.wildcard_entries.sort_by_key(|(host, _)| std::cmp::Reverse(host.specificity()));
        for route in model.virtual_services().iter().filter(|route| route.mesh) {
            for host in &route.hosts {
                if host.is_wildcard() {
                    index.wildcard_routes.push((host, route));
                } else {
                    index.routes_by_host.entry(host).or_default().push(route);
                }
            }
        }
        for rule in model.destination_rules() {
            index.rules_by_namespace.entry(&rule.meta.key.namespace).or_default().push(rule);
        }
        index
    }

    /// What `host` stands for in an object of namespace `client`.
    pub(super) fn backend(&self, host: &Host, client: &str) -> Option<Backend<'a>> {
        if let Some(service) = self.services_by_host.get(host) {
            return Some(Backend::Service(service));
        }
        let exact = self.entries_by_host.get(host).into_iter().flatten().copied();
        let wild = self.wildcard_entries.iter().filter(|(wild, _)| wild.covers(host)).map(|(_, entry)| *entry);
        exact.chain(wild).find(|entry| entry.export_to.includes(client)).map(Backend::Entry)
    }

    /// Whose an address is: a Service's, or with `nodes` a node's.
    pub(super) fn owner_of(&self, address: IpAddr, nodes: bool) -> Option<String> {
        let service = self.model.services().values().find(|service| service.addresses.contains(&address));
        let pods = || self.model.pods().values().find(|pod| pod.host_network && pod.addresses.contains(&address));
        let service = service.map(|service| format!("an address of {}", service.meta.id()));
        service.or_else(|| pods().filter(|_| nodes).map(|_| "the address of a node".to_owned()))
    }

    /// The slices of a Service; `None` when there is none at all.
    pub(super) fn slices(&self, service: &Key) -> Option<&[&'a EndpointSlice]> {
        self.slices.get(service).map(Vec::as_slice)
    }

    /// Pods of a namespace with these labels; none for an empty selector, as in Kubernetes.
    pub(super) fn pods<'s>(&'s self, namespace: &'s str, selector: &'s Labels) -> impl Iterator<Item = &'a Pod> + 's {
        let first = selector.first_key_value();
        let pods =
            first.and_then(|(label, value)| self.pods_by_label.get(&(namespace, label.as_str(), value.as_str())));
        pods.into_iter().flatten().copied().filter(move |pod| selects(selector, pod.labels()))
    }

    /// The Pod at an address of its own.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<&'a Pod> {
        self.pods_by_address.get(&address).copied()
    }

    /// `VirtualServices` for the mesh with a host that covers `host`, and that host.
    pub(super) fn routes(&self, host: &Host) -> impl Iterator<Item = (&'a Host, &'a VirtualService)> {
        let exact = self.routes_by_host.get_key_value(host).into_iter();
        let exact = exact.flat_map(|(host, routes)| routes.iter().map(|route| (*host, *route)));
        exact.chain(self.wildcard_routes.iter().filter(|(wild, _)| wild.covers(host)).copied())
    }

    /// `DestinationRules` of a namespace, oldest first.
    pub(super) fn rules(&self, namespace: &str) -> &[&'a DestinationRule] {
        self.rules_by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// An invalid object that leaves the endpoints of `backend` unknown.
    pub(super) fn broken_endpoints(&self, backend: Backend<'a>) -> Option<&'a Broken> {
        let meta = backend.meta();
        let selector = match backend {
            Backend::Service(service) => Some(&service.selector).filter(|selector| !selector.is_empty()),
            Backend::Entry(entry) => match &entry.backends {
                crate::model::Backends::Selected(selector) => selector.as_ref(),
                crate::model::Backends::Inline(_) => None,
            },
        };
        self.model.broken().iter().find(|broken| match &broken.concerns {
            Concerns::Service(key) => matches!(backend, Backend::Service(_)) && *key == meta.key,
            Concerns::Workload(labels) => {
                broken.meta.key.namespace == meta.key.namespace
                    && selector.is_some_and(|selector| selects(selector, labels))
            }
            _ => false,
        })
    }

    /// An invalid Service or ServiceEntry that `host` means, when there is no valid one.
    pub(super) fn broken_backend(&self, host: &Host) -> Option<&'a Broken> {
        self.model.broken().iter().find(|broken| match &broken.concerns {
            Concerns::Service(key) => {
                broken.meta.is_kind("Service") && Host::of_service(&key.name, &key.namespace) == *host
            }
            Concerns::Entry(hosts) => hosts.iter().any(|entry| entry.covers(host)),
            _ => false,
        })
    }
}
