//! `tls[]`: followed in the kernel as long as every name of the service is treated alike, else by the proxy; and what
//! the proxy does with TLS on a port whose protocol is not declared.
use super::{Candidate, Candidates, Goal, Scope, Who, here, l4, merged, narrow, rule_policy, workloads};
use crate::{
    compile::refusal::Refused,
    model::{Host, L4Match},
    state::TlsMatch,
};

/// The connections that a rule of the proxy takes.
#[derive(Debug)]
pub(in crate::compile) struct ByName {
    /// Alternatives.
    pub(in crate::compile) matches: Vec<TlsMatch>,
    /// Also clients that no match of another rule is for.
    pub(in crate::compile) rest: bool,
}

/// The rules that apply, and who follows them.
pub(super) fn candidates<'a>(scope: &Scope<'a, '_>) -> Result<Candidates<'a>, Refused> {
    if scope.proxy
        && let Some(list) = by_name(scope)?
    {
        return Ok(Candidates { list, proxied: true });
    }
    Ok(Candidates { list: l4(scope, &scope.route.tls)?, proxied: false })
}

/// What becomes of TLS connections to a port that declares nothing, while the proxy follows its rules for requests. In
/// Istio, too, they are none of `tls[]`, which is for ports that are declared to be TLS.
pub(super) fn undeclared<'a>(scope: &Scope<'a, '_>) -> Result<Vec<Candidate<'a>>, Refused> {
    let mut found = l4(scope, &scope.route.tcp)?;
    let for_all = found.last().is_some_and(|last| last.sources.is_none());
    for candidate in &mut found {
        let sources = candidate.sources.take().unwrap_or_default();
        let matches = vec![TlsMatch { sources, names: Vec::new() }];
        candidate.tls = Some(ByName { matches, rest: false });
    }
    if !for_all {
        found.push(plain(Vec::new()));
    }
    Ok(found)
}

/// The rules as those of server names; `None` when no name is treated in a way of its own.
fn by_name<'a>(scope: &Scope<'a, '_>) -> Result<Option<Vec<Candidate<'a>>>, Refused> {
    let mut found = Vec::new();
    let (mut needed, mut for_everybody) = (false, false);
    for rule in scope.l4(&scope.route.tls) {
        let name = rule.name.as_ref().unwrap_or(&rule.position);
        let field = format!("spec.{}", rule.position);
        let policy = rule_policy(scope, &[name]);
        let mut matches = Vec::with_capacity(rule.matches.len());
        for (at, entry) in rule.matches.iter().enumerate() {
            if here(scope, entry, &format!("{field}.match[{at}]"))?.is_none() {
                continue;
            }
            let sources = match narrow(workloads(scope, &entry.source), policy, scope.family) {
                Who::Everybody => Vec::new(),
                Who::Only(none) if none.is_empty() => continue,
                Who::Only(sources) => merged(sources),
            };
            needed |= !is_for_any_name(scope, entry);
            for_everybody |= sources.is_empty();
            let names = entry.sni_hosts.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
            matches.push(TlsMatch { sources, names });
        }
        if !matches.is_empty() {
            let settings = policy.map(|policy| policy.settings).unwrap_or_default();
            let tls = Some(ByName { matches, rest: false });
            let (goal, delegated) = (Goal::of(rule), rule.delegated.as_ref());
            found.push(Candidate { field, settings, delegated, tls, ..Candidate::added(name, goal) });
        }
    }
    if !needed {
        return Ok(None);
    }
    // Hosts of a ServiceEntry that the VirtualService is not for are plain services of their own.
    let others = scope.hosts.iter().filter(|host| !scope.route.hosts.iter().any(|claimed| claimed.covers(host)));
    let others: Vec<String> = others.map(|host| host.as_str().to_owned()).collect();
    if !for_everybody || !others.is_empty() {
        found.push(plain(others));
    }
    Ok(Some(found))
}

/// Whoever connects to the service's address is taken to ask for one of its names.
pub(super) fn is_for_any_name(scope: &Scope<'_, '_>, entry: &L4Match) -> bool {
    let covers = |host: &Host| entry.sni_hosts.iter().any(|sni| sni.covers(host));
    entry.sni_hosts.is_empty() || scope.hosts.iter().all(covers)
}

/// The service itself, for these names and for clients that the rules say nothing about.
fn plain<'a>(names: Vec<String>) -> Candidate<'a> {
    let matches = if names.is_empty() { Vec::new() } else { vec![TlsMatch { sources: Vec::new(), names }] };
    Candidate { tls: Some(ByName { matches, rest: true }), ..Candidate::added("default", Goal::Service) }
}
