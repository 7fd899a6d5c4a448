//! Rules that need the request: what the proxy does with each request to a service port.
use std::{borrow::Cow, collections::BTreeMap};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Choosing, DeadVersion, HttpPolicy, Service, Split, TlsMatch, TrafficPolicy};

/// The HTTP rules of one service port, as written; no rule matches: 404.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// In order; the first one that matches decides.
    pub rules: Vec<HttpRule>,
    /// How the endpoints of a version are treated, by its name; the others take turns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, TrafficPolicy>,
    /// What endpoints speak.
    #[serde(default, skip_serializing_if = "EndpointHttp::is_as_client")]
    pub endpoint_http: EndpointHttp,
}

/// The version of HTTP in which endpoints are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointHttp {
    /// The client's: the port declares nothing.
    #[default]
    AsClient,
    /// HTTP/1.1, but for gRPC.
    Http1,
    /// HTTP/2, but for requests that change the protocol.
    Http2,
}

impl EndpointHttp {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    const fn is_as_client(&self) -> bool {
        matches!(self, Self::AsClient)
    }
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
    /// The rule may not refer to it, or it is not there: 500, as the Gateway API has it, instead of 503.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// Changes of headers on the way there and back. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderOperations,
    /// Of the answer.
    pub response: HeaderOperations,
}

/// Removed first, then set, then added. Values are in the format of [`super::parts`].
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
    /// Replaces what of the path matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Replaces the authority.
    pub authority: Option<String>,
    /// Replaces the scheme.
    pub scheme: Option<String>,
    /// Replaces the port.
    pub port: Option<u16>,
    /// Without a port: also that of the request's authority is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
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
    /// A path that is this or goes on after it with a `/`; no `/` at its end, so that empty is every path.
    PathPrefix(String),
    /// An authority of this host, whatever its port; `*.` in front stands for one label or more.
    Host(String),
}

/// Who follows a rule, and what it splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The kernel: flows.
    Kernel,
    /// The proxy: requests.
    Requests,
    /// The proxy: connections, which it passes on.
    Connections,
}

/// A rule that has shares, the kernel's or the proxy's.
#[derive(Debug, Clone)]
pub struct Splitting<'a> {
    /// Its place among the rules of the kernel, or among those of the proxy: rules for requests, then for connections.
    pub index: usize,
    /// Who follows it.
    pub by: Follows,
    /// Its name.
    pub name: &'a str,
    /// Client networks; empty matches everybody.
    pub sources: &'a [IpNet],
    /// Alternatives of requests; empty matches every request.
    pub matches: &'a [RequestMatch],
    /// Alternatives of TLS connections; empty matches every one.
    pub names: &'a [TlsMatch],
    /// Its versions and weights.
    pub split: Cow<'a, Split>,
}

impl Service {
    /// The rules that decide about shares: the proxy's where it follows them, else the kernel's.
    #[must_use]
    pub fn splitting(&self) -> Vec<Splitting<'_>> {
        if !self.is_proxied() {
            return self.splitting_flows();
        }
        let route = |rule: &'_ HttpRule| match &rule.action {
            HttpAction::Route(route) => Some(route.split()),
            HttpAction::Redirect(_) | HttpAction::Answer { .. } => None,
        };
        let http = self.http.as_ref().map_or(&[][..], |http| &http.rules);
        let requests = http.iter().enumerate().filter_map(|(index, rule)| {
            let split = Cow::Owned(route(rule)?);
            let (by, matches) = (Follows::Requests, rule.matches.as_slice());
            Some(Splitting { index, by, name: &rule.name, sources: &[], matches, names: &[], split })
        });
        let tls = self.tls.as_ref().map_or(&[][..], |tls| &tls.rules);
        let connections = (http.len()..).zip(tls).map(|(index, rule)| {
            let (by, split) = (Follows::Connections, Cow::Borrowed(&rule.split));
            Splitting { index, by, name: &rule.name, sources: &[], matches: &[], names: &rule.matches, split }
        });
        requests.chain(connections).collect()
    }

    /// The kernel's rules; with those of the proxy they say only that everybody is sent there.
    #[must_use]
    pub fn splitting_flows(&self) -> Vec<Splitting<'_>> {
        let splitting = self.rules.iter().enumerate().map(|(index, rule)| Splitting {
            index,
            by: Follows::Kernel,
            name: &rule.name,
            sources: &rule.sources,
            matches: &[],
            names: &[],
            split: Cow::Borrowed(&rule.split),
        });
        splitting.collect()
    }
}

impl HttpRoute {
    /// Its versions and weights. One that stands there twice, with other headers, has the sum.
    #[must_use]
    pub fn split(&self) -> Split {
        let mut weights: Vec<(String, u32)> = Vec::with_capacity(self.destinations.len());
        for to in &self.destinations {
            match weights.last_mut().filter(|(version, _)| *version == to.version) {
                // Cannot saturate: the sum of a route's weights is within u32.
                Some((_, weight)) => *weight = weight.saturating_add(to.weight),
                None => weights.push((to.version.clone(), to.weight)),
            }
        }
        Split { choosing: self.choosing, dead: self.dead, weights }
    }
}
