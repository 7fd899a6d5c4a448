//! Which endpoints count for whom: everybody's, or those on this node, as the traffic policies of a Service say.
//!
//! As kube-proxy has it: clients inside the cluster get what `internalTrafficPolicy` says at the Service's own addresses, and
//! any endpoint at its external ones; clients from outside what `externalTrafficPolicy` says.
use std::{collections::BTreeMap, net::IpAddr};

use super::{
    endpoints::family_of,
    index::{Backend, Index},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Policy, Port, Service},
    state::{Family, Frontend},
};

/// Which endpoints count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// All, or those that are near by their hints.
    Everywhere,
    /// Those on this node.
    Node,
}

/// Where a service is answered at.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Virtual addresses, for packets; and for sockets, if these have no others.
    pub(super) frontends: Vec<Frontend>,
    /// For sockets only.
    pub(super) for_sockets: Vec<Frontend>,
}

impl Doors {
    pub(super) fn len(&self) -> usize {
        self.frontends.len() + self.for_sockets.len()
    }
}

/// The addresses of a port in one family, by the endpoints that they lead to. `answered` are those of the backend that nobody
/// else has.
pub(super) fn doors(
    index: &Index<'_>,
    backend: Backend<'_>,
    port: &Port,
    family: Family,
    answered: &[IpAddr],
) -> BTreeMap<Reach, Doors> {
    let at = |address: &IpAddr, number| Frontend { addr: *address, port: number, protocol: port.protocol };
    let mut doors: BTreeMap<Reach, Doors> = BTreeMap::new();
    let Backend::Service(service) = backend else {
        let frontends: Vec<Frontend> = answered.iter().map(|it| at(it, port.number)).collect();
        if !frontends.is_empty() {
            doors.insert(Reach::Everywhere, Doors { frontends, for_sockets: Vec::new() });
        }
        return doors;
    };
    let here = index.model.here();
    let reach = |policy| match policy {
        Policy::Local if here.is_some() => Reach::Node,
        _ => Reach::Everywhere,
    };
    let inside = answered.iter().filter(|it| !service.external.contains(it));
    for address in inside {
        doors.entry(reach(service.inside)).or_default().frontends.push(at(address, port.number));
    }
    let mut outside: Vec<Frontend> =
        answered.iter().filter(|it| service.external.contains(it)).map(|it| at(it, port.number)).collect();
    // A family that the Service has no address of is none of its own.
    if let (Some(here), Some(number), [_, ..]) = (here, port.on_nodes, answered) {
        let own = here.addresses.iter().filter(|it| family_of(**it) == family);
        outside.extend(own.map(|it| at(it, number)));
    }
    for frontend in outside {
        let packets = reach(service.outside);
        if packets == Reach::Everywhere && !service.meta.in_cluster() {
            doors.entry(packets).or_default().frontends.push(frontend);
            continue;
        }
        // The answers of an endpoint on another node would not come back here: packets to any endpoint are kube-proxy's.
        doors.entry(Reach::Everywhere).or_default().for_sockets.push(frontend);
        if packets == Reach::Node {
            doors.entry(packets).or_default().frontends.push(frontend);
        }
    }
    doors
}

/// What is not followed while nobody knows which node this is.
pub(super) fn unknown_node(index: &Index<'_>, service: &Service, diagnostics: &mut Vec<Diagnostic>) {
    if index.model.here().is_some() {
        return;
    }
    let policies = [(service.inside, "internalTrafficPolicy"), (service.outside, "externalTrafficPolicy")];
    let mut note = |field: String, message: String| {
        let remedy =
            if service.meta.in_cluster() { "give the agent --kube-node" } else { "add the Node that canary is on" };
        diagnostics.push(service.meta.diagnostic(Severity::Warning, "CAN0005", field, message, remedy));
    };
    for (_, field) in policies.into_iter().filter(|(policy, _)| *policy == Policy::Local) {
        let message = format!("`{field}: Local` is not followed: canary does not know which node it is on");
        note(format!("spec.{field}"), message);
    }
    for (index, _) in service.ports.iter().enumerate().filter(|(_, port)| port.on_nodes.is_some()) {
        let message = "the node port is not answered: canary does not know which node it is on".to_owned();
        note(format!("spec.ports[{index}].nodePort"), message);
    }
}
