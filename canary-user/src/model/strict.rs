//! Fields that nobody knows, where fields decide who gets what: errors. A misspelt `match` would make a rule for everybody
//! of one for a few, a misspelt `weight` would give everybody to the other version.
//!
//! Elsewhere in an object a field that canary does not know is a warning: see [`fields`](super::fields).
use serde_json::Value;

use super::{
    gateway_api::RouteKind,
    problem::{Invalid, Problem},
};
use crate::source::{Object, similar::similar};

/// All fields of a place in an object, in the words of its API. `[]` is any entry of a list, `*` any value of a map.
type Known = (&'static str, &'static [&'static str]);

const OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// networking.istio.io/v1, as of Istio 1.28.
const VIRTUAL_SERVICE: &[Known] = &[
    ("", OBJECT),
    ("spec", &["hosts", "gateways", "http", "tls", "tcp", "exportTo"]),
    (
        "spec.http[]",
        &[
            "name",
            "match",
            "route",
            "redirect",
            "directResponse",
            "delegate",
            "rewrite",
            "timeout",
            "retries",
            "fault",
            "mirror",
            "mirrors",
            "mirrorPercent",
            "mirror_percent",
            "mirrorPercentage",
            "corsPolicy",
            "headers",
        ],
    ),
    (
        "spec.http[].match[]",
        &[
            "name",
            "uri",
            "scheme",
            "method",
            "authority",
            "headers",
            "port",
            "sourceLabels",
            "gateways",
            "queryParams",
            "ignoreUriCase",
            "withoutHeaders",
            "sourceNamespace",
            "statPrefix",
        ],
    ),
    ("spec.http[].match[].uri", STRING_MATCH),
    ("spec.http[].match[].scheme", STRING_MATCH),
    ("spec.http[].match[].method", STRING_MATCH),
    ("spec.http[].match[].authority", STRING_MATCH),
    ("spec.http[].match[].headers.*", STRING_MATCH),
    ("spec.http[].match[].withoutHeaders.*", STRING_MATCH),
    ("spec.http[].match[].queryParams.*", STRING_MATCH),
    ("spec.http[].redirect", &["uri", "authority", "port", "derivePort", "scheme", "redirectCode"]),
    ("spec.http[].directResponse", &["status", "body"]),
    ("spec.http[].directResponse.body", &["string", "bytes"]),
    ("spec.http[].rewrite", &["uri", "authority", "uriRegexRewrite"]),
    ("spec.http[].corsPolicy.allowOrigins[]", STRING_MATCH),
    ("spec.http[].headers", CHANGES),
    ("spec.http[].headers.*", OPERATIONS),
    ("spec.http[].route[]", &["destination", "weight", "headers"]),
    ("spec.http[].route[].headers", CHANGES),
    ("spec.http[].route[].headers.*", OPERATIONS),
    ("spec.http[].route[].destination", DESTINATION),
    ("spec.http[].route[].destination.port", &["number"]),
    ("spec.tcp[]", &["match", "route"]),
    (
        "spec.tcp[].match[]",
        &["destinationSubnets", "port", "sourceSubnet", "sourceLabels", "gateways", "sourceNamespace"],
    ),
    ("spec.tcp[].route[]", &["destination", "weight"]),
    ("spec.tcp[].route[].destination", DESTINATION),
    ("spec.tcp[].route[].destination.port", &["number"]),
    ("spec.tls[]", &["match", "route"]),
    (
        "spec.tls[].match[]",
        &["sniHosts", "destinationSubnets", "port", "sourceSubnet", "sourceLabels", "gateways", "sourceNamespace"],
    ),
    ("spec.tls[].route[]", &["destination", "weight"]),
    ("spec.tls[].route[].destination", DESTINATION),
    ("spec.tls[].route[].destination.port", &["number"]),
];
const STRING_MATCH: &[&str] = &["exact", "prefix", "regex"];
const CHANGES: &[&str] = &["request", "response"];
const OPERATIONS: &[&str] = &["set", "add", "remove"];
const DESTINATION: &[&str] = &["host", "subset", "port"];

const DESTINATION_RULE: &[Known] = &[
    ("", OBJECT),
    ("spec", &["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"]),
    ("spec.subsets[]", &["name", "labels", "trafficPolicy"]),
    ("spec.workloadSelector", &["matchLabels"]),
];

const WORKLOAD: &[&str] = &["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];

const SERVICE_ENTRY: &[Known] = &[
    ("", OBJECT),
    (
        "spec",
        &[
            "hosts",
            "addresses",
            "ports",
            "location",
            "resolution",
            "endpoints",
            "workloadSelector",
            "exportTo",
            "subjectAltNames",
        ],
    ),
    ("spec.ports[]", &["number", "protocol", "name", "targetPort"]),
    ("spec.endpoints[]", WORKLOAD),
    ("spec.workloadSelector", &["labels"]),
];

const WORKLOAD_ENTRY: &[Known] = &[("", OBJECT), ("spec", WORKLOAD)];

/// canary's own, so all of it.
const ROUTE_POLICY: &[Known] = &[
    ("", OBJECT),
    ("spec", &["targetRef", "drain", "rules"]),
    ("spec.targetRef", &["apiVersion", "group", "kind", "name"]),
    ("spec.rules[]", &["name", "choosing", "onNoEndpoints", "sources"]),
];

const SERVICE: &[Known] = &[
    ("", OBJECT),
    (
        "spec",
        &[
            "allocateLoadBalancerNodePorts",
            "clusterIP",
            "clusterIPs",
            "externalIPs",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamily",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "ports",
            "publishNotReadyAddresses",
            "selector",
            "sessionAffinity",
            "sessionAffinityConfig",
            "topologyKeys",
            "trafficDistribution",
            "type",
        ],
    ),
    ("spec.ports[]", &["name", "port", "targetPort", "protocol", "appProtocol", "nodePort"]),
];

const POD: &[Known] = &[("", OBJECT)];

const ENDPOINT_SLICE: &[Known] = &[
    ("", &["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"]),
    (
        "endpoints[]",
        &["addresses", "conditions", "deprecatedTopology", "hints", "hostname", "nodeName", "targetRef", "zone"],
    ),
    ("endpoints[].conditions", &["ready", "serving", "terminating"]),
    ("ports[]", &["name", "port", "protocol", "appProtocol"]),
];

/// gateway.networking.k8s.io, as of its version 1.4: what decides who gets what.
const GATEWAY_ROUTE: &[Known] = &[
    ("", OBJECT),
    ("spec", &["parentRefs", "useDefaultGateways", "hostnames", "rules"]),
    ("spec.parentRefs[]", &["group", "kind", "namespace", "name", "sectionName", "port"]),
    ("spec.rules[]", &["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"]),
    ("spec.rules[].matches[]", &["path", "headers", "queryParams", "method"]),
    ("spec.rules[].matches[].path", &["type", "value"]),
    ("spec.rules[].matches[].headers[]", &["type", "name", "value"]),
    ("spec.rules[].matches[].queryParams[]", &["type", "name", "value"]),
    ("spec.rules[].timeouts", &["request", "backendRequest"]),
    ("spec.rules[].retry", &["codes", "attempts", "backoff"]),
    ("spec.rules[].filters[]", FILTER),
    ("spec.rules[].backendRefs[]", &["group", "kind", "name", "namespace", "port", "weight", "filters"]),
    ("spec.rules[].backendRefs[].filters[]", FILTER),
];
const FILTER: &[&str] = &[
    "type",
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "urlRewrite",
    "cors",
    "externalAuth",
    "extensionRef",
];

const GATEWAY: &[Known] = &[
    ("", OBJECT),
    (
        "spec",
        &[
            "gatewayClassName",
            "listeners",
            "addresses",
            "infrastructure",
            "backendTLS",
            "tls",
            "allowedListeners",
            "defaultScope",
        ],
    ),
    ("spec.listeners[]", &["name", "hostname", "port", "protocol", "tls", "allowedRoutes"]),
    ("spec.listeners[].allowedRoutes", &["namespaces", "kinds"]),
    ("spec.listeners[].allowedRoutes.namespaces", &["from", "selector"]),
];

const REFERENCE_GRANT: &[Known] = &[
    ("", OBJECT),
    ("spec", &["from", "to"]),
    ("spec.from[]", &["group", "kind", "namespace"]),
    ("spec.to[]", &["group", "kind", "name"]),
];

/// Fields of `object` that are none, with what is meant.
pub(super) fn unknown(object: &Object) -> Vec<Invalid> {
    let places = match object.kind.as_str() {
        "VirtualService" => VIRTUAL_SERVICE,
        "DestinationRule" => DESTINATION_RULE,
        "ServiceEntry" => SERVICE_ENTRY,
        "WorkloadEntry" => WORKLOAD_ENTRY,
        "RoutePolicy" => ROUTE_POLICY,
        "Service" => SERVICE,
        "Pod" => POD,
        "EndpointSlice" => ENDPOINT_SLICE,
        "Gateway" => GATEWAY,
        "ReferenceGrant" => REFERENCE_GRANT,
        kind if RouteKind::by_name(kind).is_some() => GATEWAY_ROUTE,
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for (place, known) in places {
        visit(&object.body, "", place, &mut |value, path| check(value, path, known, &mut found));
    }
    found
}

/// Calls `each` on every value at `place`, with its path.
fn visit(value: &Value, path: &str, place: &str, each: &mut impl FnMut(&Value, &str)) {
    if let Some(rest) = place.strip_prefix("[]") {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            visit(item, &format!("{path}[{index}]"), rest, each);
        }
        return;
    }
    let place = place.strip_prefix('.').unwrap_or(place);
    if place.is_empty() {
        each(value, path);
        return;
    }
    let end = place.find(['.', '[']).unwrap_or(place.len());
    let (name, rest) = place.split_at(end);
    if name == "*" {
        for (key, inner) in value.as_object().into_iter().flatten() {
            visit(inner, &join(path, key), rest, each);
        }
        return;
    }
    if let Some(inner) = value.get(name) {
        visit(inner, &join(path, name), rest, each);
    }
}

fn check(value: &Value, path: &str, known: &[&str], found: &mut Vec<Invalid>) {
    let names = value.as_object().into_iter().flat_map(serde_json::Map::keys);
    for name in names.filter(|name| !known.contains(&name.as_str())) {
        let remedy = match similar(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if name == "weight" && known == DESTINATION => {
                "`weight` belongs beside `destination`, not under it".to_owned()
            }
            None => format!("known here: {}", known.join(", ")),
        };
        found.push(Invalid { field: join(path, name), problem: Problem::UnknownField { field: name.clone(), remedy } });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
