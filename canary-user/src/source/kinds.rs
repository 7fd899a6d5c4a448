//! Kinds that an API group has: an object of another kind in such a group is a slip, and not somebody else's business.
use super::{GATEWAY_API, Object, code, similar::similar};
use crate::diagnostic::{Diagnostic, Severity};

/// Groups whose objects canary reads, the versions that it reads, and all their kinds.
const GROUPS: &[(&str, &[&str], &[&str])] = &[
    (
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
        &[
            "DestinationRule",
            "EnvoyFilter",
            "Gateway",
            "ProxyConfig",
            "ServiceEntry",
            "Sidecar",
            "VirtualService",
            "WorkloadEntry",
            "WorkloadGroup",
        ],
    ),
    ("discovery.k8s.io", &["v1"], &["EndpointSlice"]),
    ("canary.io", &["v1alpha1"], &["RoutePolicy"]),
    (
        GATEWAY_API,
        &["v1", "v1beta1", "v1alpha2", "v1alpha3"],
        &[
            "BackendTLSPolicy",
            "GRPCRoute",
            "Gateway",
            "GatewayClass",
            "HTTPRoute",
            "ReferenceGrant",
            "TCPRoute",
            "TLSRoute",
            "UDPRoute",
        ],
    ),
    (
        "",
        &["v1"],
        &[
            "Binding",
            "ComponentStatus",
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
];

/// What is wrong with the kind or the version of an object; `None` when nothing is, or when the group is not canary's.
pub(super) fn unknown(object: &Object) -> Option<Diagnostic> {
    let (group, version) = object.api_version.split_once('/').unwrap_or(("", &object.api_version));
    let error = |field: &str, message: String, remedy: String| {
        Some(Diagnostic {
            severity: Severity::Error,
            code: code::NO_SUCH_KIND,
            object: object.id(),
            field: field.to_owned(),
            origin: object.origin_of(field),
            message,
            remedy,
        })
    };
    let Some((_, versions, kinds)) = GROUPS.iter().find(|(name, ..)| *name == group) else {
        // Other groups are nobody's business here, unless one is nearly the group that has this kind.
        // Several have a `Gateway`, and some of these groups have similar names.
        let (meant, versions, _) =
            GROUPS.iter().find(|(_, _, kinds)| kinds.contains(&object.kind.as_str()) && object.kind != "Gateway")?;
        similar(group, [*meant])?;
        let whole = format!("{meant}/{}", versions.first()?);
        let message = format!("no API group is called `{group}`");
        return error("apiVersion", message, format!("did you mean `{whole}`?"));
    };
    let place = if group.is_empty() { "the core group".to_owned() } else { format!("`{group}`") };
    if !kinds.contains(&object.kind.as_str()) {
        let remedy = similar(&object.kind, kinds.iter().copied());
        let remedy =
            remedy.map_or_else(|| format!("it has {}", kinds.join(", ")), |near| format!("did you mean `{near}`?"));
        return error("kind", format!("{place} has no kind `{}`", object.kind), remedy);
    }
    if !versions.contains(&version) {
        let message = format!("canary does not know version `{version}` of {place}");
        return error("apiVersion", message, format!("write one of {}", versions.join(", ")));
    }
    None
}
