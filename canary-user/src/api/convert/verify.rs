//! Whether what is wanted, what is programmed and what flows did are the same.
use super::{choosing, counts_of, not_enforced, share};
use crate::{
    agent::view::View,
    api::dto::{SplitV1, SplitVersionV1, VerifyV1, WithoutEndpointsV1},
    dataplane::Counters,
    proxy::telemetry::Requests,
    telemetry::deviation,
};

/// `GET /v1/verify`. What is in force may agree with itself and still not be what was written, or lead nowhere.
#[must_use]
pub fn verify(view: &View, counters: &Counters, requests: &Requests, mut differences: Vec<String>) -> VerifyV1 {
    if view.intended != view.in_force {
        let why = view.trouble.as_ref().map_or("", |trouble| trouble.message.as_str());
        differences.insert(0, format!("what is wanted is not in force: {why}"));
    }
    let mut splits = Vec::new();
    let mut without_endpoints = Vec::new();
    for (id, service) in &view.intended.services {
        let flows = service.splitting_flows().into_iter().map(|rule| (counts_of(counters, id, rule.index), rule));
        let proxied = if service.is_proxied() { service.splitting() } else { Vec::new() };
        let proxied = proxied.into_iter().map(|rule| (deviation::of_requests(requests, id, rule.index), rule));
        for (counts, rule) in flows.chain(proxied) {
            let judged = deviation::judge(&rule.split, &counts);
            splits.push(SplitV1 {
                service: id.to_string(),
                rule: rule.name.to_owned(),
                choosing: choosing(rule.split.choosing).into(),
                flows: judged.flows,
                unaccounted: judged.unaccounted,
                agrees: judged.programmed && judged.within,
                versions: judged
                    .versions
                    .iter()
                    .map(|one| SplitVersionV1 {
                        version: one.version.clone(),
                        intended: one.intended,
                        programmed: one.programmed,
                        expected: one.expected,
                        observed: one.observed,
                        deviation: one.deviation(),
                        bound: one.bound,
                    })
                    .collect(),
            });
            let empty = |name: &String| service.versions.get(name).is_none_or(|version| version.endpoints.is_empty());
            let starved = rule.split.weights.iter().filter(|(name, weight)| *weight > 0 && empty(name));
            without_endpoints.extend(starved.map(|(name, weight)| WithoutEndpointsV1 {
                service: id.to_string(),
                rule: rule.name.to_owned(),
                version: name.clone(),
                share: share(&rule.split, *weight),
            }));
        }
    }
    let not_enforced = not_enforced(view);
    let served = not_enforced.is_empty() && without_endpoints.is_empty();
    let agrees = served && differences.is_empty() && splits.iter().all(|split| split.agrees);
    VerifyV1 { agrees, differences, not_enforced, without_endpoints, splits }
}
