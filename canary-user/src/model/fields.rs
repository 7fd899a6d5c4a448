//! Reports what an object asks for and canary does not do: by field, never ignored in silence.
//!
//! Fields that no API has are worse where they decide: see [`strict`](super::strict).
use serde_json::Value;

use crate::{
    diagnostic::{Diagnostic, Severity},
    source::{GATEWAY_API, Object},
};

/// Fields of `spec` that canary reads. `[]` is any entry of a list; a final `.*` takes everything below.
///
/// What only the proxy does is here too: `compile` knows the services that do without it, and reports it for these.
const VIRTUAL_SERVICE: &[&str] = &[
    "exportTo[]",
    "gateways[]",
    "hosts[]",
    "http[].corsPolicy.allowCredentials",
    "http[].corsPolicy.allowHeaders[]",
    "http[].corsPolicy.allowMethods[]",
    "http[].corsPolicy.allowOrigin[]",
    "http[].corsPolicy.allowOrigins[].exact",
    "http[].corsPolicy.allowOrigins[].prefix",
    "http[].corsPolicy.allowOrigins[].regex",
    "http[].corsPolicy.exposeHeaders[]",
    "http[].corsPolicy.maxAge",
    "http[].corsPolicy.unmatchedPreflights",
    "http[].delegate.*",
    "http[].directResponse.*",
    "http[].fault.abort.grpcStatus",
    "http[].fault.abort.httpStatus",
    "http[].fault.abort.percentage.value",
    "http[].fault.delay.fixedDelay",
    "http[].fault.delay.percent",
    "http[].fault.delay.percentage.value",
    "http[].headers.*",
    "http[].match[].authority.*",
    "http[].match[].gateways[]",
    "http[].match[].headers.*",
    "http[].match[].ignoreUriCase",
    "http[].match[].method.*",
    "http[].match[].name",
    "http[].match[].port",
    "http[].match[].queryParams.*",
    "http[].match[].scheme.*",
    "http[].match[].sourceLabels.*",
    "http[].match[].sourceNamespace",
    "http[].match[].statPrefix",
    "http[].match[].uri.*",
    "http[].match[].withoutHeaders.*",
    "http[].mirror.host",
    "http[].mirror.port.number",
    "http[].mirror.subset",
    "http[].mirrorPercent",
    "http[].mirrorPercentage.value",
    "http[].mirror_percent",
    "http[].mirrors[].destination.host",
    "http[].mirrors[].destination.port.number",
    "http[].mirrors[].destination.subset",
    "http[].mirrors[].percentage.value",
    "http[].name",
    "http[].redirect.*",
    "http[].retries.attempts",
    "http[].retries.backoff",
    "http[].retries.perTryTimeout",
    "http[].retries.retryIgnorePreviousHosts",
    "http[].retries.retryOn",
    "http[].rewrite.authority",
    "http[].rewrite.uri",
    "http[].rewrite.uriRegexRewrite.match",
    "http[].rewrite.uriRegexRewrite.rewrite",
    "http[].route[].destination.host",
    "http[].route[].destination.port.number",
    "http[].route[].destination.subset",
    "http[].route[].headers.*",
    "http[].route[].weight",
    "http[].timeout",
    "tcp[].match[].destinationSubnets[]",
    "tcp[].match[].gateways[]",
    "tcp[].match[].port",
    "tcp[].match[].sourceLabels.*",
    "tcp[].match[].sourceNamespace",
    "tcp[].route[].destination.host",
    "tcp[].route[].destination.port.number",
    "tcp[].route[].destination.subset",
    "tcp[].route[].weight",
    "tls[].match[].destinationSubnets[]",
    "tls[].match[].gateways[]",
    "tls[].match[].port",
    "tls[].match[].sniHosts[]",
    "tls[].match[].sourceLabels.*",
    "tls[].match[].sourceNamespace",
    "tls[].route[].destination.host",
    "tls[].route[].destination.port.number",
    "tls[].route[].destination.subset",
    "tls[].route[].weight",
];

/// Beside these [`TRAFFIC_POLICY`].
const DESTINATION_RULE: &[&str] = &["exportTo[]", "host", "subsets[].labels.*", "subsets[].name", "workloadSelector.*"];

/// Fields of a `trafficPolicy` of the host, a subset or a port. Without the request every balancer spreads connections; in
/// the kernel their spread is even, whichever `simple` is asked for.
const TRAFFIC_POLICY: &[&str] = &[
    "connectionPool.http.h2UpgradePolicy",
    "connectionPool.http.http1MaxPendingRequests",
    "connectionPool.http.http2MaxRequests",
    "connectionPool.http.idleTimeout",
    "connectionPool.http.maxConcurrentStreams",
    "connectionPool.http.maxRequestsPerConnection",
    "connectionPool.http.maxRetries",
    "connectionPool.http.useClientProtocol",
    "connectionPool.tcp.connectTimeout",
    "connectionPool.tcp.idleTimeout",
    "connectionPool.tcp.maxConnectionDuration",
    "connectionPool.tcp.maxConnections",
    "connectionPool.tcp.tcpKeepalive.interval",
    "connectionPool.tcp.tcpKeepalive.probes",
    "connectionPool.tcp.tcpKeepalive.time",
    "loadBalancer.consistentHash.httpCookie.name",
    "loadBalancer.consistentHash.httpCookie.path",
    "loadBalancer.consistentHash.httpCookie.ttl",
    "loadBalancer.consistentHash.httpHeaderName",
    "loadBalancer.consistentHash.httpQueryParameterName",
    "loadBalancer.consistentHash.maglev.tableSize",
    "loadBalancer.consistentHash.useSourceIp",
    "loadBalancer.simple",
    "loadBalancer.warmup.aggression",
    "loadBalancer.warmup.duration",
    "loadBalancer.warmup.minimumPercent",
    "loadBalancer.warmupDurationSecs",
    "outlierDetection.baseEjectionTime",
    "outlierDetection.consecutive5xxErrors",
    "outlierDetection.consecutiveGatewayErrors",
    "outlierDetection.consecutiveLocalOriginFailures",
    "outlierDetection.interval",
    "outlierDetection.maxEjectionPercent",
    "outlierDetection.minHealthPercent",
    "outlierDetection.splitExternalLocalOriginErrors",
    "port.number",
];

const SERVICE_ENTRY: &[&str] = &[
    "addresses[]",
    "endpoints[].address",
    "endpoints[].labels.*",
    "endpoints[].ports.*",
    "endpoints[].weight",
    "exportTo[]",
    "hosts[]",
    // Whether it is part of the mesh matters to mTLS only.
    "location",
    "ports[].name",
    "ports[].number",
    "ports[].protocol",
    "ports[].targetPort",
    "resolution",
    "workloadSelector.labels.*",
];

const WORKLOAD_ENTRY: &[&str] = &["address", "labels.*", "ports.*", "weight"];

const ROUTE_POLICY: &[&str] = &[
    "drain",
    "rules[].choosing",
    "rules[].name",
    "rules[].onNoEndpoints",
    "rules[].sources[]",
    "targetRef.apiVersion",
    "targetRef.group",
    "targetRef.kind",
    "targetRef.name",
];

/// Of the Gateway API. Fields of a route are known one by one, and what is not done about a rule is said with it.
const GATEWAY: &[&str] = &[
    "addresses[].type",
    "addresses[].value",
    "gatewayClassName",
    "listeners[].allowedRoutes.*",
    "listeners[].hostname",
    "listeners[].name",
    "listeners[].port",
    "listeners[].protocol",
    "listeners[].tls.mode",
];

/// Of a Service only these are reported: the rest of it concerns the cluster's own machinery.
const SERVICE_REPORTED: &[(&str, &[&str])] = &[("loadBalancerSourceRanges", &[])];

/// Fields of `object` that are not enforced, one warning each.
pub(super) fn not_enforced(object: &Object) -> Vec<Diagnostic> {
    let Some(spec) = object.body.get("spec") else {
        return Vec::new();
    };
    let honoured = match object.kind.as_str() {
        "VirtualService" => VIRTUAL_SERVICE,
        "DestinationRule" => return destination_rule(spec, object),
        "ServiceEntry" => SERVICE_ENTRY,
        "WorkloadEntry" => WORKLOAD_ENTRY,
        "RoutePolicy" => ROUTE_POLICY,
        "Service" => return service(spec, object),
        "Gateway" if object.group() == GATEWAY_API => GATEWAY,
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    walk(spec, "", "spec", honoured, &mut found);
    found.into_iter().map(|field| warning(object, field)).collect()
}

fn destination_rule(spec: &Value, object: &Object) -> Vec<Diagnostic> {
    let policies = ["trafficPolicy", "subsets[].trafficPolicy"];
    let levels = policies.iter().flat_map(|policy| [(*policy).to_owned(), format!("{policy}.portLevelSettings[]")]);
    let of_policies: Vec<String> =
        levels.flat_map(|level| TRAFFIC_POLICY.iter().map(move |field| format!("{level}.{field}"))).collect();
    let honoured: Vec<&str> = DESTINATION_RULE.iter().copied().chain(of_policies.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    walk(spec, "", "spec", &honoured, &mut found);
    passthrough(spec, "spec", &mut found);
    found.into_iter().map(|field| warning(object, field)).collect()
}

/// Notes where endpoints are to be passed by: the one value of `simple` that no balancer of canary stands for.
fn passthrough(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if key == "simple" && value == "PASSTHROUGH" && path.ends_with(".loadBalancer.simple") {
                    found.push(path);
                } else {
                    passthrough(value, &path, found);
                }
            }
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| passthrough(value, &format!("{path}[{at}]"), found));
        }
        _ => {}
    }
}

fn warning(object: &Object, field: String) -> Diagnostic {
    let (message, remedy) = unenforced(&field, None);
    Diagnostic {
        severity: Severity::Warning,
        code: "CAN0005",
        object: object.id(),
        origin: object.origin_of(&field),
        message,
        remedy: remedy.into(),
        field,
    }
}

/// Why what only the proxy does is not done.
pub(crate) const IN_KERNEL: &str =
    "none of its rules needs the request, so the kernel splits its connections and sees no requests";

/// Message and remedy for a field that is not followed: by nothing of canary, or for the port of a host only, with why.
pub(crate) fn unenforced(field: &str, of: Option<(u16, &str, &str)>) -> (String, &'static str) {
    let name = field.rsplit('.').next().unwrap_or(field);
    let message = match of {
        None => format!("`{name}` is not enforced: canary's data path does not do this"),
        Some((port, host, why)) => format!("`{name}` is not enforced for port {port} of {host}: {why}"),
    };
    (message, "see docs/reference-resources.md for what is")
}

/// Notes the topmost fields that no pattern covers. `pattern` is the path without indices, `path` the one with them.
fn walk(value: &Value, pattern: &str, path: &str, honoured: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if value.is_null() {
                    continue;
                }
                let pattern = if pattern.is_empty() { key.clone() } else { format!("{pattern}.{key}") };
                let path = format!("{path}.{key}");
                visit(value, &pattern, path, honoured, found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                visit(value, &format!("{pattern}[]"), format!("{path}[{index}]"), honoured, found);
            }
        }
        _ => {}
    }
}

fn visit(value: &Value, pattern: &str, path: String, honoured: &[&str], found: &mut Vec<String>) {
    let taken = |entry: &&str| *entry == pattern || entry.strip_suffix(".*") == Some(pattern);
    let inner =
        |entry: &&str| entry.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"));
    if honoured.iter().any(taken) {
        return;
    }
    if honoured.iter().any(inner) {
        walk(value, pattern, &path, honoured, found);
    } else {
        found.push(path);
    }
}

fn service(spec: &Value, object: &Object) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (field, harmless) in SERVICE_REPORTED {
        let Some(value) = spec.get(*field).filter(|value| !value.is_null()) else {
            continue;
        };
        if !value.as_str().is_some_and(|text| harmless.contains(&text)) {
            found.push(warning(object, format!("spec.{field}")));
        }
    }
    found
}
