//! One port of one service in one family: its rules, splits and versions.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Decider, RuleReport, ServiceReport,
    index::{Backend, Index},
    limits, proxy,
    reach::Reach,
    refusal::{Refusal, Refused},
    rules::{self, ByName, Candidate, Candidates, Goal, Scope},
    select,
    traffic::{self, Uses},
    versions::{Identity, Resolver},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        Address, Application, Backends, Concerns, DRAIN_SECONDS, Host, Port, Resolution, RoutePolicy, Settings,
        VirtualService,
    },
    state::{EndpointHttp, Family, Http, Rule, Service, Split, Tls, TlsRule, Version},
};

/// What is compiled: one port of a service in one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a, 'i> {
    pub(super) index: &'i Index<'a>,
    pub(super) backend: Backend<'a>,
    pub(super) port: &'a Port,
    pub(super) family: Family,
    /// Which endpoints count.
    pub(super) reach: Reach,
    /// Virtual addresses of this family.
    pub(super) addresses: &'i [IpAddr],
    /// Addresses of the proxy in this family.
    pub(super) proxy: &'i [SocketAddr],
}

/// Compiles a service port, without the routes of the namespaces `left_out`. `report` says who decided, also when it is
/// refused.
pub(super) fn build<'a>(
    target: Target<'a, '_>,
    left_out: &BTreeSet<&'a str>,
    report: &mut ServiceReport,
    uses: &mut Uses,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Service, Refused> {
    let Target { index, backend, port, family, reach, addresses, proxy } = target;
    if let Some(broken) = index.broken_endpoints(backend) {
        return Err(Refused::new(&broken.meta, "", Refusal::Invalid { object: broken.meta.id() }));
    }
    check_names(backend)?;
    let governing = govern(index, backend, port, report, diagnostics)?;
    let mut settings = backend.settings();
    let mut candidates = None;
    if let Some((route, policy)) = governing {
        let (hosts, ports, proxy) = (backend.hosts(), backend.ports(), !proxy.is_empty());
        let scope = Scope { index, route, policy, hosts, port, ports, family, addresses, proxy, left_out };
        candidates = rules::candidates(&scope, diagnostics)?;
        let drain = Settings { drain_seconds: policy.and_then(|policy| policy.drain_seconds), ..Settings::default() };
        settings = drain.or(route.settings).or(settings);
    }
    let plain = || Candidates { list: vec![Candidate::added("default", Goal::Service)], proxied: false };
    let Candidates { list: candidates, proxied } = candidates.unwrap_or_else(plain);
    let meta = governing.map_or(backend.meta(), |(route, _)| &route.meta);
    let count = |candidate: &Candidate<'_>| candidate.sources.as_ref().map_or(1, Vec::len);
    let found: usize = candidates.iter().map(count).sum();
    if found > limits::RULES_PER_SERVICE && !proxied {
        return Err(Refused::new(meta, "spec", Refusal::TooManyRules { found }));
    }
    let mut resolver = Resolver {
        index,
        service: backend,
        port,
        family,
        reach,
        route: governing.map(|(route, _)| &route.meta),
        written: None,
        versions: BTreeMap::new(),
        refused: BTreeSet::new(),
        rules: BTreeMap::new(),
        diagnostics: Vec::new(),
    };
    let shares = resolve(&mut resolver, &candidates);
    let mirrors = if proxied { proxy::mirrors(&mut resolver, &candidates) } else { Ok(vec![vec![]; candidates.len()]) };
    let names = resolver.names();
    let policies = if proxied { traffic::policies(&mut resolver, &names, uses) } else { Ok(BTreeMap::new()) };
    report.destination_rules = resolver.rules.values().map(|rule| Decider::new(&rule.meta)).collect();
    diagnostics.append(&mut resolver.diagnostics);
    let (shares, mirrors) = (shares?, mirrors?);
    let endpoint_http = match port.application {
        Application::Http => EndpointHttp::Http1,
        Application::Http2 => EndpointHttp::Http2,
        _ => EndpointHttp::AsClient,
    };
    let mut http = Http { rules: Vec::new(), policies: policies?, endpoint_http };
    let (mut rules, mut tls) = (Vec::new(), Tls::default());
    if !proxied {
        traffic::left_out(&resolver, uses);
    }
    for ((candidate, shares), mirrors) in candidates.into_iter().zip(shares).zip(mirrors) {
        let weights = weigh(&shares, &names).map_err(|refusal| {
            let (delegate, field) = candidate.place("route");
            Refused::new(delegate.unwrap_or(meta), field, refusal)
        })?;
        report.rules.push(told(meta, &candidate, &shares, &names));
        let of_rule = candidate.settings.or(settings);
        if let Some(written) = candidate.http.filter(|_| proxied) {
            http.rules.extend(proxy::rule(written, candidate, of_rule, port.number, (&shares, &mirrors), &names));
            continue;
        }
        let (choosing, dead) = (of_rule.choosing.unwrap_or_default(), of_rule.dead.unwrap_or_default());
        let split = Split { choosing, dead, weights };
        if let Some(ByName { matches, rest }) = candidate.tls {
            tls.rules.push(TlsRule { name: candidate.name, matches, rest, split });
            continue;
        }
        rules.push(Rule { name: candidate.name, sources: candidate.sources.unwrap_or_default(), split });
    }
    let crowded = resolver.versions.iter().find(|(_, endpoints)| endpoints.len() > limits::ENDPOINTS_PER_VERSION);
    if let Some((identity, endpoints)) = crowded {
        let version = names.get(identity).cloned().unwrap_or_default();
        return Err(Refused::new(backend.meta(), "", Refusal::TooManyEndpoints { version, found: endpoints.len() }));
    }
    let drain_seconds = settings.drain_seconds.unwrap_or(DRAIN_SECONDS);
    let versions = resolver.versions.into_iter().filter_map(|(identity, endpoints)| {
        Some((names.get(&identity)?.clone(), Version { endpoints, drain_seconds }))
    });
    let versions = versions.collect();
    if !proxied {
        return Ok(Service { rules, versions, http: None, tls: None });
    }
    let (http, tls) = ((!http.rules.is_empty()).then_some(http), (!tls.rules.is_empty()).then_some(tls));
    Ok(proxy::service((http, tls), versions, proxy))
}

/// Where a rule is written.
fn told(meta: &crate::model::Meta, candidate: &Candidate<'_>, shares: &[Share], names: &Names) -> RuleReport {
    let destinations =
        shares.iter().filter_map(|share| Some((names.get(&share.version)?.clone(), share.field.clone())));
    let destinations = destinations.filter(|(_, field)| !field.is_empty()).collect();
    let (rule, field) = (candidate.name.clone(), candidate.field.clone());
    let origin = candidate.delegated.map_or_else(|| meta.origin_of(&field), |it| it.meta.origin_of(&it.field));
    RuleReport { rule, field, origin, destinations }
}

/// Endpoints that have names are not ours to resolve, and a part of a version is not the version.
pub(super) fn check_names(backend: Backend<'_>) -> Result<(), Refused> {
    let Backend::Entry(entry) = backend else {
        return Ok(());
    };
    let dns = matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    match &entry.backends {
        Backends::Inline(list) => {
            let name = list.iter().position(|workload| matches!(workload.address, Address::Other(_)));
            // DNS without endpoints means the host itself.
            let field = match name {
                Some(index) => format!("spec.endpoints[{index}].address"),
                None if dns && list.is_empty() => "spec.resolution".into(),
                None => return Ok(()),
            };
            Err(Refused::new(&entry.meta, field, Refusal::NeedsNames))
        }
        Backends::Selected(_) => Ok(()),
    }
}

type Governing<'a> = (&'a VirtualService, Option<&'a RoutePolicy>);

/// Finds the VirtualService in force and its `RoutePolicy`, and reports the others.
fn govern<'a>(
    index: &Index<'a>,
    backend: Backend<'a>,
    port: &Port,
    report: &mut ServiceReport,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<Governing<'a>>, Refused> {
    let namespace = &backend.meta().key.namespace;
    let claims = select::virtual_service(index, backend.hosts(), namespace);
    let name = backend.hosts().first().map_or("", Host::as_str);
    for hidden in claims.hidden {
        let message = format!(
            "not visible in namespace `{namespace}` of `{name}`: canary stands before the service and cannot tell clients by namespace"
        );
        diagnostics.push(hidden.meta.diagnostic(
            Severity::Warning,
            "CAN0314",
            "spec.exportTo",
            message,
            "export it to that namespace",
        ));
    }
    if let Some(broken) = claims.broken {
        // Whatever it says, it says nothing about UDP, unless it asks for that.
        let udp = matches!(broken.concerns, Concerns::Routes { udp: true, .. });
        if port.application == Application::Udp && !udp {
            return Ok(None);
        }
        report.virtual_service = Some(Decider::new(&broken.meta));
        return Err(Refused::new(&broken.meta, "", Refusal::Invalid { object: broken.meta.id() }));
    }
    let Some((route, _)) = claims.winner else {
        return Ok(None);
    };
    for loser in claims.losers {
        let message =
            format!("{} is for host `{name}` too and is in force: rules for the mesh are not merged", route.meta.id());
        let remedy = "put the rules into one VirtualService";
        diagnostics.push(loser.meta.diagnostic(Severity::Error, "IST0109", "spec.hosts", message, remedy));
    }
    report.virtual_service = Some(Decider::new(&route.meta));
    let policy = find_policy(index, route, diagnostics)?;
    let rules = route.tls.iter().chain(&route.tcp).map(|rule| rule.delegated.as_ref());
    let delegates = route.http.iter().map(|rule| rule.delegated.as_ref()).chain(rules).flatten();
    report.delegates = delegates.map(|it| Decider::new(&it.meta)).collect();
    report.delegates.sort_by(|a, b| a.object.cmp(&b.object));
    report.delegates.dedup();
    report.route_policy = policy.map(|policy| Decider::new(&policy.meta));
    Ok(Some((route, policy)))
}

fn find_policy<'a>(
    index: &Index<'a>,
    route: &VirtualService,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<&'a RoutePolicy>, Refused> {
    if !route.meta.is_kind("VirtualService") {
        return Ok(None);
    }
    let broken = index
        .model
        .broken()
        .iter()
        .find(|broken| matches!(&broken.concerns, Concerns::Policy(target) if *target == route.meta.key));
    if let Some(broken) = broken {
        // Without it a rule for a few networks would be a rule for everybody.
        return Err(Refused::new(&broken.meta, "", Refusal::Invalid { object: broken.meta.id() }));
    }
    let mut policies: Vec<_> = index.model.policies().filter(|policy| policy.target == route.meta.key).collect();
    policies.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    let mut policies = policies.into_iter();
    let Some(policy) = policies.next() else {
        return Ok(None);
    };
    for other in policies {
        let message =
            format!("{} is for the same VirtualService and is older: this one is not in force", policy.meta.id());
        diagnostics.push(other.meta.diagnostic(
            Severity::Error,
            "CAN0312",
            "spec.targetRef",
            message,
            "put the rules into one",
        ));
    }
    for (position, rule) in policy.rules.iter().enumerate() {
        if !route.has_rule(&rule.name) {
            let message = format!("{} has no rule `{}`", route.meta.id(), rule.name);
            let remedy = "use the `name` of a rule, or its position, such as `http[0]`";
            let field = format!("spec.rules[{position}].name");
            diagnostics.push(policy.meta.diagnostic(Severity::Error, "IST0101", field, message, remedy));
        }
    }
    Ok(Some(policy))
}

/// What versions are called.
pub(super) type Names = BTreeMap<Identity, String>;

/// One destination's part of a split.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) version: Identity,
    pub(super) weight: u32,
    /// Path of the destination in the VirtualService.
    field: String,
    /// It may not be used, or is not there: the proxy answers 500, as the Gateway API has it.
    pub(super) refused: bool,
}

fn resolve<'a>(resolver: &mut Resolver<'a, '_>, candidates: &[Candidate<'a>]) -> Result<Vec<Vec<Share>>, Refused> {
    let mut all = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let mut shares = Vec::new();
        let all_of_it = |version| Share { version, weight: 1, field: String::new(), refused: false };
        match candidate.goal {
            Goal::Service => shares.push(all_of_it(resolver.own())),
            Goal::Nowhere => shares.push(all_of_it(resolver.nowhere())),
            Goal::Answer => {}
            Goal::Route(route) => {
                for (index, (destination, weight)) in route.destinations().enumerate() {
                    let (delegate, path) = candidate.place(&route.destination(index));
                    resolver.written = delegate;
                    let version = resolver.destination(destination, &path)?;
                    let field = format!("{}.{}", candidate.field, route.entry(index));
                    let refused = resolver.refused.contains(&version);
                    shares.push(Share { version, weight, field, refused });
                }
            }
        }
        all.push(shares);
    }
    Ok(all)
}

/// Adds the shares of each version up. A version without a share is left out of the split.
fn weigh(shares: &[Share], names: &Names) -> Result<Vec<(String, u32)>, Refusal> {
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    for share in shares.iter().filter(|share| share.weight > 0) {
        let Some(name) = names.get(&share.version) else {
            continue;
        };
        let weight = weights.entry(name).or_default();
        // Cannot saturate: the sum of a route's weights is within u32.
        *weight = weight.saturating_add(share.weight);
    }
    if weights.len() > limits::VERSIONS_PER_SPLIT {
        return Err(Refusal::TooManyVersions { found: weights.len() });
    }
    Ok(weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect())
}
