//! Rules that need the request: what the proxy does with each request to a service port.
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Choosing, DeadVersion, HttpPolicy, TrafficPolicy};

/// The HTTP rules of one service port, as written; no rule matches: 404.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// In order; the first one that matches decides.
    pub rules: Vec<HttpRule>,
    /// How the endpoints of a version are treated, by its name; the others take turns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, TrafficPolicy>,
}

/// One rule: for which requests, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRule {
    /// Name in the VirtualService, or `http[0]`, … by position.
    pub name: String,
    /// Alternatives; empty matches every request.
    pub matches: Vec<RequestMatch>,
    /// What becomes of the request.
    pub action: HttpAction,
    /// Changes of headers for all destinations of the rule.
    pub headers: HeaderChanges,
    /// Until the whole answer's head is there, in milliseconds; `None` waits.
    pub timeout_ms: Option<u64>,
    /// Retries and the like.
    #[serde(default)]
    pub policy: HttpPolicy,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpAction {
    /// Forwarded to a version.
    Route(HttpRoute),
    /// Answered with the address to ask instead.
    Redirect(Redirect),
    /// Answered at once.
    Answer {
        /// HTTP status, 200 to 599.
        status: u16,
        /// Body; empty: none.
        body: String,
    },
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRoute {
    /// How a version is chosen for a request.
    pub choosing: Choosing,
    /// What happens to the share of a version without endpoints.
    pub dead: DeadVersion,
    /// In the order of names; the weights' sum is `1..=u32::MAX`.
    pub destinations: Vec<HttpDestination>,
    /// Replaces path and authority.
    pub rewrite: Rewrite,
}

/// One version of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpDestination {
    /// Name of the version: a key of `Service::versions`.
    pub version: String,
    /// Its weight.
    pub weight: u32,
    /// Changes of headers for this destination only.
    pub headers: HeaderChanges,
}

/// Changes of headers on the way there and back. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderOperations,
    /// Of the answer.
    pub response: HeaderOperations,
}

/// Removed first, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderOperations {
    /// Names.
    pub remove: Vec<String>,
    /// Replaces all values of a name.
    pub set: BTreeMap<String, String>,
    /// Adds a value to a name.
    pub add: BTreeMap<String, String>,
}

/// Replacements in a request that is forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Replaces the path, or the prefix of it that matched.
    pub uri: Option<String>,
    /// Replaces the authority (`Host`).
    pub authority: Option<String>,
    /// Replaces what matches in the path.
    #[serde(default)]
    pub uri_regex: Option<UriRegexRewrite>,
}

/// A replacement of what matches in a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriRegexRewrite {
    /// RE2 syntax, at most 1 024 characters.
    pub pattern: String,
    /// What comes in its place.
    pub rewrite: Vec<RewritePart>,
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RewritePart {
    /// As it is.
    Text(String),
    /// What a group of the pattern has matched; 0 is all of it.
    Group(usize),
}

/// Where a client is sent instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Replaces the path; the query stays.
    pub uri: Option<String>,
    /// Replaces the authority.
    pub authority: Option<String>,
    /// Replaces the scheme.
    pub scheme: Option<String>,
    /// Replaces the port.
    pub port: Option<u16>,
}

/// One alternative: everything in it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMatch {
    /// Client networks; empty matches everybody.
    pub sources: Vec<IpNet>,
    /// The path as sent, without the query.
    pub uri: Option<Text>,
    /// `exact` and `prefix` of the path are compared without regard to case.
    pub ignore_uri_case: bool,
    /// `http` or `https`.
    pub scheme: Option<Text>,
    /// Method.
    pub method: Option<Text>,
    /// Authority as sent, with its port.
    pub authority: Option<Text>,
    /// Header, by its name in lower case; values that are repeated are joined by commas.
    pub headers: BTreeMap<String, Text>,
    /// Headers that must not be so. One that is missing counts as empty.
    pub without_headers: BTreeMap<String, Text>,
    /// First value of a query parameter, decoded.
    pub query: BTreeMap<String, Text>,
    /// Cookies by name, parsed: `canary.io`'s own.
    pub cookies: BTreeMap<String, Text>,
}

/// A test of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Text {
    /// The same.
    Exact(String),
    /// Begins with it.
    Prefix(String),
    /// The whole text matches; RE2 syntax, at most 1 024 characters.
    Regex(String),
    /// It is there.
    Present,
}
