//! One invalid object never takes a valid one down: whoever it concerns keeps the last good state.
use super::{compile_text, compiled, endpoints_of, join, only, pod, reviews, route, summary};
use crate::state::State;

const SPLIT: &str = "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}]";

fn good() -> State {
    compiled(&[&reviews(), &route(SPLIT)]).state
}

#[test]
fn what_is_invalid_or_not_enforced_keeps_the_last_good_state() {
    let vs = route(SPLIT);
    let policy = "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p}\nspec: {targetRef: {name: reviews}, rules: [{name: 'http[0]', sources: [10.0.0.0/99]}]}";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: reviews}}\naddressType: IPv4\nendpoints: [{addresses: [nonsense]}]";
    let broken_pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: b, labels: {app: reviews}}\nstatus: {podIP: nonsense}";
    let cases = [
        ("an invalid VirtualService", join(&[&reviews(), &vs.replace("weight: 90", "weight: -90")])),
        ("one of the wrong shape", join(&[&reviews(), &vs.replace("weight: 90", "weight: {a: b}")])),
        ("one without rules", join(&[&reviews(), &route("  http: []")])),
        (
            "one that needs the request",
            join(&[&reviews(), &vs.replace("{route:", "{match: [{uri: {prefix: /x}}], route:")]),
        ),
        ("an invalid DestinationRule", join(&[&reviews().replace("name: v3, labels", "name: v2, labels"), &vs])),
        ("an invalid Service", join(&[&reviews().replace("port: 9080", "port: 99080"), &vs])),
        ("an invalid RoutePolicy", join(&[&reviews(), &vs, policy])),
        ("an invalid EndpointSlice", join(&[&reviews(), &vs, slice])),
        ("an invalid Pod", join(&[&reviews(), &vs, broken_pod])),
    ];
    for (name, text) in cases {
        let compiled = compile_text(&text, &good());
        assert_eq!(compiled.state, good(), "{name}");
        let report = compiled.services.values().next().unwrap();
        assert!(!report.enforced && report.reason.is_some() && report.rules.is_empty(), "{name}: {report:?}");
        let said = compiled.diagnostics.iter().any(|found| {
            found.message.contains("service default/reviews:9080/tcp is not enforced")
                && found.message.ends_with("it keeps its last good state")
        });
        assert!(said, "{name}: {:#?}", compiled.diagnostics);
        let fresh = compile_text(&text, &State::default());
        assert!(fresh.state.services.is_empty() && fresh.state.frontends.is_empty(), "{name}: nothing is made up");
    }
}

#[test]
fn others_are_not_touched() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.0.2, selector: {app: other}, ports: [{name: http, port: 80}]}";
    let world = join(&[
        &reviews(),
        &route(&SPLIT.replace("weight: 90", "weight: -90")),
        other,
        &pod("other", "v1", "10.4.0.1"),
    ]);
    let compiled = compile_text(&world, &good());
    assert_eq!(
        summary(&compiled.state),
        "default/other:80/tcp default{default:1}\ndefault/reviews:9080/tcp http[0]{v1:90 v2:10}"
    );
}

#[test]
fn a_service_that_is_gone_is_gone() {
    assert_eq!(compile_text("", &good()).state, State::default());
}

#[test]
fn a_held_service_follows_its_addresses() {
    let moved = reviews().replace("10.96.0.1", "10.96.0.77");
    let compiled = compile_text(&join(&[&moved, &route("  http: []")]), &good());
    let frontends: Vec<String> = compiled.state.frontends.keys().map(ToString::to_string).collect();
    assert_eq!(
        (frontends, only(&compiled)),
        (vec!["10.96.0.77:9080/tcp".to_owned()], "http[0]{v1:90 v2:10}".to_owned())
    );
}

#[test]
fn an_invalid_virtual_service_counts_only_where_it_would_be_in_force() {
    let older = route(SPLIT)
        .replace("metadata: {name: reviews}", "metadata: {name: a, creationTimestamp: '2020-01-01T00:00:00Z'}");
    let broken = route("  http: []")
        .replace("metadata: {name: reviews}", "metadata: {name: b, creationTimestamp: '2021-01-01T00:00:00Z'}");
    let compiled = compiled(&[&reviews(), &older, &broken]);
    assert_eq!(only(&compiled), "http[0]{v1:90 v2:10}");
    let gateway_only = route("  gateways: [gw]\n  http: []");
    assert_eq!(only(&super::compiled(&[&reviews(), &gateway_only])), "default{default:1}");
}

#[test]
fn held_rules_follow_their_endpoints_while_these_are_known() {
    let moved = reviews().replace("10.0.2.1", "10.0.2.9");
    let request = SPLIT.replace("{route:", "{match: [{uri: {prefix: /x}}], route:");
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: reviews}}\naddressType: IPv4\nendpoints: [{addresses: [nonsense]}]";
    let cases = [
        ("rules that need the request", join(&[&moved, &route(&request)]), "10.0.2.9:9080"),
        ("invalid rules", join(&[&moved, &route("  http: []")]), "10.0.2.9:9080"),
        ("invalid endpoints", join(&[&moved, &route(SPLIT), slice]), "10.0.2.1:9080"),
        (
            "invalid subsets",
            join(&[&moved.replace("name: v3, labels", "name: v2, labels"), &route(SPLIT)]),
            "10.0.2.1:9080",
        ),
    ];
    for (name, text, expected) in cases {
        let compiled = compile_text(&text, &good());
        assert_eq!(only(&compiled), "http[0]{v1:90 v2:10}", "{name}");
        assert_eq!(endpoints_of(&compiled, "v2"), expected, "{name}");
    }
}

#[test]
fn held_versions_that_are_services_or_have_other_names() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.0.2, selector: {app: other}, ports: [{name: http, port: 80}]}";
    let split = "  http: [{route: [{destination: {host: other}, weight: 1}, {destination: {host: reviews, subset: v1}, weight: 1}]}]";
    let world = |address: &str| join(&[&reviews(), other, &pod("other", "v1", address)]);
    let before = compile_text(&join(&[&world("10.4.0.1"), &route(split)]), &State::default()).state;
    let after = compile_text(&join(&[&world("10.4.0.2"), &route("  http: []")]), &before).state;
    let endpoints = |state: &State| {
        let service = state.services.iter().find(|(id, _)| id.name == "reviews").unwrap().1;
        service.versions["other"].endpoints.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        (endpoints(&before), endpoints(&after)),
        (vec!["10.4.0.1:80".to_owned()], vec!["10.4.0.2:80".to_owned()])
    );
    // A subset that is gone has no name to go by: it keeps what it has.
    let gone = world("10.4.0.1").replace("{name: v1, labels: {version: v1}}", "{name: v9, labels: {version: v1}}");
    let held = compile_text(&join(&[&gone, &route("  http: []")]), &before).state;
    assert_eq!(held, before);
}

#[test]
fn a_service_too_many_is_an_error_and_displaces_nobody() {
    let service = |number: usize| {
        let (high, low) = (number / 256, number % 256);
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number:04}}}\nspec: {{clusterIP: 10.96.{high}.{low}, ports: [{{port: 80}}]}}"
        )
    };
    let full: Vec<String> = (1..=crate::compile::limits::SERVICES).map(service).collect();
    let before = compile_text(&full.join("\n---\n"), &State::default());
    assert_eq!((before.state.services.len(), before.diagnostics.len()), (crate::compile::limits::SERVICES, 0));
    // Its name comes first, and yet it is the one that finds no room.
    let more = compile_text(&join(&[&full.join("\n---\n"), &service(0)]), &before.state);
    assert_eq!(more.state, before.state);
    let said: Vec<String> =
        more.diagnostics.iter().map(|found| format!("{} {} {}", found.code, found.object, found.message)).collect();
    assert_eq!(
        said,
        ["CAN0303 Service default/s0000 service default/s0000:80/tcp is not enforced: there is no room for it: \
          canary holds 4096 services; there is no earlier state, so its traffic is left alone"]
    );
}

#[test]
fn the_cause_is_said_and_not_its_consequences() {
    let broken = reviews().replace("port: 9080", "port: 99080");
    let compiled = compile_text(&join(&[&broken, &route(SPLIT)]), &State::default());
    assert!(compiled.diagnostics.iter().all(|found| found.code != "CAN0313"), "{:#?}", compiled.diagnostics);
}
