//! Names of hosts: short and full ones, wildcards, and who sees which.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::context::{Context, list, metadata, spec, text, texts};

/// What a short name is completed with, after the namespace.
pub(super) const CLUSTER_SUFFIX: &str = "svc.cluster.local";
/// In `exportTo`: all namespaces.
const ALL: &str = "*";
/// In `exportTo`: the object's own namespace.
const OWN: &str = ".";
/// Says in a Service what `exportTo` says elsewhere.
const EXPORT_ANNOTATION: &str = "networking.istio.io/exportTo";

/// The full name of `host` as written in `namespace`. Only a name without a dot is completed.
pub(super) fn full_name(host: &str, namespace: &str) -> String {
    if host.starts_with('*') || host.contains('.') {
        host.to_owned()
    } else {
        format!("{host}.{namespace}.{CLUSTER_SUFFIX}")
    }
}

/// There is a name that both match.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => other.ends_with(suffix),
        (None, Some(suffix)) => one.ends_with(suffix),
        (Some(suffix), Some(other)) => suffix.ends_with(other) || other.ends_with(suffix),
    }
}

/// The namespaces that an `exportTo` names: all of them by default.
pub(super) fn scopes(export_to: &[&str], namespace: &str) -> BTreeSet<String> {
    if export_to.is_empty() || export_to.contains(&ALL) {
        return BTreeSet::from([ALL.to_owned()]);
    }
    export_to.iter().map(|&scope| if scope == OWN { namespace } else { scope }.to_owned()).collect()
}

/// The scope that everybody is in.
pub(super) fn is_everywhere(scope: &str) -> bool {
    scope == ALL
}

/// A host that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Port numbers, in the order in which they are written.
    pub(super) ports: Vec<u64>,
    /// Labels that its workloads have: `None` when it does not select by labels.
    pub(super) selector: Option<BTreeMap<String, String>>,
}

/// Hosts that exist, by scope and full name.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_scope: BTreeMap<(String, String), Host>,
    /// (name, namespace) of every Service.
    services: BTreeSet<(String, String)>,
}

impl Hosts {
    pub(super) fn find(context: &Context<'_>) -> Self {
        let mut found = Self::default();
        for entry in context.networking("ServiceEntry") {
            let spec = spec(entry);
            let selector = spec.get("workloadSelector").map(|selector| labels(selector.get("labels")));
            let host = Host { ports: numbers(spec, "number"), selector };
            for name in texts(spec, "hosts") {
                found.insert(
                    &scopes(&texts(spec, "exportTo"), &entry.namespace),
                    &full_name(name, &entry.namespace),
                    &host,
                );
            }
        }
        for service in context.core("Service") {
            let spec = spec(service);
            let annotation = metadata(service).get("annotations").map_or("", |all| text(all, EXPORT_ANNOTATION));
            let export_to: Vec<&str> = annotation.split(',').map(str::trim).filter(|scope| !scope.is_empty()).collect();
            let selector = spec.get("selector").filter(|selector| !selector.is_null()).map(|all| labels(Some(all)));
            let host = Host { ports: numbers(spec, "port"), selector };
            found.insert(&scopes(&export_to, &service.namespace), &full_name(&service.name, &service.namespace), &host);
            found.services.insert((service.name.clone(), service.namespace.clone()));
        }
        found
    }

    fn insert(&mut self, scopes: &BTreeSet<String>, name: &str, host: &Host) {
        for scope in scopes {
            self.by_scope.insert((scope.clone(), name.to_owned()), host.clone());
        }
    }

    /// What `host` means to an object in `namespace` that is exported to `export_to`, as Istio looks it up: what all
    /// see, then what those see whom the object is for, then wildcards.
    pub(super) fn get(&self, host: &str, namespace: &str, export_to: &[&str]) -> Option<&Host> {
        let name = full_name(host, namespace);
        let at = |scope: &str| self.by_scope.get(&(scope.to_owned(), name.clone()));
        let audience: BTreeSet<String> =
            if export_to.is_empty() { BTreeSet::from([namespace.to_owned()]) } else { scopes(export_to, namespace) };
        let exact = at(ALL).or_else(|| audience.iter().find_map(|scope| at(scope)));
        exact.or_else(|| {
            let bare = host.strip_prefix('*').unwrap_or(host);
            let wildcard = |((scope, known), host): (&(String, String), _)| {
                let visible = is_everywhere(scope) || scope == namespace;
                (visible && bare.ends_with(known.strip_prefix('*')?)).then_some(host)
            };
            self.by_scope.iter().find_map(wildcard)
        })
    }

    /// Whether there is a Service of this name in this namespace.
    pub(super) fn is_service(&self, name: &str, namespace: &str) -> bool {
        self.services.contains(&(name.to_owned(), namespace.to_owned()))
    }

    /// Names to suggest in `namespace`: short ones of its own Services, full ones of all others.
    pub(super) fn names(&self, namespace: &str) -> Vec<String> {
        let own = format!(".{namespace}.{CLUSTER_SUFFIX}");
        let full = self.by_scope.keys().map(|(_, name)| name.as_str());
        full.flat_map(|name| name.strip_suffix(&own).into_iter().chain([name])).map(str::to_owned).collect()
    }
}

fn numbers(spec: &Value, field: &str) -> Vec<u64> {
    list(spec, "ports").iter().map(|port| port.get(field).and_then(Value::as_u64).unwrap_or_default()).collect()
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
