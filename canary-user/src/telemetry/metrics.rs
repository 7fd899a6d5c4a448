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
        answers::Answers,
        counts::{Count, CountKey},
        limited::{Limited, Reason},
        table::Ejections,
    },
    state::{Protocol, ServiceId},
    telemetry::deviation,
};

mod requests;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, and a sum.
    Histogram,
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
    OPENED = Counter "istio_tcp_connections_opened_total": "TCP connections by Istio's labels.";
    SENT = Counter "istio_tcp_sent_bytes_total": "Bytes sent to clients of TCP services by Istio's labels.";
    RECEIVED = Counter "istio_tcp_received_bytes_total": "Bytes received from clients of TCP services by Istio's labels.";
    REQUESTS = Counter "istio_requests_total": "HTTP requests through the proxy by Istio's labels.";
    DURATION = Histogram "istio_request_duration_milliseconds": "Time from a request's head to the last byte of its answer, by Istio's labels.";
    ROUTED = Counter "canary_requests_total": "HTTP requests through the proxy by service, rule and version.";
    RETRIES = Counter "canary_request_retries_total": "Attempts after the first one by service, rule and version.";
    LEFT = Counter "canary_left_packets_total": "Packets that were left alone, by reason.";
    ENDPOINTS = Gauge "canary_endpoints": "Endpoints by service, version and state.";
    LIMITED = Counter "canary_proxy_limited_total": "How often clients of the proxy met a limit, by reason.";
    EJECTIONS = Counter "canary_endpoint_ejections_total": "How often the proxy ejected an endpoint for its errors, by service, version and endpoint; only where a policy asks for outlier detection.";
    EJECTED = Gauge "canary_endpoint_ejected": "1 while the endpoint is ejected, else 0.";
    INTENDED = Gauge "canary_weight_intended": "Weight that the configuration wants, by service, rule and version.";
    PROGRAMMED = Gauge "canary_weight_programmed": "Weight that the kernel's maps hold, by service, rule and version.";
    DEVIATION = Gauge "canary_split_deviation_flows": "Largest difference between the flows of a version and its share of the split since its weights were last changed.";
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
    requests: &[(CountKey, Count, Answers)],
    ejections: &[Ejections],
    limited: &Limited,
) -> String {
    let mut page = Page::default();
    traffic(&mut page, view, counters);
    requests::fill(&mut page, requests);
    for reason in Reason::ALL {
        page.count(LIMITED, &[("reason", reason.name())], limited.of(reason));
    }
    for of in ejections {
        let (service, endpoint) = (of.service.to_string(), of.endpoint.to_string());
        let labels = [("service", service.as_str()), ("version", &of.version), ("endpoint", &endpoint)];
        page.count(EJECTIONS, &labels, of.total);
        page.count(EJECTED, &labels, u64::from(of.out));
    }
    splits(&mut page, view, counters);
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
            let host = host(id);
            let labels = istio(id, &host, version, "tcp", "-");
            page.count(OPENED, &labels, counts.flows);
            page.count(SENT, &labels, counts.bytes_out);
            page.count(RECEIVED, &labels, counts.bytes_in);
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

/// What clients call a service. The name of a ServiceEntry is its host.
fn host(id: &ServiceId) -> String {
    if id.name.contains('.') { id.name.clone() } else { format!("{}.{}.svc.cluster.local", id.name, id.namespace) }
}

/// Istio's labels, with what this host knows. Names of workloads are not known here and say so as Istio does.
fn istio<'a>(
    id: &'a ServiceId,
    host: &'a str,
    version: &'a str,
    protocol: &'a str,
    flags: &'a str,
) -> [(&'static str, &'a str); 11] {
    [
        ("reporter", "source"),
        ("source_workload", "unknown"),
        ("destination_workload", "unknown"),
        ("destination_workload_namespace", &id.namespace),
        ("destination_version", version),
        ("destination_service", host),
        ("destination_service_name", &id.name),
        ("destination_service_namespace", &id.namespace),
        ("request_protocol", protocol),
        ("response_flags", flags),
        ("connection_security_policy", "unknown"),
    ]
}

fn splits(page: &mut Page, view: &View, counters: &Counters) {
    let name_of = |split: &SplitCounts| {
        let rule = view.in_force.services.get(&split.service).and_then(|service| service.rules.get(split.rule));
        rule.map_or_else(|| format!("#{}", split.rule), |rule| rule.name.clone())
    };
    for (id, service) in &view.intended.services {
        for rule in &service.rules {
            for (version, weight) in &rule.split.weights {
                let service = id.to_string();
                let labels = [("service", service.as_str()), ("rule", &rule.name), ("version", version)];
                page.count(INTENDED, &labels, u64::from(*weight));
            }
        }
    }
    for split in &counters.splits {
        let (service, rule) = (split.service.to_string(), name_of(split));
        for (version, weight, _) in &split.versions {
            let labels = [("service", service.as_str()), ("rule", &rule), ("version", version)];
            page.count(PROGRAMMED, &labels, u64::from(*weight));
        }
        let in_force = view.in_force.services.get(&split.service).and_then(|service| service.rules.get(split.rule));
        if let Some(in_force) = in_force {
            let judged = deviation::judge(&in_force.split, split);
            page.sample(DEVIATION, &[("service", &service), ("rule", &rule)], judged.worst());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        fake::{FakeKernel, split_state},
        kernel::Kernel,
    };

    fn page(flows: &[(&str, u64)]) -> String {
        let mut kernel = FakeKernel::default();
        let state = split_state(&[("v1", 90), ("v2", 10)]);
        kernel.apply(&state).unwrap();
        kernel.inside().flows = flows.iter().map(|&(name, flows)| (name.to_owned(), flows)).collect();
        let state = std::sync::Arc::new(state);
        let view = View { intended: state.clone(), in_force: state, phase: Phase::Ready, ..View::default() };
        text(&view, &kernel.counters().unwrap(), &[], &[], &Limited::default())
    }

    #[test]
    fn every_metric_is_documented_and_nothing_else_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference-metrics.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let documented: Vec<&str> = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("canary_") || name.starts_with("istio_"))
            .collect();
        let metrics: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(documented, metrics, "docs/reference-metrics.md lists the metrics in the order of metrics.rs");
    }

    #[test]
    fn series_are_there_at_zero_before_any_flow() {
        let page = page(&[]);
        for line in [
            r#"canary_flows_total{service="default/helloworld:5000/tcp",version="v2"} 0"#,
            r#"canary_bytes_total{service="default/helloworld:5000/tcp",version="v2",direction="out"} 0"#,
            r#"canary_left_packets_total{reason="no-service"} 0"#,
            r#"canary_weight_intended{service="default/helloworld:5000/tcp",rule="http[0]",version="v2"} 10"#,
            r#"canary_weight_programmed{service="default/helloworld:5000/tcp",rule="http[0]",version="v2"} 10"#,
            r#"canary_split_deviation_flows{service="default/helloworld:5000/tcp",rule="http[0]"} 0"#,
            "canary_ready 1",
            r#"canary_passes_total{result="failed"} 0"#,
            r#"canary_endpoints{service="default/helloworld:5000/tcp",version="v1",state="active"} 1"#,
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn counters_and_deviation_follow_the_kernel() {
        let page = page(&[("v1", 898), ("v2", 102)]);
        for line in [
            r#"canary_flows_total{service="default/helloworld:5000/tcp",version="v2"} 102"#,
            r#"canary_split_deviation_flows{service="default/helloworld:5000/tcp",rule="http[0]"} 2"#,
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
        assert!(page.contains(
            r#"istio_tcp_sent_bytes_total{reporter="source",source_workload="unknown",destination_workload="unknown",destination_workload_namespace="default",destination_version="v2",destination_service="helloworld.default.svc.cluster.local","#
        ));
    }

    #[test]
    fn ejections_name_their_endpoint() {
        let ejected = Ejections {
            service: ServiceId::tcp("web", 80),
            version: "v2".into(),
            endpoint: "10.244.2.1:80".parse().unwrap(),
            total: 3,
            out: true,
        };
        let page = text(&View::default(), &Counters::default(), &[], &[ejected], &Limited::default());
        for (name, value) in [("ejections_total", 3), ("ejected", 1)] {
            let labels = r#"service="default/web:80/tcp",version="v2",endpoint="10.244.2.1:80""#;
            let line = format!("canary_endpoint_{name}{{{labels}}} {value}");
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn the_text_is_well_formed() {
        let page = page(&[("v1", 1)]);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            assert!(ALL.iter().any(|metric| metric.name == name), "{line}");
        }
        for metric in ALL {
            assert_eq!(page.matches(&format!("# TYPE {} ", metric.name)).count(), 1);
        }
        assert_eq!(escape("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
