//! From what the agent holds to what goes over the wire: the only place where the two meet.
use canary_common::verdict::{Leave, Verdict};

use crate::{
    agent::view::{Phase, View},
    api::dto::{
        AttachedV1, ConnectionsV1, CountsV1, DiagnosticV1, EndpointV1, FlowV1, LeaveV1, MapV1, NotEnforcedV1, RuleV1,
        ServiceV1, ShareV1, StatusV1, TroubleV1, VersionV1,
    },
    compile::{PROXY_VERSION, ServiceReport},
    dataplane::{Connections, Counters, Counts, FlowRecord, Hook, MapMemory, SplitCounts},
    diagnostic::{Diagnostic, Severity},
    proxy::telemetry::Requests,
    state::{Choosing, DeadVersion, Follows, Service, ServiceId, Split, Splitting},
    telemetry::{deviation, time},
};

mod answer;
mod requests;
#[cfg(test)]
mod tests;
mod verify;

pub use answer::{edited, history, trace};
pub use requests::explained;
pub use verify::verify;

/// `GET /v1/status`.
#[must_use]
pub fn status(view: &View, memory: &[MapMemory]) -> StatusV1 {
    let services = &view.in_force.services;
    let versions = || services.values().flat_map(|service| service.versions.values());
    StatusV1 {
        phase: match view.phase {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Degraded => "degraded",
        }
        .into(),
        since: time::rfc3339(view.since),
        started: time::rfc3339(view.started),
        was_ready: view.was_ready,
        version: env!("CARGO_PKG_VERSION").into(),
        trouble: view
            .trouble
            .as_ref()
            .map(|trouble| TroubleV1 { message: trouble.message.clone(), remedy: trouble.remedy.clone() }),
        attached: view
            .attached
            .iter()
            .map(|attached| AttachedV1 {
                hook: match attached.attach.hook {
                    Hook::Xdp => "xdp",
                    Hook::Tc => "tc",
                    Hook::Clsact => "clsact",
                    Hook::Cgroup => "cgroup",
                }
                .into(),
                interface: attached.attach.interface.clone(),
                mode: attached.mode.clone(),
                adopted: attached.adopted,
                warning: attached.warning.clone(),
            })
            .collect(),
        services: services.len(),
        not_enforced: not_enforced(view),
        versions: versions().count(),
        endpoints: versions().map(|version| version.endpoints.len()).sum(),
        applied_at: view.applied_at.map(time::rfc3339),
        operations: view.applied.operations,
        passes: view.passes,
        failures: view.failures,
        maps: memory
            .iter()
            .map(|map| MapV1 { name: map.name.clone(), entries: map.entries, bytes: map.bytes })
            .collect(),
        map_bytes: memory.iter().map(|map| map.bytes).sum(),
        diagnostics: view.diagnostics.iter().map(DiagnosticV1::from).collect(),
    }
}

/// Services that are held at their last good state, or have none.
fn not_enforced(view: &View) -> Vec<NotEnforcedV1> {
    let held = view.reports.iter().filter(|(_, report)| !report.enforced);
    let reason = |report: &ServiceReport| report.reason.clone().unwrap_or_default();
    held.map(|(id, report)| NotEnforcedV1 { service: id.to_string(), reason: reason(report) }).collect()
}

/// `GET /v1/services`: those in force, and those that are known but not in force.
#[must_use]
pub fn services(view: &View, counters: &Counters) -> Vec<ServiceV1> {
    let mut ids: Vec<&ServiceId> = view.in_force.services.keys().chain(view.reports.keys()).collect();
    ids.sort();
    ids.dedup();
    ids.into_iter().map(|id| service(view, counters, id)).collect()
}

fn service(view: &View, counters: &Counters, id: &ServiceId) -> ServiceV1 {
    let report = view.reports.get(id);
    let in_force = view.in_force.services.get(id);
    ServiceV1 {
        service: id.to_string(),
        addresses: view.in_force.addresses(id).iter().map(ToString::to_string).collect(),
        route: report.and_then(|report| Some(report.virtual_service.as_ref()?.object.clone())),
        enforced: in_force.is_some() && report.is_none_or(|report| report.enforced),
        reason: report.and_then(|report| report.reason.clone()),
        rules: in_force.map(|service| service.splitting().iter().map(rule).collect()).unwrap_or_default(),
        flows: counters.versions.iter().filter(|((of, _), _)| of == id).map(|(_, counts)| counts.flows).sum(),
    }
}

fn rule(rule: &Splitting<'_>) -> RuleV1 {
    let versions = rule.split.weights.iter().filter(|(_, weight)| *weight > 0).map(|(version, weight)| ShareV1 {
        version: version.clone(),
        weight: *weight,
        share: share(&rule.split, *weight),
    });
    RuleV1 {
        name: rule.name.to_owned(),
        sources: rule.sources.iter().map(ToString::to_string).collect(),
        choosing: choosing(rule.split.choosing).into(),
        on_no_endpoints: match rule.split.dead {
            DeadVersion::Fail => "fail",
            DeadVersion::Spill => "spill",
            DeadVersion::Hold => "hold",
        }
        .into(),
        versions: versions.collect(),
    }
}

/// `GET /v1/versions`: every version of every rule, then versions that no rule gives a weight.
#[must_use]
pub fn versions(view: &View, counters: &Counters, requests: &Requests) -> Vec<VersionV1> {
    let mut items = Vec::new();
    for (id, service) in &view.in_force.services {
        let rules = service.splitting();
        for rule in &rules {
            let counts = match rule.by {
                Follows::Kernel => counts_of(counters, id, rule.index),
                Follows::Requests | Follows::Connections => deviation::of_requests(requests, id, rule.index),
            };
            let asked = rule.by == Follows::Requests;
            let judged = deviation::judge(&rule.split, &counts);
            items.extend(judged.versions.iter().map(|one| {
                let weight = one.intended.unwrap_or(0);
                VersionV1 {
                    rule: rule.name.to_owned(),
                    weight,
                    programmed: one.programmed,
                    share: share(&rule.split, weight),
                    flows: if asked { 0 } else { one.observed },
                    requests: asked.then_some(one.observed),
                    observed_share: ratio(one.observed, judged.flows),
                    deviation: one.deviation(),
                    bound: one.bound,
                    ..version(service, counters, id, &one.version)
                }
            }));
        }
        let weighted = |name: &String| rules.iter().any(|rule| rule.split.weights.iter().any(|(of, _)| of == name));
        let idle = |name: &&String| !weighted(name) && *name != PROXY_VERSION;
        items.extend(service.versions.keys().filter(idle).map(|name| version(service, counters, id, name)));
    }
    items
}

fn version(service: &Service, counters: &Counters, id: &ServiceId, name: &str) -> VersionV1 {
    VersionV1 {
        service: id.to_string(),
        rule: "-".into(),
        version: name.into(),
        weight: 0,
        programmed: None,
        share: 0.0,
        flows: 0,
        requests: None,
        observed_share: None,
        deviation: 0.0,
        bound: None,
        endpoints: service.versions.get(name).map_or(0, |version| version.endpoints.len()),
        total: counters.versions.get(&(id.clone(), name.to_owned())).map(CountsV1::from).unwrap_or_default(),
        connections: counters.connections.get(&(id.clone(), name.to_owned())).map(ConnectionsV1::from),
    }
}

/// `GET /v1/endpoints`: those in force, and those that drain.
#[must_use]
pub fn endpoints(view: &View, counters: &Counters) -> Vec<EndpointV1> {
    let mut items = Vec::new();
    for (id, service) in &view.in_force.services {
        for (name, version) in &service.versions {
            for (&endpoint, &weight) in &version.endpoints {
                let counts = counters.endpoints.get(&(id.clone(), name.clone(), endpoint));
                items.push(EndpointV1 {
                    service: id.to_string(),
                    version: name.clone(),
                    endpoint: endpoint.to_string(),
                    weight,
                    state: "active".into(),
                    drains_for_seconds: None,
                    direct: counts.and_then(|counts| counts.direct.clone()),
                    counts: counts.map(|counts| CountsV1::from(&counts.counts)).unwrap_or_default(),
                });
            }
        }
    }
    items.extend(counters.endpoints.iter().filter(|(_, counts)| counts.drains_for_seconds.is_some()).map(
        |((id, version, endpoint), counts)| EndpointV1 {
            service: id.to_string(),
            version: version.clone(),
            endpoint: endpoint.to_string(),
            weight: 0,
            state: "draining".into(),
            drains_for_seconds: counts.drains_for_seconds,
            direct: counts.direct.clone(),
            counts: CountsV1::from(&counts.counts),
        },
    ));
    items.sort_by(|a, b| (&a.service, &a.version, &a.endpoint).cmp(&(&b.service, &b.version, &b.endpoint)));
    items
}

/// `GET /v1/leaves`.
#[must_use]
pub fn leaves(counters: &Counters) -> Vec<LeaveV1> {
    let of = |reason: &str| Leave::ALL.iter().find(|leave| leave.label() == reason);
    let verdict = |leave: &Leave| match leave.verdict() {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
        Verdict::Reset => "reset",
    };
    let item = |(&reason, &packets): (&&str, &u64)| LeaveV1 {
        reason: reason.into(),
        packets,
        verdict: of(reason).map(verdict).unwrap_or_default().into(),
        meaning: of(reason).map(|leave| leave.meaning()).unwrap_or_default().into(),
    };
    counters.leaves.iter().map(item).collect()
}

impl From<&Diagnostic> for DiagnosticV1 {
    fn from(found: &Diagnostic) -> Self {
        Self {
            severity: match found.severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Error => "error",
            }
            .into(),
            code: found.code.into(),
            object: found.object.clone(),
            field: found.field.clone(),
            file: found.origin.file.display().to_string(),
            line: found.origin.line,
            message: found.message.clone(),
            remedy: found.remedy.clone(),
        }
    }
}

impl From<&Connections> for ConnectionsV1 {
    fn from(of: &Connections) -> Self {
        let mean = |sum: u64, count: u64| (count > 0).then(|| sum / count);
        Self {
            open: of.open(),
            draining: of.draining,
            established: of.established,
            failed: of.failed,
            handshake_micros: mean(of.handshake_micros, of.established),
            rtt_micros: mean(of.rtt_micros, of.ended),
            retransmits: of.retransmits,
            bytes_in: of.bytes_in,
            bytes_out: of.bytes_out,
        }
    }
}

impl From<&Counts> for CountsV1 {
    fn from(counts: &Counts) -> Self {
        Self {
            flows: counts.flows,
            packets_in: counts.packets_in,
            bytes_in: counts.bytes_in,
            packets_out: counts.packets_out,
            bytes_out: counts.bytes_out,
        }
    }
}

impl From<&FlowRecord> for FlowV1 {
    fn from(flow: &FlowRecord) -> Self {
        Self {
            client: flow.client.to_string(),
            frontend: flow.frontend.to_string(),
            endpoint: flow.endpoint.to_string(),
            service: flow.service.as_ref().map(ToString::to_string),
            version: flow.version.clone(),
            state: flow.state.into(),
            idle_seconds: flow.idle_seconds,
        }
    }
}

/// How the wire and the resources call it.
#[must_use]
pub fn choosing(choosing: Choosing) -> &'static str {
    match choosing {
        Choosing::Exact => "exact",
        Choosing::KeyedFlow => "keyed-flow",
        Choosing::KeyedClient => "keyed-client",
    }
}

fn counts_of(counters: &Counters, id: &ServiceId, rule: usize) -> SplitCounts {
    let found = counters.splits.iter().find(|split| split.service == *id && split.rule == rule);
    // A split that the maps lack has programmed nothing, which `judge` reports.
    found.cloned().unwrap_or_else(|| SplitCounts { service: id.clone(), rule, draws: 0, versions: vec![] })
}

#[expect(clippy::cast_precision_loss, reason = "a sum of weights is below 2^52")]
fn share(split: &Split, weight: u32) -> f64 {
    let sum: u64 = split.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if sum == 0 { 0.0 } else { f64::from(weight) / sum as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "for people; counters stay below 2^52")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
