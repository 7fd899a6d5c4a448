//! Tests of the model: what is refused, in which words; what is reported; how names and ports are read.
mod strict;

use super::{
    names::{ExportTo, Host},
    service::Application,
    testing::read,
};
use crate::{diagnostic::Severity, state::Protocol};

const ISTIO: &str = "apiVersion: networking.istio.io/v1\nkind: ";

/// Everything that reading says, without the place.
fn said(yaml: &str) -> Vec<String> {
    let (_, found) = read(yaml);
    found.iter().map(|found| format!("{} {}: {} — {}", found.code, found.field, found.message, found.remedy)).collect()
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let route = "route: [{destination: {host: a}}]";
    let cases: [(&str, String, &str); 21] = [
        ("no rules", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a]}}"), "CAN0001 spec: exactly one of `http`, `tls` or `tcp` (or more) is needed, 0 are set — write one of them"),
        ("a rule without a goal", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{}}]}}"), "CAN0001 spec.http[0]: exactly one of `route`, `redirect`, `directResponse` and `delegate` is needed, 0 are set — write one of them"),
        ("a rule with two goals", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{redirect: {{}}, {route}}}]}}"), "CAN0001 spec.http[0]: exactly one of `route`, `redirect`, `directResponse` and `delegate` is needed, 2 are set — keep one of them"),
        ("a destination without host", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{}}}}]}}]}}"), "CAN0001 spec.http[0].route[0].destination.host: required, but missing — add the field"),
        ("a port out of range", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{host: a, port: {{number: 70000}}}}}}]}}]}}"), "CAN0001 spec.http[0].route[0].destination.port.number: 70000 is not a port: it must be between 1 and 65535 — "),
        ("a wildcard in the mesh", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['*'], http: [{{{route}}}]}}"), "CAN0001 spec.hosts[0]: host `*` is not possible here — name the hosts"),
        ("a wildcard at the end", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['foo.*'], http: [{{{route}}}]}}"), "CAN0001 spec.hosts[0]: host `foo.*`: `*` may only stand at the beginning — write `*.example.com`"),
        ("hosts that overlap", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['*.b.c', x.b.c], http: [{{{route}}}]}}"), "CAN0001 spec.hosts[1]: hosts `*.b.c` and `x.b.c` overlap: duplicate hosts in virtual service — remove one of the two"),
        ("a TLS rule without SNI", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], tls: [{{match: [{{port: 1}}], {route}}}]}}"), "CAN0001 spec.tls[0].match[0].sniHosts: required, but missing — add the field"),
        ("a subnet", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], tcp: [{{match: [{{destinationSubnets: [10/8]}}], {route}}}]}}"), "CAN0001 spec.tcp[0].match[0].destinationSubnets[0]: `10/8` is not an address or a network such as 10.0.0.0/8 — "),
        ("the wrong shape", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: {{}}}}"), "CAN0002 spec.http: invalid type: map, expected a sequence — "),
        ("a subset twice", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, subsets: [{{name: s}}, {{name: s}}]}}"), "CAN0001 spec.subsets[1].name: `s` appears twice — remove one of the two"),
        ("a rule without host", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{}}"), "CAN0001 spec.host: required, but missing — add the field"),
        ("a label that is a number", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, subsets: [{{name: s, labels: {{version: 2}}}}]}}"), "CAN0002 spec.subsets[0].labels.version: invalid type: integer `2`, expected a string — put it in quotes"),
        ("a table that is not prime", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{maglev: {{tableSize: 9}}}}}}}}}}"), "CAN0001 spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: `9` is not a prime below 5000011 — "),
        ("a cookie without name", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, subsets: [{{name: s, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {{ttl: 0s}}}}}}}}}}]}}"), "CAN0001 spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.httpCookie.name: required, but missing — add the field"),
        ("a name under STATIC", format!("{ISTIO}ServiceEntry\nmetadata: {{name: a}}\nspec: {{hosts: [a.b], resolution: STATIC, endpoints: [{{address: x.y}}]}}"), "CAN0001 spec.endpoints[0].address: `x.y` is not an IP address (resolution is STATIC) — "),
        ("a port name that is not there", format!("{ISTIO}ServiceEntry\nmetadata: {{name: a}}\nspec: {{hosts: [a.b], resolution: STATIC, endpoints: [{{address: 1.2.3.4, ports: {{http: 1}}}}]}}"), "CAN0001 spec.endpoints[0].ports.http: port `http` is not one of `spec.ports` — use the name of a port in `spec.ports`"),
        ("a workload without address", format!("{ISTIO}WorkloadEntry\nmetadata: {{name: a}}\nspec: {{labels: {{a: b}}}}"), "CAN0001 spec.address: required, but missing — add the field"),
        ("an application protocol as protocol", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, protocol: HTTP}]}".into(), "CAN0001 spec.ports[0].protocol: `HTTP` is not TCP, UDP or SCTP; an application protocol belongs into `appProtocol` — "),
        ("an address of the other family", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv6\nendpoints: [{addresses: [1.2.3.4]}]".into(), "CAN0001 endpoints[0].addresses[0]: `1.2.3.4` is not of the slice's `addressType` — "),
    ];
    for (name, yaml, expected) in cases {
        assert!(said(&yaml).contains(&expected.to_owned()), "{name}: {:#?}", said(&yaml));
        let (model, _) = read(&yaml);
        assert_eq!(model.broken().len(), 1, "{name}");
    }
}

#[test]
fn what_is_legal_although_it_looks_odd() {
    let rule = "http: [{route: [{destination: {host: a}}]}]";
    let cases = [
        ("identical rules (Flagger)", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]}}, {{route: [{{destination: {{host: a}}}}]}}]}}")),
        ("a delegate has no hosts", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{{rule}}}")),
        ("a wildcard on a gateway", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['*'], gateways: [g], {rule}}}")),
        ("a wildcard inside a label", format!("{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['*-foo.baz', '*foo.bar'], {rule}}}")),
        ("a null policy (Flagger)", format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: null}}")),
        ("null labels", "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: null, annotations: null}\nspec: {selector: null, ports: null}".into()),
        ("a network instead of an address", format!("{ISTIO}WorkloadEntry\nmetadata: {{name: a}}\nspec: {{network: n}}")),
    ];
    for (name, yaml) in cases {
        let (model, found) = read(&yaml);
        let errors: Vec<_> = found.iter().filter(|found| found.severity == Severity::Error).collect();
        assert!(errors.is_empty() && model.broken().is_empty(), "{name}: {errors:#?}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let yaml = format!(
        "{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['a..b'], http: [{{route: [{{destination: {{host: a}}, weight: -1}}, {{weight: 1}}]}}]}}"
    );
    let found = said(&yaml);
    let fields: Vec<&str> = found.iter().map(|text| text.split(':').next().unwrap()).collect();
    assert_eq!(
        fields,
        ["CAN0001 spec.hosts[0]", "CAN0001 spec.http[0].route[0].weight", "CAN0001 spec.http[0].route[1].destination"]
    );
}

#[test]
fn diagnostics_point_at_the_line() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts:\n  - a\n  http:\n  - retries: {retryRemoteLocalities: true}\n    route:\n    - destination:\n        host: a\n      weight: -1\n    - destination:\n        host: a\n";
    let (_, found) = read(yaml);
    let lines: Vec<(&str, u32)> = found.iter().map(|found| (found.field.as_str(), found.origin.line)).collect();
    assert_eq!(lines, [("spec.http[0].route[0].weight", 13)]);
    let (_, found) = read(&yaml.replace("-1", "1"));
    let lines: Vec<(&str, u32)> = found.iter().map(|found| (found.field.as_str(), found.origin.line)).collect();
    assert_eq!(lines, [("spec.http[0].retries.retryRemoteLocalities", 9)]);
}

#[test]
fn fields_that_are_not_enforced() {
    let service = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}");
    let rule = |spec: &str| format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, {spec}}}");
    let cases = [
        ("sticky", service("sessionAffinity: ClientIP"), ""),
        ("who is kept out", service("loadBalancerSourceRanges: [192.0.2.0/24]"), "spec.loadBalancerSourceRanges"),
        ("what concerns others", service("ipFamilyPolicy: SingleStack, allocateLoadBalancerNodePorts: true"), ""),
        ("the spread of connections", rule("trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}"), ""),
        ("what the proxy follows", rule("trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}"), ""),
        ("of a subset", rule("subsets: [{name: s, trafficPolicy: {outlierDetection: {}}}]"), ""),
        (
            "what nobody follows",
            rule("trafficPolicy: {tls: {}, loadBalancer: {localityLbSetting: {}, simple: PASSTHROUGH}}"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting spec.trafficPolicy.loadBalancer.simple spec.trafficPolicy.tls",
        ),
        (
            "of a port",
            rule(
                "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {}, connectionPool: {http: {maxRetries: 1, http2KeepAlive: {}}}}]}",
            ),
            "spec.trafficPolicy.portLevelSettings[0].connectionPool.http.http2KeepAlive spec.trafficPolicy.portLevelSettings[0].tls",
        ),
        (
            "a ring's size",
            rule(
                "subsets: [{name: s, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 9}}}}}]",
            ),
            "spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.ringHash",
        ),
        (
            "client networks, which Istio ignores too",
            format!(
                "{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], tcp: [{{match: [{{sourceSubnet: 10.0.0.0/8}}], route: [{{destination: {{host: a}}}}]}}]}}"
            ),
            "spec.tcp[0].match[0].sourceSubnet",
        ),
    ];
    for (name, yaml, field) in cases {
        let (_, found) = read(&yaml);
        let fields: Vec<&str> = found.iter().map(|found| found.field.as_str()).collect();
        assert_eq!(fields.join(" "), field, "{name}");
        assert!(found.iter().all(|found| found.severity == Severity::Warning && found.code == "CAN0005"), "{name}");
    }
}

#[test]
fn other_kinds_are_skipped_with_one_note_each() {
    let (_, found) = read(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {x: y}\n---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}",
    );
    let texts: Vec<(Severity, &str)> = found.iter().map(|found| (found.severity, found.message.as_str())).collect();
    assert_eq!(
        texts,
        [
            (Severity::Info, "skipped: canary does not read Deployment of apps/v1"),
            (Severity::Info, "skipped: canary does not read Sidecar of networking.istio.io/v1"),
        ]
    );
}

#[test]
fn hosts_cover_hosts() {
    let host = |text: &str| Host::read(text, "ns").unwrap();
    assert_eq!(host("a").as_str(), "a.ns.svc.cluster.local");
    let cases = [
        ("a", "a.ns.svc.cluster.local", true),
        ("a.ns", "a", false),
        ("*.foo", "x.foo", true),
        ("*.foo", "foo", false),
        ("*foo", "a.barfoo", true),
        ("*.foo", "*.bar.foo", true),
        ("*.bar.foo", "*.foo", false),
        ("*", "anything.at.all", true),
        ("10.0.0.1", "10.0.0.1", true),
    ];
    for (wide, narrow, covers) in cases {
        assert_eq!(host(wide).covers(&host(narrow)), covers, "{wide} covers {narrow}");
    }
    for bad in ["", "a..b", "a b", "foo.*", "a*b", "-x!"] {
        assert!(Host::read(bad, "ns").is_err(), "{bad}");
    }
}

#[test]
fn who_sees_an_object() {
    let cases: [(&[&str], &str, bool); 7] = [
        (&[], "x", true),
        (&["*"], "x", true),
        (&["."], "own", true),
        (&["."], "x", false),
        (&["x", "y"], "x", true),
        (&["x", "y"], "own", false),
        (&["~"], "own", false),
    ];
    for (written, namespace, sees) in cases {
        let written: Vec<String> = written.iter().map(ToString::to_string).collect();
        assert_eq!(ExportTo::read(&written, "own").includes(namespace), sees, "{written:?} {namespace}");
    }
}

#[test]
fn ports_without_a_known_name_are_sniffed_unless_their_number_is_known() {
    for (number, expected) in [
        (25, Application::Tcp),
        (53, Application::Tcp),
        (3_306, Application::Tcp),
        (27_017, Application::Tcp),
        (80, Application::Sniffed),
    ] {
        assert_eq!(Application::of_port(Protocol::Tcp, None, "", number), expected, "{number}");
    }
    assert_eq!(Application::of_port(Protocol::Tcp, Some("http"), "tcp", 3_306), Application::Http);
    assert_eq!(
        Application::of_port(Protocol::Tcp, None, "kubernetes.io/h2c", 80),
        Application::Sniffed,
        "in appProtocol only"
    );
}

#[test]
fn traffic_policies_by_istios_rules() {
    let long = "a duration of at least 1ms, such as 3s";
    let simple = "UNSPECIFIED, LEAST_REQUEST, LEAST_CONN, RANDOM, ROUND_ROBIN or PASSTHROUGH";
    let cases: [(&str, String); 29] = [
        ("loadBalancer: {simple: ROUNDROBIN}", format!("loadBalancer.simple: `ROUNDROBIN` is not {simple}")),
        ("loadBalancer: {simple: PASSTHROUGH}", String::new()),
        ("loadBalancer: []", "loadBalancer: `[]` is not a block of fields".into()),
        ("loadBalancer: {consistentHash: {useSourceIp: 'yes'}}", "loadBalancer.consistentHash.useSourceIp: `yes` is not true or false".into()),
        ("loadBalancer: {warmup: {duration: 5s, aggression: '2'}}", String::new()),
        ("loadBalancer: {warmup: {duration: 5s, aggression: '-2'}}", "loadBalancer.warmup.aggression: `-2` is not a number above 0".into()),
        ("connectionPool: {tcp: 5}", "connectionPool.tcp: `5` is not a block of fields".into()),
        ("connectionPool: {tcp: {connectTimeout: 5}}", "connectionPool.tcp.connectTimeout: `5` is not a text".into()),
        ("connectionPool: {http: {h2UpgradePolicy: UPGRAED}}", "connectionPool.http.h2UpgradePolicy: `UPGRAED` is not DEFAULT, DO_NOT_UPGRADE or UPGRADE".into()),
        ("outlierDetection: {maxEjectionPercent: '200'}", "outlierDetection.maxEjectionPercent: `200` is not a percentage from 0 to 100".into()),
        ("portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]", "portLevelSettings[1].port.number: `80` appears twice".into()),
        ("connectionPool: {tcp: {maxConnections: many}}", "connectionPool.tcp.maxConnections: `many` is not a whole number from 0 to 4294967295".into()),
        ("connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}", "connectionPool.http.useClientProtocol: connectionPool.http.h2UpgradePolicy: UPGRADE and useClientProtocol exclude each other".into()),
        ("loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: long}}}", "loadBalancer.consistentHash.httpCookie.ttl: `long` is not a duration, such as 0s or 1h".into()),
        ("portLevelSettings: [{port: {number: 0}}]", "portLevelSettings[0].port.number: 0 is not a port: it must be between 1 and 65535".into()),
        ("connectionPool: {tcp: {connectTimeout: 30ms, idleTimeout: 1h30m}}", String::new()),
        ("connectionPool: {http: {http2KeepAlive: {interval: 15s}}}", String::new()),
        ("connectionPool: {tcp: {connectTimeout: 10us}}", format!("connectionPool.tcp.connectTimeout: `10us` is not {long}")),
        ("outlierDetection: {interval: soon}", format!("outlierDetection.interval: `soon` is not {long}")),
        ("outlierDetection: {interval: -1s}", format!("outlierDetection.interval: `-1s` is not {long}")),
        ("outlierDetection: {maxEjectionPercent: 101}", "outlierDetection.maxEjectionPercent: `101` is not a percentage from 0 to 100".into()),
        ("loadBalancer: {warmup: {duration: 5s}, warmupDurationSecs: 5s}", "loadBalancer.warmupDurationSecs: loadBalancer.warmup and loadBalancer.warmupDurationSecs exclude each other".into()),
        ("loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}", "loadBalancer.consistentHash: loadBalancer.simple and loadBalancer.consistentHash exclude each other".into()),
        ("loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}", "loadBalancer.consistentHash: exactly one of `httpHeaderName`, `httpCookie`, `useSourceIp` and `httpQueryParameterName` is needed, 2 are set".into()),
        ("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}", String::new()),
        ("loadBalancer: {warmup: {duration: 5s, aggression: 0}}", "loadBalancer.warmup.aggression: `0` is not a number above 0".into()),
        ("tunnel: {targetHost: a}", "tunnel.targetPort: required, but missing".into()),
        ("tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}", "proxyProtocol: tunnel and proxyProtocol exclude each other".into()),
        ("portLevelSettings: [{port: {number: 80}, outlierDetection: {interval: 0s}}]", format!("portLevelSettings[0].outlierDetection.interval: `0s` is not {long}")),
    ];
    for (policy, expected) in cases {
        let yaml =
            format!("{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: {{{policy}}}}}");
        let (_, found) = read(&yaml);
        let errors = found.iter().filter(|found| found.severity == Severity::Error);
        let errors: Vec<String> = errors.map(|found| format!("{}: {}", found.field, found.message)).collect();
        let wanted = if expected.is_empty() { Vec::new() } else { vec![format!("spec.trafficPolicy.{expected}")] };
        assert_eq!(errors, wanted, "{policy}");
    }
    let selector = |value: &str| {
        format!(
            "{ISTIO}DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, workloadSelector: {{matchLabels: {{app: '{value}'}}}}}}"
        )
    };
    assert_eq!((read(&selector("a")).0.broken().len(), read(&selector("*")).0.broken().len()), (0, 1));
}
