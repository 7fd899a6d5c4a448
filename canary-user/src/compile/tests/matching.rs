//! Which rules apply to whom: protocols, ports, sources, subnets, server names, and what only a request can answer.
use super::{codes, compiled, endpoints_of, join, only, pod, reviews, route};

const V1: &str = "route: [{destination: {host: reviews, subset: v1}}]";
const V2: &str = "route: [{destination: {host: reviews, subset: v2}}]";

/// The world with another port definition of `reviews`.
fn with_port(port: &str) -> String {
    reviews().replace("{name: http, port: 9080}", port)
}

#[test]
fn the_section_goes_by_the_protocol_of_the_port() {
    let sections = [("http", ""), ("tcp", ""), ("tls", "match: [{sniHosts: [reviews]}], ")];
    let all: Vec<String> = sections.iter().map(|(name, extra)| format!("  {name}: [{{{extra}{V1}}}]")).collect();
    let all = route(&all.join("\n"));
    let cases = [
        ("named http", "{name: http, port: 80}", "http[0]{v1:1}"),
        ("named by prefix", "{name: grpc-api, port: 80}", "http[0]{v1:1}"),
        ("grpc-web has a hyphen", "{name: grpc-web, port: 80}", "http[0]{v1:1}"),
        ("in capitals", "{name: HTTP2-x, port: 80}", "http[0]{v1:1}"),
        ("not declared", "{name: web, port: 80}", "http[0]{v1:1}"),
        ("no name", "{port: 80}", "http[0]{v1:1}"),
        ("httpx is not http", "{name: httpx, port: 27017}", "tcp[0]{v1:1}"),
        ("well known to be TCP", "{name: db, port: 3306}", "tcp[0]{v1:1}"),
        ("named tcp", "{name: tcp-db, port: 80}", "tcp[0]{v1:1}"),
        ("mongo is TCP", "{name: mongo, port: 80}", "tcp[0]{v1:1}"),
        ("named https", "{name: https, port: 80}", "tls[0]{v1:1}"),
        ("appProtocol comes first", "{name: tcp, port: 80, appProtocol: http}", "http[0]{v1:1}"),
        ("h2c", "{name: tcp, port: 80, appProtocol: kubernetes.io/h2c}", "http[0]{v1:1}"),
        ("wss", "{name: tcp, port: 80, appProtocol: kubernetes.io/wss}", "tls[0]{v1:1}"),
        ("UDP has no routes", "{name: http, port: 80, protocol: UDP}", "default{default:1}"),
    ];
    for (name, port, expected) in cases {
        assert_eq!(only(&compiled(&[&with_port(port), &all])), expected, "{name}");
    }
}

#[test]
fn http_on_a_port_named_tcp_is_ignored_and_said_to_be() {
    let compiled = compiled(&[&with_port("{name: tcp, port: 9080}"), &route(&format!("  http: [{{{V1}}}]"))]);
    assert_eq!(only(&compiled), "default{default:1}");
    assert_eq!(codes(&compiled), ["CAN0307 spec.http"]);
    let message = &compiled.diagnostics[0].message;
    assert_eq!(
        message,
        "`http` does not apply to port 9080 (`tcp`) of reviews.default.svc.cluster.local, whose protocol is TCP; it gets the plain service"
    );
}

#[test]
fn a_port_beside_the_one_with_rules_is_nothing_to_talk_about() {
    let world =
        with_port("{name: http, port: 9080}, {name: tcp-metrics, port: 9100}, {name: dns, port: 53, protocol: UDP}");
    let compiled = compiled(&[&world, &route(&format!("  http: [{{{V1}}}]"))]);
    assert_eq!(codes(&compiled), [""; 0]);
    let lines: Vec<String> = compiled.state.services.values().map(super::rules).collect();
    assert_eq!(lines, ["default{default:1}", "http[0]{v1:1}", "default{default:1}"]);
}

#[test]
fn a_destination_whose_endpoints_have_names_is_refused() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api}\nspec: {hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, endpoints: [{address: 10.5.0.1}, {address: a.example.com}]}";
    let to = route("  http: [{route: [{destination: {host: api.example.com}}]}]");
    let compiled = compiled(&[&reviews(), entry, &to]);
    assert!(compiled.state.services.is_empty());
    assert_eq!(codes(&compiled), ["CAN0301 spec.endpoints[1].address"]);
}

#[test]
fn http_rules() {
    let client = pod("shop", "v1", "10.8.0.1");
    let cases: [(&str, &str, &str); 18] = [
        ("the first rule without a match ends the list", "{V1}, {V2}", "http[0]{v1:1}"),
        ("an empty match is everybody", "{match: [{}], V1}, {V2}", "http[0]{v1:1}"),
        ("a rule's own name", "{name: canary, V1}", "canary{v1:1}"),
        (
            "two rules of one name",
            "{name: a, match: [{sourceLabels: {app: shop}}], V2}, {name: a, V1}",
            "a<10.8.0.1/32>{v2:1} http[1]{v1:1}",
        ),
        ("another port's rule does not apply", "{match: [{port: 1}], V2}, {V1}", "http[1]{v1:1}"),
        ("this port's rule applies", "{match: [{port: 9080}], V2}, {V1}", "http[0]{v2:1}"),
        ("rules for another port only: the plain service", "{match: [{port: 1}], V2}", "default{default:1}"),
        (
            "clients by label",
            "{match: [{sourceLabels: {app: shop}}], V2}, {V1}",
            "http[0]<10.8.0.1/32>{v2:1} http[1]{v1:1}",
        ),
        (
            "clients by label and namespace",
            "{match: [{sourceLabels: {app: shop}, sourceNamespace: other}], V2}, {V1}",
            "http[1]{v1:1}",
        ),
        ("nobody has the label: never everybody", "{match: [{sourceLabels: {app: none}}], V2}, {V1}", "http[1]{v1:1}"),
        ("matches are alternatives", "{match: [{sourceLabels: {app: none}}, {port: 9080}], V2}, {V1}", "http[0]{v2:1}"),
        (
            "fields of a match are all needed",
            "{match: [{sourceLabels: {app: shop}, port: 1}], V2}, {V1}",
            "http[1]{v1:1}",
        ),
        ("a gateway's match is not the mesh's", "{match: [{gateways: [gw]}], V2}, {V1}", "http[1]{v1:1}"),
        (
            "with gateways the labels are not looked at",
            "{match: [{gateways: [mesh], sourceLabels: {app: none}}], V2}, {V1}",
            "http[0]{v2:1}",
        ),
        ("a prefix of / is everybody", "{match: [{uri: {prefix: /}}], V2}, {V1}", "http[0]{v2:1}"),
        (
            "no rule for the rest: their flows fail",
            "{match: [{sourceLabels: {app: shop}}], V2}",
            "http[0]<10.8.0.1/32>{v2:1} unmatched{unmatched:1}",
        ),
        (
            "a request match for another port is not needed",
            "{match: [{port: 1, uri: {prefix: /x}}], V2}, {V1}",
            "http[1]{v1:1}",
        ),
        (
            "a request match that is never reached is not needed",
            "{V1}, {match: [{uri: {prefix: /x}}], V2}",
            "http[0]{v1:1}",
        ),
    ];
    for (name, rules, expected) in cases {
        let rules = rules.replace("V1}", &format!("{V1}}}")).replace("V2}", &format!("{V2}}}"));
        let compiled = compiled(&[&reviews(), &client, &route(&format!("  http: [{rules}]"))]);
        assert_eq!(only(&compiled), expected, "{name}: {:#?}", compiled.diagnostics);
    }
}

#[test]
fn flows_that_no_rule_matches_have_no_endpoint() {
    let client = pod("shop", "v1", "10.8.0.1");
    let rules = format!("  http: [{{match: [{{sourceLabels: {{app: shop}}}}], {V2}}}]");
    let compiled = compiled(&[&reviews(), &client, &route(&rules)]);
    assert_eq!(endpoints_of(&compiled, "unmatched"), "");
    assert_eq!(codes(&compiled), ["CAN0308 spec.http[0]"]);
}

#[test]
fn many_clients_are_as_few_networks_as_possible() {
    let clients: Vec<String> = (0..8).map(|n| pod("shop", "v1", &format!("10.8.0.{n}"))).collect();
    let rules = format!("  http: [{{match: [{{sourceLabels: {{app: shop}}}}], {V2}}}, {{{V1}}}]");
    let compiled = compiled(&[&reviews(), &clients.join("---"), &route(&rules)]);
    assert_eq!(only(&compiled), "http[0]<10.8.0.0/29>{v2:1} http[1]{v1:1}");
}

#[test]
fn too_many_clients_are_an_error_and_no_truncation() {
    // Every other address, so that none can be put together.
    let clients: Vec<String> = (0..64).map(|n| pod("shop", "v1", &format!("10.8.0.{}", 2 * n))).collect();
    let rules = format!("  http: [{{match: [{{sourceLabels: {{app: shop}}}}], {V2}}}, {{{V1}}}]");
    let compiled = compiled(&[&reviews(), &clients.join("---"), &route(&rules)]);
    assert!(compiled.state.services.is_empty());
    assert_eq!(codes(&compiled), ["CAN0303 spec"]);
}

#[test]
fn what_needs_the_request_is_not_enforced() {
    let cases = [
        (
            "cookie",
            "match: [{headers: {cookie: {regex: '^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$'}}}], V2",
            "match[0].headers",
        ),
        ("uri", "match: [{uri: {prefix: /api}}], V2", "match[0].uri"),
        ("method", "match: [{method: {exact: GET}}], V2", "match[0].method"),
        ("authority", "match: [{authority: {exact: a}}], V2", "match[0].authority"),
        ("scheme", "match: [{scheme: {exact: https}}], V2", "match[0].scheme"),
        ("query", "match: [{queryParams: {a: {exact: b}}}], V2", "match[0].queryParams"),
        ("missing header", "match: [{withoutHeaders: {a: {}}}], V2", "match[0].withoutHeaders"),
        ("the second alternative", "match: [{port: 1}, {uri: {exact: /a}}], V2", "match[1].uri"),
        ("redirect", "redirect: {uri: /x}", "redirect"),
        ("direct response", "directResponse: {status: 503}", "directResponse"),
    ];
    for (name, rule, field) in cases {
        let rules = format!("  http: [{{{}}}, {{{V1}}}]", rule.replace("V2", V2));
        let compiled = compiled(&[&reviews(), &route(&rules)]);
        assert!(compiled.state.services.is_empty(), "{name}");
        assert_eq!(codes(&compiled), [format!("CAN0301 spec.http[0].{field}")], "{name}");
        let report = compiled.services.values().next().unwrap();
        assert!(!report.enforced && report.reason.is_some(), "{name}");
        assert_eq!(report.virtual_service.as_ref().unwrap().object, "VirtualService default/reviews", "{name}");
    }
}

#[test]
fn extras_are_reported_and_the_split_is_enforced() {
    let cases = [
        "timeout: 3s",
        "retries: {attempts: 3}",
        "mirror: {host: reviews}",
        "headers: {request: {set: {a: b}}}",
        "rewrite: {uri: /}",
        "fault: {delay: {fixedDelay: 5s}}",
        "corsPolicy: {}",
    ];
    for extra in cases {
        let field = extra.split(':').next().unwrap();
        let compiled = compiled(&[&reviews(), &route(&format!("  http: [{{{extra}, {V1}}}]"))]);
        assert_eq!(only(&compiled), "http[0]{v1:1}", "{extra}");
        assert_eq!(codes(&compiled), [format!("CAN0005 spec.http[0].{field}")], "{extra}");
    }
}

#[test]
fn tcp_rules() {
    let client = pod("shop", "v1", "10.8.0.1");
    let cases: [(&str, &str, &str); 10] = [
        ("no match", "{V1}", "tcp[0]{v1:1}"),
        ("this port", "{match: [{port: 9080}], V2}, {V1}", "tcp[0]{v2:1}"),
        ("nothing matches: the plain service, not a failure", "{match: [{port: 1}], V2}", "default{default:1}"),
        (
            "clients, and the plain service for the others",
            "{match: [{sourceLabels: {app: shop}}], V2}",
            "tcp[0]<10.8.0.1/32>{v2:1} default{default:1}",
        ),
        (
            "gateways and labels are both needed",
            "{match: [{gateways: [mesh], sourceLabels: {app: none}}], V2}, {V1}",
            "tcp[1]{v1:1}",
        ),
        ("another gateway", "{match: [{gateways: [gw]}], V2}, {V1}", "tcp[1]{v1:1}"),
        ("a subnet with the address", "{match: [{destinationSubnets: [10.96.0.0/16]}], V2}, {V1}", "tcp[0]{v2:1}"),
        ("a subnet without it", "{match: [{destinationSubnets: [10.97.0.0/16]}], V2}, {V1}", "tcp[1]{v1:1}"),
        (
            "the more specific subnet wins",
            "{match: [{destinationSubnets: [10.0.0.0/8]}], V1}, {match: [{destinationSubnets: [10.96.0.1]}], V2}",
            "tcp[1]{v2:1}",
        ),
        (
            "a rule without subnet ends the search",
            "{V1}, {match: [{destinationSubnets: [10.96.0.1]}], V2}",
            "tcp[0]{v1:1}",
        ),
    ];
    for (name, rules, expected) in cases {
        let rules = rules.replace("V1}", &format!("{V1}}}")).replace("V2}", &format!("{V2}}}"));
        let compiled =
            compiled(&[&with_port("{name: tcp, port: 9080}"), &client, &route(&format!("  tcp: [{rules}]"))]);
        assert_eq!(only(&compiled), expected, "{name}: {:#?}", compiled.diagnostics);
    }
}

#[test]
fn a_subnet_that_divides_the_addresses_is_refused() {
    let world = with_port("{name: tcp, port: 9080}")
        .replace("clusterIP: 10.96.0.1", "clusterIP: 10.96.0.1\n  externalIPs: [192.0.2.1]");
    let rules = format!("  tcp: [{{match: [{{destinationSubnets: [10.96.0.0/16]}}], {V2}}}, {{{V1}}}]");
    let compiled = compiled(&[&world, &route(&rules)]);
    assert_eq!(codes(&compiled), ["CAN0301 spec.tcp[0].match[0].destinationSubnets"]);
}

#[test]
fn server_names() {
    let world = join(&[&with_port("{name: tls, port: 9080}")]);
    let vs = |hosts: &str, sni: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec: {{hosts: [{hosts}], tls: [{{match: [{{sniHosts: [{sni}]}}], {V1}}}]}}"
        )
    };
    let full = "reviews.default.svc.cluster.local";
    let cases = [
        ("the service's own name", full, full, "tls[0]{v1:1}"),
        ("a short name is completed on both sides", "reviews", "reviews", "tls[0]{v1:1}"),
        ("a wildcard that covers it", "'*.default.svc.cluster.local'", "'*.default.svc.cluster.local'", "tls[0]{v1:1}"),
    ];
    for (name, hosts, sni, expected) in cases {
        assert_eq!(only(&compiled(&[&world, &vs(hosts, sni)])), expected, "{name}");
    }
    let other = compiled(&[&world, &vs(&format!("{full}, a.example.com"), "a.example.com")]);
    assert!(codes(&other).contains(&"CAN0301 spec.tls[0].match[0].sniHosts".to_owned()), "{:?}", codes(&other));
    let outside = compiled(&[&world, &vs(full, "a.example.com")]);
    assert!(codes(&outside).contains(&"CAN0001 spec.tls[0].match[0].sniHosts[0]".to_owned()), "{:?}", codes(&outside));
}
