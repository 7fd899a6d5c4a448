//! The page as a scraper sees it.
use super::*;
use crate::{
    agent::{
        fake::{FakeKernel, helloworld, split_state},
        kernel::Kernel,
    },
    compile::PROXY_VERSION,
    dataplane::Connections,
    proxy::{
        Flag, Flags,
        telemetry::{Count, CountKey, Ended, MIRROR, Series, Spoken},
    },
    state::Http,
};

fn page(flows: &[(&str, u64)]) -> String {
    let mut kernel = FakeKernel::default();
    let state = split_state(&[("v1", 90), ("v2", 10)]);
    kernel.apply(&state).unwrap();
    kernel.inside().flows = flows.iter().map(|&(name, flows)| (name.to_owned(), flows)).collect();
    let state = std::sync::Arc::new(state);
    let view = View { intended: state.clone(), in_force: state, phase: Phase::Ready, ..View::default() };
    text(&view, &kernel.counters().unwrap(), &Requests::default(), &[], &Limited::default())
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
fn connections_of_sockets_are_told_if_they_are_counted() {
    assert!(!page(&[]).lines().any(|line| line.starts_with("canary_connection")), "nobody counts them");
    let of = Connections {
        begun: 9,
        established: 8,
        failed: 1,
        ended: 5,
        draining: 1,
        retransmits: 4,
        bytes_in: 70,
        bytes_out: 80,
        rtt_micros: 2_500_000,
        handshake_micros: 1_000_001,
        handshakes: vec![(Some(16), 3), (Some(1 << 20), 4), (None, 1)],
    };
    let counters = Counters { connections: [((helloworld(), "v2".into()), of)].into(), ..Counters::default() };
    let page = text(&View::default(), &counters, &Requests::default(), &[], &Limited::default());
    let labels = r#"service="default/helloworld:5000/tcp",version="v2""#;
    for line in [
        format!(r#"canary_connections_total{{{labels},event="failed"}} 1"#),
        format!(r#"canary_connections_open{{{labels},state="active"}} 2"#),
        format!(r#"canary_connections_open{{{labels},state="draining"}} 1"#),
        format!(r#"canary_connection_handshake_seconds_bucket{{{labels},le="0.000016"}} 3"#),
        format!(r#"canary_connection_handshake_seconds_bucket{{{labels},le="1.048576"}} 7"#),
        format!(r#"canary_connection_handshake_seconds_bucket{{{labels},le="+Inf"}} 8"#),
        format!(r"canary_connection_handshake_seconds_sum{{{labels}}} 1.000001"),
        format!(r"canary_connection_rtt_seconds_count{{{labels}}} 5"),
        format!(r"canary_connection_rtt_seconds_sum{{{labels}}} 2.500000"),
        format!(r#"canary_connection_bytes_total{{{labels},direction="out"}} 80"#),
    ] {
        assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
    }
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
    let page = text(&View::default(), &Counters::default(), &Requests::default(), &[ejected], &Limited::default());
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
        let parts = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part));
        let known = |metric: &Metric| match metric.kind {
            Kind::Histogram => parts.contains(&Some(metric.name)),
            _ => metric.name == name,
        };
        assert!(ALL.iter().any(known), "{line}");
    }
    for metric in ALL {
        assert_eq!(page.matches(&format!("# TYPE {} ", metric.name)).count(), 1);
    }
    assert_eq!(escape("a\"b\\c\n"), "a\\\"b\\\\c\\n");
}

#[test]
fn versions_behind_the_proxy_are_there_at_zero_before_any_request() {
    let page = requests_page(&Requests::default());
    for version in ["v1", "v2"] {
        for code in [200, 503] {
            let series = series(version, "-", code);
            for line in [
                format!("istio_requests_total{{{series}}} 0"),
                format!("istio_request_duration_milliseconds_bucket{{{series},le=\"0.5\"}} 0"),
                format!("istio_request_bytes_bucket{{{series},le=\"+Inf\"}} 0"),
                format!("istio_response_bytes_count{{{series}}} 0"),
            ] {
                assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
            }
        }
    }
    assert!(!page.contains("destination_version=\"(proxy)\",destination_service=\"helloworld.default.svc.cluster.local\",destination_service_name=\"helloworld\",destination_service_namespace=\"default\",request_protocol=\"http"));
    assert!(page.lines().any(|line| line == "canary_access_log_dropped_total 0"), "{page}");
}

#[test]
fn requests_add_up_over_rules_and_keep_their_flags() {
    let slow = {
        let mut slow = Series::default();
        slow.add(&Series { count: 2, ..Series::default() });
        slow
    };
    let unreached = Ended { flags: Flags::from(Flag::UF).and(Flag::URX), ..Ended::with(503) };
    let count = |ended| Count { requests: 2, retries: 1, ended: [(ended, slow)].into() };
    let key =
        |rule: &str, version: &str| CountKey { service: helloworld(), rule: rule.into(), version: version.into() };
    let lost = Ended { flags: Flag::NR.into(), ..Ended::with(404) };
    let page = requests_page(&Requests {
        counts: vec![
            (key("a", "v1"), count(Ended::with(200))),
            (key("b", "v1"), count(Ended::with(200))),
            (key("b", "v2"), count(unreached)),
            (key(&format!("b{MIRROR}"), "v1"), count(Ended::with(200))),
            (key("tls[0]", "v1"), count(Ended { spoken: Spoken::Tls, ..Ended::with(0) })),
        ],
        lost: count(lost),
        ..Requests::default()
    });
    for line in [
        format!("istio_requests_total{{{}}} 4", series("v1", "-", 200)),
        format!("istio_requests_total{{{}}} 2", series("v2", "UF,URX", 503)),
        r#"canary_requests_total{service="default/helloworld:5000/tcp",rule="b",version="v2"} 2"#.to_owned(),
        r#"canary_request_retries_total{service="default/helloworld:5000/tcp",rule="b",version="v2"} 1"#.to_owned(),
        r#"canary_requests_total{service="default/helloworld:5000/tcp",rule="b (mirror)",version="v1"} 2"#.to_owned(),
    ] {
        assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
    }
    let unknown = "destination_version=\"unknown\",destination_service=\"unknown\"";
    assert!(
        page.lines().any(|line| line.contains(unknown) && line.contains("\"NR\"") && line.ends_with(" 2")),
        "{page}"
    );
}

fn requests_page(requests: &Requests) -> String {
    let mut kernel = FakeKernel::default();
    let mut state = split_state(&[("v1", 90), ("v2", 10)]);
    let service = state.services.values_mut().next().unwrap();
    service.http = Some(Http::default());
    let proxied = service.versions["v1"].clone();
    service.versions.insert(PROXY_VERSION.into(), proxied);
    kernel.apply(&state).unwrap();
    let view = View { in_force: std::sync::Arc::new(state), ..View::default() };
    text(&view, &kernel.counters().unwrap(), requests, &[], &Limited::default())
}

fn series(version: &str, flags: &str, code: u16) -> String {
    let unknown: String = [
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
        "source_canonical_service",
        "source_canonical_revision",
        "destination_principal",
        "destination_app",
        "destination_cluster",
        "destination_canonical_service",
        "destination_canonical_revision",
        "connection_security_policy",
    ]
    .map(|label| format!(",{label}=\"unknown\""))
    .concat();
    format!(
        "reporter=\"source\",source_workload=\"unknown\",destination_workload=\"unknown\",destination_workload_namespace=\"default\",destination_version=\"{version}\",destination_service=\"helloworld.default.svc.cluster.local\",destination_service_name=\"helloworld\",destination_service_namespace=\"default\",request_protocol=\"http\",response_flags=\"{flags}\"{unknown},response_code=\"{code}\",grpc_response_status=\"\""
    )
}
