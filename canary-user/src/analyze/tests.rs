//! Each analyzer on what it should say and on what it should not, beyond Istio's own cases.
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
fn destinations_exist_and_are_suggested() {
    let reviews = service("reviews", "{ports: [{port: 80}]}") + &service("two", "{ports: [{port: 80}, {port: 81}]}");
    let http = |destination: &str| {
        reviews.clone()
            + &virtual_service("a", &format!("{{hosts: [a], http: [{{route: [{{destination: {destination}}}]}}]}}"))
    };
    check(
        "virtualservice.DestinationHostAnalyzer",
        [
            ("there", http("{host: reviews}"), &[][..]),
            (
                "a slip",
                http("{host: reveiws}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.host: referenced host not found: \"reveiws\" — did you mean `reviews`? ",
                ],
            ),
            (
                "tcp",
                reviews.clone() + &virtual_service("a", "{tcp: [{route: [{destination: {host: x}}]}]}"),
                &["IST0101 spec.tcp[0].route[0]"],
            ),
            (
                "tls",
                reviews.clone() + &virtual_service("a", "{tls: [{route: [{destination: {host: x}}]}]}"),
                &["IST0101 spec.tls[0].route[0]"],
            ),
            (
                "mirrors",
                reviews.clone()
                    + &virtual_service("a", "{http: [{mirrors: [{destination: {host: x}}], mirror: {host: y}}]}"),
                &[
                    "IST0101 spec.http[0].mirror.host: referenced mirror host not found",
                    "IST0101 spec.http[0].mirrors[0]",
                ],
            ),
            (
                "two ports",
                http("{host: two}"),
                &[
                    "IST0112 spec.http[0].route[0].destination: \"two\" has the ports 80, 81, and the destination does not say which — add `port: {number: …}`",
                ],
            ),
            ("one of two ports", http("{host: two, port: {number: 81}}"), &[]),
            (
                "no such port",
                http("{host: two, port: {number: 82}}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.port.number: referenced host:port not found: \"two:82\" — use one that it has: 80, 81",
                ],
            ),
            (
                "another namespace",
                reviews.clone() + &virtual_service("other/a", "{http: [{route: [{destination: {host: reviews}}]}]}"),
                &["IST0101"],
            ),
        ],
    );
}

#[test]
fn subsets_are_defined_and_select_workloads() {
    let route =
        |destination: &str| virtual_service("a", &format!("{{http: [{{route: [{{destination: {destination}}}]}}]}}"));
    let rule = |host: &str| {
        destination_rule(
            "r",
            &format!("{{host: {host}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: stable}}]}}"),
        )
    };
    check(
        "virtualservice.DestinationRuleAnalyzer",
        [
            ("defined", rule("reviews") + &route("{host: reviews, subset: v1}"), &[][..]),
            (
                "by its full name",
                rule("reviews.default.svc.cluster.local") + &route("{host: reviews, subset: v1}"),
                &[],
            ),
            ("by a wildcard", rule("'*.default.svc.cluster.local'") + &route("{host: reviews, subset: v1}"), &[]),
            ("no subset", route("{host: reviews}"), &[]),
            (
                "a slip",
                rule("reviews") + &route("{host: reviews, subset: satble}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.subset: referenced host+subset in destinationrule not found: \"reviews+satble\" — did you mean `stable`? it has v1, stable",
                ],
            ),
            (
                "no rule",
                route("{host: reviews, subset: v1}"),
                &[
                    "IST0101 spec.http[0].route[0].destination.subset: referenced host+subset in destinationrule not found: \"reviews+v1\" — add a DestinationRule",
                ],
            ),
            (
                "mirror",
                rule("reviews") + &virtual_service("a", "{http: [{mirror: {host: reviews, subset: v9}}]}"),
                &["IST0101 spec.http[0].mirror.subset: referenced mirror+subset"],
            ),
        ],
    );
    let reviews = service("reviews", "{selector: {app: reviews}}");
    check(
        "destinationrule.PodNotSelectedAnalyzer",
        [
            ("selected", reviews.clone() + &rule("reviews") + &pod("p", "{app: reviews, version: v1}"), &[][..]),
            ("nothing runs that is known", reviews.clone() + &rule("reviews"), &[]),
            (
                "another version",
                reviews.clone() + &rule("reviews") + &pod("p", "{app: reviews, version: v2}"),
                &[
                    "IST0173 spec.subsets[0].labels: subset \"v1\" selects no workload: none has the labels app=reviews, version=v1",
                ],
            ),
            (
                "another app",
                reviews.clone() + &rule("reviews") + &pod("p", "{app: ratings, version: v1}"),
                &["IST0173 spec.subsets[0]", "IST0173 spec.subsets[1]"],
            ),
            (
                "of a Deployment",
                reviews.clone()
                    + &rule("reviews")
                    + &object(
                        "apps/v1",
                        "Deployment",
                        "d",
                        "spec: {template: {metadata: {labels: {app: reviews, version: v1}}}}",
                    ),
                &[],
            ),
            (
                "unknown host",
                reviews + &rule("revews"),
                &["IST0174 spec.host: there is no host \"revews\" — did you mean `reviews`? "],
            ),
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

#[test]
fn everything_at_once_is_in_the_order_of_lines_and_names_are_unique() {
    let text = service("s", "{ports: [{port: 1}]}")
        + &virtual_service("a", "{hosts: [s.default], gateways: [g]}")
        + &service("t", "{ports: [{port: 1}]}");
    let found = analyze(&parse(&text, Path::new("f.yaml")));
    let lines: Vec<u32> = found.iter().map(|found| found.origin.line).collect();
    assert!(lines.is_sorted() && lines.len() == 5, "{found:#?}");
    assert!(ANALYZERS.windows(2).all(|pair| pair[0].name < pair[1].name));
}

/// The reference says what every code means, and invents none.
#[test]
fn every_code_is_documented() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference-analyze.md")).unwrap();
    let own = crate::source::code::ALL.iter().chain(ANALYZERS.iter().flat_map(|analyzer| analyzer.codes));
    for code in own.clone() {
        assert!(text.contains(&format!("\n| {code} |")), "{code} is not in docs/reference-analyze.md");
    }
    for row in text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter(|row| row.starts_with("IST") || row.starts_with("CAN"))
    {
        let code = row.split(' ').next().unwrap();
        assert!(own.clone().any(|known| *known == code), "{code} is in docs/reference-analyze.md only");
    }
    for analyzer in &ANALYZERS {
        assert!(
            text.contains(&format!("| `{}` |", analyzer.name)),
            "{} is not in docs/reference-analyze.md",
            analyzer.name
        );
    }
}

proptest::proptest! {
    /// Bodies are whatever somebody wrote: no shape makes an analyzer panic.
    #[test]
    fn no_shape_makes_it_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "hosts: [a, 5, '*', '']", "hosts: x", "http: [{route: [{}]}]", "http: [5, {match: [{}, 3, {uri: {prefix: /}}, {uri: {prefix: /}}]}]", "http: {a: b}",
        "tcp: [{match: [null], route: [{destination: {host: a, subset: v, port: 5}}]}]", "gateways: [g, /, '', a/b/c, mesh]", "exportTo: ['.', '*', 7]",
        "subsets: [{}, 5, {name: v, labels: 5}]", "host: ''", "host: '*'", "ports: [{port: -1}, 5, {}, {number: x, protocol: 7}]", "selector: 5", "template: {metadata: 7}",
        "servers: [{hosts: ['*/', '/x', '*']}]", "addresses: 5",
    ]), 0..5), kinds in proptest::collection::vec(proptest::sample::select(vec![
        ("networking.istio.io/v1", "VirtualService"), ("networking.istio.io/v1", "DestinationRule"), ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1", "ServiceEntry"), ("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "Pod"), ("networking.istio.io/v1", "Sidecar"),
    ]), 1..5)) {
        let body = |index: usize| pieces.iter().cycle().skip(index).take(pieces.len()).enumerate()
            .filter(|(at, piece)| !pieces.iter().cycle().skip(index).take(*at).any(|other| other.split(':').next() == piece.split(':').next()))
            .map(|(_, piece)| format!("  {piece}\n")).collect::<Vec<_>>().concat();
        let text: String = kinds.iter().enumerate().map(|(index, (api, kind))| object(api, kind, &format!("o{index}"), &format!("spec:\n{}", body(index)))).collect();
        let snapshot = parse(&text, Path::new("f.yaml"));
        proptest::prop_assert_eq!(snapshot.objects.len(), kinds.len(), "{}", text);
        for found in analyze(&snapshot) {
            proptest::prop_assert!(found.origin.line > 0);
        }
    }
}

/// What we tell people to start from must not be complained about.
#[test]
fn the_example_is_clean() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/helloworld");
    let snapshot = crate::source::directory::Directory::open(path).unwrap().read().unwrap();
    assert!(snapshot.objects.len() >= 4, "{}", snapshot.objects.len());
    assert_eq!((snapshot.diagnostics.as_slice(), analyze(&snapshot).as_slice()), (&[][..], &[][..]));
}
