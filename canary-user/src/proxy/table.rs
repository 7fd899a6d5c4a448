//! What a request meets: services by their virtual addresses, with rules and endpoints, made of a [`State`].
//!
//! A table is never changed. The next one takes over from it what is the same, so that counters go on.
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use canary_common::build::{Tree, name_hash, tree};

use super::{
    access_log::{self, AccessLog},
    balance::Group,
    endpoint::{Held, Kind, Overflow, Picked},
    matching::Matched,
    rule::{Destination, Ends, Rule, descend},
    sni::ServerNames,
    telemetry::{CountKey, Counts, RequestSplit, Requests, Tally},
    view::RequestView,
};
use crate::state::{
    self, EndpointHttp, HttpAction, HttpDestination, HttpRoute, HttpRule, Protocol, RequestMatch, ServiceId, State,
    Tls, TlsMatch, TlsRule, TrafficPolicy,
};

/// Services by virtual address.
#[derive(Debug, Default)]
pub struct RouteTable {
    frontends: HashMap<(IpAddr, u16), Arc<Service>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    counts: Counts,
    /// Whether there is a service with rules for connections that are passed on.
    passes: bool,
    /// Requests whose service is not known.
    lost: Arc<Tally>,
    log: Option<AccessLog>,
}

/// How often an endpoint was ejected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ejections {
    /// The service.
    pub service: ServiceId,
    /// The version.
    pub version: String,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// So far.
    pub total: u64,
    /// It is ejected now.
    pub out: bool,
}

/// One service, ready to be asked.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    rules: Vec<Arc<Rule>>,
    /// Rules for connections that are passed on as they are.
    pub(super) tls: Option<ServerNames>,
    versions: HashMap<String, Arc<Endpoints>>,
    /// Requests that no rule matched.
    pub(super) unmatched: Arc<Tally>,
    /// Its rules do not need the request (any more): new connections do not come here.
    pub(super) leaving: bool,
    /// The kernel sends new connections here.
    followed: bool,
    /// What endpoints speak, if no policy says.
    pub(super) endpoint_http: EndpointHttp,
}

/// The endpoints of a version.
#[derive(Debug)]
pub(super) struct Endpoints {
    addresses: Vec<(SocketAddr, u32)>,
    turns: Turns,
    /// `None`: it has no policy, and its endpoints take turns.
    group: Option<Arc<Group>>,
}

/// Who is next, by weight.
#[derive(Debug)]
pub(super) struct Turns {
    of: usize,
    /// `None`: all weigh the same.
    tree: Option<Tree>,
    taken: AtomicU64,
}

impl RouteTable {
    /// The table of a state. Rules and versions that `previous` has too are taken over with their counters.
    #[must_use]
    pub fn build(state: &State, previous: Option<&Self>) -> Self {
        let mut counts = Counts::default();
        let services: BTreeMap<ServiceId, Arc<Service>> = state
            .services
            .iter()
            .filter(|(id, _)| id.protocol == Protocol::Tcp)
            .map(|(id, service)| (id.clone(), Arc::new(Service::new(id, service, previous, &mut counts))))
            .collect();
        // Of two at one address the one that reaches all endpoints, which sockets get, comes last.
        let frontends = state.frontends.iter().chain(&state.for_sockets);
        let frontends = frontends
            .filter(|(frontend, _)| frontend.protocol == Protocol::Tcp)
            .filter_map(|(frontend, id)| Some(((frontend.addr, frontend.port), services.get(id)?.clone())))
            .collect();
        if let Some(previous) = previous {
            let there = |key: &CountKey| {
                let service = state.services.get(&key.service);
                service.is_some_and(|it| key.version.is_empty() || it.versions.contains_key(&key.version))
            };
            counts.keep(&previous.counts, there);
        }
        let passes = services.values().any(|service| service.tls.is_some());
        let lost = previous.map(|it| it.lost.clone()).unwrap_or_default();
        Self { frontends, services, counts, passes, lost, log: previous.and_then(|it| it.log.clone()) }
    }

    /// An empty table; its requests, and those of the tables after it, are logged.
    #[must_use]
    pub fn logging(log: Option<AccessLog>) -> Self {
        Self { log, ..Self::default() }
    }

    /// What became of requests so far. Goes on from table to table.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests {
            counts: self.counts.snapshot().filter(|(key, _)| self.asked(key)).collect(),
            lost: self.lost.read(),
            splits: self.services.values().flat_map(|service| service.splits()).collect(),
            unlogged: self.log.as_ref().map_or(0, AccessLog::dropped),
        }
    }

    /// All counts, also of connections that are passed on.
    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<(CountKey, super::telemetry::Count)> {
        self.counts.snapshot().collect()
    }

    /// Whether a count is of requests: those of connections that are passed on are not.
    fn asked(&self, key: &CountKey) -> bool {
        self.services.get(&key.service).is_some_and(|service| service.has_requests())
    }

    /// Counts requests whose service is not known.
    pub(super) const fn lost(&self) -> &Arc<Tally> {
        &self.lost
    }

    /// Where requests are logged.
    pub(super) const fn log(&self) -> Option<&AccessLog> {
        self.log.as_ref()
    }

    /// Whether there is a service with rules for connections that are passed on.
    pub(super) fn passes(&self) -> bool {
        self.passes
    }

    /// Ejections of the endpoints whose version has outlier detection.
    #[must_use]
    pub fn ejections(&self) -> Vec<Ejections> {
        let versions = self.services.iter().flat_map(|(id, it)| it.versions.iter().map(move |it| (id, it)));
        let mut found: Vec<Ejections> = versions
            .filter_map(|(id, (version, endpoints))| Some((id, version, endpoints.group.as_ref()?)))
            .flat_map(|(service, version, group)| {
                group.ejections().map(|(endpoint, total, out)| Ejections {
                    service: service.clone(),
                    version: version.clone(),
                    endpoint,
                    total,
                    out,
                })
            })
            .collect();
        found.sort();
        found
    }

    /// The service behind a virtual address.
    pub(super) fn service(&self, frontend: SocketAddr) -> Option<&Arc<Service>> {
        self.frontends.get(&(frontend.ip().to_canonical(), frontend.port()))
    }
}

impl Service {
    fn new(id: &ServiceId, of: &state::Service, previous: Option<&RouteTable>, counts: &mut Counts) -> Self {
        let before = previous.and_then(|table| table.services.get(id));
        let mut tally = |rule: &str, more: &str, version: &str| {
            let key = CountKey { service: id.clone(), rule: format!("{rule}{more}"), version: version.into() };
            counts.tally(previous.map(|table| &table.counts), key)
        };
        let plain;
        let sources: &[HttpRule] = if let Some(http) = &of.http {
            &http.rules
        } else if of.tls.is_some() {
            &[] // The kernel's rule leads here.
        } else {
            plain = of.rules.iter().map(for_requests).collect::<Vec<_>>();
            &plain
        };
        // Each is taken over once: rules that say the same have counters of their own.
        let mut known: Vec<Arc<Rule>> = before.map(|it| it.all().cloned().collect()).unwrap_or_default();
        let mut take_over = |source: &HttpRule| {
            if let Some(at) = known.iter().position(|rule| rule.same(of, source)) {
                let rule = known.remove(at);
                for (more, version) in rule.counted() {
                    tally(&source.name, more, version);
                }
                return rule;
            }
            Arc::new(Rule::new(id, of, source, |more, version| tally(&source.name, more, version)))
        };
        let rules = sources.iter().map(&mut take_over).collect();
        let leaving = of.tls.is_none() && of.http.is_none() && before.is_some_and(|it| it.tls.is_some());
        let wanted = if leaving { Some(for_any_name(&of.rules)) } else { of.tls.clone() };
        let tls = wanted
            .as_ref()
            .map(|tls| ServerNames::new(tls, |rule| take_over(&for_connections(&rule.name, vec![], &rule.split))));
        let versions = of.versions.iter().map(|(name, version)| {
            let policy = of.http.as_ref().and_then(|http| http.policies.get(name));
            let before = before.and_then(|it| it.versions.get(name));
            let same = before.filter(|it| it.same(version, policy)).cloned();
            let changed = || Arc::new(Endpoints::new(id, name, version, policy, before.map(Arc::as_ref)));
            (name.clone(), same.unwrap_or_else(changed))
        });
        let endpoint_http = of.http.as_ref().map(|http| http.endpoint_http).unwrap_or_default();
        let (id, versions, unmatched) = (id.clone(), versions.collect(), tally("", "", ""));
        Self {
            id,
            rules,
            tls,
            versions,
            unmatched,
            leaving: of.http.is_none(),
            followed: of.is_proxied(),
            endpoint_http,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().chain(self.tls.iter().flat_map(ServerNames::rules))
    }

    /// Whether it has rules for requests.
    pub(super) fn has_requests(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The first rule that matches.
    pub(super) fn rule(&self, request: &RequestView<'_>) -> Option<(&Arc<Rule>, Matched)> {
        self.rules.iter().find_map(|rule| Some((rule, rule.matches(request)?)))
    }

    /// A rule and a version of its choice, for the access log.
    pub(super) fn destination(&self, rule: &Rule, to: &Destination) -> access_log::Destination {
        let cluster = format!("outbound|{}|{}|{}", self.id.port, to.version, self.id.host());
        access_log::Destination { rule: rule.name().to_owned(), cluster }
    }

    fn splits(&self) -> impl Iterator<Item = RequestSplit> {
        let all = self.all().enumerate().filter(|_| self.followed);
        all.filter_map(|(rule, of)| Some(RequestSplit { service: self.id.clone(), rule, versions: of.split()? }))
    }

    /// Endpoints of a version.
    pub(super) fn version(&self, name: &str) -> Option<&Endpoints> {
        self.versions.get(name).map(Arc::as_ref)
    }
}

/// A rule of the kernel, for the requests of those that are open when a service's rules stop to need the request.
fn for_requests(rule: &state::Rule) -> HttpRule {
    let everybody = rule.sources.is_empty();
    let matches = RequestMatch { sources: rule.sources.clone(), ..RequestMatch::default() };
    for_connections(&rule.name, if everybody { vec![] } else { vec![matches] }, &rule.split)
}

/// The rules of the kernel, for connections on their way here when a service's rules stop to need the server name.
fn for_any_name(rules: &[state::Rule]) -> Tls {
    let rules = rules.iter().map(|rule| TlsRule {
        name: rule.name.clone(),
        matches: vec![TlsMatch { sources: rule.sources.clone(), names: vec![] }],
        rest: false,
        split: rule.split.clone(),
    });
    Tls { rules: rules.collect() }
}

/// A rule for connections as one for requests, which changes nothing of them.
fn for_connections(name: &str, matches: Vec<RequestMatch>, split: &state::Split) -> HttpRule {
    let destinations = split.weights.iter().map(|(version, weight)| HttpDestination {
        version: version.clone(),
        weight: *weight,
        headers: state::HeaderChanges::default(),
        refused: false,
    });
    HttpRule {
        name: name.to_owned(),
        matches,
        action: HttpAction::Route(HttpRoute {
            choosing: split.choosing,
            dead: split.dead,
            destinations: destinations.collect(),
            rewrite: state::Rewrite::default(),
        }),
        headers: state::HeaderChanges::default(),
        timeout_ms: None,
        policy: state::HttpPolicy::default(),
    }
}

impl Endpoints {
    fn new(
        id: &ServiceId,
        name: &str,
        of: &state::Version,
        policy: Option<&TrafficPolicy>,
        previous: Option<&Self>,
    ) -> Self {
        let addresses: Vec<(SocketAddr, u32)> = of.endpoints.iter().map(|(addr, weight)| (*addr, *weight)).collect();
        let weights: Vec<u32> = addresses.iter().map(|(_, weight)| *weight).collect();
        let even = weights.windows(2).all(|pair| pair.first() == pair.last());
        let tree = if even { None } else { tree(&weights, name_hash(format!("{id}\0{name}").as_bytes())) };
        let group = policy.map(|policy| {
            let before = previous.and_then(|it| it.group.as_deref());
            Arc::new(Group::new(format!("{id} {name}"), policy, &addresses, before))
        });
        Self { turns: Turns { of: addresses.len(), tree, taken: AtomicU64::new(0) }, addresses, group }
    }

    fn same(&self, of: &state::Version, policy: Option<&TrafficPolicy>) -> bool {
        self.addresses.iter().map(|(addr, weight)| (addr, weight)).eq(&of.endpoints)
            && match (&self.group, policy) {
                (None, None) => true,
                (Some(group), Some(policy)) => group.follows(policy),
                _ => false,
            }
    }

    /// The endpoint of a request, of which is asked only what a policy wants to know.
    pub(super) fn pick<'a>(&self, asked: impl FnOnce() -> (RequestView<'a>, Ends)) -> Option<Picked> {
        match &self.group {
            None => self.in_turn(),
            Some(group) => group.pick(&self.turns, Some(asked())),
        }
    }

    /// The endpoint of a request of which nothing is asked.
    pub(super) fn next(&self) -> Option<Picked> {
        match &self.group {
            None => self.in_turn(),
            Some(group) => group.pick(&self.turns, None),
        }
    }

    /// The right to a retry, until it is dropped; an error when the policy allows no more of them.
    pub(super) fn retry(&self) -> Result<Option<Held>, Overflow> {
        let Some(group) = &self.group else { return Ok(None) };
        group.usage.take(Kind::Retry).map(Some).ok_or(Overflow)
    }

    fn in_turn(&self) -> Option<Picked> {
        self.addresses.get(self.turns.next()?).map(|(address, _)| Picked::plain(*address))
    }
}

impl Turns {
    /// Place of the one whose turn it is.
    pub(super) fn next(&self) -> Option<usize> {
        let turn = self.taken.fetch_add(1, Relaxed);
        match &self.tree {
            Some(tree) => descend(tree, turn),
            None => usize::try_from(turn.checked_rem(self.of as u64)?).ok(),
        }
    }
}
