//! One rule, ready to be followed: which requests, which version.
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use canary_common::{
    abi::{FlowKey, LEAF},
    build::{Tree, name_hash, tree},
    choose,
    host::image::addr as words,
};
use hyper::{StatusCode, body::Bytes, header::HeaderValue};

use super::{
    cors::Cors,
    fault::Fault,
    headers::CompiledOperations,
    matching::{CompiledMatch, Matched, matches},
    mirror::Mirror,
    portion::Portion,
    retry::Retry,
    substitution::Substitution,
    telemetry::{MIRROR, Tally},
    view::RequestView,
};
use crate::state::{
    Choosing, DeadVersion, HeaderChanges, HttpAction, HttpRoute, HttpRule, Redirect, Service, ServiceId, Side,
};

/// A rule that is compiled. Shared between tables as long as it stays the same.
#[derive(Debug)]
pub(super) struct Rule {
    /// What it was made of, to tell whether the next one is the same.
    source: HttpRule,
    effective: Vec<u32>,
    matches: Vec<CompiledMatch>,
    pub(super) action: Action,
    pub(super) headers: Changes,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) fault: Option<Fault>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors: Option<Cors>,
}

/// Changes of headers on the way there and back.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) request: CompiledOperations,
    pub(super) response: CompiledOperations,
}

#[derive(Debug)]
pub(super) enum Action {
    Route(Route),
    Redirect { status: StatusCode, to: Redirect, tally: Arc<Tally> },
    Answer { status: StatusCode, body: Bytes, tally: Arc<Tally> },
}

/// How a request's version is chosen.
#[derive(Debug)]
pub(super) struct Route {
    choosing: Choosing,
    salt: u64,
    /// Nothing weighs anything: then nobody is chosen.
    tree: Option<Tree>,
    draws: AtomicU64,
    pub(super) destinations: Vec<Destination>,
    pub(super) uri: Option<String>,
    pub(super) uri_regex: Option<Substitution>,
    pub(super) authority: Option<HeaderValue>,
}

#[derive(Debug)]
pub(super) struct Destination {
    /// Key of the service's versions.
    pub(super) version: String,
    /// Where its share ends in a keyed choice.
    end: u32,
    pub(super) headers: Changes,
    /// Its requests are answered with an error.
    pub(super) refused: bool,
    pub(super) tally: Arc<Tally>,
    weight: u32,
    /// What was counted before it had this weight.
    before: u64,
}

/// Who asks: what keyed choices are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) frontend: SocketAddr,
}

impl Rule {
    /// Compiles a rule of a service. `tally` has the counts of a version, or of none, with what to add to the rule's name.
    pub(super) fn new(
        id: &ServiceId,
        service: &Service,
        source: &HttpRule,
        mut tally: impl FnMut(&str, &str) -> Arc<Tally>,
    ) -> Self {
        let timeout = source.timeout_ms.map(Duration::from_millis);
        let mirrors = source.policy.mirrors.iter().enumerate().map(|(index, it)| {
            let portion = Portion::new(it.percentage, id, &source.name, &format!("mirror {index}"));
            Mirror::new(it.version.clone(), portion, timeout, tally(MIRROR, &it.version))
        });
        let mirrors = mirrors.collect();
        let mut tally = |version: &str| tally("", version);
        let cors = source.policy.cors.as_ref().map(|cors| Cors::new(cors, tally("")));
        let effective = effective(service, source);
        let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let action = match &source.action {
            HttpAction::Route(route) => Action::Route(Route::new(id, route, &effective, tally)),
            HttpAction::Redirect(to) => Action::Redirect { status: status(to.code), to: to.clone(), tally: tally("") },
            HttpAction::Answer { status: code, body } => {
                Action::Answer { status: status(*code), body: body.clone().into(), tally: tally("") }
            }
        };
        Self {
            matches: source.matches.iter().map(CompiledMatch::new).collect(),
            action,
            headers: Changes::new(&source.headers),
            timeout,
            mirrors,
            cors,
            fault: source.policy.fault.as_ref().map(|fault| Fault::new(fault, id, &source.name)),
            retry: source.policy.retries.as_ref().map(Retry::new),
            effective,
            source: source.clone(),
        }
    }

    /// Whether it was made of the same: then its counter goes on.
    pub(super) fn same(&self, service: &Service, source: &HttpRule) -> bool {
        self.source == *source && self.effective == effective(service, source)
    }

    /// Names what it counts: what is added to its own name, and versions, or none.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (versions, none) = match &self.action {
            Action::Route(route) => (route.destinations.as_slice(), None),
            Action::Redirect { .. } | Action::Answer { .. } => (&[][..], Some("")),
        };
        let none = none.or(self.cors.as_ref().map(|_| ""));
        let own = versions.iter().map(|it| it.version.as_str()).chain(none).map(|version| ("", version));
        own.chain(self.mirrors.iter().map(|mirror| (MIRROR, mirror.version())))
    }

    /// Where it sends, if it does.
    pub(super) fn route(&self) -> Option<&Route> {
        match &self.action {
            Action::Route(route) => Some(route),
            Action::Redirect { .. } | Action::Answer { .. } => None,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    /// Versions with the weights that are followed, and the requests that they got since; `None`: it has none.
    pub(super) fn split(&self) -> Option<Vec<(String, u32, u64)>> {
        let Action::Route(route) = &self.action else { return None };
        let mut versions: Vec<(String, u32, u64)> = Vec::with_capacity(route.destinations.len());
        for one in &route.destinations {
            // A version with different headers for some of its requests has one counter.
            if let Some((_, weight, _)) = versions.iter_mut().find(|(version, ..)| *version == one.version) {
                *weight = weight.saturating_add(one.weight);
            } else {
                let requests = one.tally.begun().saturating_sub(one.before);
                versions.push((one.version.clone(), one.weight, requests));
            }
        }
        Some(versions)
    }

    pub(super) fn matches(&self, request: &RequestView<'_>) -> Option<Matched> {
        matches(&self.matches, request)
    }
}

/// Weights as they are followed: with `spill`, versions without endpoints leave theirs to the others. The same as in the
/// kernel's tables.
fn effective(service: &Service, rule: &HttpRule) -> Vec<u32> {
    let HttpAction::Route(route) = &rule.action else { return Vec::new() };
    let dead = |name: &str| service.versions.get(name).is_none_or(|version| version.endpoints.is_empty());
    let all_dead = route.destinations.iter().all(|it| it.weight == 0 || dead(&it.version));
    let spills = route.dead == DeadVersion::Spill && !all_dead;
    route.destinations.iter().map(|it| if spills && dead(&it.version) { 0 } else { it.weight }).collect()
}

impl Changes {
    fn new(of: &HeaderChanges) -> Self {
        Self {
            request: CompiledOperations::new(&of.request, Side::Request),
            response: CompiledOperations::new(&of.response, Side::Response),
        }
    }
}

impl Route {
    fn new(id: &ServiceId, of: &HttpRoute, weights: &[u32], mut tally: impl FnMut(&str) -> Arc<Tally>) -> Self {
        // As the kernel's splits have it: a client keeps its version when a rule moves here.
        let salt = name_hash(id.to_string().as_bytes());
        let mut end = 0_u32;
        let destinations = of.destinations.iter().zip(weights).map(|(it, weight)| {
            end = end.saturating_add(*weight);
            let tally = tally(&it.version);
            let (version, headers, before) = (it.version.clone(), Changes::new(&it.headers), tally.begun());
            Destination { version, end, headers, refused: it.refused, weight: *weight, tally, before }
        });
        Self {
            choosing: of.choosing,
            salt,
            tree: tree(weights, salt),
            draws: AtomicU64::new(0),
            destinations: destinations.collect(),
            uri: of.rewrite.uri.clone(),
            uri_regex: of.rewrite.uri_regex.as_ref().and_then(Substitution::new),
            authority: of.rewrite.authority.as_ref().and_then(|authority| authority.parse().ok()),
        }
    }

    /// The destination of the next request.
    pub(super) fn choose(&self, ends: Ends) -> Option<&Destination> {
        let tree = self.tree.as_ref()?;
        let hash = match self.choosing {
            Choosing::Exact => {
                let draw = self.draws.fetch_add(1, Relaxed);
                return self.destinations.get(descend(tree, draw)?);
            }
            Choosing::KeyedClient => choose::hash_client(&words(ends.client.ip()), self.salt),
            Choosing::KeyedFlow => choose::hash_flow(&ends.flow(), self.salt),
        };
        let total = self.destinations.last()?.end;
        let point = choose::scale(choose::version_half(hash), total);
        self.destinations.iter().find(|it| point < it.end)
    }
}

impl Ends {
    fn flow(&self) -> FlowKey {
        FlowKey {
            src_be: words(self.client.ip()),
            dst_be: words(self.frontend.ip()),
            src_port_be: self.client.port().to_be(),
            dst_port_be: self.frontend.port().to_be(),
            protocol: canary_common::packet::TCP,
            pad: 0,
            zero: 0,
        }
    }
}

/// Goes down a tree of two-way splits: the item that the n-th draw gets.
pub(super) fn descend(tree: &Tree, n: u64) -> Option<usize> {
    let (mut at, mut n) = (tree.root, n);
    while at & LEAF == 0 {
        (at, n) = choose::two_way(tree.nodes.get(at as usize)?, n);
    }
    Some((at & !LEAF) as usize)
}
