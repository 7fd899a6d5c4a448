//! Counters and draws that outlive a change of the table.
use std::collections::BTreeMap;

use hyper::HeaderMap;

use super::fixture::{FRONTEND, endpoints, route, rule, split, state};
use crate::{
    proxy::{
        rule::{Action, Ends},
        table::RouteTable,
        view::RequestView,
    },
    state::{Choosing, DeadVersion, HttpAction, State},
};

fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        method: "GET",
        scheme: "http",
        authority: "a",
        target: "/",
        headers,
        client: "10.0.0.1".parse().unwrap(),
    }
}

/// The version of the next request of a client.
fn version(table: &RouteTable, client: &str) -> String {
    let headers = HeaderMap::new();
    let (rule, _) = table.service(FRONTEND).unwrap().rule(&view(&headers)).unwrap();
    let Action::Route(route) = &rule.action else { panic!("no route") };
    let ends = Ends { client: client.parse().unwrap(), frontend: FRONTEND };
    route.choose(ends).unwrap().version.clone()
}

fn shares(table: &RouteTable, requests: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        *shares.entry(version(table, "10.0.0.1:1")).or_insert(0) += 1;
    }
    shares
}

#[test]
fn every_prefix_is_exact_and_the_counter_goes_on() {
    let (v1, v2) = (endpoints(&["10.9.0.1:80"]), endpoints(&["10.9.0.2:80"]));
    let mut wanted = state(vec![split(90, 10)], &[("v1", v1), ("v2", v2)]);
    let mut table = RouteTable::build(&wanted, None);
    let mut canary = 0_u32;
    for n in 1..=2_000_u32 {
        canary += u32::from(version(&table, "10.0.0.1:1") == "v2");
        assert!(canary.abs_diff(n / 10) <= 1, "{canary} of {n}");
        if n % 7 == 0 {
            // A new endpoint changes the table, not the rule.
            let service = wanted.services.values_mut().next().unwrap();
            let added = format!("10.9.1.{}:80", n % 100).parse().unwrap();
            service.versions.get_mut("v1").unwrap().endpoints.insert(added, 1);
            table = RouteTable::build(&wanted, Some(&table));
        }
    }
    let changed =
        state(vec![split(50, 50)], &[("v1", endpoints(&["10.9.0.1:80"])), ("v2", endpoints(&["10.9.0.2:80"]))]);
    let table = RouteTable::build(&changed, Some(&table));
    assert_eq!(shares(&table, 100), BTreeMap::from([("v1".into(), 50), ("v2".into(), 50)]));
}

#[test]
fn a_dead_version_fails_or_spills() {
    let with = |dead| {
        let mut rule = split(90, 10);
        let HttpAction::Route(route) = &mut rule.action else { panic!("no route") };
        route.dead = dead;
        RouteTable::build(&state(vec![rule], &[("v1", endpoints(&["10.9.0.1:80"])), ("v2", endpoints(&[]))]), None)
    };
    assert_eq!(shares(&with(DeadVersion::Fail), 100), BTreeMap::from([("v1".into(), 90), ("v2".into(), 10)]));
    assert_eq!(shares(&with(DeadVersion::Spill), 100), BTreeMap::from([("v1".into(), 100)]));
    let table = with(DeadVersion::Fail);
    assert_eq!(table.service(FRONTEND).unwrap().version("v2").unwrap().next().map(|it| it.address), None);
}

#[test]
fn a_keyed_client_keeps_its_version() {
    let mut rule = split(50, 50);
    let HttpAction::Route(route) = &mut rule.action else { panic!("no route") };
    route.choosing = Choosing::KeyedClient;
    let table =
        RouteTable::build(&state(vec![rule], &[("v1", endpoints(&["10.9.0.1:80"])), ("v2", endpoints(&[]))]), None);
    let mut canary = 0;
    for client in 0..1_000_u32 {
        let at = |port| version(&table, &format!("10.0.{}.{}:{port}", client / 250, client % 250));
        assert_eq!(at(1), at(2));
        canary += u32::from(at(3) == "v2");
    }
    assert!((400..600).contains(&canary), "{canary}");
}

#[test]
fn endpoints_take_turns_by_weight() {
    let mut version = endpoints(&["10.9.0.1:80", "10.9.0.2:80"]);
    let table = RouteTable::build(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", version.clone())]), None);
    let turns = |table: &RouteTable, n: u32| {
        let mut turns = BTreeMap::<_, u32>::new();
        for _ in 0..n {
            *turns
                .entry(table.service(FRONTEND).unwrap().version("v1").unwrap().next().unwrap().address)
                .or_default() += 1;
        }
        turns.into_values().collect::<Vec<_>>()
    };
    assert_eq!(turns(&table, 100), [50, 50]);
    *version.endpoints.values_mut().next().unwrap() = 3;
    let table = RouteTable::build(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", version)]), Some(&table));
    assert_eq!(turns(&table, 100), [75, 25]);
}

#[test]
fn rules_for_connections_still_answer_requests() {
    let mut wanted = state(vec![], &[("v1", endpoints(&["10.9.0.1:80"]))]);
    let service = wanted.services.values_mut().next().unwrap();
    service.http = None;
    service.rules = vec![crate::state::Rule {
        name: "default".into(),
        sources: vec![],
        split: crate::state::Split {
            choosing: Choosing::Exact,
            dead: DeadVersion::Fail,
            weights: vec![("v1".into(), 1)],
        },
    }];
    let table = RouteTable::build(&wanted, None);
    assert_eq!(version(&table, "10.0.0.1:1"), "v1");
    assert!(table.service(FRONTEND).unwrap().leaving);
    assert!(RouteTable::build(&State::default(), Some(&table)).service(FRONTEND).is_none());
}
