//! What the server has: resources, and the documents by which clients find them.
use serde_json::{Value, json};

use super::store::Store;

/// A resource of the API.
#[derive(Debug)]
pub struct Resource {
    /// Name of its own in these tests: the plural, with a prefix where two groups have the same.
    pub id: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// Versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// As in paths.
    pub plural: &'static str,
    /// As in objects.
    pub kind: &'static str,
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
}

const fn resource(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { id: plural, group, versions: &["v1"], plural, kind, namespaced: true }
}

const fn cluster(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { namespaced: false, ..resource(group, plural, kind) }
}

const fn istio(plural: &'static str, kind: &'static str) -> Resource {
    Resource { versions: &["v1", "v1beta1", "v1alpha3"], ..resource("networking.istio.io", plural, kind) }
}

const fn gateway_api(plural: &'static str, kind: &'static str, versions: &'static [&'static str]) -> Resource {
    Resource { versions, ..resource("gateway.networking.k8s.io", plural, kind) }
}

/// All of them.
pub const RESOURCES: &[Resource] = &[
    resource("", "services", "Service"),
    resource("", "pods", "Pod"),
    resource("", "events", "Event"),
    cluster("", "namespaces", "Namespace"),
    cluster("", "nodes", "Node"),
    cluster("", "nodes", "Node"),
    resource("discovery.k8s.io", "endpointslices", "EndpointSlice"),
    Resource { id: "events.k8s.io", ..resource("events.k8s.io", "events", "Event") },
    resource("coordination.k8s.io", "leases", "Lease"),
    Resource { versions: &["v1alpha1"], ..resource("canary.io", "routepolicies", "RoutePolicy") },
    istio("virtualservices", "VirtualService"),
    istio("destinationrules", "DestinationRule"),
    istio("serviceentries", "ServiceEntry"),
    istio("workloadentries", "WorkloadEntry"),
    Resource { id: "istio-gateways", ..istio("gateways", "Gateway") },
    gateway_api("httproutes", "HTTPRoute", &["v1", "v1beta1"]),
    gateway_api("grpcroutes", "GRPCRoute", &["v1"]),
    gateway_api("tcproutes", "TCPRoute", &["v1alpha2"]),
    gateway_api("tlsroutes", "TLSRoute", &["v1alpha2"]),
    gateway_api("udproutes", "UDPRoute", &["v1alpha2"]),
    gateway_api("gateways", "Gateway", &["v1"]),
    Resource { namespaced: false, ..gateway_api("gatewayclasses", "GatewayClass", &["v1"]) },
    gateway_api("referencegrants", "ReferenceGrant", &["v1beta1"]),
];

/// The document at a path of discovery, if it is one.
pub(super) fn document(path: &str, store: &Store) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match parts.as_slice() {
        ["version"] => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"}),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ["apis"] => {
            let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
            for one in RESOURCES.iter().filter(|it| !it.group.is_empty() && store.serves(it.plural)) {
                match groups.iter_mut().find(|(name, _)| *name == one.group) {
                    Some((_, versions)) => {
                        let new: Vec<_> = one.versions.iter().filter(|it| !versions.contains(it)).copied().collect();
                        versions.extend(new);
                    }
                    None => groups.push((one.group, one.versions.to_vec())),
                }
            }
            let groups: Vec<Value> = groups
                .into_iter()
                .map(|(name, versions)| {
                    let versions: Vec<Value> = versions
                        .iter()
                        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
                        .collect();
                    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
                })
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resources("", version, store),
        ["apis", group, version] => resources(group, version, store),
        _ => return None,
    })
}

fn resources(group: &str, version: &str, store: &Store) -> Value {
    let served: Vec<Value> = RESOURCES
        .iter()
        .filter(|it| it.group == group && it.versions.contains(&version) && store.serves(it.plural))
        .map(|it| {
            json!({
                "name": it.plural, "singularName": it.kind.to_lowercase(), "namespaced": it.namespaced, "kind": it.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    let whole = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": whole, "resources": served})
}
