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
    matching::Matched,
    rule::{Destination, Rule, descend},
    telemetry::{CountKey, Counts, RequestSplit, Requests, Tally},
    view::RequestView,
};
use crate::state::{self, HttpAction, HttpDestination, HttpRoute, HttpRule, Protocol, RequestMatch, ServiceId, State};

/// Services by virtual address.
#[derive(Debug, Default)]
pub struct RouteTable {
    frontends: HashMap<(IpAddr, u16), Arc<Service>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    counts: Counts,
    /// Requests whose service is not known.
    lost: Arc<Tally>,
    log: Option<AccessLog>,
}

/// One service, ready to be asked.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    rules: Vec<Arc<Rule>>,
    versions: HashMap<String, Arc<Endpoints>>,
    /// Requests that no rule matched.
    pub(super) unmatched: Arc<Tally>,
    /// Its rules do not need the request (any more): new connections do not come here.
    pub(super) leaving: bool,
}

/// The endpoints of a version, in turn.
#[derive(Debug)]
pub(super) struct Endpoints {
    addresses: Vec<(SocketAddr, u32)>,
    /// `None`: all weigh the same.
    tree: Option<Tree>,
    turns: AtomicU64,
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
        let frontends = state.frontends.iter().filter(|(frontend, _)| frontend.protocol == Protocol::Tcp);
        let frontends = frontends
            .filter_map(|(frontend, id)| Some(((frontend.addr, frontend.port), services.get(id)?.clone())))
            .collect();
        if let Some(previous) = previous {
            let there = |key: &CountKey| {
                let service = state.services.get(&key.service);
                service.is_some_and(|it| key.version.is_empty() || it.versions.contains_key(&key.version))
            };
            counts.keep(&previous.counts, there);
        }
        let lost = previous.map(|it| it.lost.clone()).unwrap_or_default();
        Self { frontends, services, counts, lost, log: previous.and_then(|it| it.log.clone()) }
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
            counts: self.counts.snapshot(),
            lost: self.lost.read(),
            splits: self.services.values().flat_map(|service| service.splits()).collect(),
            unlogged: self.log.as_ref().map_or(0, AccessLog::dropped),
        }
    }

    /// Counts requests whose service is not known.
    pub(super) const fn lost(&self) -> &Arc<Tally> {
        &self.lost
    }

    /// Where requests are logged.
    pub(super) const fn log(&self) -> Option<&AccessLog> {
        self.log.as_ref()
    }

    /// The service behind a virtual address.
    pub(super) fn service(&self, frontend: SocketAddr) -> Option<&Arc<Service>> {
        self.frontends.get(&(frontend.ip().to_canonical(), frontend.port()))
    }
}

impl Service {
    fn new(id: &ServiceId, of: &state::Service, previous: Option<&RouteTable>, counts: &mut Counts) -> Self {
        let before = previous.and_then(|table| table.services.get(id));
        let mut tally = |rule: &str, version: &str| {
            let key = CountKey { service: id.clone(), rule: rule.into(), version: version.into() };
            counts.tally(previous.map(|table| &table.counts), key)
        };
        let plain;
        let sources: &[HttpRule] = if let Some(http) = &of.http {
            &http.rules
        } else {
            plain = of.rules.iter().map(for_requests).collect::<Vec<_>>();
            &plain
        };
        // Each is taken over once: rules that say the same have counters of their own.
        let mut known: Vec<Arc<Rule>> = before.map(|it| it.rules.clone()).unwrap_or_default();
        let rules = sources.iter().map(|source| {
            if let Some(at) = known.iter().position(|rule| rule.same(of, source)) {
                let rule = known.remove(at);
                for version in rule.counted() {
                    tally(&source.name, version);
                }
                return rule;
            }
            Arc::new(Rule::new(id, of, source, |version| tally(&source.name, version)))
        });
        let rules = rules.collect();
        let versions = of.versions.iter().map(|(name, version)| {
            let known = before.and_then(|it| it.versions.get(name)).filter(|it| it.same(version));
            (name.clone(), known.cloned().unwrap_or_else(|| Arc::new(Endpoints::new(id, name, version))))
        });
        let (id, versions) = (id.clone(), versions.collect());
        Self { id, rules, versions, unmatched: tally("", ""), leaving: of.http.is_none() }
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
        let all = self.rules.iter().enumerate().filter(|_| !self.leaving);
        all.filter_map(|(rule, of)| Some(RequestSplit { service: self.id.clone(), rule, versions: of.split()? }))
    }

    /// Endpoints of a version.
    pub(super) fn version(&self, name: &str) -> Option<&Endpoints> {
        self.versions.get(name).map(Arc::as_ref)
    }
}

/// A rule for connections, for the requests of those that are open when a service's rules stop to need the request.
fn for_requests(rule: &state::Rule) -> HttpRule {
    let destinations = rule.split.weights.iter().map(|(version, weight)| HttpDestination {
        version: version.clone(),
        weight: *weight,
        headers: state::HeaderChanges::default(),
    });
    let matches = if rule.sources.is_empty() {
        Vec::new()
    } else {
        vec![RequestMatch { sources: rule.sources.clone(), ..RequestMatch::default() }]
    };
    HttpRule {
        name: rule.name.clone(),
        matches,
        action: HttpAction::Route(HttpRoute {
            choosing: rule.split.choosing,
            dead: rule.split.dead,
            destinations: destinations.collect(),
            rewrite: state::Rewrite::default(),
        }),
        headers: state::HeaderChanges::default(),
        timeout_ms: None,
    }
}

impl Endpoints {
    fn new(id: &ServiceId, name: &str, of: &state::Version) -> Self {
        let addresses: Vec<(SocketAddr, u32)> = of.endpoints.iter().map(|(addr, weight)| (*addr, *weight)).collect();
        let weights: Vec<u32> = addresses.iter().map(|(_, weight)| *weight).collect();
        let even = weights.windows(2).all(|pair| pair.first() == pair.last());
        let tree = if even { None } else { tree(&weights, name_hash(format!("{id}\0{name}").as_bytes())) };
        Self { addresses, tree, turns: AtomicU64::new(0) }
    }

    fn same(&self, of: &state::Version) -> bool {
        self.addresses.iter().map(|(addr, weight)| (addr, weight)).eq(&of.endpoints)
    }

    /// The endpoint whose turn it is.
    pub(super) fn next(&self) -> Option<SocketAddr> {
        let turn = self.turns.fetch_add(1, Relaxed);
        let at = match &self.tree {
            Some(tree) => descend(tree, turn)?,
            None => usize::try_from(turn.checked_rem(self.addresses.len() as u64)?).ok()?,
        };
        self.addresses.get(at).map(|(addr, _)| *addr)
    }
}
