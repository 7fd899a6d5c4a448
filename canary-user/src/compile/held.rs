//! A service that keeps its last good rules goes on following its endpoints: Pods come and go meanwhile.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    index::{Backend, Index},
    refusal::{Refusal, Refused},
    select,
    service::Target,
    versions::Resolver,
};
use crate::{
    model::{Api, Destination, Host, Port, RouteKind},
    state::Service,
};

/// Whether the endpoints are known although the rules are not: nothing that they come from is invalid.
pub(super) fn endpoints_are_known(refused: &Refused) -> bool {
    match refused.refusal {
        Refusal::Invalid { .. } => {
            let written = ["VirtualService", "RoutePolicy"].into_iter().any(|kind| refused.meta.is_kind(kind));
            written || RouteKind::of(&refused.meta).is_some()
        }
        Refusal::TooManyEndpoints { .. } | Refusal::NoRoom { .. } | Refusal::NeedsNames => false,
        Refusal::NeedsRequest { .. }
        | Refusal::NeedsAnswer { .. }
        | Refusal::NeedsServerName
        | Refusal::SubnetsDivide
        | Refusal::TooManyVersions { .. }
        | Refusal::TooManyRules { .. } => true,
    }
}

/// `last` with the endpoints of now. A version whose name does not tell what it is keeps those that it has.
pub(super) fn with_endpoints_of_now(of: Target<'_, '_>, last: &Service) -> Service {
    let Target { index, backend: service, port, family, reach, .. } = of;
    let mut resolver = Resolver {
        index,
        service,
        port,
        family,
        reach,
        route: None,
        written: None,
        versions: BTreeMap::new(),
        refused: BTreeSet::new(),
        rules: BTreeMap::new(),
        diagnostics: Vec::new(), // Of no use to anybody: the reason why the service is held is what counts.
    };
    let mut held = last.clone();
    for (name, version) in &mut held.versions {
        let identity = if name == "default" {
            resolver.own()
        } else {
            let Some(destination) = destination(index, service, port, name) else { continue };
            let Ok(identity) = resolver.destination(&destination, "") else { continue };
            identity
        };
        if let Some(now) = resolver.versions.get(&identity)
            && now.len() <= super::limits::ENDPOINTS_PER_VERSION
        {
            version.endpoints.clone_from(now);
        }
    }
    held
}

/// What a version of this name is: a subset of the service, else a Service of its namespace.
fn destination(index: &Index<'_>, service: Backend<'_>, port: &Port, name: &str) -> Option<Destination> {
    let namespace = service.meta().key.namespace.as_str();
    let own = service.hosts().first()?;
    let rules = select::destination_rules(index, own, namespace, None).ok()?;
    if select::subset(&rules, name).is_some() {
        let (host, subset) = (own.clone(), Some(name.to_owned()));
        return Some(Destination { host, port: Some(port.number), subset, written: name.to_owned(), api: Api::Istio });
    }
    let host = Host::read(name, namespace).ok()?;
    index.backend(&host, namespace)?;
    Some(Destination { host, port: None, subset: None, written: name.to_owned(), api: Api::Istio })
}
