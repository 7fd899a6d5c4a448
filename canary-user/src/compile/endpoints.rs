//! Who serves a port of a service: addresses, weights inside the version, and the labels that say which version.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::index::{Backend, Index};
use crate::{
    model::{
        Address, Backends, EndpointSlice, Labels, Pod, Port, Service, ServiceEntry, SliceEndpoint, Target, Workload,
        selects,
    },
    state::Family,
};

/// An endpoint that takes new flows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
    labels: &'a Labels,
}

/// Addresses and weights of the endpoints that have these labels.
pub(super) fn with_labels(endpoints: &[Endpoint<'_>], selector: &Labels) -> BTreeMap<SocketAddr, u32> {
    let chosen = endpoints.iter().filter(|endpoint| selects(selector, endpoint.labels));
    chosen.map(|endpoint| (endpoint.address, endpoint.weight)).collect()
}

/// Ready endpoints of a port in one family, in order of addresses.
pub(super) fn of<'a>(index: &Index<'a>, backend: Backend<'a>, port: &Port, family: Family) -> Vec<Endpoint<'a>> {
    let mut found = match backend {
        Backend::Service(service) => of_service(index, service, port),
        Backend::Entry(entry) => of_entry(index, entry, port),
    };
    found.retain(|endpoint| family_of(endpoint.address.ip()) == family);
    found.sort_by_key(|endpoint| endpoint.address);
    found.dedup_by_key(|endpoint| endpoint.address);
    found
}

/// The family of an address.
pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 }
}

fn of_service<'a>(index: &Index<'a>, service: &'a Service, port: &Port) -> Vec<Endpoint<'a>> {
    let mut found = Vec::new();
    if let Some(slices) = index.slices(&service.meta.key) {
        let every = service.publish_not_ready;
        let taking = |endpoint: &SliceEndpoint| every || endpoint.ready && !endpoint.terminating;
        for slice in slices {
            of_slice(index, slice, port, taking, &mut found);
        }
        if found.is_empty() {
            // As kube-proxy: who is about to end is better than nobody.
            let last = |endpoint: &SliceEndpoint| endpoint.serving && endpoint.terminating;
            for slice in slices {
                of_slice(index, slice, port, last, &mut found);
            }
        }
    } else if !service.selector.is_empty() {
        let pods = index.pods(&service.meta.key.namespace, &service.selector);
        pods.for_each(|pod| of_pod(pod, port, service.publish_not_ready, &mut found));
    }
    if !service.selector.is_empty() {
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
            found.push(Endpoint { address: SocketAddr::new(*address, number), weight: 1, labels });
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
    Some(Endpoint { address: SocketAddr::new(address, number), weight: workload.weight, labels: &workload.labels })
}
