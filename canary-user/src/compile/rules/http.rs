//! `http[]`: followed in the kernel as long as no rule needs the request, else by the proxy, all of them.
use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Candidate, Candidates, Goal, Scope, Who, merged, narrow, rule_policy, tls, workloads};
use crate::{
    compile::refusal::{Refusal, Refused},
    diagnostic::{Diagnostic, Severity},
    model::{
        Application, COOKIES, Delegated, Host, HttpAction, HttpMatch, HttpRule, IN_KERNEL, Key, Meta, RulePolicy,
        unenforced,
    },
    state::{Protocol, RequestMatch},
};

/// The rules that apply, each of them only as far as it can be reached.
pub(super) fn candidates<'a>(
    scope: &Scope<'a, '_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Candidates<'a>, Refused> {
    let found = match in_kernel(scope) {
        Err(refused) if scope.proxy && refused.refusal.is_for_the_proxy() => {
            Candidates { list: by_proxy(scope)?, proxied: true }
        }
        found => Candidates { list: found?, proxied: false },
    };
    for candidate in &found.list {
        let Some(rule) = candidate.http else { continue };
        let mut warn = |name: &str, why| {
            let (delegate, field) = candidate.place(name);
            diagnostics.push(not_enforced(scope, delegate.unwrap_or(&scope.route.meta), &field, why));
        };
        if found.proxied {
            rule.not_followed.iter().for_each(|it| warn(&it.field, it.why));
        } else {
            rule.proxied.iter().for_each(|field| warn(field, IN_KERNEL));
        }
    }
    Ok(found)
}

fn not_enforced(scope: &Scope<'_, '_>, meta: &Meta, field: &str, why: &str) -> Diagnostic {
    let host = scope.hosts.first().map_or("", Host::as_str);
    let (message, remedy) = unenforced(field, Some((scope.port.number, host, why)));
    meta.diagnostic(Severity::Warning, "CAN0005", field, message, remedy)
}

/// A rule by name and place, with its policy.
struct Named<'a> {
    rule: &'a HttpRule,
    name: String,
    field: String,
    policy: Option<&'a RulePolicy>,
}

impl<'a> Named<'a> {
    fn candidate(self, sources: Option<Vec<IpNet>>, goal: Goal<'a>, matches: Vec<RequestMatch>) -> Candidate<'a> {
        let settings = self.policy.map(|policy| policy.settings).unwrap_or_default();
        let (http, delegated) = (Some(self.rule), self.rule.delegated.as_ref());
        let field = self.field;
        Candidate { field, sources, settings, delegated, http, matches, ..Candidate::added(&self.name, goal) }
    }
}

fn named<'a>(scope: &Scope<'a, '_>) -> impl Iterator<Item = Named<'a>> {
    let rules = scope.route.http.iter();
    let rules = rules.filter(|rule| !scope.leaves_out(rule.matches.iter().map(|entry| &entry.source)));
    rules.map(|rule| {
        let name = rule.name.as_ref().unwrap_or(&rule.position).clone();
        let policy = rule_policy(scope, &rule.names().collect::<Vec<_>>());
        let field = if rule.position.is_empty() { String::new() } else { format!("spec.{}", rule.position) };
        Named { rule, name, field, policy }
    })
}

/// The delegate of a rule is there and not valid.
fn broken(scope: &Scope<'_, '_>, field: &str, delegate: &Key) -> Refused {
    let all = scope.index.model.broken().iter();
    let broken = all.map(|it| &it.meta).find(|meta| meta.is_kind("VirtualService") && meta.key == *delegate);
    let object = format!("VirtualService {}/{}", delegate.namespace, delegate.name);
    let (meta, field) = broken.map_or((&scope.route.meta, field), |meta| (meta, ""));
    Refused::new(meta, field, Refusal::Invalid { object })
}

/// The rules as those of connections, the last of which may be for everybody.
fn in_kernel<'a>(scope: &Scope<'a, '_>) -> Result<Vec<Candidate<'a>>, Refused> {
    let mut found = Vec::new();
    for named in named(scope) {
        let sources = match narrow(clients(scope, named.rule, &named.field)?, named.policy, scope.family) {
            Who::Everybody => None,
            Who::Only(none) if none.is_empty() => continue,
            Who::Only(sources) => Some(merged(sources)),
        };
        let goal = match &named.rule.action {
            HttpAction::Route { .. } if named.rule.has_filters() && scope.proxy && can_be_proxied(scope) => {
                Err(("filters", true))
            }
            HttpAction::Route { route, .. } => Ok(Goal::Route(route)),
            HttpAction::Plain => Ok(Goal::Service),
            HttpAction::Redirect(_) => Err(("redirect", can_be_proxied(scope))),
            HttpAction::Answer { .. } => Err(("directResponse", can_be_proxied(scope))),
            HttpAction::Delegate(key) => return Err(broken(scope, &named.field, key)),
        };
        let goal = goal.map_err(|(what, proxy)| {
            let (meta, field) = place(scope, named.rule, format!("{}.{what}", named.field));
            Refused::new(meta, field, Refusal::NeedsAnswer { what, proxy })
        })?;
        let last = sources.is_none();
        found.push(named.candidate(sources, goal, Vec::new()));
        if last {
            break; // What follows is never reached.
        }
    }
    Ok(found)
}

/// The rules as those of requests.
fn by_proxy<'a>(scope: &Scope<'a, '_>) -> Result<Vec<Candidate<'a>>, Refused> {
    let mut found = Vec::new();
    for named in named(scope) {
        let Some((matches, last)) = alternatives(scope, named.rule, named.policy) else { continue };
        let goal = match &named.rule.action {
            HttpAction::Route { route, .. } => Goal::Route(route),
            HttpAction::Plain => Goal::Service,
            HttpAction::Redirect(_) | HttpAction::Answer { .. } => Goal::Answer,
            HttpAction::Delegate(key) => return Err(broken(scope, &named.field, key)),
        };
        found.push(named.candidate(None, goal, matches));
        if last {
            break;
        }
    }
    if !found.is_empty() && scope.port.application == Application::Sniffed {
        found.extend(tls::undeclared(scope)?);
    }
    Ok(found)
}

/// The object and the field in which it is said that something is needed: of a rule of a delegate, where it is referred
/// to.
fn place<'a>(scope: &Scope<'a, '_>, rule: &'a HttpRule, field: String) -> (&'a Meta, String) {
    let here = &scope.route.meta;
    match &rule.delegated {
        Some(Delegated { root_field: Some(root_field), .. }) => (here, format!("{root_field}.delegate")),
        Some(it) => (&it.meta, field),
        None if rule.position.is_empty() => (here, "spec".to_owned()), // Nobody has written it.
        None => (here, field),
    }
}

/// The proxy speaks HTTP over TCP.
fn can_be_proxied(scope: &Scope<'_, '_>) -> bool {
    scope.port.protocol == Protocol::Tcp
}

/// Entries of `match` are alternatives. Only one that holds for everybody makes the request irrelevant.
fn clients<'a>(scope: &Scope<'a, '_>, rule: &'a HttpRule, field: &str) -> Result<Who, Refused> {
    let cookies = (!rule.cookies.is_empty()).then(|| (format!("metadata.annotations.{COOKIES}"), COOKIES));
    let mut clients = BTreeSet::new();
    let mut needs_request = None;
    if rule.matches.is_empty() {
        if cookies.is_none() {
            return Ok(Who::Everybody);
        }
        needs_request.clone_from(&cookies);
    }
    for (index, entry) in rule.matches.iter().enumerate() {
        let Some(who) = clients_of(scope, entry) else { continue };
        let what = entry.needs().map(|what| (format!("{field}.match[{index}].{what}"), what));
        match (who, what.or_else(|| cookies.clone())) {
            (Who::Only(none), _) if none.is_empty() => {}
            (_, Some(what)) => needs_request = needs_request.or(Some(what)),
            (Who::Everybody, None) => return Ok(Who::Everybody),
            (Who::Only(sources), None) => clients.extend(sources),
        }
    }
    if let Some((field, what)) = needs_request {
        let refusal = Refusal::NeedsRequest { what, proxy: can_be_proxied(scope) };
        let (meta, field) = place(scope, rule, field);
        return Err(Refused::new(meta, field, refusal));
    }
    Ok(Who::Only(clients))
}

/// Whom an entry is for, whatever they ask for; `None` when it is not for this port or not for the mesh.
fn clients_of(scope: &Scope<'_, '_>, entry: &HttpMatch) -> Option<Who> {
    if entry.port.is_some_and(|port| port != scope.port.number) {
        return None;
    }
    // With `gateways` only these are looked at; labels and namespace are not.
    match entry.source.gateways_mesh {
        Some(true) => Some(Who::Everybody),
        Some(false) => None,
        None => Some(workloads(scope, &entry.source)),
    }
}

/// The requests that a rule is for, as alternatives, and whether that is every request; `None` when it is for nobody.
fn alternatives(
    scope: &Scope<'_, '_>,
    rule: &HttpRule,
    policy: Option<&RulePolicy>,
) -> Option<(Vec<RequestMatch>, bool)> {
    let every = RequestMatch::default();
    let mut written: Vec<(Who, &RequestMatch, bool)> = Vec::new();
    if rule.matches.is_empty() {
        written.push((Who::Everybody, &every, true));
    }
    let entries = rule.matches.iter();
    written
        .extend(entries.filter_map(|entry| Some((clients_of(scope, entry)?, &entry.request, entry.needs().is_none()))));
    // What is replaced is what the first alternative that holds has matched.
    let replaces = match &rule.action {
        HttpAction::Route { rewrite, .. } => rewrite.uri.is_some(),
        HttpAction::Redirect(to) => to.prefix.is_some(),
        HttpAction::Plain | HttpAction::Answer { .. } | HttpAction::Delegate(_) => false,
    };
    let mut found = Vec::with_capacity(written.len());
    for (who, request, any) in written {
        let sources = match narrow(who, policy, scope.family) {
            Who::Everybody => Vec::new(),
            Who::Only(none) if none.is_empty() => continue,
            Who::Only(sources) => merged(sources),
        };
        let all = any && sources.is_empty() && rule.cookies.is_empty();
        if all && !(replaces && (*request != every || !found.is_empty())) {
            return Some((Vec::new(), true));
        }
        found.push(RequestMatch { sources, cookies: rule.cookies.clone(), ..request.clone() });
        if all {
            return Some((found, true));
        }
    }
    (!found.is_empty()).then_some((found, false))
}
