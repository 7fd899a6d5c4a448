//! Which rule a request would meet, and why none before it. Nothing is sent, and nothing is drawn.
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{
    matching::{CompiledMatch, Matched},
    rule::{Action, Ends, Rule},
    target,
    view::RequestView,
};
use crate::state::{Choosing, Frontend, HttpAction, HttpRule, Protocol, RequestMatch, Service, ServiceId, State, Text};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No service answers there.
    NoService,
    /// No rule of the service needs the request: the kernel splits its connections.
    Kernel,
    /// No rule matches: 404.
    Unmatched,
    /// The rule sends it to a version.
    Versions(Choice),
    /// The rule sends the client elsewhere. `None`: what it puts together is no address, 400.
    Redirect {
        /// Status.
        status: u16,
        /// Where.
        location: Option<String>,
    },
    /// The rule answers.
    Answer {
        /// Status.
        status: u16,
    },
}

/// The versions of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How one is chosen.
    pub choosing: Choosing,
    /// Name, weight as it is followed, endpoints; in order of names.
    pub versions: Vec<(String, u32, Vec<SocketAddr>)>,
    /// The version that this client has, whatever it asks for.
    pub certain: Option<String>,
}

impl Choice {
    /// Whether a request may get this version.
    #[must_use]
    pub fn may_be(&self, name: &str, weight: u32) -> bool {
        weight > 0 && self.certain.as_ref().is_none_or(|certain| certain == name)
    }
}

/// All that there is to say about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The service.
    pub service: Option<ServiceId>,
    /// Index of the rule that it meets.
    pub rule: Option<usize>,
    /// Why each rule before that one does not match.
    pub passed: Vec<String>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// Explains a request of `client` to a virtual address.
#[must_use]
pub fn explain(state: &State, client: SocketAddr, frontend: SocketAddr, request: &RequestView<'_>) -> Explained {
    let at = Frontend { addr: frontend.ip(), port: frontend.port(), protocol: Protocol::Tcp };
    let found = state.for_socket(&at).and_then(|id| Some((id, state.services.get(id)?)));
    let Some((id, service)) = found else {
        return Explained { service: None, rule: None, passed: vec![], outcome: Outcome::NoService };
    };
    let explained = |rule, passed, outcome| Explained { service: Some(id.clone()), rule, passed, outcome };
    let Some(http) = &service.http else { return explained(None, vec![], Outcome::Kernel) };
    let mut passed = Vec::new();
    for (index, source) in http.rules.iter().enumerate() {
        let rule = Rule::new(id, service, source, |_, _| Arc::default());
        if let Some(matched) = rule.matches(request) {
            let outcome = outcome(service, source, &rule, Ends { client, frontend }, (request, matched));
            return explained(Some(index), passed, outcome);
        }
        passed.push(unmet(source, request));
    }
    explained(None, passed, Outcome::Unmatched)
}

fn outcome(
    service: &Service,
    source: &HttpRule,
    rule: &Rule,
    ends: Ends,
    (request, matched): (&RequestView<'_>, Matched),
) -> Outcome {
    match (&rule.action, &source.action) {
        (Action::Redirect { status, to, .. }, _) => {
            let location = target::location(to, request, matched);
            let location = location.and_then(|it| it.to_str().ok().map(str::to_owned));
            Outcome::Redirect { status: status.as_u16(), location }
        }
        (Action::Route(route), HttpAction::Route(written)) => {
            let endpoints = |name: &str| {
                let version = service.versions.get(name);
                version.map(|it| it.endpoints.keys().copied().collect()).unwrap_or_default()
            };
            let versions = rule.split().unwrap_or_default().into_iter();
            let versions = versions.map(|(name, weight, _)| {
                let endpoints = endpoints(&name);
                (name, weight, endpoints)
            });
            // The port of the next connection is not known, nor how many requests come before this one.
            let certain = (written.choosing == Choosing::KeyedClient).then(|| route.choose(ends)).flatten();
            let certain = certain.map(|to| to.version.clone());
            Outcome::Versions(Choice { choosing: written.choosing, versions: versions.collect(), certain })
        }
        (Action::Route(_) | Action::Answer { .. }, _) => {
            let status = if let Action::Answer { status, .. } = &rule.action { status.as_u16() } else { 500 };
            Outcome::Answer { status }
        }
    }
}

/// Why a rule does not match: what of each of its alternatives does not hold.
fn unmet(rule: &HttpRule, request: &RequestView<'_>) -> String {
    let several = rule.matches.len() > 1;
    let alternatives = rule.matches.iter().enumerate().filter_map(|(index, alternative)| {
        let part = parts(alternative).into_iter().find(|(_, part)| CompiledMatch::new(part).matches(request).is_none());
        let why = part.map(|(name, part)| name.said(&part, request))?;
        Some(if several { format!("alternative {}: {why}", index + 1) } else { why })
    });
    alternatives.collect::<Vec<_>>().join("; ")
}

/// What a part of an alternative tests.
enum Tests {
    Sources,
    Uri,
    Scheme,
    Method,
    Authority,
    Header(String),
    WithoutHeader(String),
    Query(String),
    Cookie(String),
}

/// An alternative taken apart: each part tests one thing, in the order in which rules do.
fn parts(of: &RequestMatch) -> Vec<(Tests, RequestMatch)> {
    let none = RequestMatch::default;
    let mut parts = vec![
        (Tests::Sources, RequestMatch { sources: of.sources.clone(), ..none() }),
        (Tests::Method, RequestMatch { method: of.method.clone(), ..none() }),
        (Tests::Scheme, RequestMatch { scheme: of.scheme.clone(), ..none() }),
        (Tests::Authority, RequestMatch { authority: of.authority.clone(), ..none() }),
    ];
    let one = |(name, test): (&String, &Text)| (name.clone(), BTreeMap::from([(name.clone(), test.clone())]));
    let each = |tests: &BTreeMap<String, Text>| tests.iter().map(one).collect::<Vec<_>>();
    parts.extend(
        each(&of.headers).into_iter().map(|(name, headers)| (Tests::Header(name), RequestMatch { headers, ..none() })),
    );
    parts.extend(
        each(&of.without_headers)
            .into_iter()
            .map(|(name, without_headers)| (Tests::WithoutHeader(name), RequestMatch { without_headers, ..none() })),
    );
    parts.extend(
        each(&of.query).into_iter().map(|(name, query)| (Tests::Query(name), RequestMatch { query, ..none() })),
    );
    parts.extend(
        each(&of.cookies).into_iter().map(|(name, cookies)| (Tests::Cookie(name), RequestMatch { cookies, ..none() })),
    );
    let uri = RequestMatch { uri: of.uri.clone(), ignore_uri_case: of.ignore_uri_case, ..none() };
    parts.push((Tests::Uri, uri));
    parts
}

impl Tests {
    /// The sentence about a part that does not hold.
    fn said(&self, part: &RequestMatch, request: &RequestView<'_>) -> String {
        let is = |what: &str, value: Option<&str>, test: Option<&Text>| match (value, test) {
            (None, Some(Text::Present) | None) => format!("{what} is missing"),
            (None, Some(test)) => format!("{what} is missing, not {}", wanted(test)),
            (Some(value), test) => format!("{what} is `{value}`, not {}", test.map(wanted).unwrap_or_default()),
        };
        match self {
            Self::Sources => {
                let nets: Vec<String> = part.sources.iter().map(ToString::to_string).collect();
                format!("client {} is not in {}", request.client, nets.join(", "))
            }
            Self::Uri => is("path", Some(request.path()), part.uri.as_ref()),
            Self::Scheme => is("scheme", Some(request.scheme), part.scheme.as_ref()),
            Self::Method => is("method", Some(request.method), part.method.as_ref()),
            Self::Authority => is("authority", Some(request.authority), part.authority.as_ref()),
            Self::Header(name) => {
                is(&format!("header `{name}`"), request.header(name).as_deref(), part.headers.get(name))
            }
            Self::Query(name) => is(&format!("query `{name}`"), request.query(name).as_deref(), part.query.get(name)),
            Self::Cookie(name) => {
                is(&format!("cookie `{name}`"), request.cookie(name).as_deref(), part.cookies.get(name))
            }
            Self::WithoutHeader(name) => {
                let test = part.without_headers.get(name).map(wanted).unwrap_or_default();
                format!("header `{name}` is `{}`, which must not be {test}", request.header(name).unwrap_or_default())
            }
        }
    }
}

fn wanted(of: &Text) -> String {
    match of {
        Text::Exact(text) => format!("exactly `{text}`"),
        Text::Prefix(text) => format!("with the prefix `{text}`"),
        Text::Regex(pattern) => format!("all of `{pattern}`"),
        Text::Present => "there".into(),
        Text::PathPrefix(path) if path.is_empty() => "a path".into(),
        Text::PathPrefix(path) => format!("`{path}` or a path below it"),
        Text::Host(host) => format!("of host `{host}`"),
    }
}
