//! What an edit does to the endpoints of versions, for who asks before doing it.
use std::collections::BTreeSet;

use crate::state::{ServiceId, State};

/// Endpoints of one version that come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// The service.
    pub service: ServiceId,
    /// The version.
    pub version: String,
    /// Endpoints before.
    pub old: usize,
    /// Endpoints after.
    pub new: usize,
    /// Those that come.
    pub added: usize,
    /// Those that go.
    pub removed: usize,
}

/// Versions whose endpoints differ, in order of services and names.
pub(super) fn scaled(old: &State, new: &State) -> Vec<Scaled> {
    let versions = |state: &State| -> BTreeSet<(ServiceId, String)> {
        let of = |(id, service): (&ServiceId, &crate::state::Service)| {
            service.versions.keys().map(|name| (id.clone(), name.clone())).collect::<Vec<_>>()
        };
        state.services.iter().flat_map(of).collect()
    };
    let endpoints = |state: &State, id: &ServiceId, name: &str| -> BTreeSet<std::net::SocketAddr> {
        let version = state.services.get(id).and_then(|service| service.versions.get(name));
        version.map(|version| version.endpoints.keys().copied().collect()).unwrap_or_default()
    };
    let all: BTreeSet<_> = versions(old).into_iter().chain(versions(new)).collect();
    let compared = all.into_iter().map(|(service, version)| {
        let (before, after) = (endpoints(old, &service, &version), endpoints(new, &service, &version));
        let (added, removed) = (after.difference(&before).count(), before.difference(&after).count());
        Scaled { service, version, old: before.len(), new: after.len(), added, removed }
    });
    compared.filter(|one| one.added + one.removed > 0).collect()
}
