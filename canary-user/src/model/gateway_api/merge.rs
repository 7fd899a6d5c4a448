//! The rules of all routes of one Service or Gateway, as those of one VirtualService, in the order of their ranks.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    super::{
        delegate::Delegated,
        meta::Meta,
        names::{ExportTo, Host},
        request::{HttpAction, HttpMatch, HttpRule},
        service::Service,
        settings::Settings,
        virtual_service::{L4Match, L4Rule, SourceMatch, VirtualService},
    },
    GatewayRoute, RouteKind,
    attach::{Bound, RuleTo},
    gateway::{Gateway, ListenerProtocol},
    matches::Rank,
    rules::RouteRule,
};
use crate::state::{HeaderChanges, HttpPolicy, Protocol, RequestMatch, Text};

/// The routes of one Service as a VirtualService; `None` when there are none.
pub(super) fn of_service(service: &Service, mut bound: Vec<Bound<'_>>) -> Option<VirtualService> {
    // It is those for everybody that say how the Service is treated.
    let own = |it: &&Bound<'_>| it.consumer.is_none();
    let oldest = bound.iter().filter(own).map(|it| it.resolved.route).min_by_key(|it| it.age());
    let meta = oldest.or_else(|| bound.iter().map(|it| it.resolved.route).min_by_key(|it| it.age()))?.meta.clone();
    // The route of a namespace's own clients comes before those for everybody.
    bound.sort_by_key(|it| (it.consumer.is_none(), it.consumer));
    let several = bound.iter().any(|it| it.resolved.route.meta.id() != meta.id());
    let mut http = Vec::new();
    for group in bound.chunk_by(|a, b| a.consumer == b.consumer) {
        let mut rules = requests(group, &meta, several);
        // Whom a route of their namespace is for does not come to those for everybody.
        if group.iter().any(|it| it.consumer.is_some()) && !rules.is_empty() {
            let ports: BTreeSet<Option<u16>> = group.iter().map(|it| it.port).collect();
            let source = group.first().map(Bound::source).unwrap_or_default();
            for port in ports {
                let holds = |it: &HttpMatch| (it.port.is_none() || it.port == port) && it.needs().is_none();
                if !rules.iter().any(|rule| rule.matches.iter().any(holds)) {
                    rules.push(nothing_found(port, source.clone(), None));
                }
            }
        }
        http.extend(rules);
    }
    http.extend(for_all_others(service, &bound));
    Some(virtual_service(meta, service.host.clone(), http, &bound, several))
}

/// Where only routes of other namespaces are for a port, everybody else gets the Service itself.
fn for_all_others(service: &Service, bound: &[Bound<'_>]) -> Option<HttpRule> {
    let is_for = |port: u16, consumers: bool| {
        let mut of = bound.iter().filter(|it| it.consumer.is_some() == consumers && it.resolved.route.kind.is_http());
        of.any(|it| it.port.is_none_or(|it| it == port))
    };
    let ports = service.ports.iter().map(|it| it.number).filter(|port| is_for(*port, true) && !is_for(*port, false));
    let everybody = |port| HttpMatch { port: Some(port), ..HttpMatch::default() };
    let matches: Vec<HttpMatch> = ports.map(everybody).collect();
    (!matches.is_empty()).then(|| HttpRule::added("default", HttpAction::Plain, matches))
}

/// The routes of a Gateway as a VirtualService. What is for the name of one listener comes to no other one, and what no
/// route is for is not found.
pub(super) fn of_gateway(gateway: &Gateway, bound: &[Bound<'_>]) -> VirtualService {
    let several = true;
    let mut listeners: Vec<(Option<&Host>, u16)> = gateway
        .listeners
        .iter()
        .filter(|it| it.protocol == ListenerProtocol::Http)
        .map(|it| (it.hostname.as_ref(), it.port))
        .collect();
    listeners.sort_by_key(|(name, port)| (Reverse(name.map(precision)), *name, *port));
    listeners.dedup();
    let mut http = Vec::new();
    for (name, port) in listeners {
        let here = |it: &&Bound<'_>| it.listener.as_ref() == name && it.port == Some(port);
        let group: Vec<&Bound<'_>> = bound.iter().filter(here).collect();
        http.extend(requests(group, &gateway.meta, several));
        http.push(nothing_found(Some(port), SourceMatch::default(), name));
    }
    virtual_service(gateway.meta.clone(), gateway.host(), http, bound, several)
}

fn virtual_service(meta: Meta, host: Host, http: Vec<HttpRule>, bound: &[Bound<'_>], several: bool) -> VirtualService {
    let (mut tls, mut tcp) = (Vec::new(), Vec::new());
    for it in bound {
        let route = it.resolved.route;
        let list = match route.kind {
            RouteKind::Tls => &mut tls,
            RouteKind::Tcp | RouteKind::Udp => &mut tcp,
            RouteKind::Http | RouteKind::Grpc => continue,
        };
        let rules = route.rules.iter().zip(&it.resolved.to);
        list.extend(rules.map(|(rule, (to, _))| L4Rule {
            name: several.then(|| format!("{}.{}", route.meta.key.name, rule.position)),
            position: rule.position.clone(),
            delegated: delegated(route, rule, &meta),
            matches: vec![it.connections()],
            route: rule.leads(to.clone()),
        }));
    }
    // Of those for everybody the oldest says most.
    let mut routes: Vec<&GatewayRoute> =
        bound.iter().filter(|it| it.consumer.is_none()).map(|it| it.resolved.route).collect();
    routes.sort_by_key(|route| route.age());
    let mut settings = routes.iter().map(|route| route.settings).reduce(Settings::or).unwrap_or_default();
    if bound.iter().any(|it| it.resolved.route.kind == RouteKind::Udp) {
        settings.udp = Some(true);
    }
    let (written_hosts, hosts) = (vec![host.to_string()], vec![host]);
    let export_to = ExportTo::Public;
    VirtualService { meta, hosts, written_hosts, mesh: true, export_to, http, tls, tcp, settings }
}

/// A match of a rule, with what decides about its place.
struct Ranked<'a> {
    bound: &'a Bound<'a>,
    rule: &'a RouteRule,
    to: &'a RuleTo,
    name: Option<Host>,
    rank: Rank,
    request: RequestMatch,
}

/// The rules for requests of the routes of one group of clients, the most precise first.
fn requests<'b>(group: impl IntoIterator<Item = &'b Bound<'b>>, meta: &Meta, several: bool) -> Vec<HttpRule> {
    let mut ranked = Vec::new();
    for bound in group.into_iter().filter(|it| it.resolved.route.kind.is_http()) {
        let rules = bound.resolved.route.rules.iter().zip(&bound.resolved.to);
        for (rule, to) in rules {
            let names: Vec<Option<Host>> =
                if bound.names.is_empty() { vec![None] } else { bound.names.iter().cloned().map(Some).collect() };
            for name in names {
                for (rank, request) in &rule.matches {
                    let (rank, name, mut request) = (*rank, name.clone(), request.clone());
                    request.authority = name.as_ref().map(|name| Text::Host(name.as_str().to_owned()));
                    let everything = Text::PathPrefix(String::new());
                    if request.uri.as_ref() == Some(&everything) && !rule.replaces_prefix() {
                        request.uri = None; // Every path.
                    } else if request.uri.is_none() && rule.replaces_prefix() {
                        request.uri = Some(everything);
                    }
                    ranked.push(Ranked { bound, rule, to, name, rank, request });
                }
            }
        }
    }
    // Stable: among equals the older route comes first, and of one route the rule that is written first.
    ranked.sort_by_key(|it| (Reverse(it.name.as_ref().map(precision)), Reverse(it.rank)));
    let mut found: Vec<HttpRule> = Vec::new();
    for one in ranked.chunk_by(|a, b| std::ptr::eq(a.rule, b.rule)) {
        let Some(first) = one.first() else { continue };
        let route = first.bound.resolved.route;
        let matches = one.iter().map(|it| HttpMatch {
            source: it.bound.source(),
            port: it.bound.port,
            request: it.request.clone(),
        });
        let (to, mirrors) = first.to.clone();
        let mut rule = first.rule.http(matches.collect(), to, mirrors);
        let position = rule.position.clone();
        let plain = || if several { format!("{}.{position}", route.meta.key.name) } else { position };
        rule.name = Some(rule.name.take().unwrap_or_else(plain));
        rule.delegated = delegated(route, first.rule, meta);
        found.push(rule);
    }
    found
}

impl Bound<'_> {
    fn source(&self) -> SourceMatch {
        SourceMatch { namespace: self.consumer.map(str::to_owned), ..SourceMatch::default() }
    }

    fn connections(&self) -> L4Match {
        let protocol = if self.resolved.route.kind == RouteKind::Udp { Protocol::Udp } else { Protocol::Tcp };
        L4Match {
            source: self.source(),
            port: self.port,
            protocol: Some(protocol),
            destination_subnets: Vec::new(),
            sni_hosts: self.names.clone(),
        }
    }
}

/// Where a rule is written, if not in the object that stands for all.
fn delegated(route: &GatewayRoute, rule: &RouteRule, meta: &Meta) -> Option<Delegated> {
    (route.meta.id() != meta.id()).then(|| Delegated::beside(route.meta.clone(), format!("spec.{}", rule.position)))
}

/// 404: as the API has it, for whoever asks for what no rule is for.
fn nothing_found(port: Option<u16>, source: SourceMatch, listener: Option<&Host>) -> HttpRule {
    let authority = listener.map(|host| Text::Host(host.as_str().to_owned()));
    let request = RequestMatch { authority, ..RequestMatch::default() };
    let answer = HttpAction::Answer { status: 404, body: String::new() };
    HttpRule::added("404", answer, vec![HttpMatch { source, port, request }])
}

/// A full name first, then the longer one.
fn precision(host: &Host) -> (bool, usize) {
    (!host.is_wildcard(), host.as_str().len())
}

impl HttpRule {
    /// A rule that nobody has written.
    fn added(name: &str, action: HttpAction, matches: Vec<HttpMatch>) -> Self {
        Self {
            name: Some(name.to_owned()),
            position: String::new(),
            delegated: None,
            matches,
            cookies: BTreeMap::new(),
            action,
            headers: HeaderChanges::default(),
            timeout_ms: None,
            proxied: Vec::new(),
            not_followed: Vec::new(),
            policy: HttpPolicy::default(),
            mirrors: Vec::new(),
        }
    }
}
