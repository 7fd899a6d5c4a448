//! The mesh: its configuration, and `VirtualServices` that claim the same host in it.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    context::{Context, Finding, Report, spec, texts},
    gateways::MESH,
    hosts::{full_name, is_everywhere, overlap, scopes},
};
use crate::{
    diagnostic::Severity,
    source::{Object, Snapshot, parse_value},
};

/// What canary needs to know of Istio's mesh configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MeshConfig {
    /// The proxies' DNS gives addresses to hosts that have none.
    pub(super) allocates_addresses: bool,
}

impl MeshConfig {
    /// The configuration given as text, else the one in the `ConfigMap` that Istio reads.
    pub(super) fn find(snapshot: &Snapshot, given: Option<&str>) -> Self {
        let mut maps = snapshot.objects.iter().filter(|object| {
            object.kind == "ConfigMap" && object.namespace == "istio-system" && object.name == "istio"
        });
        let stored = || maps.find_map(|map| map.body.pointer("/data/mesh")?.as_str());
        let config = given.or_else(stored).and_then(parse_value);
        let metadata = config.as_ref().and_then(|config| config.pointer("/defaultConfig/proxyMetadata"));
        let is_on = |key: &str| metadata.and_then(|all| all.get(key)).and_then(Value::as_str) == Some("true");
        Self { allocates_addresses: is_on("ISTIO_META_DNS_CAPTURE") && is_on("ISTIO_META_DNS_AUTO_ALLOCATE") }
    }
}

pub(super) fn conflicts(context: &Context<'_>, report: &mut Report) {
    let mut claims: BTreeMap<(String, String), Vec<&Object>> = BTreeMap::new();
    for object in context.networking("VirtualService") {
        let gateways = texts(spec(object), "gateways");
        if !gateways.is_empty() && !gateways.contains(&MESH) {
            continue;
        }
        for scope in scopes(&texts(spec(object), "exportTo"), &object.namespace) {
            for host in texts(spec(object), "hosts") {
                claims.entry((scope.clone(), full_name(host, &object.namespace))).or_default().push(object);
            }
        }
    }
    let mut reported = BTreeSet::new();
    for ((scope, host), owners) in &claims {
        let mut rivals: BTreeMap<String, &Object> = owners.iter().map(|&owner| (owner.id(), owner)).collect();
        if !is_everywhere(scope) {
            // What is for one namespace competes there with what is for all.
            let for_all = claims.iter().filter(|((scope, other), _)| is_everywhere(scope) && overlap(host, other));
            rivals.extend(for_all.flat_map(|(_, owners)| owners).map(|&owner| (owner.id(), owner)));
        }
        if rivals.len() < 2 {
            continue;
        }
        for (id, &object) in &rivals {
            if !reported.insert(id.clone()) {
                continue;
            }
            let others: Vec<&str> = rivals.keys().filter(|other| *other != id).map(String::as_str).collect();
            report.add(Finding {
                object,
                severity: Severity::Error,
                code: "IST0109",
                field: "spec.hosts".to_owned(),
                message: format!(
                    "claims the host {host} in the mesh, as {} does; only the oldest is in force",
                    others.join(", ")
                ),
                remedy: "merge their rules into one VirtualService, or limit one with `exportTo`".to_owned(),
            });
        }
    }
}
