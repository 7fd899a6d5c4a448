//! `trafficPolicy`: what the proxy is given, and who is told that nobody follows his.
use super::{ProxyAddresses, REVIEWS, codes, compile_for, compile_text, join, pod, route};
use crate::{
    compile::Compiled,
    state::{Balancing, EndpointHttp, HashKey, State, TrafficPolicy},
};

/// `reviews` with a policy of the host and one of subset v2.
fn world(host: &str, subset: &str, rules: &str) -> String {
    let policies =
        REVIEWS.replace("  host: reviews\n", &format!("  host: reviews\n  trafficPolicy: {{{host}}}\n")).replace(
            "{name: v2, labels: {version: v2}}",
            &format!("{{name: v2, labels: {{version: v2}}, trafficPolicy: {{{subset}}}}}"),
        );
    join(&[&policies, &pod("reviews", "v1", "10.0.1.1"), &pod("reviews", "v2", "10.0.2.1"), &route(rules)])
}

/// Rules that need the request, so that the proxy follows them.
const PROXIED: &str = "  http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 1}]}]";
const KERNEL: &str = "  http: [{route: [{destination: {host: reviews, subset: v1}}]}]";

fn here() -> ProxyAddresses {
    ["192.0.2.1:15001".parse().unwrap()].into_iter().collect()
}

fn proxied(host: &str, subset: &str) -> Compiled {
    compile_for(&world(host, subset, PROXIED), &State::default(), &here())
}

fn policy(compiled: &Compiled, version: &str) -> Option<TrafficPolicy> {
    let service = compiled.state.services.values().next().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    service.http.as_ref().unwrap().policies.get(version).cloned()
}

/// How endpoints are chosen, most connections, and errors that eject; `-` is no policy.
fn short(compiled: &Compiled, version: &str) -> String {
    let Some(policy) = policy(compiled, version) else { return "-".into() };
    let connections = policy.connections.max_connections.map_or("any".into(), |most| most.to_string());
    let errors = policy.outliers.map_or("none".into(), |outliers| outliers.consecutive_5xx.to_string());
    format!("{:?} {connections} {errors}", policy.balancing)
}

#[test]
fn levels_come_together_as_in_istio() {
    let pool = |most: u32| format!("connectionPool: {{tcp: {{maxConnections: {most}}}}}");
    let port = |number: u16, of: &str| format!("portLevelSettings: [{{port: {{number: {number}}}, {of}}}]");
    let random = "loadBalancer: {simple: RANDOM}";
    let cases = [
        ("", "", "-", "-"),
        ("loadBalancer: {simple: ROUND_ROBIN}", "", "-", "-"),
        (random, "", "Random any none", "Random any none"),
        (&pool(7), "", "LeastRequest 7 none", "LeastRequest 7 none"),
        // Block by block.
        (&format!("{}, {random}", pool(7)), &pool(8), "Random 7 none", "Random 8 none"),
        (random, "outlierDetection: {}", "Random any none", "Random any 5"),
        ("", "loadBalancer: {simple: LEAST_CONN}", "-", "LeastRequest any none"),
        ("outlierDetection: {consecutive5xxErrors: 0}", random, "LeastRequest any 0", "Random any 0"),
        // A port's settings inherit nothing.
        (&format!("{random}, {}", port(9080, &pool(9))), "", "LeastRequest 9 none", "LeastRequest 9 none"),
        (&format!("{random}, {}", port(1, &pool(9))), "", "Random any none", "Random any none"),
        (random, &port(9080, &pool(9)), "Random any none", "LeastRequest 9 none"),
        (&port(9080, &pool(9)), random, "LeastRequest 9 none", "Random 9 none"),
    ];
    for (host, subset, v1, v2) in cases {
        let compiled = proxied(host, subset);
        assert_eq!(codes(&compiled), [""; 0], "{host} / {subset}");
        assert_eq!([short(&compiled, "v1"), short(&compiled, "v2")], [v1, v2], "{host} / {subset}");
    }
}

#[test]
fn every_field_arrives() {
    let compiled = proxied(
        "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, aggression: 2.5, minimumPercent: 20}}, \
         connectionPool: {tcp: {maxConnections: '1', connectTimeout: 2ms, idleTimeout: 1h, maxConnectionDuration: 4s, \
         tcpKeepalive: {time: 5s, interval: 6s, probes: 7}}, http: {http1MaxPendingRequests: 8, http2MaxRequests: 9, \
         maxRequestsPerConnection: 10, maxRetries: 11, idleTimeout: 12s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 13}}, \
         outlierDetection: {consecutiveGatewayErrors: 14, consecutive5xxErrors: 15, splitExternalLocalOriginErrors: true, \
         consecutiveLocalOriginFailures: 16, interval: 17s, baseEjectionTime: 18s, maxEjectionPercent: 19, minHealthPercent: 20}",
        "loadBalancer: {consistentHash: {httpCookie: {name: c, path: /p, ttl: 90s}, maglev: {tableSize: 251}}}",
    );
    assert_eq!(codes(&compiled), [""; 0]);
    let found = serde_json::to_value(policy(&compiled, "v1")).unwrap();
    let wanted = serde_json::json!({
        "balancing": "roundRobin",
        "warmup": {"duration_ms": 30_000, "aggression_milli": 2_500, "minimum_percent": 20},
        "connections": {
            "max_connections": 1, "connect_timeout_ms": 2, "idle_timeout_ms": 12_000, "max_connection_duration_ms": 4_000,
            "keepalive": {"time_seconds": 5, "interval_seconds": 6, "probes": 7},
            "max_pending": 8, "max_requests": 9, "max_requests_per_connection": 10, "max_retries": 11,
            "max_concurrent_streams": 13, "upgrade": true,
        },
        "outliers": {
            "consecutive_gateway_errors": 14, "consecutive_5xx": 15, "consecutive_local_failures": 16,
            "interval_ms": 17_000, "base_ejection_ms": 18_000, "max_ejection_percent": 19, "min_health_percent": 20,
        },
    });
    assert_eq!(found, wanted);
    let Balancing::Hash { key, table_size } = policy(&compiled, "v2").unwrap().balancing else { panic!("no hash") };
    assert_eq!(key, HashKey::Cookie { name: "c".into(), path: "/p".into(), ttl_seconds: Some(90) });
    assert_eq!(table_size, 251);
    let stored = serde_json::to_string(&compiled.state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&stored).unwrap(), compiled.state);
}

const ASKED: &str = "outlierDetection: {}, loadBalancer: {simple: RANDOM}";

#[test]
fn what_nobody_follows_is_reported_as_ever() {
    let compiled = compile_for(&world(ASKED, "connectionPool: {}", KERNEL), &State::default(), &here());
    let fields = ["spec.trafficPolicy.outlierDetection", "spec.subsets[1].trafficPolicy.connectionPool"];
    assert_eq!(codes(&compiled), fields.map(|field| format!("CAN0005 {field}")));
    for found in &compiled.diagnostics {
        assert!(found.message.ends_with("is not enforced: canary's data path does not do this"), "{found:?}");
    }
    // A rule that no service has anything to do with, and a service whose rules are the kernel's for want of a proxy.
    let alone = world(ASKED, "", KERNEL).replace("host: reviews\n  trafficPolicy", "host: other\n  trafficPolicy");
    let compiled = compile_text(&alone, &State::default());
    assert!(codes(&compiled).contains(&"CAN0005 spec.trafficPolicy.outlierDetection".into()), "{compiled:#?}");
}

#[test]
fn a_policy_is_reported_for_the_services_that_the_kernel_balances() {
    let other = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec: {hosts: [shop], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}
";
    let compiled = compile_for(&join(&[&world(ASKED, "", PROXIED), other]), &State::default(), &here());
    assert_eq!(codes(&compiled), ["CAN0005 spec.trafficPolicy.outlierDetection"]);
    let message = &compiled.diagnostics[0].message;
    assert!(message.contains("for port 80 of shop.default") && message.contains("the kernel"), "{message}");
}

#[test]
fn a_rule_that_is_not_valid_holds_up_whom_it_concerns() {
    let broken = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: more}\nspec: {host: reviews, trafficPolicy: {outlierDetection: {interval: soon}}}";
    let compiled = compile_for(&join(&[&world("", "", PROXIED), broken]), &State::default(), &here());
    assert!(compiled.state.services.is_empty(), "{compiled:#?}");
    let of_host = PROXIED.replace(", subset: v1", "").replace(", subset: v2", "");
    let compiled = compile_for(&join(&[&world("", "", &of_host), broken]), &State::default(), &here());
    assert!(compiled.state.services.is_empty(), "{compiled:#?}");
}

#[test]
fn endpoints_are_spoken_to_as_their_port_declares() {
    let cases = [
        ("{name: http, port: 9080}", EndpointHttp::Http1),
        ("{name: http-web, port: 9080}", EndpointHttp::Http1),
        ("{name: web, port: 9080}", EndpointHttp::AsClient),
        ("{name: http2, port: 9080}", EndpointHttp::Http2),
        ("{name: grpc-api, port: 9080}", EndpointHttp::Http2),
        ("{name: grpc-web, port: 9080}", EndpointHttp::Http2),
        ("{name: web, port: 9080, appProtocol: kubernetes.io/h2c}", EndpointHttp::Http2),
        ("{name: web, port: 9080, appProtocol: kubernetes.io/ws}", EndpointHttp::Http1),
    ];
    for (port, expected) in cases {
        let world = world("", "", PROXIED).replace("{name: http, port: 9080}", port);
        let compiled = compile_for(&world, &State::default(), &here());
        let service = compiled.state.services.values().next().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
        assert_eq!(service.http.as_ref().map(|http| http.endpoint_http), Some(expected), "{port}");
    }
    let own = proxied("connectionPool: {http: {useClientProtocol: true}}", "");
    assert!(policy(&own, "v1").is_some_and(|policy| policy.connections.as_client));
}
