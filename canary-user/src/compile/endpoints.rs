//! Who serves a port of a service: addresses, weights inside the version, and the labels that say which version.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    index::{Backend, Index},
    reach::Reach,
};
use crate::{
    model::{
        Address, Backends, EndpointSlice, Hints, Labels, Pod, Port, Service, ServiceEntry, SliceEndpoint, Target,
        Workload, selects,
    },
    state::Family,
};

/// An endpoint that takes new flows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
    labels: &'a Labels,
    hints: Option<&'a Hints>,
    /// It is meant for clients on this node.
    near: bool,
}

/// Addresses and weights of the endpoints that have these labels: of those that are near, if there are any.
pub(super) fn with_labels(endpoints: &[Endpoint<'_>], selector: &Labels) -> BTreeMap<SocketAddr, u32> {
    let chosen = || endpoints.iter().filter(|endpoint| selects(selector, endpoint.labels));
    let some_near = chosen().any(|endpoint| endpoint.near);
    let chosen = chosen().filter(|endpoint| endpoint.near || !some_near);
    chosen.map(|endpoint| (endpoint.address, endpoint.weight)).collect()
}

/// Ready endpoints of a port in one family, in order of addresses.
pub(super) fn of<'a>(
    index: &Index<'a>,
    backend: Backend<'a>,
    port: &Port,
    family: Family,
    reach: Reach,
) -> Vec<Endpoint<'a>> {
    let mut found = match backend {
        Backend::Service(service) => of_service(index, service, port, reach),
        Backend::Entry(entry) => of_entry(index, entry, port),
    };
    found.retain(|endpoint| family_of(endpoint.address.ip()) == family);
    if reach == Reach::Everywhere {
        follow_hints(index, &mut found);
    }
    found.sort_by_key(|endpoint| endpoint.address);
    found.dedup_by_key(|endpoint| endpoint.address);
    found
}

/// The family of an address.
pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 }
}

/// As kube-proxy: hints count if every endpoint has one and some are for this node; else the same for its zone.
fn follow_hints(index: &Index<'_>, found: &mut [Endpoint<'_>]) {
    let Some(here) = index.model.here() else { return };
    let mut follow = |list: fn(&Hints) -> &[Box<str>], name: &str| {
        let meant = |endpoint: &Endpoint<'_>| endpoint.hints.is_some_and(|it| list(it).iter().any(|it| **it == *name));
        let all = found.iter().all(|endpoint| endpoint.hints.is_some_and(|hints| !list(hints).is_empty()));
        let follows = all && found.iter().any(meant);
        if follows {
            for endpoint in found.iter_mut() {
                endpoint.near = meant(endpoint);
            }
        }
        follows
    };
    if !follow(|hints| &hints.nodes, &here.name)
        && let Some(zone) = &here.zone
    {
        follow(|hints| &hints.zones, zone);
    }
}

fn of_service<'a>(index: &Index<'a>, service: &'a Service, port: &Port, reach: Reach) -> Vec<Endpoint<'a>> {
    let mut found = Vec::new();
    let here = index.model.here().map(|node| node.name.as_str());
    let reaches = |node: &Option<Box<str>>| match reach {
        Reach::Everywhere => true,
        Reach::Node => node.as_deref().is_some_and(|node| here == Some(node)),
    };
    if let Some(slices) = index.slices(&service.meta.key) {
        let every = service.publish_not_ready;
        let taking =
            |endpoint: &SliceEndpoint| reaches(&endpoint.node) && (every || endpoint.ready && !endpoint.terminating);
        for slice in slices {
            of_slice(index, slice, port, taking, &mut found);
        }
        if found.is_empty() {
            // As kube-proxy: who is about to end is better than nobody.
            let last = |endpoint: &SliceEndpoint| reaches(&endpoint.node) && endpoint.serving && endpoint.terminating;
            for slice in slices {
                of_slice(index, slice, port, last, &mut found);
            }
        }
    } else if !service.selector.is_empty() {
        let pods = index.pods(&service.meta.key.namespace, &service.selector);
        pods.filter(|pod| reaches(&pod.node)).for_each(|pod| of_pod(pod, port, service.publish_not_ready, &mut found));
    }
    if !service.selector.is_empty() && reach == Reach::Everywhere {
        of_workload_entries(index, &service.meta.key.namespace, &service.selector, port, &mut found);
    }
    found
}

fn of_slice<'a>(
    index: &Index<'a>,
    slice: &'a EndpointSlice,
    port: &Port,
    taking: impl Fn(&SliceEndpoint) -> bool,
    found: &mut Vec<Endpoint<'a>>,
) {
    let listed = slice.ports.iter().find(|listed| listed.name == port.name && listed.protocol == port.protocol);
    let Some(listed) = listed else { return };
    let number = match (listed.number, &port.target) {
        (Some(number), _) => number,
        (None, Target::Number(number)) => *number,
        (None, Target::Name(_)) => return,
    };
    for endpoint in slice.endpoints.iter().filter(|endpoint| taking(endpoint)) {
        for address in &endpoint.addresses {
            let pod = match &endpoint.pod {
                Some(key) => index.model.pods().get(key).map(|pod| &**pod),
                None => index.pod_at(*address),
            };
            // Hosts without Kubernetes have no Pods: there the slice's own labels say which version it holds.
            let labels = pod.map_or(&slice.meta.labels, Pod::labels);
            let (address, hints) = (SocketAddr::new(*address, number), endpoint.hints.as_deref());
            found.push(Endpoint { address, weight: 1, labels, hints, near: true });
        }
    }
}

fn of_pod<'a>(pod: &'a Pod, port: &Port, not_ready_too: bool, found: &mut Vec<Endpoint<'a>>) {
    if pod.terminating || !(pod.ready || not_ready_too) {
        return;
    }
    let number = match &port.target {
        Target::Number(number) => Some(*number),
        Target::Name(name) => pod.port(name, port.protocol),
    };
    let Some(number) = number else { return };
    found.extend(pod.addresses.iter().map(|address| Endpoint {
        address: SocketAddr::new(*address, number),
        weight: 1,
        labels: pod.labels(),
        hints: None,
        near: true,
    }));
}

fn of_entry<'a>(index: &Index<'a>, entry: &'a ServiceEntry, port: &Port) -> Vec<Endpoint<'a>> {
    let mut found = Vec::new();
    match &entry.backends {
        Backends::Inline(workloads) => {
            found.extend(workloads.iter().filter_map(|workload| of_workload(workload, port)));
        }
        Backends::Selected(None) => {}
        Backends::Selected(Some(selector)) => {
            let namespace = &entry.meta.key.namespace;
            index.pods(namespace, selector).for_each(|pod| of_pod(pod, port, false, &mut found));
            of_workload_entries(index, namespace, selector, port, &mut found);
        }
    }
    found
}

fn of_workload_entries<'a>(
    index: &Index<'a>,
    namespace: &str,
    selector: &Labels,
    port: &Port,
    found: &mut Vec<Endpoint<'a>>,
) {
    for entry in index.model.workload_entries() {
        if entry.meta.key.namespace == namespace && selects(selector, &entry.workload.labels) {
            found.extend(of_workload(&entry.workload, port));
        }
    }
}

fn of_workload<'a>(workload: &'a Workload, port: &Port) -> Option<Endpoint<'a>> {
    let Address::Ip(address) = workload.address else {
        return None;
    };
    let number = match (workload.ports.get(&port.name), &port.target) {
        (Some(number), _) | (None, Target::Number(number)) => *number,
        (None, Target::Name(name)) => *workload.ports.get(name)?,
    };
    let Workload { weight, ref labels, .. } = *workload;
    Some(Endpoint { address: SocketAddr::new(address, number), weight, labels, hints: None, near: true })
}
