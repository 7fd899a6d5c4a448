//! Rules for server names: what the proxy is given, and what stays in the kernel.
use super::{ProxyAddresses, codes, compile_for, only, pod, proxy::here, reviews};
use crate::{
    compile::{Compiled, PROXY_VERSION},
    state::{Choosing, DeadVersion, State, TlsRule},
};

const TO_PROXY: &str = "proxy{(proxy):1}";
const FULL: &str = "reviews.default.svc.cluster.local";

/// Compiles rules of `reviews` on a port, with a proxy. `V1`, `V2` stand for routes, `FULL` for the name of the Service.
fn with(port: &str, rules: &str, more: &[&str]) -> Compiled {
    let text = |rules: &str| {
        let route = |name: &str| format!("route: [{{destination: {{host: reviews, subset: {name}}}}}]");
        rules.replace("V1", &route("v1")).replace("V2", &route("v2")).replace("FULL", FULL)
    };
    let vs = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec: {{hosts: [FULL, '*.example.com'], {rules}}}"
    );
    let world = reviews().replace("{name: http, port: 9080}", port);
    let all = [&[world, text(&vs)], more.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>().as_slice()].concat();
    compile_for(&all.join("\n---\n"), &State::default(), &here())
}

fn with_tls(rules: &str) -> Compiled {
    with("{name: tls, port: 9080}", &format!("tls: [{rules}]"), &[])
}

/// `name<sources names | …> {versions}`, a rule each; `+rest` for the one that takes the rest.
fn tls(compiled: &Compiled) -> String {
    let service = compiled.state.services.values().next().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    let tls = service.tls.as_ref().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    tls.rules.iter().map(rule).collect::<Vec<_>>().join("; ")
}

fn rule(rule: &TlsRule) -> String {
    let matches = rule.matches.iter().map(|it| {
        let sources = it.sources.iter().map(ToString::to_string);
        sources.chain(it.names.iter().cloned()).collect::<Vec<_>>().join(" ")
    });
    let weights: Vec<String> = rule.split.weights.iter().map(|(name, weight)| format!("{name}:{weight}")).collect();
    let rest = if rule.rest { "+rest" } else { "" };
    format!("{}{rest}<{}> {{{}}}", rule.name, matches.collect::<Vec<_>>().join(" | "), weights.join(" "))
}

#[test]
fn names_that_are_treated_apart_are_a_matter_of_the_proxy() {
    let cases = [
        ("one name of many", "{match: [{sniHosts: [a.example.com]}], V1}", "tls[0]<a.example.com> {v1:1}"),
        (
            "in another order than that of precision",
            "{match: [{sniHosts: ['*.example.com', FULL]}], V1}, {match: [{sniHosts: [a.example.com]}], V2}",
            "tls[0]<*.example.com reviews.default.svc.cluster.local> {v1:1}; tls[1]<a.example.com> {v2:1}",
        ),
        (
            "alternatives",
            "{match: [{sniHosts: [a.example.com]}, {sniHosts: [b.example.com], port: 9080}, {sniHosts: [c.example.com], port: 1}], V1}",
            "tls[0]<a.example.com | b.example.com> {v1:1}",
        ),
        ("in capitals", "{match: [{sniHosts: [A.Example.com]}], V1}", "tls[0]<a.example.com> {v1:1}"),
        (
            "with weights",
            "{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: reviews, subset: v1}, weight: 3}, {destination: {host: reviews, subset: v2}, weight: 1}]}",
            "tls[0]<a.example.com> {v1:3 v2:1}",
        ),
        (
            "not for the mesh",
            "{match: [{sniHosts: [a.example.com]}], V1}, {match: [{sniHosts: [b.example.com], gateways: [g]}], V2}",
            "tls[0]<a.example.com> {v1:1}",
        ),
        (
            "subnets that hold, and such that do not",
            "{match: [{sniHosts: [a.example.com], destinationSubnets: [10.96.0.0/16]}, {sniHosts: [b.example.com], destinationSubnets: [10.97.0.0/16]}], V1}",
            "tls[0]<a.example.com> {v1:1}",
        ),
    ];
    for (name, rules, expected) in cases {
        let compiled = with_tls(rules);
        assert_eq!((tls(&compiled).as_str(), only(&compiled).as_str()), (expected, TO_PROXY), "{name}");
        assert!(compiled.state.services.values().all(|service| service.http.is_none()), "{name}");
        assert_eq!(codes(&compiled), [""; 0], "{name}");
    }
}

#[test]
fn weights_alone_stay_in_the_kernel() {
    let cases = [
        ("{match: [{sniHosts: [FULL]}], V1}", "tls[0]{v1:1}"),
        ("{match: [{sniHosts: [FULL, '*.example.com']}], V2}", "tls[0]{v2:1}"),
        ("{match: [{sniHosts: [a.example.com], port: 1}], V1}, {match: [{sniHosts: [FULL]}], V2}", "tls[1]{v2:1}"),
    ];
    for (rules, expected) in cases {
        let compiled = with_tls(rules);
        assert_eq!(only(&compiled), expected, "{rules}");
        assert!(compiled.state.services.values().all(|service| !service.is_proxied()), "{rules}");
    }
}

#[test]
fn clients_that_no_rule_is_for_get_the_plain_service() {
    let some = "{match: [{sniHosts: [a.example.com], sourceLabels: {app: shop}}], V1}";
    let compiled = with("{name: tls, port: 9080}", &format!("tls: [{some}]"), &[&pod("shop", "v1", "10.8.0.1")]);
    assert_eq!(tls(&compiled), "tls[0]<10.8.0.1/32 a.example.com> {v1:1}; default+rest<> {default:1}");
    let versions: Vec<&String> = compiled.state.services.values().next().unwrap().versions.keys().collect();
    assert_eq!(versions, [PROXY_VERSION, "default", "v1"]);
    let report = compiled.services.values().next().unwrap();
    let rules: Vec<(&str, &str)> = report.rules.iter().map(|rule| (rule.rule.as_str(), rule.field.as_str())).collect();
    assert_eq!(rules, [("tls[0]", "spec.tls[0]"), ("default", "")]);
}

#[test]
fn other_hosts_of_the_entry_are_plain() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [a.example.com, b.example.com, c.example.org], addresses: [10.97.0.1], resolution: STATIC, ports: [{number: 443, name: tls, protocol: TLS}], endpoints: [{address: 10.9.0.1}]}";
    let vs = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: e}\nspec: {hosts: ['*.example.com'], tls: [{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: a.example.com}}]}]}";
    let compiled = compile_for(&format!("{entry}\n---\n{vs}"), &State::default(), &here());
    let expected = "tls[0]<a.example.com> {a.example.com:1}; default+rest<c.example.org> {";
    assert!(tls(&compiled).starts_with(expected), "{}", tls(&compiled));
}

#[test]
fn tls_on_a_port_that_declares_nothing_is_passed_on_beside_the_rules_for_requests() {
    let http = "http: [{match: [{uri: {exact: /a}}], V1}, {V2}]";
    let cases = [
        ("", "default+rest<> {default:1}"),
        (", tcp: [{V2}]", "tcp[0]<> {v2:1}"),
        (", tcp: [{match: [{port: 1}], V2}]", "default+rest<> {default:1}"),
        // As in Istio: only a port that is declared to be TLS has these.
        (", tls: [{match: [{sniHosts: [a.example.com]}], V1}]", "default+rest<> {default:1}"),
    ];
    for (more, expected) in cases {
        let compiled = with("{name: web, port: 9080}", &format!("{http}{more}"), &[]);
        assert_eq!((tls(&compiled).as_str(), only(&compiled).as_str()), (expected, TO_PROXY), "{more}");
        assert_eq!(compiled.state.services.values().next().unwrap().http.as_ref().unwrap().rules.len(), 2, "{more}");
    }
    let declared = with("{name: http, port: 9080}", http, &[]);
    assert!(declared.state.services.values().next().unwrap().tls.is_none());
}

#[test]
fn a_policy_is_for_these_rules_too() {
    let policy = "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p}\nspec: {targetRef: {kind: VirtualService, name: reviews}, rules: [{name: 'tls[0]', sources: [10.8.0.0/16], choosing: keyed-client, onNoEndpoints: spill}]}";
    let compiled = with("{name: tls, port: 9080}", "tls: [{match: [{sniHosts: [a.example.com]}], V1}]", &[policy]);
    assert_eq!(tls(&compiled), "tls[0]<10.8.0.0/16 a.example.com> {v1:1}; default+rest<> {default:1}");
    let service = compiled.state.services.values().next().unwrap();
    let split = &service.tls.as_ref().unwrap().rules[0].split;
    assert_eq!((split.choosing, split.dead), (Choosing::KeyedClient, DeadVersion::Spill));
}

#[test]
fn without_a_proxy_it_is_refused_and_says_what_to_do() {
    let compiled = with_tls("{match: [{sniHosts: [a.example.com]}], V1}");
    let last = compiled.state.clone();
    let world = reviews().replace("{name: http, port: 9080}", "{name: tls, port: 9080}");
    let vs = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec: {hosts: [reviews, a.example.com], tls: [{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: reviews, subset: v1}}]}]}";
    // What was in force needs the proxy, too, so there is nothing to hold on to.
    for last in [State::default(), last] {
        let compiled = compile_for(&format!("{world}\n---\n{vs}"), &last, &ProxyAddresses::default());
        assert!(compiled.state.services.is_empty());
        let refused = compiled.diagnostics.iter().find(|found| found.code == "CAN0301").unwrap();
        assert_eq!(refused.field, "spec.tls[0].match[0].sniHosts");
        assert!(refused.remedy.starts_with("start the agent with --proxy"), "{refused}");
    }
}
