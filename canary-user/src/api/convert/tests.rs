//! Shares of requests as they go over the wire.
use super::*;
use crate::{
    agent::{
        fake::{FakeKernel, helloworld, split_state},
        kernel::Kernel,
    },
    proxy::telemetry::RequestSplit,
    state::{HeaderChanges, Http, HttpAction, HttpDestination, HttpPolicy, HttpRoute, HttpRule, Rewrite},
};

/// helloworld behind the proxy: a redirect, then v1 and v2 with 90 and 10; v3 has no weight.
fn proxied() -> (View, Counters) {
    let mut state = split_state(&[("v1", 1), ("v2", 1), ("v3", 1), (PROXY_VERSION, 1)]);
    let service = state.services.values_mut().next().unwrap();
    service.rules[0].split.weights = vec![(PROXY_VERSION.into(), 1)];
    let to = |(version, weight): (&str, u32)| HttpDestination {
        version: version.into(),
        weight,
        headers: HeaderChanges::default(),
        refused: false,
    };
    let rule = |name: &str, action| HttpRule {
        name: name.into(),
        matches: vec![],
        action,
        headers: HeaderChanges::default(),
        timeout_ms: None,
        policy: HttpPolicy::default(),
    };
    let route = HttpRoute {
        choosing: Choosing::Exact,
        dead: DeadVersion::Fail,
        destinations: [("v1", 40), ("v1", 50), ("v2", 10)].map(to).into(),
        rewrite: Rewrite::default(),
    };
    let gone = HttpAction::Answer { status: 410, body: String::new() };
    service.http =
        Some(Http { rules: vec![rule("gone", gone), rule("split", HttpAction::Route(route))], ..Http::default() });
    let mut kernel = FakeKernel::default();
    kernel.apply(&state).unwrap();
    let state = std::sync::Arc::new(state);
    let view = View { in_force: state.clone(), intended: state, ..View::default() };
    (view, kernel.counters().unwrap())
}

fn requests(v1: u64, v2: u64) -> Requests {
    let versions = vec![("v1".into(), 90, v1), ("v2".into(), 10, v2)];
    Requests { splits: vec![RequestSplit { service: helloworld(), rule: 1, versions }], ..Requests::default() }
}

#[test]
fn versions_behind_the_proxy_have_shares_of_requests() {
    let (view, counters) = proxied();
    let items = versions(&view, &counters, &requests(897, 103));
    let shown: Vec<_> = items
        .iter()
        .map(|one| (one.rule.as_str(), one.version.as_str(), one.weight, one.flows, one.requests, one.deviation))
        .collect();
    assert_eq!(
        shown,
        [("split", "v1", 90, 0, Some(897), -3.0), ("split", "v2", 10, 0, Some(103), 3.0), ("-", "v3", 0, 0, None, 0.0)]
    );
    assert_eq!(items[0].observed_share, Some(0.897));
    assert_eq!((items[0].bound, items[0].programmed, items[0].endpoints), (Some(1.0), Some(90), 1));
    let listed = services(&view, &counters);
    let rules: Vec<_> = listed[0].rules.iter().map(|rule| (rule.name.as_str(), rule.versions.len())).collect();
    assert_eq!(rules, [("split", 2)], "not that everybody is sent to the proxy");
}

#[test]
fn splits_of_requests_are_verified_like_those_of_flows() {
    let (view, counters) = proxied();
    let agrees = |requests: &Requests| verify(&view, &counters, requests, vec![]).agrees;
    assert!(agrees(&requests(900, 100)) && agrees(&requests(899, 101)));
    assert!(!agrees(&requests(897, 103)));
    assert!(!agrees(&Requests::default()), "the proxy does not follow it");
}
