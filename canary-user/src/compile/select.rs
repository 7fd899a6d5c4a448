//! Which VirtualService governs a service, and which `DestinationRules` define the subsets of a host.
use std::cmp::Reverse;

use super::{
    index::Index,
    refusal::{Refusal, Refused},
};
use crate::model::{
    Broken, Concerns, DestinationRule, ExportTo, Host, Meta, ROOT_NAMESPACE, RouteKind, Subset, VirtualService,
};

/// The `VirtualServices` that claim a service.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    /// The one in force, and the host of the service that it claims.
    pub(super) winner: Option<(&'a VirtualService, &'a Host)>,
    /// An invalid one that would be in force.
    pub(super) broken: Option<&'a Broken>,
    /// Valid ones for a host that is as specific: Istio takes one for the mesh and merges none.
    pub(super) losers: Vec<&'a VirtualService>,
    /// Valid ones whose `exportTo` leaves out the service's namespace.
    pub(super) hidden: Vec<&'a VirtualService>,
}

impl Claims<'_> {
    /// Whether somebody has rules for it.
    pub(super) fn is_claimed(&self) -> bool {
        self.winner.is_some() || self.broken.is_some()
    }
}

/// Finds the VirtualService of a service with these hosts.
///
/// Routes for the clients of other namespaces come last. The most specific host wins; then one that is private to the namespace, one that is exported to it, a public one;
/// then the oldest. canary stands before the service, so the clients' view is that of the service's namespace.
pub(super) fn virtual_service<'a>(index: &Index<'a>, hosts: &'a [Host], namespace: &str) -> Claims<'a> {
    let mut claims = Claims::default();
    for host in hosts {
        let mut candidates = Vec::new();
        for (claimed, route) in index.routes(host) {
            match visibility(&route.export_to, namespace) {
                Some(class) => {
                    let rank = (Reverse(claimed.specificity()), class, route.meta.age());
                    candidates.push((is_consumers(&route.meta, namespace), rank, Ok(route)));
                }
                None => claims.hidden.push(route),
            }
        }
        // For its own clients alone an invalid one says nothing to anybody.
        for broken in index.model.broken().iter().filter(|it| !is_consumers(&it.meta, namespace)) {
            let Concerns::Routes { hosts, mesh: true, .. } = &broken.concerns else {
                continue;
            };
            for claimed in hosts.iter().filter(|claimed| claimed.covers(host)) {
                let rank = (Reverse(claimed.specificity()), PUBLIC, broken.meta.age());
                candidates.push((false, rank, Err(broken)));
            }
        }
        candidates.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut candidates = candidates.into_iter();
        let Some((_, (specificity, ..), first)) = candidates.next() else {
            continue;
        };
        match first {
            Ok(route) => claims.winner = Some((route, host)),
            Err(broken) => claims.broken = Some(broken),
        }
        let rivals = candidates.take_while(|(_, (rival, ..), _)| *rival == specificity);
        claims.losers = rivals.filter_map(|(_, _, rival)| rival.ok()).collect();
        break;
    }
    claims
}

/// Whether it is a route of the Gateway API for the clients of another namespace: nobody else's rules give way to it.
fn is_consumers(meta: &Meta, namespace: &str) -> bool {
    meta.key.namespace != namespace && RouteKind::of(meta).is_some()
}

const PUBLIC: u8 = 2;

fn visibility(export_to: &ExportTo, namespace: &str) -> Option<u8> {
    match export_to {
        ExportTo::Public => Some(PUBLIC),
        _ if !export_to.includes(namespace) => None,
        ExportTo::Namespaces(list) if list.len() == 1 => Some(0),
        ExportTo::Namespaces(_) => Some(1),
    }
}

/// The `DestinationRules` in force for a host, oldest first; several when they have the same host and namespace.
///
/// Looked up in the client's namespace (that of the VirtualService), then the service's, then the root namespace;
/// the first of these with a match decides, there the most specific host.
pub(super) fn destination_rules<'a>(
    index: &Index<'a>,
    host: &Host,
    client: &str,
    service: Option<&str>,
) -> Result<Vec<&'a DestinationRule>, Refused> {
    for namespace in [Some(client), service, Some(ROOT_NAMESPACE)].into_iter().flatten() {
        let rules = index.rules(namespace).iter().copied();
        let visible = rules.filter(|rule| rule.host.covers(host) && rule.export_to.includes(client));
        let visible: Vec<_> = visible.collect();
        let best = visible.iter().map(|rule| rule.host.specificity()).max();
        // An invalid rule that would have had a say may define the very subset that is asked for.
        for broken in index.model.broken() {
            let Concerns::Subsets(of) = &broken.concerns else {
                continue;
            };
            if broken.meta.key.namespace == namespace && of.covers(host) && Some(of.specificity()) >= best {
                let object = broken.meta.id();
                return Err(Refused::new(&broken.meta, "", Refusal::Invalid { object }));
            }
        }
        if best.is_some() {
            return Ok(visible.into_iter().filter(|rule| Some(rule.host.specificity()) == best).collect());
        }
    }
    Ok(Vec::new())
}

/// The subset of this name: of several rules for one host the oldest that has it.
pub(super) fn subset<'a>(rules: &[&'a DestinationRule], name: &str) -> Option<(&'a DestinationRule, &'a Subset)> {
    rules.iter().find_map(|rule| Some((*rule, rule.subsets.iter().find(|subset| subset.name == name)?)))
}
