//! Each analyzer on what it should say and on what it should not, beyond Istio's own cases.
mod references;
mod whole;

use std::path::Path;

use super::*;
use crate::source::parse;

/// `code field: message — remedy` of everything that one analyzer says.
fn said(only: &str, text: &str) -> Vec<String> {
    let snapshot = parse(text, Path::new("f.yaml"));
    assert_eq!(snapshot.diagnostics, [], "{text}");
    assert!(ANALYZERS.iter().any(|analyzer| analyzer.name == only), "{only}");
    let found = analyze_with(&snapshot, Options { only: Some(only), mesh_config: None });
    let codes = ANALYZERS.iter().find(|analyzer| analyzer.name == only).unwrap().codes;
    assert!(found.iter().all(|diagnostic| codes.contains(&diagnostic.code)), "{found:?}");
    found.iter().map(|found| format!("{} {}: {} — {}", found.code, found.field, found.message, found.remedy)).collect()
}

fn object(api: &str, kind: &str, name: &str, rest: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!("---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n{rest}\n")
}

fn virtual_service(name: &str, spec: &str) -> String {
    object("networking.istio.io/v1alpha3", "VirtualService", name, &format!("spec: {spec}"))
}

fn destination_rule(name: &str, spec: &str) -> String {
    object("networking.istio.io/v1beta1", "DestinationRule", name, &format!("spec: {spec}"))
}

fn service(name: &str, spec: &str) -> String {
    object("v1", "Service", name, &format!("spec: {spec}"))
}

fn service_entry(name: &str, spec: &str) -> String {
    object("networking.istio.io/v1", "ServiceEntry", name, &format!("spec: {spec}"))
}

fn pod(name: &str, labels: &str) -> String {
    let (_, short) = name.split_once('/').unwrap_or(("", name));
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {short}, labels: {labels}}}\n")
}

/// (name of the case, objects, beginnings of what is said).
type Case = (&'static str, String, &'static [&'static str]);

fn check(only: &str, cases: impl IntoIterator<Item = Case>) {
    for (name, text, expected) in cases {
        let said = said(only, &text);
        let as_expected =
            said.len() == expected.len() && said.iter().zip(expected).all(|(said, start)| said.starts_with(start));
        assert!(as_expected, "{name}: said {said:#?}, expected {expected:#?}");
    }
}

#[test]
fn cookies_stand_behind_a_space() {
    let route = |entry: &str| {
        virtual_service(
            "a",
            &format!("{{hosts: [s], http: [{{}}, {{match: [{{}}, {entry}], route: [{{destination: {{host: s}}}}]}}]}}"),
        )
    };
    let trap = "^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$";
    check(
        "canary.CookieRegexAnalyzer",
        [
            (
                "the expression of a tutorial",
                route(&format!("{{headers: {{cookie: {{regex: '{trap}'}}}}}}")),
                &[
                    "CAN0204 spec.http[1].match[1].headers.cookie.regex: browsers write a space behind each `;` of a cookie header: this does not match `a; email=a@some-company-name.com;a`, only `a;email=a@some-company-name.com;a` — write `^(.*?;\\s*)?(email=[^;]*@some-company-name.com)(;.*)?$`, or test the cookie by itself with the annotation `canary.io/cookies`",
                ][..],
            ),
            (
                "in other letters, negated",
                route(&format!("{{withoutHeaders: {{Cookie: {{regex: '{trap}'}}}}}}")),
                &["CAN0204 spec.http[1].match[1].withoutHeaders.Cookie.regex: "],
            ),
            ("another header", route(&format!("{{headers: {{x-cookie: {{regex: '{trap}'}}}}}}")), &[]),
            ("with the space", route("{headers: {cookie: {regex: '^(.*; ?)?a=b(;.*)?$'}}}"), &[]),
            ("no expression", route("{headers: {cookie: {exact: 'a;b=c'}}}"), &[]),
            ("no text", route("{headers: {cookie: {regex: 5}}}, 7, {headers: [cookie]}"), &[]),
        ],
    );
}

#[test]
fn hosts_with_a_dot_are_taken_as_they_stand() {
    let reviews = service("reviews", "{ports: [{port: 80}]}");
    let route = |host: &str| {
        virtual_service("a", &format!("{{hosts: [other], http: [{{route: [{{destination: {{host: {host}}}}}]}}]}}"))
    };
    let meant = &["CAN0201 spec.http[0].route[0].destination.host: \"reviews.default"];
    check(
        "canary.LiteralHostAnalyzer",
        [
            ("short", reviews.clone() + &route("reviews"), &[][..]),
            ("full", reviews.clone() + &route("reviews.default.svc.cluster.local"), &[]),
            ("external", reviews.clone() + &route("reviews.com"), &[]),
            ("with the namespace", reviews.clone() + &route("reviews.default"), meant),
            ("with svc", reviews.clone() + &route("reviews.default.svc"), meant),
            (
                "in hosts",
                reviews.clone() + &virtual_service("a", "{hosts: [reviews.default]}"),
                &["CAN0201 spec.hosts[0]: "],
            ),
            (
                "in a rule",
                reviews + &destination_rule("a", "{host: reviews.default}"),
                &[
                    "CAN0201 spec.host: \"reviews.default\" has a dot, so it is taken as it stands and is not the Service that it looks like — write \"reviews.default.svc.cluster.local\"",
                ],
            ),
        ],
    );
}

#[test]
fn rules_that_nothing_reaches() {
    let http = |rules: &str| virtual_service("a", &format!("{{hosts: [a], http: [{rules}]}}"));
    let get = "{match: [{method: {exact: GET}}]}";
    check(
        "canary.RuleAfterCatchAllAnalyzer",
        [
            ("in order", http(&format!("{get}, {{route: []}}")), &[][..]),
            (
                "out of order",
                http(&format!("{{name: all}}, {get}")),
                &[
                    "CAN0202 spec.http[1]: rule http[1] is never used: rule \"all\" (http[0]), before it, matches everything",
                ],
            ),
            (
                "an empty match is everything",
                http(&format!("{{match: [{{name: all}}]}}, {get}")),
                &["CAN0202 spec.http[1]"],
            ),
            ("tcp", virtual_service("a", "{hosts: [a], tcp: [{}, {match: [{port: 5}]}]}"), &["CAN0202 spec.tcp[1]"]),
        ],
    );
    let prefix = |rest: &str, then: &str| {
        http(&format!("{{match: [{{uri: {{prefix: /a}}{rest}}}]}}, {{match: [{{uri: {{prefix: /ab}}{then}}}]}}"))
    };
    check(
        "schema.ValidationAnalyzer.VirtualService",
        [
            (
                "longer after shorter",
                prefix("", ""),
                &[
                    "IST0131 spec.http[1].match[0]: match[0] of rule http[1] is never used: rule http[0] has a prefix that covers it",
                ][..],
            ),
            ("with more conditions", prefix("", ", method: {exact: GET}"), &["IST0131"]),
            ("with fewer conditions", prefix(", method: {exact: GET}", ""), &[]),
            ("another header", prefix(", headers: {x: {exact: a}}", ", headers: {x: {exact: b}}"), &[]),
            (
                "more headers",
                prefix(", headers: {x: {exact: a}}", ", headers: {x: {exact: a}, y: {exact: b}}"),
                &["IST0131"],
            ),
            ("another source", prefix(", sourceLabels: {app: x}", ""), &[]),
            ("other gateways", prefix(", gateways: [g]", ", gateways: [h]"), &[]),
            ("longer first", http("{match: [{uri: {prefix: /ab}}]}, {match: [{uri: {prefix: /a}}]}"), &[]),
            (
                "the same in another order of fields",
                http("{match: [{port: 1, method: {exact: GET}}]}, {match: [{method: {exact: GET}, port: 1, name: x}]}"),
                &[
                    "IST0130 spec.http[1]: rule http[1] is never used: all its matches are used by earlier rules",
                    "IST0131",
                ],
            ),
            (
                "three nested prefixes are three pairs",
                http("{match: [{uri: {prefix: /a}}, {uri: {prefix: /ab}}, {uri: {prefix: /abc}}]}"),
                &["IST0131 spec.http[0].match[1]", "IST0131 spec.http[0].match[2]", "IST0131 spec.http[0].match[2]"],
            ),
        ],
    );
}

#[test]
fn matches_with_the_same_prefix() {
    let two = |first: &str, second: &str| {
        virtual_service(
            "a",
            &format!("{{http: [{{match: [{{uri: {{prefix: /a}}{first}}}, {{uri: {{prefix: /a}}{second}}}]}}]}}"),
        )
    };
    let get = ", method: {exact: GET}";
    check(
        "canary.CoveredMatchAnalyzer",
        [
            (
                "more conditions",
                two("", get),
                &["CAN0203 spec.http[0].match[1]: match[1] of rule http[0] is never used"][..],
            ),
            ("fewer conditions", two(get, ""), &[]),
            ("the same, which is IST0131", two(get, get), &[]),
        ],
    );
}

#[test]
fn gateways_exist_and_serve() {
    let gateway = object("networking.istio.io/v1", "Gateway", "g", "spec: {servers: [{hosts: ['*.example.com']}]}");
    let of_another_api = object("gateway.networking.k8s.io/v1", "Gateway", "k", "spec: {}");
    let vs = |gateways: &str, host: &str| {
        format!("{gateway}{of_another_api}")
            + &virtual_service("a", &format!("{{hosts: [{host}], gateways: [{gateways}]}}"))
    };
    check(
        "virtualservice.GatewayAnalyzer",
        [
            ("served", vs("g", "a.example.com"), &[][..]),
            ("with a namespace", vs("default/g", "a.example.com"), &[]),
            ("own namespace", vs("./g", "a.example.com"), &[]),
            ("mesh", vs("mesh", "a"), &[]),
            (
                "not served",
                vs("g", "a.example.org"),
                &["IST0132 spec.gateways[0]: none of the hosts [a.example.org] is served by gateway default/g"],
            ),
            (
                "of another API",
                vs("k", "a.example.com"),
                &["IST0101 spec.gateways[0]: referenced gateway not found: \"k\"", "IST0132"],
            ),
        ],
    );
}

#[test]
fn claims_on_a_host_in_the_mesh() {
    let vs = |name: &str, rest: &str| {
        virtual_service(name, &format!("{{hosts: [reviews.default.svc.cluster.local]{rest}}}"))
    };
    check(
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        [
            ("one", vs("a", ""), &[][..]),
            (
                "two",
                vs("a", "") + &vs("b", ""),
                &[
                    "IST0109 spec.hosts: claims the host reviews.default.svc.cluster.local in the mesh, as VirtualService default/b does",
                    "IST0109",
                ],
            ),
            ("short and full", vs("a", "") + &virtual_service("b", "{hosts: [reviews]}"), &["IST0109", "IST0109"]),
            ("short, elsewhere", vs("a", "") + &virtual_service("other/b", "{hosts: [reviews]}"), &[]),
            ("one at a gateway", vs("a", "") + &vs("b", ", gateways: [g]"), &[]),
            (
                "one at a gateway and in the mesh",
                vs("a", "") + &vs("b", ", gateways: [g, mesh]"),
                &["IST0109", "IST0109"],
            ),
            ("for different namespaces", vs("a", ", exportTo: [x]") + &vs("b", ", exportTo: [y]"), &[]),
            ("for one namespace", vs("a", ", exportTo: [x, y]") + &vs("b", ", exportTo: [y]"), &["IST0109", "IST0109"]),
        ],
    );
}

#[test]
fn ports_and_their_protocols() {
    let port = |port: &str| service("s", &format!("{{ports: [{port}]}}"));
    check(
        "service.PortNameAnalyzer",
        [
            ("by name", port("{port: 1, name: http-web}"), &[][..]),
            ("in capitals", port("{port: 1, name: HTTP2}"), &[]),
            ("grpc-web", port("{port: 1, name: grpc-web-x}"), &[]),
            ("by appProtocol", port("{port: 1, name: x, appProtocol: kubernetes.io/h2c}"), &[]),
            (
                "unknown appProtocol",
                port("{port: 1, name: http, appProtocol: x}"),
                &["IST0118 spec.ports[0].name: the port name \"http\" does not say the protocol"],
            ),
            ("UDP", port("{port: 1, name: x, protocol: UDP}"), &[]),
            ("well known", port("{port: 3306}"), &[]),
            ("unnamed", port("{port: 1}"), &["IST0118"]),
            ("not a prefix", port("{port: 1, name: httpweb}"), &["IST0118"]),
        ],
    );
    let entry = |name: &str, rest: &str| service_entry(name, &format!("{{hosts: [x.com], {rest}}}"));
    check(
        "serviceentry.ProtocolAddressesAnalyzer",
        [
            ("with addresses", entry("a", "addresses: [10.0.0.1], ports: [{number: 1, protocol: TCP}]"), &[][..]),
            ("http", entry("a", "ports: [{number: 1, protocol: HTTP}]"), &[]),
            (
                "two without",
                entry("a", "ports: [{number: 1, protocol: tcp}, {number: 2}]"),
                &["IST0134 spec.ports[0]", "IST0134 spec.ports[1]"],
            ),
            (
                "given by the proxies' DNS",
                entry("a", "ports: [{number: 1}]")
                    + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    defaultConfig:\n      proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\", ISTIO_META_DNS_AUTO_ALLOCATE: \"true\"}\n",
                &[],
            ),
        ],
    );
    let with = |name: &str, protocol: &str, scope: &str| {
        entry(name, &format!("exportTo: ['{scope}'], ports: [{{number: 1, protocol: {protocol}}}]"))
    };
    check(
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        [
            ("the same", with("a", "HTTP", "*") + &with("b", "http", "*"), &[][..]),
            (
                "different",
                with("a", "HTTP", "*") + &with("b", "TCP", "*"),
                &[
                    "IST0177 spec.ports: x.com:1 has different protocols (HTTP, TCP) together with ServiceEntry default/b",
                    "IST0177",
                ],
            ),
            ("one for all", with("a", "HTTP", "*") + &with("n/b", "TCP", "."), &["IST0177", "IST0177"]),
            ("apart", with("a", "HTTP", ".") + &with("n/b", "TCP", "."), &[]),
        ],
    );
}

#[test]
fn deployments_whose_services_disagree() {
    let deployment = |inject: &str| {
        object(
            "apps/v1",
            "Deployment",
            "d",
            &format!("spec: {{template: {{metadata: {{labels: {{app: x, sidecar.istio.io/inject: '{inject}'}}}}}}}}"),
        )
    };
    let of_x = |name: &str, port: &str| service(name, &format!("{{selector: {{app: x}}, ports: [{port}]}}"));
    let tcp_and_udp = of_x("a", "{port: 1}") + &of_x("b", "{port: 1, protocol: UDP}");
    check(
        "deployment.ServiceAssociationAnalyzer",
        [
            (
                "two protocols",
                deployment("true") + &tcp_and_udp,
                &[
                    "IST0116 spec.template.metadata.labels: the Services a, b use port 1 with different protocols (TCP, UDP)",
                ][..],
            ),
            ("not in the mesh", deployment("false") + &tcp_and_udp, &[]),
            (
                "one target by two ports",
                deployment("true") + &of_x("a", "{port: 1, targetPort: 9}") + &of_x("b", "{port: 2, targetPort: 9}"),
                &["IST0137 spec.template.metadata.labels: the Services a, b reach port 9 by different ports (1, 2)"],
            ),
            (
                "one Service alone",
                deployment("true")
                    + &of_x("a", "{port: 1}")
                    + &service("b", "{selector: {app: y}, ports: [{port: 1, protocol: UDP}]}"),
                &[],
            ),
        ],
    );
}
