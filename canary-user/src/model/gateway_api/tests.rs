//! Istio's translations of the Gateway API, and what users of it expect.
use std::{collections::BTreeMap, fs, path::PathBuf};

use super::super::{HttpAction, HttpRule, Model, VirtualService, testing};
use crate::state::{HeaderChanges, RequestMatch, Text};

const CASES: [&str; 6] =
    ["empty-backend-refs", "http", "reference-policy-service", "route-precedence", "tcp", "weighted"];

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/gateway-api").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The input with Gateways of canary's own.
fn input(name: &str) -> Model {
    let text = file(&format!("{name}.yaml")).replace("istio.io/gateway-controller", "canary.io/gateway-controller");
    let text = text.replace("value: istio-ingressgateway\n    type: Hostname", "value: 192.0.2.1");
    // Istio's tests know these namespaces from elsewhere.
    let namespaces = ["allowed-1", "allowed-2"].map(|name| {
        format!("\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{istio.io/test-name-part: allowed}}}}\n")
    });
    let services = ["a-example.allowed-1", "a-example.allowed-2", "b-example.allowed-1"].map(|it| {
        let (name, namespace) = it.split_once('.').unwrap();
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n")
    });
    let class = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\nspec: {controllerName: canary.io/gateway-controller}\n";
    let class = if text.contains("kind: GatewayClass") { "" } else { class };
    let (model, _) = testing::read(&(text + class + &namespaces.concat() + &services.concat()));
    assert!(model.broken().is_empty(), "{:#?}", model.broken());
    model
}

/// The `VirtualServices` that Istio makes of it.
fn golden(name: &str) -> Model {
    let text = file(&format!("{name}.yaml.golden"));
    // Not in the public API: what a reference that is not allowed becomes, and a redirect's prefix.
    let text = text.replace("destination: {}", "destination: {host: refused.example}");
    let text = text.replace("prefixRewrite: /", "uri: PREFIX/").replace("domain.suffix", "cluster.local");
    let (model, found) = testing::read(&text);
    assert!(model.broken().is_empty(), "{found:#?}");
    model
}

/// Rules by the name that a client asks for, as text, in order. Every match is a line of its own.
type Rules = BTreeMap<String, Vec<String>>;

fn ours(route: &VirtualService, rules: &mut Rules) {
    let gateway = route.written_hosts[0].ends_with(".gateway");
    for rule in &route.http {
        for it in &rule.matches {
            let host = match &it.request.authority {
                // For whatever name the listener is for.
                Some(Text::Host(host)) if host == "*.domain.example" => "*".into(),
                Some(Text::Host(host)) => host.clone(),
                _ if gateway => "*".into(),
                _ => route.written_hosts[0].clone(),
            };
            // The end of a list, which Istio has no rule for.
            if !rule.name.as_deref().is_some_and(|name| name.starts_with("404")) {
                rules.entry(host).or_default().push(text(rule, &it.request));
            }
        }
    }
    connections(route, rules);
}

fn theirs(route: &VirtualService, rules: &mut Rules) {
    for host in &route.written_hosts {
        for rule in &route.http {
            let every = [RequestMatch::default()];
            let matches: Vec<&RequestMatch> = rule.matches.iter().map(|it| &it.request).collect();
            for request in if matches.is_empty() { every.iter().collect() } else { matches } {
                rules.entry(host.clone()).or_default().push(text(rule, request));
            }
        }
    }
    connections(route, rules);
}

fn connections(route: &VirtualService, rules: &mut Rules) {
    for rule in &route.tcp {
        let to = rule.route.as_ref().map(|route| destinations(route.destinations())).unwrap_or_default();
        rules.entry("tcp".into()).or_default().push(to);
    }
}

fn destinations<'a>(all: impl Iterator<Item = (&'a super::super::Destination, u32)>) -> String {
    let all: Vec<_> = all.filter(|(_, weight)| *weight > 0).collect();
    let single = all.len() == 1;
    let one = |(to, weight): &(&super::super::Destination, u32)| {
        let host = to.host.as_str();
        let refused = host.ends_with(".refused") || host.starts_with("infpool") || host == "refused.example";
        let host = if refused { "refused" } else { host };
        let port = to.port.filter(|_| !refused).unwrap_or_default();
        format!("{host}:{port}={}", if single { 1 } else { *weight })
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn text(rule: &HttpRule, request: &RequestMatch) -> String {
    let uri = match &request.uri {
        None => "/*".to_owned(),
        Some(Text::PathPrefix(path) | Text::Prefix(path)) if path.is_empty() => "/*".to_owned(),
        Some(Text::PathPrefix(path) | Text::Prefix(path)) => format!("{path}*"),
        other => format!("{other:?}"),
    };
    let action = match &rule.action {
        HttpAction::Route { route, headers, rewrite } => {
            let uri = rewrite.uri.as_deref().map(|uri| uri.trim_end_matches('/'));
            let parts = rewrite.uri_regex.as_ref().map(|it| (&it.pattern, &it.rewrite));
            let headers: Vec<_> = headers.iter().filter(|it| **it != HeaderChanges::default()).collect();
            format!("{} {headers:?} {uri:?} {parts:?} {:?}", destinations(route.destinations()), rewrite.authority)
        }
        HttpAction::Redirect(to) => {
            let uri = to.uri.clone().or_else(|| to.prefix.as_ref().map(|prefix| format!("PREFIX{prefix}")));
            format!("{} {uri:?} {:?} {:?}", to.code, to.authority, to.scheme)
        }
        other => format!("{other:?}"),
    };
    let mirrors = rule.mirrors.iter().map(|it| format!("{} {:?}", it.destination.host, it.percentage));
    let retries = rule.policy.retries.as_ref().map(|it| (it.attempts, &it.on, &it.statuses));
    // Of an origin's pattern only what it is good for is compared.
    let cors = rule.policy.cors.as_ref().map(|it| {
        let exact: Vec<_> = it.origins.iter().filter(|it| matches!(it, Text::Exact(_))).collect();
        (exact, &it.methods, &it.headers, &it.expose, it.max_age_s, it.credentials, it.forward_unmatched)
    });
    let RequestMatch { method, headers, query, .. } = request;
    let mirrors: Vec<String> = mirrors.collect();
    format!(
        "{uri} {method:?} {headers:?} {query:?} -> {action} | {:?} {:?} {retries:?} {mirrors:?} {cors:?}",
        rule.headers, rule.timeout_ms
    )
}

#[test]
fn routes_mean_what_istio_makes_of_them() {
    let (mut same, mut different) = (0, Vec::new());
    for name in CASES {
        let (mut mine, mut wanted) = (Rules::new(), Rules::new());
        input(name).virtual_services().iter().for_each(|route| ours(route, &mut mine));
        golden(name).virtual_services().iter().for_each(|route| theirs(route, &mut wanted));
        assert!(!wanted.is_empty(), "{name}");
        for host in mine.keys().chain(wanted.keys()).collect::<std::collections::BTreeSet<_>>() {
            if mine.get(host) == wanted.get(host) {
                same += 1;
            } else {
                different.push(format!("{name} {host}:\n{:#?}\n{:#?}", mine.get(host), wanted.get(host)));
            }
        }
    }
    println!("Gateway API: {same} of {} hosts mean the same", same + different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(same >= 20, "{same}");
}
