//! `gateway.networking.k8s.io`: routes, Gateways, classes and grants.
use serde::Deserialize;
use serde_json::{Number, Value};

use super::Labels;

/// `HTTPRoute`, `GRPCRoute`, `TCPRoute`, `TLSRoute` or `UDPRoute`: what they have is read from each alike.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct GatewayRoute {
    pub(in crate::model) parent_refs: Vec<Value>,
    pub(in crate::model) hostnames: Vec<String>,
    pub(in crate::model) rules: Vec<RouteRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ParentRef {
    pub(in crate::model) group: Option<String>,
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) namespace: Option<String>,
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) section_name: Option<String>,
    pub(in crate::model) port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RouteRule {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) matches: Vec<RouteMatch>,
    pub(in crate::model) filters: Vec<Filter>,
    pub(in crate::model) backend_refs: Vec<BackendRef>,
    pub(in crate::model) timeouts: Option<Timeouts>,
    pub(in crate::model) retry: Option<Retry>,
    pub(in crate::model) session_persistence: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RouteMatch {
    pub(in crate::model) path: Option<NameMatch>,
    pub(in crate::model) headers: Vec<NameMatch>,
    pub(in crate::model) query_params: Vec<NameMatch>,
    pub(in crate::model) method: Option<Method>,
}

/// A method of HTTP, or a call of gRPC.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::model) enum Method {
    Name(String),
    Call(Call),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Call {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) service: Option<String>,
    pub(in crate::model) method: Option<String>,
}

/// A test of a path, a header or a parameter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct NameMatch {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Filter {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) request_header_modifier: Option<HeaderModifier>,
    pub(in crate::model) response_header_modifier: Option<HeaderModifier>,
    pub(in crate::model) request_mirror: Option<RequestMirror>,
    pub(in crate::model) request_redirect: Option<RequestRedirect>,
    pub(in crate::model) url_rewrite: Option<UrlRewrite>,
    pub(in crate::model) cors: Option<Cors>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct HeaderModifier {
    pub(in crate::model) set: Vec<HeaderValue>,
    pub(in crate::model) add: Vec<HeaderValue>,
    pub(in crate::model) remove: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct HeaderValue {
    pub(in crate::model) name: String,
    pub(in crate::model) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RequestMirror {
    pub(in crate::model) backend_ref: Option<BackendRef>,
    pub(in crate::model) percent: Option<i64>,
    pub(in crate::model) fraction: Option<Fraction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Fraction {
    pub(in crate::model) numerator: i64,
    pub(in crate::model) denominator: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RequestRedirect {
    pub(in crate::model) scheme: Option<String>,
    pub(in crate::model) hostname: Option<String>,
    pub(in crate::model) path: Option<PathModifier>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) status_code: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct UrlRewrite {
    pub(in crate::model) hostname: Option<String>,
    pub(in crate::model) path: Option<PathModifier>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct PathModifier {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) replace_full_path: Option<String>,
    pub(in crate::model) replace_prefix_match: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Cors {
    pub(in crate::model) allow_origins: Vec<String>,
    pub(in crate::model) allow_credentials: bool,
    pub(in crate::model) allow_methods: Vec<String>,
    pub(in crate::model) allow_headers: Vec<String>,
    pub(in crate::model) expose_headers: Vec<String>,
    pub(in crate::model) max_age: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Timeouts {
    pub(in crate::model) request: Option<String>,
    pub(in crate::model) backend_request: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Retry {
    pub(in crate::model) codes: Vec<i64>,
    pub(in crate::model) attempts: Option<i64>,
    pub(in crate::model) backoff: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct BackendRef {
    pub(in crate::model) group: Option<String>,
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) namespace: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) weight: Option<Number>,
    pub(in crate::model) filters: Vec<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Gateway {
    #[serde(rename = "gatewayClassName")]
    pub(in crate::model) class_name: Option<String>,
    pub(in crate::model) addresses: Vec<GatewayAddress>,
    pub(in crate::model) listeners: Vec<Listener>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct GatewayAddress {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Listener {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) hostname: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) protocol: Option<String>,
    pub(in crate::model) tls: Option<ListenerTls>,
    pub(in crate::model) allowed_routes: Option<AllowedRoutes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct ListenerTls {
    pub(in crate::model) mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct AllowedRoutes {
    pub(in crate::model) namespaces: Option<RouteNamespaces>,
    pub(in crate::model) kinds: Vec<GroupKind>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct RouteNamespaces {
    pub(in crate::model) from: Option<String>,
    pub(in crate::model) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct LabelSelector {
    pub(in crate::model) match_labels: Labels,
    pub(in crate::model) match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Requirement {
    pub(in crate::model) key: String,
    pub(in crate::model) operator: String,
    pub(in crate::model) values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct GroupKind {
    pub(in crate::model) group: Option<String>,
    pub(in crate::model) kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct GatewayClass {
    pub(in crate::model) controller_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct ReferenceGrant {
    pub(in crate::model) from: Vec<GrantFrom>,
    pub(in crate::model) to: Vec<GrantTo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct GrantFrom {
    pub(in crate::model) group: String,
    pub(in crate::model) kind: String,
    pub(in crate::model) namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct GrantTo {
    pub(in crate::model) group: String,
    pub(in crate::model) kind: String,
    pub(in crate::model) name: Option<String>,
}
