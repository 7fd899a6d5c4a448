//! Routes for the clients of another namespace: they change nothing for anybody else.
use super::{at_reviews, codes, compiled, join, kernel, proxy, requests, route, statuses::statuses, world};
use crate::{
    compile::{Compiled, ProxyAddresses, tests::compile_for},
    source::cluster::Says,
    state::State,
};

const PORT_80: &str = "default/reviews:80/tcp";
const PARENT: &str = "{group: '', kind: Service, name: reviews, namespace: default}";
const V3: &str = "[{name: reviews-v3, port: 80}]";

fn mine(rules: &str) -> String {
    route("HTTPRoute", "other/mine", PARENT, &format!("  rules: {rules}"))
}

/// What is said of such routes.
fn said(found: &Compiled) -> Vec<String> {
    let mut said = codes(found);
    said.retain(|it| ["CAN0319", "CAN0320"].iter().any(|code| it.starts_with(code)));
    said.dedup();
    said
}

/// The condition `Programmed` of a route: its reason and message.
fn programmed(text: &str, proxy: &ProxyAddresses, object: &str) -> (String, String) {
    let statuses = statuses(text, proxy);
    let (_, says) = statuses.iter().find(|(id, _)| id == object).unwrap();
    let Says::Parents(parents) = says else { panic!("{says:?}") };
    let conditions = parents[0].pointer("/conditions").and_then(|it| it.as_array()).unwrap();
    let text =
        |of: &serde_json::Value, field: &str| of.get(field).and_then(|it| it.as_str()).unwrap_or_default().to_owned();
    let one = conditions.iter().find(|it| text(it, "type") == "Programmed").unwrap();
    (text(one, "reason"), text(one, "message"))
}

#[test]
fn everybody_else_gets_the_service_itself() {
    let found = compiled(&[&mine(&format!("[{{backendRefs: {V3}}}]"))]);
    assert_eq!(kernel(&found, PORT_80), "rules[0]<10.0.9.9/32>{reviews-v3:1} default{default:1}");
    assert_eq!(said(&found), [""; 0]);
    // By the proxy too, and at the port that it is for only.
    let get = format!("[{{matches: [{{method: GET}}], backendRefs: {V3}}}]");
    let at_80 = mine(&get).replace("namespace: default}", "namespace: default, port: 80}");
    let found = compiled(&[&at_80]);
    assert_eq!(requests(&found, PORT_80), ["rules[0]{reviews-v3:1}", "404:404", "default{default:1}"]);
    assert_eq!(kernel(&found, "default/reviews:8080/tcp"), "default{default:1}");
    assert_eq!(said(&found), ["CAN0320 spec"]);
    // Where a route of the Service's own namespace is for one port, it says what its clients get there.
    let own = at_reviews("[{matches: [{path: {value: /a}}], backendRefs: [{name: reviews-v1, port: 80}]}]")
        .replace("name: reviews}", "name: reviews, port: 80}");
    let found = compiled(&[&own, &mine(&format!("[{{backendRefs: {V3}}}]"))]);
    assert_eq!(requests(&found, PORT_80), ["mine.rules[0]{reviews-v3:1}", "split.rules[0]{reviews-v1:1}"]);
    assert_eq!(
        kernel(&found, "default/reviews:8080/tcp"),
        "mine.rules[0]<10.0.9.9/32>{reviews-v3:1} default{default:1}"
    );
}

#[test]
fn what_cannot_be_followed_is_left_out_by_itself() {
    let own = at_reviews("[{backendRefs: [{name: reviews-v1, port: 80}]}]");
    let third = route(
        "HTTPRoute",
        "third/theirs",
        PARENT,
        "  rules: [{backendRefs: [{name: reviews-v1, port: 80, namespace: default}]}]",
    );
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: third}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: third}]\n  to: [{group: '', kind: Service}]";
    let client = "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: third}\nstatus: {podIP: 10.0.8.8}";
    let get = mine(&format!("[{{matches: [{{method: GET}}], backendRefs: {V3}}}]"));
    let all = join(&[&world(), &own, &third, grant, client, &get]);
    let found = compile_for(&all, &State::default(), &ProxyAddresses::default());
    // Without a proxy there is nobody to follow one of them; the others are in force.
    assert_eq!(kernel(&found, PORT_80), "theirs.rules[0]<10.0.8.8/32>{reviews-v1:1} split.rules[0]{reviews-v1:1}");
    assert_eq!(said(&found), ["CAN0319 spec.rules[0].match[0].method"]);
    let report = found.services.iter().find(|(id, _)| id.to_string() == PORT_80).unwrap().1;
    let deciders: Vec<&str> = report.deciders().map(|it| it.object.as_str()).collect();
    assert_eq!(deciders, ["HTTPRoute default/split", "HTTPRoute third/theirs"]);
    let (reason, message) = programmed(&all, &ProxyAddresses::default(), "HTTPRoute other/mine");
    assert_eq!(reason, "NotEnforced");
    assert!(message.contains("`method` needs the request"), "{message}");
    for object in ["HTTPRoute default/split", "HTTPRoute third/theirs"] {
        assert_eq!(programmed(&all, &ProxyAddresses::default(), object).0, "Programmed");
    }
    // More clients than the kernel takes rules for: no network holds two of them.
    let clients: Vec<String> = (0..70)
        .map(|n| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: c{n}, namespace: other}}\nstatus: {{podIP: 10.1.{n}.1}}"
            )
        })
        .collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let many = join(&[&world(), &own, &mine(&format!("[{{backendRefs: {V3}}}]")), &join(&clients)]);
    let found = compile_for(&many, &State::default(), &proxy());
    assert_eq!(kernel(&found, PORT_80), "split.rules[0]{reviews-v1:1}");
    assert!(programmed(&many, &proxy(), "HTTPRoute other/mine").1.contains("more than 64"));
    // If the Service's own rules cannot be followed, it is that which counts.
    let own = own.replace("[{backendRefs", "[{matches: [{method: GET}], backendRefs");
    let found = compile_for(&join(&[&world(), &own, &get]), &State::default(), &ProxyAddresses::default());
    let report = found.services.iter().find(|(id, _)| id.to_string() == PORT_80).unwrap().1;
    assert!(!report.enforced && report.left_out.is_empty(), "{report:?}");
}

#[test]
fn nobody_elses_rules_give_way_to_it() {
    let older = |text: &str| text.replace("name: mine,", "name: mine, creationTimestamp: '2025-01-01T00:00:00Z',");
    let service = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, creationTimestamp: '2026-01-01T00:00:00Z'}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews-v1}}]}]}";
    let valid = older(&mine(&format!("[{{backendRefs: {V3}}}]")));
    let found = compiled(&[service, &valid]);
    assert_eq!(kernel(&found, PORT_80), "http[0]{reviews-v1:1}");
    assert!(codes(&found).contains(&"IST0109 spec.hosts".to_owned()));
    // Nor do they wait for one that is not valid.
    let broken = older(&mine("[{backendRefs: [{name: reviews-v3, port: 80, weight: -1}]}]"));
    for own in [service, &at_reviews("[{backendRefs: [{name: reviews-v1, port: 80}]}]")] {
        let found = compiled(&[own, &broken]);
        assert!(kernel(&found, PORT_80).ends_with("{reviews-v1:1}"), "{}", kernel(&found, PORT_80));
    }
}
