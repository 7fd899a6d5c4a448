//! Which rules of a VirtualService apply to a port, for whom, and where the list ends.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    endpoints::family_of,
    index::Index,
    refusal::{Refusal, Refused},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        Application, Delegated, Host, HttpRule, L4Match, L4Rule, Meta, Port, Route, RoutePolicy, RulePolicy, Settings,
        SourceMatch, VirtualService,
    },
    state::{Family, RequestMatch},
};

mod http;
mod tls;

pub(super) use tls::ByName;

/// A rule that applies, before its destinations are looked up.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: String,
    /// Its path in the VirtualService, through a delegate if it stands there; empty for those that canary adds.
    pub(super) field: String,
    /// Client networks; `None` is everybody. Never an empty list.
    pub(super) sources: Option<Vec<IpNet>>,
    pub(super) goal: Goal<'a>,
    pub(super) settings: Settings,
    /// Where it is written, if not in the object in force itself.
    pub(super) delegated: Option<&'a Delegated>,
    /// For the proxy: the rule as it is written.
    pub(super) http: Option<&'a HttpRule>,
    /// For the proxy: alternatives; empty matches every request.
    pub(super) matches: Vec<RequestMatch>,
    /// For the proxy: the rule is for TLS connections.
    pub(super) tls: Option<ByName>,
}

impl<'a> Candidate<'a> {
    /// A rule for everybody that canary adds.
    pub(super) fn added(name: &str, goal: Goal<'a>) -> Self {
        let settings = Settings::default();
        let (name, field) = (name.into(), String::new());
        Self { name, field, sources: None, goal, settings, delegated: None, http: None, matches: Vec::new(), tls: None }
    }
}

impl<'a> Candidate<'a> {
    /// The delegate in which a field of the rule is written (`None`: the VirtualService itself), and its path there.
    pub(super) fn place(&self, field: &str) -> (Option<&'a Meta>, String) {
        match self.delegated {
            Some(it) if it.is_inherited(field) => {
                (None, format!("{}.{field}", it.root_field.as_deref().unwrap_or_default()))
            }
            Some(it) => (Some(&it.meta), format!("{}.{field}", it.field)),
            None => (None, format!("{}.{field}", self.field)),
        }
    }
}

/// The rules of a port, and who follows them.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// In order.
    pub(super) list: Vec<Candidate<'a>>,
    /// By the proxy, as they need the request or the server name; otherwise by the kernel, and the last one is for
    /// everybody.
    pub(super) proxied: bool,
}

/// Where a rule sends its flows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal<'a> {
    Route(&'a Route),
    /// To all endpoints of the service itself.
    Service,
    /// Nowhere: Istio answers 404 when no HTTP rule matches.
    Nowhere,
    /// To nobody: the proxy answers itself.
    Answer,
}

impl<'a> Goal<'a> {
    fn of(rule: &'a L4Rule) -> Self {
        rule.route.as_ref().map_or(Self::Nowhere, Self::Route)
    }
}

/// What the rules are looked at for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a, 'i> {
    pub(super) index: &'i Index<'a>,
    pub(super) route: &'a VirtualService,
    pub(super) policy: Option<&'a RoutePolicy>,
    /// All names of the service.
    pub(super) hosts: &'a [Host],
    pub(super) port: &'a Port,
    /// All ports of the service.
    pub(super) ports: &'a [Port],
    pub(super) family: Family,
    /// Virtual addresses of this family.
    pub(super) addresses: &'i [IpAddr],
    /// Whether a proxy listens in this family.
    pub(super) proxy: bool,
    /// Namespaces whose own routes do not count.
    pub(super) left_out: &'i BTreeSet<&'a str>,
}

impl<'a> Scope<'a, '_> {
    /// Those of `rules` that count.
    fn l4(&self, rules: &'a [L4Rule]) -> impl Iterator<Item = &'a L4Rule> {
        rules.iter().filter(|rule| !self.leaves_out(rule.matches.iter().map(|entry| &entry.source)))
    }

    /// Whether a rule for these clients is one of those that do not count.
    fn leaves_out<'s>(&self, mut sources: impl Iterator<Item = &'s SourceMatch>) -> bool {
        let is_left_out = |namespace: &String| self.left_out.contains(namespace.as_str());
        !self.left_out.is_empty() && sources.any(|it| it.namespace.as_ref().is_some_and(is_left_out))
    }
}

/// Whom a match holds for.
enum Who {
    Everybody,
    /// Nobody, when empty.
    Only(BTreeSet<IpNet>),
}

/// The rules that apply; `None` when the VirtualService has nothing for this port.
pub(super) fn candidates<'a>(
    scope: &Scope<'a, '_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<Candidates<'a>>, Refused> {
    let route = scope.route;
    if route.http.is_empty() && route.tls.is_empty() && route.tcp.is_empty() {
        return Ok(None); // Its delegates are not there, which has been said.
    }
    let Candidates { list: mut found, proxied } = match section(route, scope.port.application) {
        Some(Section::Http) => http::candidates(scope, diagnostics)?,
        Some(Section::Tls) => tls::candidates(scope)?,
        Some(Section::Tcp) => Candidates { list: l4(scope, &route.tcp)?, proxied: false },
        None => {
            // A port beside the one that the rules are for is nothing to talk about.
            if scope.ports.iter().all(|port| section(route, port.application).is_none()) {
                diagnostics.push(no_section(scope));
            }
            return Ok(None);
        }
    };
    // Not one rule for this port: as if there were no VirtualService.
    let Some(last) = found.last() else {
        return Ok(None);
    };
    // To requests that match no rule the proxy answers 404 itself.
    if last.sources.is_some() && !proxied {
        let http = section(route, scope.port.application) == Some(Section::Http);
        let (name, goal) = if http { ("unmatched", Goal::Nowhere) } else { ("default", Goal::Service) };
        if http {
            let message = "the last rule does not match everybody: other flows fail, as requests get 404 from Istio";
            let remedy = "add a rule without `match` at the end";
            diagnostics.push(route.meta.diagnostic(Severity::Warning, "CAN0308", &last.field, message, remedy));
        }
        found.push(Candidate::added(name, goal));
    }
    make_unique(&mut found);
    Ok(Some(Candidates { list: found, proxied }))
}

/// A list of rules in a VirtualService.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Http,
    Tls,
    Tcp,
}

/// The section that is for a port of this protocol.
fn section(route: &VirtualService, application: Application) -> Option<Section> {
    match application {
        Application::Http | Application::Http2 | Application::Sniffed if !route.http.is_empty() => Some(Section::Http),
        Application::Tls if !route.tls.is_empty() => Some(Section::Tls),
        Application::Udp if route.settings.udp != Some(true) => None,
        Application::Tcp | Application::Sniffed | Application::Udp if !route.tcp.is_empty() => Some(Section::Tcp),
        Application::Udp if !route.http.is_empty() => Some(Section::Http),
        _ => None,
    }
}

fn no_section(scope: &Scope<'_, '_>) -> Diagnostic {
    let route = scope.route;
    let sections = [("http", !route.http.is_empty()), ("tls", !route.tls.is_empty()), ("tcp", !route.tcp.is_empty())];
    let (section, _) = sections.iter().find(|(_, present)| *present).copied().unwrap_or(("http", true));
    let Port { name, number, application, .. } = scope.port;
    let message = format!(
        "`{section}` does not apply to port {number} (`{name}`) of {}, whose protocol is {}; it gets the plain service",
        scope.hosts.first().map_or("", Host::as_str),
        application.describe(),
    );
    let remedy = match application {
        Application::Udp => {
            "in Istio no VirtualService applies to UDP; the annotation `canary.io/udp: \"true\"` asks for it".to_owned()
        }
        _ => format!("name the port `{section}` or set its `appProtocol`, or move the rules to the section that fits"),
    };
    route.meta.diagnostic(Severity::Warning, "CAN0307", format!("spec.{section}"), message, remedy)
}

fn l4<'a>(scope: &Scope<'a, '_>, rules: &'a [L4Rule]) -> Result<Vec<Candidate<'a>>, Refused> {
    // Rules for some destination addresses are ranked by how precisely they name them; the others have rank 0.
    let mut found: Vec<(u8, Candidate<'a>)> = Vec::new();
    for rule in scope.l4(rules) {
        let name = rule.name.as_ref().unwrap_or(&rule.position);
        let field = format!("spec.{}", rule.position);
        let policy = rule_policy(scope, &[name]);
        let (rank, who) = l4_clients(scope, rule, &field)?;
        let sources = match narrow(who, policy, scope.family) {
            Who::Everybody => None,
            Who::Only(none) if none.is_empty() => continue,
            Who::Only(sources) => Some(merged(sources)),
        };
        let last = sources.is_none() && rank == 0;
        let settings = policy.map(|policy| policy.settings).unwrap_or_default();
        let (goal, delegated) = (Goal::of(rule), rule.delegated.as_ref());
        found.push((rank, Candidate { field, sources, settings, delegated, ..Candidate::added(name, goal) }));
        if last {
            break;
        }
    }
    for run in found.chunk_by_mut(|(a, _), (b, _)| (*a > 0) == (*b > 0)) {
        run.sort_by_key(|(rank, _)| Reverse(*rank));
    }
    let mut found: Vec<Candidate<'a>> = found.into_iter().map(|(_, candidate)| candidate).collect();
    // A subnet that holds for all of the service's addresses matches everybody.
    if let Some(end) = found.iter().position(|candidate| candidate.sources.is_none()) {
        found.truncate(end + 1);
    }
    Ok(found)
}

fn l4_clients(scope: &Scope<'_, '_>, rule: &L4Rule, field: &str) -> Result<(u8, Who), Refused> {
    if rule.matches.is_empty() {
        return Ok((0, Who::Everybody));
    }
    let mut rank = 0;
    let mut clients = BTreeSet::new();
    let mut needs_name = None;
    for (index, entry) in rule.matches.iter().enumerate() {
        let field = format!("{field}.match[{index}]");
        let Some(precision) = here(scope, entry, &field)? else {
            continue;
        };
        match workloads(scope, &entry.source) {
            Who::Only(none) if none.is_empty() => {}
            _ if !tls::is_for_any_name(scope, entry) => needs_name = needs_name.or(Some(format!("{field}.sniHosts"))),
            Who::Everybody => return Ok((precision, Who::Everybody)),
            Who::Only(sources) => {
                rank = rank.max(precision);
                clients.extend(sources);
            }
        }
    }
    if let Some(field) = needs_name {
        return Err(Refused::new(&scope.route.meta, field, Refusal::NeedsServerName));
    }
    Ok((rank, Who::Only(clients)))
}

/// How precisely an entry names the service's addresses; `None` when it is for another port, or not for the mesh.
fn here(scope: &Scope<'_, '_>, entry: &L4Match, field: &str) -> Result<Option<u8>, Refused> {
    let elsewhere = entry.port.is_some_and(|port| port != scope.port.number)
        || entry.protocol.is_some_and(|protocol| protocol != scope.port.protocol);
    if elsewhere || entry.source.gateways_mesh == Some(false) {
        return Ok(None);
    }
    precision(scope, entry, field)
}

/// How precisely `destinationSubnets` name the service's addresses: 0 without subnets, `None` when they do not hold.
fn precision(scope: &Scope<'_, '_>, entry: &L4Match, field: &str) -> Result<Option<u8>, Refused> {
    let subnets = &entry.destination_subnets;
    if subnets.is_empty() {
        return Ok(Some(0));
    }
    let longest = |address: &IpAddr| {
        let holding = subnets.iter().filter(|subnet| subnet.contains(address));
        // Plus one, so that even /0 counts as a subnet.
        holding.map(|subnet| subnet.prefix_len().saturating_add(1)).max()
    };
    let holds: Vec<Option<u8>> = scope.addresses.iter().map(longest).collect();
    if holds.iter().all(Option::is_none) {
        return Ok(None);
    }
    if let Some(lengths) = holds.into_iter().collect::<Option<Vec<u8>>>() {
        Ok(lengths.into_iter().min())
    } else {
        let field = format!("{field}.destinationSubnets");
        Err(Refused::new(&scope.route.meta, field, Refusal::SubnetsDivide))
    }
}

/// Client workloads, as the addresses of their Pods.
fn workloads(scope: &Scope<'_, '_>, source: &SourceMatch) -> Who {
    if source.labels.is_empty() && source.namespace.is_none() {
        return Who::Everybody;
    }
    let pods = scope.index.model.pods().values().filter(|pod| {
        // A node's address would stand for everything on the node.
        !pod.host_network
            && !pod.finished
            && source.namespace.as_ref().is_none_or(|namespace| *namespace == pod.meta.key.namespace)
            && crate::model::selects(&source.labels, pod.labels())
    });
    let addresses = pods.flat_map(|pod| &pod.addresses).filter(|address| family_of(**address) == scope.family);
    Who::Only(addresses.map(|address| IpNet::from(*address)).collect())
}

fn rule_policy<'a>(scope: &Scope<'a, '_>, names: &[&str]) -> Option<&'a RulePolicy> {
    scope.policy?.rules.iter().find(|rule| names.contains(&rule.name.as_str()))
}

/// Restricts a rule to the networks that its policy names.
fn narrow(who: Who, policy: Option<&RulePolicy>, family: Family) -> Who {
    let Some(policy) = policy.filter(|policy| !policy.sources.is_empty()) else {
        return who;
    };
    let allowed = policy.sources.iter().filter(|network| family_of(network.addr()) == family);
    match who {
        Who::Everybody => Who::Only(allowed.copied().collect()),
        Who::Only(mut sources) => {
            let allowed: Vec<_> = allowed.collect();
            sources.retain(|source| allowed.iter().any(|network| network.contains(source)));
            Who::Only(sources)
        }
    }
}

/// The same clients in as few networks as possible: each takes a place among the service's rules.
fn merged(sources: BTreeSet<IpNet>) -> Vec<IpNet> {
    IpNet::aggregate(&sources.into_iter().collect())
}

/// Two rules may have one name in a VirtualService; the later ones go by their position. One that is in several places has a
/// number from the second one on.
fn make_unique(candidates: &mut [Candidate<'_>]) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for candidate in candidates {
        let name = match (seen.get(&candidate.name), candidate.field.strip_prefix("spec.")) {
            (Some(field), Some(position)) if *field != candidate.field => position.to_owned(),
            (Some(field), None) if *field != candidate.field => format!("{} (added)", candidate.name),
            _ => candidate.name.clone(),
        };
        let numbered = (2..).map(|n| format!("{name} ({n})"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        // The numbers do not end.
        candidate.name = names.find(|name| !seen.contains_key(name)).unwrap_or(name);
        seen.insert(candidate.name.clone(), candidate.field.clone());
    }
}
