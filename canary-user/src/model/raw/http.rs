//! `http[]` of a VirtualService.
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Destination, Labels, RouteDestination};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct HttpRoute {
    pub(in crate::model) name: Option<String>,
    #[serde(rename = "match")]
    pub(in crate::model) matches: Vec<HttpMatch>,
    pub(in crate::model) route: Vec<RouteDestination>,
    pub(in crate::model) redirect: Option<HttpRedirect>,
    pub(in crate::model) direct_response: Option<DirectResponse>,
    pub(in crate::model) delegate: Option<Delegate>,
    pub(in crate::model) rewrite: Option<HttpRewrite>,
    pub(in crate::model) headers: Option<Headers>,
    pub(in crate::model) timeout: Option<String>,
    pub(in crate::model) retries: Option<HttpRetry>,
    pub(in crate::model) fault: Option<HttpFault>,
    pub(in crate::model) cors_policy: Option<CorsPolicy>,
    pub(in crate::model) mirror: Option<Destination>,
    pub(in crate::model) mirrors: Vec<HttpMirror>,
    pub(in crate::model) mirror_percentage: Option<Percent>,
    /// Deprecated; the other spelling is protobuf's own.
    #[serde(alias = "mirror_percent")]
    pub(in crate::model) mirror_percent: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct HttpMirror {
    pub(in crate::model) destination: Option<Destination>,
    pub(in crate::model) percentage: Option<Percent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct CorsPolicy {
    /// Deprecated.
    pub(in crate::model) allow_origin: Vec<String>,
    pub(in crate::model) allow_origins: Vec<StringMatch>,
    pub(in crate::model) allow_methods: Vec<String>,
    pub(in crate::model) allow_headers: Vec<String>,
    pub(in crate::model) expose_headers: Vec<String>,
    pub(in crate::model) max_age: Option<String>,
    pub(in crate::model) allow_credentials: Option<bool>,
    pub(in crate::model) unmatched_preflights: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct HttpFault {
    pub(in crate::model) delay: Option<FaultDelay>,
    pub(in crate::model) abort: Option<FaultAbort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct FaultDelay {
    pub(in crate::model) percentage: Option<Percent>,
    pub(in crate::model) percent: Option<f64>,
    pub(in crate::model) fixed_delay: Option<String>,
    pub(in crate::model) exponential_delay: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct FaultAbort {
    pub(in crate::model) percentage: Option<Percent>,
    pub(in crate::model) http_status: Option<i64>,
    pub(in crate::model) grpc_status: Option<String>,
    pub(in crate::model) http2_error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Percent {
    pub(in crate::model) value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct HttpRetry {
    pub(in crate::model) attempts: Option<i64>,
    pub(in crate::model) per_try_timeout: Option<String>,
    pub(in crate::model) retry_on: Option<String>,
    pub(in crate::model) retry_ignore_previous_hosts: Option<bool>,
    pub(in crate::model) backoff: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Delegate {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct HttpMatch {
    pub(in crate::model) gateways: Vec<String>,
    pub(in crate::model) source_labels: Labels,
    pub(in crate::model) source_namespace: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) uri: Option<StringMatch>,
    pub(in crate::model) ignore_uri_case: bool,
    pub(in crate::model) scheme: Option<StringMatch>,
    pub(in crate::model) method: Option<StringMatch>,
    pub(in crate::model) authority: Option<StringMatch>,
    /// A null is an error, not an absent entry: see [`read`](super::read).
    pub(in crate::model) headers: BTreeMap<String, Option<StringMatch>>,
    pub(in crate::model) without_headers: BTreeMap<String, Option<StringMatch>>,
    pub(in crate::model) query_params: BTreeMap<String, Option<StringMatch>>,
}

/// One of the three; none: whatever there is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct StringMatch {
    pub(in crate::model) exact: Option<String>,
    pub(in crate::model) prefix: Option<String>,
    pub(in crate::model) regex: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct HttpRedirect {
    pub(in crate::model) uri: Option<String>,
    pub(in crate::model) authority: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) derive_port: Option<String>,
    pub(in crate::model) scheme: Option<String>,
    pub(in crate::model) redirect_code: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct DirectResponse {
    pub(in crate::model) status: Option<i64>,
    pub(in crate::model) body: Option<Body>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Body {
    pub(in crate::model) string: Option<String>,
    /// Base64.
    pub(in crate::model) bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct HttpRewrite {
    pub(in crate::model) uri: Option<String>,
    pub(in crate::model) authority: Option<String>,
    pub(in crate::model) uri_regex_rewrite: Option<UriRegexRewrite>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct UriRegexRewrite {
    #[serde(rename = "match")]
    pub(in crate::model) pattern: Option<String>,
    pub(in crate::model) rewrite: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Headers {
    pub(in crate::model) request: Option<HeaderOperations>,
    pub(in crate::model) response: Option<HeaderOperations>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct HeaderOperations {
    pub(in crate::model) set: BTreeMap<String, String>,
    pub(in crate::model) add: BTreeMap<String, String>,
    pub(in crate::model) remove: Vec<String>,
}

/// An entry of the annotation `canary.io/cookies`: canary's own, so nothing else may be in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::model) struct CookieRule {
    pub(in crate::model) rule: String,
    #[serde(rename = "match")]
    pub(in crate::model) tests: BTreeMap<String, CookieMatch>,
}

/// A [`StringMatch`] in that annotation.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::model) struct CookieMatch {
    pub(in crate::model) exact: Option<String>,
    pub(in crate::model) prefix: Option<String>,
    pub(in crate::model) regex: Option<String>,
}
