//! The metrics, as Prometheus text: one place that names each, tells its help and fills it.
//!
//! Every series is there from the start, at zero: a rollout that asks for a version without traffic gets 0 and not
//! "no values found". `docs/reference-metrics.md` describes them; a test compares.
use std::fmt::Write;

use crate::{
    agent::view::{Phase, View},
    dataplane::{Counters, SplitCounts},
    diagnostic::Severity,
    proxy::{
        limited::{Limited, Reason},
        table::Ejections,
        telemetry::{Distribution, Requests, histogram},
    },
    state::{Protocol, Service, ServiceId, Splitting},
    telemetry::deviation,
};

mod connections;
mod labels;
mod requests;
#[cfg(test)]
mod tests;

use labels::{Destination, istio};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, and a sum.
    Histogram,
    /// A sum and a count.
    Summary,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal: $help:literal;)*) => {
        $(const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        /// All metrics, in the order in which they are written.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    FLOWS = Counter "canary_flows_total": "New flows by service and version.";
    PACKETS = Counter "canary_packets_total": "Packets by service, version and direction (in: from clients).";
    BYTES = Counter "canary_bytes_total": "Bytes of whole frames by service, version and direction (in: from clients).";
    CONNECTIONS = Counter "canary_connections_total": "TCP connections that sockets have made by service, version and event (begun, established, failed, ended).";
    OPEN = Gauge "canary_connections_open": "TCP connections of sockets that are established, by service, version and state of the endpoint.";
    HANDSHAKE = Histogram "canary_connection_handshake_seconds": "Time that TCP connections of sockets took to be established, by service and version.";
    RTT = Summary "canary_connection_rtt_seconds": "Round-trip time of TCP connections of sockets when they ended, by service and version.";
    RETRANSMITS = Counter "canary_connection_retransmits_total": "Segments that sockets had to send again, of connections that have ended, by service and version.";
    CARRIED = Counter "canary_connection_bytes_total": "Bytes of TCP connections of sockets that have ended, by service, version and direction (in: from clients).";
    OPENED = Counter "istio_tcp_connections_opened_total": "TCP connections by Istio's labels.";
    SENT = Counter "istio_tcp_sent_bytes_total": "Bytes sent to clients of TCP services by Istio's labels.";
    RECEIVED = Counter "istio_tcp_received_bytes_total": "Bytes received from clients of TCP services by Istio's labels.";
    REQUESTS = Counter "istio_requests_total": "HTTP requests through the proxy that ended, by Istio's labels.";
    DURATION = Histogram "istio_request_duration_milliseconds": "Time from a request's head to the last byte of its answer, by Istio's labels.";
    REQUEST_BYTES = Histogram "istio_request_bytes": "Sizes of the bodies of HTTP requests, by Istio's labels.";
    RESPONSE_BYTES = Histogram "istio_response_bytes": "Sizes of the bodies of answers, by Istio's labels.";
    RULE_REQUESTS = Counter "canary_requests_total": "HTTP requests through the proxy that began, by service, rule and version.";
    RETRIES = Counter "canary_request_retries_total": "Attempts after the first one by service, rule and version.";
    UNLOGGED = Counter "canary_access_log_dropped_total": "Lines that the access log lost.";
    LEFT = Counter "canary_left_packets_total": "Packets that were left alone, by reason.";
    ENDPOINTS = Gauge "canary_endpoints": "Endpoints by service, version and state.";
    LIMITED = Counter "canary_proxy_limited_total": "How often clients of the proxy met a limit, by reason.";
    EJECTIONS = Counter "canary_endpoint_ejections_total": "How often the proxy ejected an endpoint for its errors, by service, version and endpoint; only where a policy asks for outlier detection.";
    EJECTED = Gauge "canary_endpoint_ejected": "1 while the endpoint is ejected, else 0.";
    INTENDED = Gauge "canary_weight_intended": "Weight that the configuration wants, by service, rule and version.";
    PROGRAMMED = Gauge "canary_weight_programmed": "Weight that the kernel's maps hold, or the proxy follows, by service, rule and version.";
    DEVIATION = Gauge "canary_split_deviation_flows": "Largest difference between the flows (requests, in the proxy) of a version and its share of the split since its weights were last changed.";
    UP = Gauge "canary_ready": "1 while what is wanted is in force, else 0.";
    ENFORCED = Gauge "canary_service_enforced": "1 while the rules of the service are in force as written, else 0.";
    PASSES = Counter "canary_passes_total": "Passes of the agent's loop, by result.";
    OPERATIONS = Gauge "canary_plan_operations": "Map writes of the last successful pass.";
    LAST_APPLY = Gauge "canary_last_apply_timestamp_seconds": "When the state in force was last applied; 0 before the first time.";
    FINDINGS = Gauge "canary_diagnostics": "Findings about the configuration, by severity.";
    BUILD = Gauge "canary_build_info": "Always 1; the version is a label.";
}

/// Writes all metrics.
#[must_use]
pub fn text(
    view: &View,
    counters: &Counters,
    requests: &Requests,
    ejections: &[Ejections],
    limited: &Limited,
) -> String {
    let mut page = Page::default();
    traffic(&mut page, view, counters);
    connections::all(&mut page, counters);
    requests::all(&mut page, view, requests);
    for reason in Reason::ALL {
        page.count(LIMITED, &[("reason", reason.name())], limited.of(reason));
    }
    for of in ejections {
        let (service, endpoint) = (of.service.to_string(), of.endpoint.to_string());
        let labels = [("service", service.as_str()), ("version", &of.version), ("endpoint", &endpoint)];
        page.count(EJECTIONS, &labels, of.total);
        page.count(EJECTED, &labels, u64::from(of.out));
    }
    splits(&mut page, view, counters, requests);
    agent(&mut page, view);
    page.finish()
}

fn traffic(page: &mut Page, view: &View, counters: &Counters) {
    let wanted = view
        .in_force
        .services
        .iter()
        .flat_map(|(id, service)| service.versions.keys().map(move |version| (id.clone(), version.clone())));
    // Versions that are gone from the state still drain, and still count.
    let mut versions: Vec<(ServiceId, String)> = wanted.chain(counters.versions.keys().cloned()).collect();
    versions.sort();
    versions.dedup();
    for key in &versions {
        let counts = counters.versions.get(key).copied().unwrap_or_default();
        let (id, version) = key;
        let service = id.to_string();
        let labels = [("service", service.as_str()), ("version", version)];
        page.count(FLOWS, &labels, counts.flows);
        for (direction, packets, bytes) in
            [("in", counts.packets_in, counts.bytes_in), ("out", counts.packets_out, counts.bytes_out)]
        {
            let labels = [("service", service.as_str()), ("version", version), ("direction", direction)];
            page.count(PACKETS, &labels, packets);
            page.count(BYTES, &labels, bytes);
        }
        if id.protocol == Protocol::Tcp {
            let host = id.host();
            let labels = istio(&Destination { service: Some((id, &host)), version }, "tcp", "-");
            page.count(OPENED, &labels, counts.flows);
            let carried = counters.connections.get(key).map_or((0, 0), |it| (it.bytes_in, it.bytes_out));
            page.count(SENT, &labels, counts.bytes_out + carried.1);
            page.count(RECEIVED, &labels, counts.bytes_in + carried.0);
        }
        let active = view.in_force.services.get(id).and_then(|service| service.versions.get(version));
        let draining = counters
            .endpoints
            .iter()
            .filter(|((of, name, _), counts)| of == id && name == version && counts.drains_for_seconds.is_some());
        let active = active.map_or(0, |version| version.endpoints.len());
        for (state, count) in [("active", active), ("draining", draining.count())] {
            let labels = [("service", service.as_str()), ("version", version), ("state", state)];
            page.count(ENDPOINTS, &labels, count as u64);
        }
    }
    for (reason, packets) in &counters.leaves {
        page.count(LEFT, &[("reason", reason)], *packets);
    }
}

fn splits(page: &mut Page, view: &View, counters: &Counters, requests: &Requests) {
    for (id, service) in &view.intended.services {
        let proxied = if service.is_proxied() { service.splitting() } else { Vec::new() };
        for rule in service.splitting_flows().iter().chain(&proxied) {
            for (version, weight) in &rule.split.weights {
                let service = id.to_string();
                let labels = [("service", service.as_str()), ("rule", rule.name), ("version", version)];
                page.count(INTENDED, &labels, u64::from(*weight));
            }
        }
    }
    let of = |id: &ServiceId| view.in_force.services.get(id);
    for split in &counters.splits {
        let rules = of(&split.service).map(Service::splitting_flows).unwrap_or_default();
        programmed(page, split, rules.get(split.rule));
    }
    for split in &requests.splits {
        let split = deviation::of_requests(requests, &split.service, split.rule);
        let rules = of(&split.service).map(Service::splitting).unwrap_or_default();
        programmed(page, &split, rules.iter().find(|rule| rule.index == split.rule));
    }
}

/// What is followed, and how far it is from what was meant.
fn programmed(page: &mut Page, split: &SplitCounts, rule: Option<&Splitting<'_>>) {
    let name = rule.map_or_else(|| format!("#{}", split.rule), |rule| rule.name.to_owned());
    let service = split.service.to_string();
    for (version, weight, _) in &split.versions {
        let labels = [("service", service.as_str()), ("rule", &name), ("version", version)];
        page.count(PROGRAMMED, &labels, u64::from(*weight));
    }
    if let Some(rule) = rule {
        let judged = deviation::judge(&rule.split, split);
        page.sample(DEVIATION, &[("service", &service), ("rule", &name)], judged.worst());
    }
}

fn agent(page: &mut Page, view: &View) {
    page.count(UP, &[], u64::from(view.phase == Phase::Ready));
    for (id, report) in &view.reports {
        page.count(ENFORCED, &[("service", &id.to_string())], u64::from(report.enforced));
    }
    page.count(PASSES, &[("result", "ok")], view.passes);
    page.count(PASSES, &[("result", "failed")], view.failures);
    page.count(OPERATIONS, &[], view.applied.operations as u64);
    page.count(LAST_APPLY, &[], view.applied_at.unwrap_or(0));
    for (name, severity) in [("error", Severity::Error), ("warning", Severity::Warning), ("info", Severity::Info)] {
        let count = view.diagnostics.iter().filter(|found| found.severity == severity).count();
        page.count(FINDINGS, &[("severity", name)], count as u64);
    }
    page.count(BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// Samples by metric, so that those of one metric stand together as the format wants.
#[derive(Default)]
struct Page(std::collections::BTreeMap<&'static str, String>);

impl Page {
    fn count(&mut self, metric: Metric, labels: &[(&str, &str)], value: u64) {
        self.line(metric, labels, &value.to_string());
    }

    fn sample(&mut self, metric: Metric, labels: &[(&str, &str)], value: f64) {
        self.line(metric, labels, &value.to_string());
    }

    fn distribution(&mut self, metric: Metric, labels: &[(&str, &str)], of: &Distribution) {
        let mut all = 0;
        for (end, below) in histogram::LABELS.iter().copied().chain(["+Inf"]).zip(of.cumulative()) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", end)]).collect();
            self.part(metric, "_bucket", &labels, &below.to_string());
            all = below;
        }
        self.part(metric, "_sum", labels, &of.sum().to_string());
        self.part(metric, "_count", labels, &all.to_string());
    }

    fn line(&mut self, metric: Metric, labels: &[(&str, &str)], value: &str) {
        self.part(metric, "", labels, value);
    }

    /// A line of a metric that has several names, such as a histogram's `_sum`.
    fn part(&mut self, metric: Metric, part: &str, labels: &[(&str, &str)], value: &str) {
        let lines = self.0.entry(metric.name).or_default();
        lines.push_str(metric.name);
        lines.push_str(part);
        if !labels.is_empty() {
            let pairs: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            // Writing to a String cannot fail.
            let _ = write!(lines, "{{{}}}", pairs.join(","));
        }
        let _ = writeln!(lines, " {value}");
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
            };
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name);
            text.push_str(self.0.get(metric.name).map_or("", String::as_str));
        }
        text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
