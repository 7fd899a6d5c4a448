//! Metrics of requests, which only the proxy sees.
use std::collections::BTreeMap;

use super::{
    DURATION, Destination, Page, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES, RETRIES, RULE_REQUESTS, UNLOGGED, View, istio,
};
use crate::{
    compile::PROXY_VERSION,
    proxy::telemetry::{Ended, MIRROR, Requests, Series, Spoken},
    state::ServiceId,
};

type Totals<'a> = BTreeMap<(Option<&'a ServiceId>, &'a str), BTreeMap<Ended, Series>>;

pub(super) fn all(page: &mut Page, view: &View, requests: &Requests) {
    for ((service, version), ended) in &totals(view, requests) {
        let host = service.map(ServiceId::host);
        let to = Destination { service: service.zip(host.as_deref()), version };
        for (ended, series) in ended {
            one(page, &to, *ended, series);
        }
    }
    for (key, count) in &requests.counts {
        let service = key.service.to_string();
        let labels = [("service", service.as_str()), ("rule", &key.rule), ("version", &key.version)];
        page.count(RULE_REQUESTS, &labels, count.requests);
        page.count(RETRIES, &labels, count.retries);
    }
    page.count(UNLOGGED, &[], requests.unlogged);
}

/// By service and version over all rules, which Istio's labels do not have.
fn totals<'a>(view: &'a View, requests: &'a Requests) -> Totals<'a> {
    let mut totals = Totals::new();
    for (id, service) in view.in_force.services.iter().filter(|(_, service)| service.http.is_some()) {
        for version in service.versions.keys().filter(|version| *version != PROXY_VERSION) {
            // At zero from the start, so that the first request and the first failure are increases.
            let versions = totals.entry((Some(id), version)).or_default();
            versions.extend([200, 503].map(|code| (Ended::with(code), Series::default())));
        }
    }
    // Nobody hears the answers to copies.
    let heard = requests.counts.iter().filter(|(key, _)| !key.rule.ends_with(MIRROR));
    let known = heard.map(|(key, count)| ((Some(&key.service), key.version.as_str()), count));
    for (key, count) in known.chain([((None, ""), &requests.lost)]) {
        // Connections that are passed on are no requests.
        for (ended, series) in count.ended.iter().filter(|(ended, _)| ended.spoken != Spoken::Tls) {
            totals.entry(key).or_default().entry(*ended).or_default().add(series);
        }
    }
    totals
}

fn one(page: &mut Page, to: &Destination<'_>, ended: Ended, series: &Series) {
    let protocol = if ended.spoken == Spoken::Grpc { "grpc" } else { "http" };
    let (code, flags) = (ended.label(), ended.flags.to_string());
    let grpc_status = ended.grpc_status.map(|status| status.to_string()).unwrap_or_default();
    let mut labels = istio(to, protocol, &flags);
    labels.extend([("response_code", code.as_str()), ("grpc_response_status", &grpc_status)]);
    page.count(REQUESTS, &labels, series.count);
    page.distribution(DURATION, &labels, &series.duration);
    page.distribution(REQUEST_BYTES, &labels, &series.received);
    page.distribution(RESPONSE_BYTES, &labels, &series.sent);
}
