//! `trafficPolicy`: the policies of the versions that the proxy sends requests to, and who is told that nobody follows his.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    index::Backend,
    refusal::Refused,
    select,
    service::Names,
    versions::{Identity, Resolver},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{DestinationRule, Host, IN_KERNEL, Subset, merged_policy, unenforced},
    state::{Balancing, TrafficPolicy},
};

/// Who follows the policies of which `DestinationRules`, by their ids.
#[derive(Debug, Default)]
pub(super) struct Uses {
    proxy: BTreeSet<String>,
    /// Ports of services that the kernel balances by itself, and their names.
    kernel: BTreeSet<(String, u16, String)>,
}

/// The policies of a version, and the rules that have them.
struct Found<'a> {
    policy: Option<TrafficPolicy>,
    rules: Vec<&'a DestinationRule>,
}

/// The policies of a service that the proxy balances, by the names of its versions.
pub(super) fn policies(
    resolver: &mut Resolver<'_, '_>,
    names: &Names,
    uses: &mut Uses,
) -> Result<BTreeMap<String, TrafficPolicy>, Refused> {
    let mut policies = BTreeMap::new();
    let sticky = matches!(resolver.service, Backend::Service(service) if service.client_affinity);
    let identities: Vec<Identity> = resolver.versions.keys().cloned().collect();
    for identity in &identities {
        let Found { policy, rules } = find(resolver, identity)?;
        for rule in rules {
            uses.proxy.insert(rule.meta.id());
            resolver.rules.insert(rule.meta.id(), rule);
        }
        let policy = if sticky { Some(by_client(policy.unwrap_or_default())) } else { policy };
        if let (Some(policy), Some(name)) = (policy, names.get(identity)) {
            policies.insert(name.clone(), policy);
        }
    }
    Ok(policies)
}

/// A policy that names no endpoint of its own choice, for a Service whose clients stay with theirs.
fn by_client(policy: TrafficPolicy) -> TrafficPolicy {
    match policy.balancing {
        Balancing::LeastRequest => TrafficPolicy { balancing: Balancing::by_client(), ..policy },
        _ => policy,
    }
}

/// Notes whose policies the kernel leaves out. A rule that is not valid says nothing here.
pub(super) fn left_out(resolver: &Resolver<'_, '_>, uses: &mut Uses) {
    let host = resolver.service.hosts().first().map_or("", Host::as_str);
    for identity in resolver.versions.keys() {
        let rules = find(resolver, identity).map(|found| found.rules).unwrap_or_default();
        uses.kernel.extend(rules.iter().map(|rule| (rule.meta.id(), resolver.port.number, host.to_owned())));
    }
}

fn find<'a>(resolver: &Resolver<'a, '_>, identity: &Identity) -> Result<Found<'a>, Refused> {
    let mut found = Found { policy: None, rules: Vec::new() };
    let (host, port, subset) = match identity {
        Identity::Destination { host, port, subset } => (host, *port, subset.as_deref()),
        Identity::Service => match resolver.service.hosts().first() {
            Some(host) => (host, resolver.port.number, None),
            None => return Ok(found),
        },
        Identity::Nowhere => return Ok(found),
    };
    let client = resolver.client();
    let namespace = resolver.index.backend(host, client).map(|backend| backend.meta().key.namespace.as_str());
    let rules = select::destination_rules(resolver.index, host, client, namespace)?;
    // Of several rules for one host the oldest that has a policy.
    let of_host = rules.iter().find_map(|rule| Some((*rule, rule.policy.as_ref()?)));
    let of_subset = subset.and_then(|name| select::subset(&rules, name));
    let of_subset = of_subset.and_then(|(rule, Subset { policy, .. })| Some((rule, policy.as_ref()?)));
    found.policy = merged_policy(of_host.map(|it| it.1), of_subset.map(|it| it.1), port);
    found.rules.extend([of_host, of_subset].into_iter().flatten().map(|(rule, _)| rule));
    Ok(found)
}

impl Uses {
    /// Those of another service port as well.
    pub(super) fn add(&mut self, mut more: Self) {
        self.proxy.append(&mut more.proxy);
        self.kernel.append(&mut more.kernel);
    }

    /// Says which policies nobody follows, or not for every service.
    pub(super) fn report<'a>(
        &self,
        rules: impl Iterator<Item = &'a DestinationRule>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let mut note = |rule: &DestinationRule, field: &str, (message, remedy): (String, &str)| {
            diagnostics.push(rule.meta.diagnostic(Severity::Warning, "CAN0005", field, message, remedy));
        };
        for rule in rules {
            let id = rule.meta.id();
            for field in rule.proxied() {
                if !self.proxy.contains(&id) {
                    note(rule, field, unenforced(field, None));
                    continue;
                }
                for (_, port, host) in self.kernel.iter().filter(|(rule, ..)| *rule == id) {
                    note(rule, field, unenforced(field, Some((*port, host, IN_KERNEL))));
                }
            }
        }
    }
}
