//! Which addresses are answered at: not those that are somebody else's, and none that would lead a connection to itself.
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    index::{Backend, Index},
    reach::Doors,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{ExportTo, ServiceEntry},
    state::{Frontend, Protocol, Service},
};

/// The virtual addresses of a service. In a cluster an address in a ServiceEntry is only words: whoever may write one must
/// not take over what belongs to others, on every node.
pub(super) fn answered(index: &Index<'_>, backend: Backend<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<IpAddr> {
    let all = backend.addresses();
    let Backend::Entry(entry) = backend else { return all.to_vec() };
    if !entry.meta.in_cluster() {
        return all.to_vec();
    }
    let mut note = |field: String, message: String, remedy: &str| {
        diagnostics.push(entry.meta.diagnostic(Severity::Error, "CAN0312", field, message, remedy));
    };
    if entry.export_to != ExportTo::Public && !all.is_empty() {
        let message = "it is not exported to every namespace, and canary answers everybody on a node: it is left alone";
        note("spec.exportTo".into(), message.into(), "export it to `*`, or write no `addresses`");
        return Vec::new();
    }
    let nodes = !entry.is_gateway();
    let own = |address: &IpAddr| match owner(index, *address, nodes) {
        None => true,
        Some(owner) => {
            let message = format!("{address} is {owner}: nobody else can have it");
            note("spec.addresses".into(), message, "choose an address that nobody has");
            false
        }
    };
    all.iter().copied().filter(own).collect()
}

/// Whose an address is already; that of a node only with `nodes`.
fn owner(index: &Index<'_>, address: IpAddr, nodes: bool) -> Option<String> {
    let special = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    if special || address.is_multicast() {
        return Some("an address of the host's own".into());
    }
    index.owner_of(address, nodes)
}

/// Takes away addresses of services that the proxy follows at which the proxy itself would ask: its own connections go the
/// way of everybody's, and would come back to it for ever. Clients that address these reach who is there without canary.
pub(super) fn without_loops<'s>(services: impl Iterator<Item = (&'s Service, &'s mut Doors)>) {
    let mut services: Vec<_> = services.filter(|(service, _)| service.is_proxied()).collect();
    let endpoints: BTreeSet<SocketAddr> = services
        .iter()
        .flat_map(|(service, _)| service.versions.iter())
        .filter(|(name, _)| *name != super::PROXY_VERSION)
        .flat_map(|(_, version)| version.endpoints.keys().copied())
        .collect();
    let leads_on =
        |it: &Frontend| it.protocol != Protocol::Tcp || !endpoints.contains(&SocketAddr::new(it.addr, it.port));
    for (_, doors) in &mut services {
        doors.frontends.retain(leads_on);
        doors.for_sockets.retain(leads_on);
    }
}

impl ServiceEntry {
    /// Whether it stands for a Gateway, which may be at a node's address.
    fn is_gateway(&self) -> bool {
        self.meta.is_kind("Gateway")
    }
}
