//! Routes of the Gateway API: at Services, where they split in the kernel, and at Gateways.
use super::{codes, compile_for, join, pod, summary};
use crate::{
    compile::{Compiled, ProxyAddresses},
    state::{HttpAction, HttpRule, State},
};

mod consumers;
mod statuses;

/// Services `reviews`, `reviews-v1` and `reviews-v2` with a Pod each, also in namespace `other`; a Gateway of canary's.
fn world() -> String {
    let service = |name: &str, namespace: &str, ip: &str, selector: &str, ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, selector: {{{selector}}}, ports: [{ports}]}}"
        )
    };
    let http = "{name: http, port: 80}";
    let client = "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: other}\nstatus: {podIP: 10.0.9.9}";
    join(&[
        &service(
            "reviews",
            "default",
            "10.96.0.1",
            "app: reviews",
            "{name: http, port: 80}, {name: http-alt, port: 8080}",
        ),
        &service("reviews-v1", "default", "10.96.0.2", "app: reviews, version: v1", http),
        &service("reviews-v2", "default", "10.96.0.3", "app: reviews, version: v2", http),
        &service(
            "echo",
            "default",
            "10.96.0.4",
            "app: reviews",
            "{name: tcp, port: 9000}, {name: udp, port: 9000, protocol: UDP}",
        ),
        &service(
            "echo-v2",
            "default",
            "10.96.0.5",
            "app: reviews",
            "{name: tcp, port: 9000}, {name: udp, port: 9000, protocol: UDP}",
        ),
        &service("reviews-v3", "other", "10.96.0.6", "app: reviews", http),
        &pod("reviews", "v1", "10.0.1.1"),
        &pod("reviews", "v2", "10.0.2.1"),
        client,
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: canary}\nspec: {controllerName: canary.io/gateway-controller}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: public}\nspec:\n  gatewayClassName: canary\n  addresses: [{value: 192.0.2.80}]\n  listeners:\n  - {name: web, port: 80, protocol: HTTP}\n  - {name: shop, port: 80, protocol: HTTP, hostname: shop.example}\n  - {name: echo, port: 9000, protocol: TCP}\n  - {name: secure, port: 443, protocol: HTTPS}",
    ])
}

fn route(kind: &str, name: &str, parent: &str, rest: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{parent}]\n{rest}"
    )
}

const REVIEWS: &str = "{group: '', kind: Service, name: reviews}";

fn at_reviews(rules: &str) -> String {
    route("HTTPRoute", "split", REVIEWS, &format!("  rules: {rules}"))
}

fn proxy() -> ProxyAddresses {
    ["192.0.2.1:15001".parse().unwrap()].into_iter().collect()
}

fn compiled(routes: &[&str]) -> Compiled {
    compile_for(&join(&[&world(), &join(routes)]), &State::default(), &proxy())
}

/// The kernel's rules of a service.
fn kernel(compiled: &Compiled, service: &str) -> String {
    let all = summary(&compiled.state);
    let line = all.lines().find(|line| line.starts_with(&format!("{service} ")));
    line.and_then(|line| line.split_once(' ')).map(|(_, rules)| rules.to_owned()).unwrap_or_default()
}

/// `name:status` or `name{version:weight …}` of the proxy's rules of a service.
fn requests(compiled: &Compiled, service: &str) -> Vec<String> {
    let found = compiled.state.services.iter().find(|(id, _)| id.to_string() == service);
    let rules = found.and_then(|(_, service)| service.http.as_ref()).map(|http| http.rules.as_slice());
    let one = |rule: &HttpRule| match &rule.action {
        HttpAction::Route(route) => {
            let to = route
                .destinations
                .iter()
                .map(|it| format!("{}:{}{}", it.version, it.weight, if it.refused { "!" } else { "" }));
            format!("{}{{{}}}", rule.name, to.collect::<Vec<_>>().join(" "))
        }
        HttpAction::Redirect(to) => format!("{}:{}", rule.name, to.code),
        HttpAction::Answer { status, .. } => format!("{}:{status}", rule.name),
    };
    rules.unwrap_or_default().iter().map(one).collect()
}

const V1_V2: &str = "{name: reviews-v1, port: 80, weight: 90}, {name: reviews-v2, port: 80, weight: 10}";

#[test]
fn a_service_is_split_in_the_kernel() {
    let found = compiled(&[&at_reviews(&format!("[{{backendRefs: [{V1_V2}]}}]"))]);
    assert_eq!(kernel(&found, "default/reviews:80/tcp"), "rules[0]{reviews-v1:90 reviews-v2:10}");
    assert_eq!(kernel(&found, "default/reviews:8080/tcp"), "rules[0]{reviews-v1:90 reviews-v2:10}");
    assert_eq!(codes(&found), [""; 0]);
    let report = found.services.iter().find(|(id, _)| id.to_string() == "default/reviews:80/tcp").unwrap().1;
    assert_eq!(report.virtual_service.as_ref().unwrap().object, "HTTPRoute default/split");
    let rule = &report.rules[0];
    assert_eq!(
        (rule.field.as_str(), rule.destinations[1].1.as_str()),
        ("spec.rules[0]", "spec.rules[0].backendRefs[1]")
    );
    // Every path is every request, however it is said.
    for matches in ["[]", "[{path: {type: PathPrefix, value: /}}]", "[{path: {value: /}}]", "[{}]"] {
        let found = compiled(&[&at_reviews(&format!("[{{matches: {matches}, backendRefs: [{V1_V2}]}}]"))]);
        assert_eq!(kernel(&found, "default/reviews:80/tcp"), "rules[0]{reviews-v1:90 reviews-v2:10}", "{matches}");
    }
}

#[test]
fn weights_are_the_gateway_apis() {
    for (refs, expected) in [
        // One without a weight has 1, among several too.
        (
            "{name: reviews-v1, port: 80}, {name: reviews-v2, port: 80, weight: 3}",
            "rules[0]{reviews-v1:1 reviews-v2:3}",
        ),
        ("{name: reviews-v1, port: 80}, {name: reviews-v2, port: 80}", "rules[0]{reviews-v1:1 reviews-v2:1}"),
        ("{name: reviews-v1, port: 80, weight: 0}, {name: reviews-v2, port: 80}", "rules[0]{reviews-v2:1}"),
        ("{name: reviews-v1, port: 80, weight: 1000000}", "rules[0]{reviews-v1:1000000}"),
    ] {
        let found = compiled(&[&at_reviews(&format!("[{{backendRefs: [{refs}]}}]"))]);
        assert_eq!(kernel(&found, "default/reviews:80/tcp"), expected, "{refs}");
        assert_eq!(codes(&found), [""; 0], "{refs}");
    }
    // A single one of weight 0 gets nothing, unlike in a VirtualService; nor do none.
    for refs in ["{name: reviews-v1, port: 80, weight: 0}", ""] {
        let found = compiled(&[&at_reviews(&format!("[{{backendRefs: [{refs}]}}]"))]);
        assert_eq!(requests(&found, "default/reviews:80/tcp"), ["rules[0]:500"], "{refs}");
    }
    for (refs, code) in [
        ("{name: reviews-v1, port: 80, weight: 1000001}", "spec.rules[0].backendRefs[0].weight"),
        ("{name: reviews-v1, port: 80, weight: -1}", "spec.rules[0].backendRefs[0].weight"),
        ("{name: reviews-v1}", "spec.rules[0].backendRefs[0].port"),
        ("{port: 80}", "spec.rules[0].backendRefs[0].name"),
        ("{name: reviews-v1, port: 80, weigth: 1}", "spec.rules[0].backendRefs[0].weigth"),
    ] {
        let found = compiled(&[&at_reviews(&format!("[{{backendRefs: [{refs}]}}]"))]);
        assert!(codes(&found).contains(&format!("CAN0001 {code}")), "{refs}: {:?}", codes(&found));
    }
}

#[test]
fn a_share_that_leads_nowhere_is_nobodys_and_fails() {
    for (refused, code) in [
        ("{name: absent, port: 80}", "IST0101 spec.rules[0].backendRefs[1].name"),
        ("{name: reviews-v2, port: 81}", "IST0101 spec.rules[0].backendRefs[1].port"),
        ("{name: reviews-v3, namespace: other, port: 80}", "CAN0317 spec.rules[0].backendRefs[1]"),
        ("{group: x.io, kind: Pool, name: reviews-v2, port: 80}", "CAN0317 spec.rules[0].backendRefs[1]"),
    ] {
        let rules = format!(
            "[{{matches: [{{headers: [{{name: x, value: y}}]}}], backendRefs: [{{name: reviews-v1, port: 80}}, {refused}]}}]"
        );
        let found = compiled(&[&at_reviews(&rules)]);
        assert_eq!(codes(&found), [code], "{refused}");
        let [rule] = &requests(&found, "default/reviews:80/tcp")[..] else { panic!("{found:?}") };
        assert!(rule.starts_with("rules[0]{") && rule.contains("reviews-v1:1") && rule.contains(":1!"), "{rule}");
        // In the kernel, which gives no answers, connections of the share fail.
        let plain =
            compiled(&[&at_reviews(&format!("[{{backendRefs: [{{name: reviews-v1, port: 80}}, {refused}]}}]"))]);
        let split = kernel(&plain, "default/reviews:80/tcp");
        assert_eq!(split.matches(":1").count(), 2, "{split}");
        let service = plain.state.services.iter().find(|(id, _)| id.name == "reviews").unwrap().1;
        assert_eq!(service.versions.values().filter(|version| version.endpoints.is_empty()).count(), 1);
    }
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: all, namespace: other}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]\n  to: [{group: '', kind: Service}]";
    let there = at_reviews("[{backendRefs: [{name: reviews-v3, namespace: other, port: 80}]}]");
    assert_eq!(codes(&compiled(&[&there, grant])), ["CAN0309 spec.rules[0].backendRefs[0]"], "no Pods");
    for other in [
        grant.replace("HTTPRoute", "TCPRoute"),
        grant.replace("namespace: default}]", "namespace: x}]"),
        grant.replace("Service}]", "Service, name: y}]"),
    ] {
        assert_eq!(codes(&compiled(&[&there, &other])), ["CAN0317 spec.rules[0].backendRefs[0]"], "{other}");
    }
}

#[test]
fn what_asks_for_more_comes_first() {
    let rule = |matches: &str, to: &str| format!("{{matches: [{matches}], backendRefs: [{{name: {to}, port: 80}}]}}");
    let rules = [
        rule("{path: {value: /}}", "reviews-v1"),
        rule("{path: {type: RegularExpression, value: '/r.*'}}", "reviews-v1"),
        rule("{path: {value: /a}}, {path: {value: /abc}}", "reviews-v2"),
        rule("{path: {value: /ab}}", "reviews-v1"),
        rule("{path: {type: Exact, value: /a}}", "reviews-v1"),
        rule("{method: GET}", "reviews-v1"),
        rule("{headers: [{name: x, value: y}, {name: z, value: y}]}", "reviews-v1"),
        rule("{headers: [{name: x, value: y}], queryParams: [{name: q, value: y}]}", "reviews-v1"),
    ];
    let found = compiled(&[&at_reviews(&format!("[{}]", rules.join(", ")))]);
    let names: Vec<String> = requests(&found, "default/reviews:80/tcp");
    let names: Vec<&str> = names.iter().map(|name| name.split('{').next().unwrap()).collect();
    // The rule with two prefixes has two places.
    let expected = ["rules[4]", "rules[2]", "rules[3]", "rules[2] (2)", "rules[5]", "rules[6]", "rules[7]", "rules[0]"];
    assert_eq!(names, expected);
}

#[test]
fn routes_of_one_service_are_merged_and_those_of_other_namespaces_are_for_their_own_clients() {
    let old = at_reviews("[{matches: [{path: {value: /a}}], backendRefs: [{name: reviews-v1, port: 80}]}]")
        .replace("name: split", "creationTimestamp: '2026-01-01T00:00:00Z', name: split");
    let new = at_reviews(
        "[{matches: [{path: {value: /a}}, {path: {value: /b}}], backendRefs: [{name: reviews-v2, port: 80}]}]",
    )
    .replace("name: split", "creationTimestamp: '2026-01-02T00:00:00Z', name: later");
    let found = compiled(&[&new, &old]);
    assert_eq!(
        requests(&found, "default/reviews:80/tcp"),
        ["split.rules[0]{reviews-v1:1}", "later.rules[0]{reviews-v2:1}"]
    );
    let report = found.services.iter().find(|(id, _)| id.to_string() == "default/reviews:80/tcp").unwrap().1;
    let deciders: Vec<&str> = report.deciders().map(|it| it.object.as_str()).collect();
    assert_eq!(deciders, ["HTTPRoute default/split", "HTTPRoute default/later"]);

    let parent = "{group: '', kind: Service, name: reviews, namespace: default}";
    let consumer = route("HTTPRoute", "other/mine", parent, "  rules: [{backendRefs: [{name: reviews-v3, port: 80}]}]");
    let everybody = at_reviews(&format!("[{{backendRefs: [{V1_V2}]}}]"));
    let found = compiled(&[&everybody, &consumer]);
    assert_eq!(
        kernel(&found, "default/reviews:80/tcp"),
        "mine.rules[0]<10.0.9.9/32>{reviews-v3:1} split.rules[0]{reviews-v1:90 reviews-v2:10}"
    );
    // Its clients get 404 where it says nothing, and not what is for everybody.
    let partly = consumer.replace("[{backendRefs", "[{matches: [{method: GET}], backendRefs");
    let found = compiled(&[&everybody, &partly]);
    assert_eq!(
        requests(&found, "default/reviews:80/tcp"),
        ["mine.rules[0]{reviews-v3:1}", "404:404", "split.rules[0]{reviews-v1:90 reviews-v2:10}"]
    );
}

#[test]
fn a_parent_may_name_a_port_and_must_be_there() {
    let port = "{group: '', kind: Service, name: reviews, port: 8080}";
    let found = compiled(&[&route("HTTPRoute", "split", port, &format!("  rules: [{{backendRefs: [{V1_V2}]}}]"))]);
    assert_eq!(kernel(&found, "default/reviews:80/tcp"), "default{default:1}");
    assert_eq!(kernel(&found, "default/reviews:8080/tcp"), "rules[0]{reviews-v1:90 reviews-v2:10}");
    let others = [
        ("{group: '', kind: Service, name: absent}", true),
        ("{group: '', kind: Service, name: reviews, port: 81}", true),
        ("{name: public, sectionName: absent}", true),
        ("{name: public, sectionName: secure}", true),
        ("{name: public, sectionName: echo}", true),
        // Not canary's.
        ("{name: other-gateway}", false),
        ("{group: x.io, kind: Mesh, name: x}", false),
    ];
    for (parent, said) in others {
        let found =
            compiled(&[&route("HTTPRoute", "split", parent, &format!("  rules: [{{backendRefs: [{V1_V2}]}}]"))]);
        let expected: &[&str] = if said { &["CAN0318 spec.parentRefs[0]"] } else { &[] };
        assert_eq!(codes(&found), expected, "{parent}");
        assert_eq!(kernel(&found, "default/reviews:80/tcp"), "default{default:1}", "{parent}");
    }
}

#[test]
fn connections_are_split_for_each_protocol() {
    let refs = |first: u32| {
        format!(
            "  rules: [{{backendRefs: [{{name: echo, port: 9000, weight: {first}}}, {{name: echo-v2, port: 9000, weight: 1}}]}}]"
        )
    };
    let echo = "{group: '', kind: Service, name: echo}";
    let (tcp, udp) = (route("TCPRoute", "tcp", echo, &refs(3)), route("UDPRoute", "udp", echo, &refs(5)));
    let found = compiled(&[&tcp, &udp]);
    assert_eq!(kernel(&found, "default/echo:9000/tcp"), "tcp.rules[0]{echo:3 echo-v2:1}");
    assert_eq!(kernel(&found, "default/echo:9000/udp"), "udp.rules[0]{echo:5 echo-v2:1}");
    assert_eq!(codes(&found), [""; 0]);
    // Neither is for the other's port.
    let found = compiled(&[&tcp]);
    assert_eq!(kernel(&found, "default/echo:9000/udp"), "default{default:1}");
    // No weight at all: connections fail.
    let none = route("TCPRoute", "tcp", echo, "  rules: [{backendRefs: [{name: echo, port: 9000, weight: 0}]}]");
    assert_eq!(kernel(&compiled(&[&none]), "default/echo:9000/tcp"), "rules[0]{unmatched:1}");
}

#[test]
fn a_gateway_answers_at_its_address() {
    let web = route("HTTPRoute", "web", "{name: public}", &format!("  rules: [{{backendRefs: [{V1_V2}]}}]"));
    let shop = route(
        "HTTPRoute",
        "shop",
        "{name: public, sectionName: shop}",
        "  rules: [{matches: [{path: {value: /buy}}], backendRefs: [{name: reviews-v2, port: 80}]}]",
    );
    let tcp = route("TCPRoute", "tcp", "{name: public}", "  rules: [{backendRefs: [{name: echo, port: 9000}]}]");
    let found = compiled(&[&web, &shop, &tcp]);
    assert_eq!(codes(&found), [""; 0]);
    let gateway = "default/public.default.gateway:80/tcp";
    // What is for the shop's name comes to no other listener: its own listener answers 404.
    assert_eq!(
        requests(&found, gateway),
        [
            "shop.rules[0]{reviews-v2:1}",
            "web.rules[0]{reviews-v1:90 reviews-v2:10}",
            "404:404",
            "web.rules[0] (2){reviews-v1:90 reviews-v2:10}",
        ]
    );
    assert_eq!(kernel(&found, "default/public.default.gateway:9000/tcp"), "tcp.rules[0]{echo:1}");
    let frontends: Vec<String> = found.state.frontends.keys().map(ToString::to_string).collect();
    assert!(frontends.contains(&"192.0.2.80:80/tcp".to_owned()), "{frontends:?}");
    // A port without a route.
    assert_eq!(requests(&compiled(&[&tcp]), gateway), ["404:404", "404 (2):404"]);
}

#[test]
fn listeners_of_names_of_one_length_keep_their_routes() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: two}\nspec:\n  gatewayClassName: canary\n  addresses: [{value: 192.0.2.81}]\n  listeners:\n  - {name: foo, port: 80, protocol: HTTP, hostname: foo.example}\n  - {name: bar, port: 80, protocol: HTTP, hostname: bar.example}\n  - {name: any, port: 80, protocol: HTTP, hostname: '*.example'}";
    let at = |name: &str, listener: &str, path: &str| {
        let rest = format!(
            "  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: reviews-v1, port: 80}}]}}]"
        );
        route("HTTPRoute", name, &format!("{{name: two, sectionName: {listener}}}"), &rest)
    };
    let (a, b, c) = (at("a", "foo", "/a"), at("b", "any", "/b"), at("c", "foo", "/c"));
    let found = compiled(&[gateway, &a, &b, &c]);
    let names: Vec<String> = requests(&found, "default/two.default.gateway:80/tcp");
    // `bar` has no route, and is nobody else's for all that.
    assert_eq!(
        names,
        [
            "404:404",
            "a.rules[0]{reviews-v1:1}",
            "c.rules[0]{reviews-v1:1}",
            "404 (2):404",
            "b.rules[0]{reviews-v1:1}",
            "404 (3):404"
        ]
    );
}

#[test]
fn of_a_call_of_grpc_the_service_counts_before_the_method() {
    let rule = |matches: &str, to: &str| format!("{{matches: [{matches}], backendRefs: [{{name: {to}, port: 80}}]}}");
    let rules = [
        rule("{}", "reviews-v1"),
        rule("{headers: [{name: x, value: y}]}", "reviews-v1"),
        rule("{method: {method: Login}}", "reviews-v2"),
        rule("{method: {service: a.b.C}}", "reviews-v1"),
        rule("{method: {service: a.b.C, method: Login}}", "reviews-v2"),
        rule("{method: {type: RegularExpression, service: 'a[.].*'}}", "reviews-v1"),
    ];
    let found = compiled(&[&route("GRPCRoute", "calls", REVIEWS, &format!("  rules: [{}]", rules.join(", ")))]);
    let names = requests(&found, "default/reviews:80/tcp");
    let names: Vec<&str> = names.iter().map(|name| name.split('{').next().unwrap()).collect();
    assert_eq!(names, ["rules[5]", "rules[4]", "rules[3]", "rules[2]", "rules[1]", "rules[0]"]);
}

#[test]
fn filters_are_not_left_out_where_there_is_a_proxy() {
    let filter = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: reviews-v2, port: 80}}}]";
    let with = at_reviews(&format!("[{{{filter}, backendRefs: [{{name: reviews-v1, port: 80}}]}}]"));
    assert_eq!(requests(&compiled(&[&with]), "default/reviews:80/tcp"), ["rules[0]{reviews-v1:1}"]);
    let without = compile_for(&join(&[&world(), &with]), &State::default(), &ProxyAddresses::default());
    assert_eq!(kernel(&without, "default/reviews:80/tcp"), "rules[0]{reviews-v1:1}");
    let mut said = codes(&without);
    said.dedup();
    assert_eq!(said, ["CAN0301 spec", "CAN0005 spec.rules[0].filters[0]"], "the Gateway and the route");
    // What replaces a prefix replaces all of it, and no more.
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]";
    let found = compiled(&[&at_reviews(&format!("[{{{redirect}}}]"))]);
    let service = found.state.services.iter().find(|(id, _)| id.to_string() == "default/reviews:80/tcp").unwrap().1;
    let rule = &service.http.as_ref().unwrap().rules[0];
    assert_eq!(rule.matches[0].uri, Some(crate::state::Text::PathPrefix(String::new())));
}

#[test]
fn a_virtual_service_and_a_route_for_one_service_are_rivals() {
    let route = at_reviews(&format!("[{{backendRefs: [{V1_V2}]}}]"));
    let virtual_service = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, creationTimestamp: '2026-01-01T00:00:00Z'}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews-v2}}]}]}";
    let found = compiled(&[&route, virtual_service]);
    assert_eq!(kernel(&found, "default/reviews:80/tcp"), "rules[0]{reviews-v1:90 reviews-v2:10}", "it has no age");
    assert_eq!(codes(&found), ["IST0109 spec.hosts"]);
}
