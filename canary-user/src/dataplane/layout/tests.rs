//! Laying out and planning: closed at every prefix, nothing to do when nothing changed, slots that stay.
mod room;

use std::net::IpAddr;

use canary_common::abi::LEAF;
use proptest::prelude::*;

use super::*;
use crate::{
    dataplane::plan::{Op, diff},
    state::{Choosing, DeadVersion, Frontend, Protocol, Rule as StateRule, Split as StateSplit, Version},
};

fn id(name: &str) -> ServiceId {
    ServiceId::tcp(name, 80)
}

fn frontend(host: u8) -> Frontend {
    Frontend { addr: IpAddr::from([10, 96, 0, host]), port: 80, protocol: Protocol::Tcp }
}

fn version(endpoints: impl IntoIterator<Item = (u8, u32)>) -> Version {
    let addr = |host: u8| SocketAddr::from(([10, 244, 0, host], 8080));
    Version { endpoints: endpoints.into_iter().map(|(host, weight)| (addr(host), weight)).collect(), drain_seconds: 30 }
}

fn split(weights: &[(&str, u32)]) -> StateSplit {
    StateSplit {
        choosing: Choosing::Exact,
        dead: DeadVersion::Fail,
        weights: weights.iter().map(|&(name, weight)| (name.into(), weight)).collect(),
    }
}

fn state(rules: Vec<StateSplit>, versions: &[(&str, Version)]) -> State {
    let rules = rules.into_iter().map(|split| StateRule { name: "r".into(), sources: Vec::new(), split }).collect();
    let versions = versions.iter().map(|(name, version)| ((*name).into(), version.clone())).collect();
    State {
        frontends: [(frontend(1), id("a"))].into(),
        services: [(id("a"), Service { rules, versions, http: None, tls: None })].into(),
        ..State::default()
    }
}

/// What an agent observes: only what packets can reach, and slots with a name or a generation.
fn observed(tables: &Tables) -> Tables {
    let mut seen = Tables {
        frontends: tables.frontends.clone(),
        services: tables.services.clone(),
        versions: tables.versions.clone(),
        endpoints: tables.endpoints.clone(),
        ..Tables::default()
    };
    for service in tables.services.values() {
        let (base, len) = unrange(service.rules);
        let Some(rules) = tables.rules.get(&base).filter(|_| len > 0) else { continue };
        seen.rules.insert(base, rules.clone());
        for rule in rules {
            let split = tables.splits[&rule.split];
            seen.splits.insert(rule.split, split);
            seen.leaves.insert(split.leaves, tables.leaves[&split.leaves].clone());
            seen.nodes.extend(tables.tree(split.root).into_iter().map(|at| (at, tables.nodes[&at])));
        }
    }
    for version in tables.versions.values().filter(|version| version.group != 0) {
        let group = tables.groups[&version.group];
        seen.groups.insert(version.group, group);
        for (at, len) in [(group.members, group.members_len), (group.ring, group.ring_len)] {
            if len > 0 {
                seen.members.insert(at, tables.members[&at].clone());
            }
        }
        seen.nodes.extend(tables.tree(group.root).into_iter().map(|at| (at, tables.nodes[&at])));
    }
    seen
}

/// The tables for a state that fits.
fn lowered(from: &Tables, state: &State, now: u32) -> Tables {
    let lowered = lower(from, state, now, &Names::default()).unwrap();
    assert!(lowered.refused.is_empty(), "{:?}", lowered.refused);
    lowered.tables
}

/// Why the only service has no place.
fn refusal(from: &Tables, state: &State, now: u32) -> LayoutError {
    lower(from, state, now, &Names::default()).unwrap().refused.pop().unwrap().error
}

fn laid(from: &Tables, state: &State, now: u32) -> Tables {
    let wanted = lowered(from, state, now);
    let mut tables = from.clone();
    for op in diff(from, &wanted) {
        tables.apply(&op);
    }
    observed(&tables)
}

fn any_state() -> impl Strategy<Value = State> {
    let endpoints = prop::collection::btree_map(1_u8..9, 1_u32..4, 0..4);
    let versions = prop::collection::btree_map("v[1-4]", endpoints, 1..5);
    let weights = prop::collection::vec(0_u32..5, 4);
    let rules = prop::collection::vec((weights, 0..3_u8, 0..3_u8, prop::collection::vec(0_u8..4, 0..3)), 1..4);
    let service = (versions, rules).prop_map(|(versions, rules)| {
        let names: Vec<String> = versions.keys().cloned().collect();
        let versions = versions.into_iter().map(|(name, endpoints)| (name, version(endpoints))).collect();
        let rules = rules
            .into_iter()
            .map(|(weights, choosing, dead, nets)| {
                let mut weights: Vec<(String, u32)> = names.iter().cloned().zip(weights).collect();
                if weights.iter().all(|(_, weight)| *weight == 0) {
                    weights[0].1 = 1;
                }
                StateRule {
                    name: "r".into(),
                    sources: nets.iter().map(|net| format!("10.{net}.0.0/16").parse().unwrap()).collect(),
                    split: StateSplit {
                        choosing: [Choosing::Exact, Choosing::KeyedFlow, Choosing::KeyedClient][usize::from(choosing)],
                        dead: [DeadVersion::Fail, DeadVersion::Spill, DeadVersion::Hold][usize::from(dead)],
                        weights,
                    },
                }
            })
            .collect();
        Service { rules, versions, http: None, tls: None }
    });
    prop::collection::btree_map(0_u8..4, service, 0..4).prop_map(|services| State {
        frontends: services.keys().map(|&host| (frontend(host), id(&format!("s{host}")))).collect(),
        services: services.into_iter().map(|(host, service)| (id(&format!("s{host}")), service)).collect(),
        ..State::default()
    })
}

proptest! {
    /// Packets arrive between any two writes; none may meet a dangling reference.
    #[test]
    fn every_prefix_of_a_plan_is_closed(states in prop::collection::vec(any_state(), 2..5)) {
        let mut now = Tables::default();
        for (tick, state) in (100..).step_by(17).zip(states) {
            let wanted = lowered(&now, &state, tick);
            let reachable_before = now.clone();
            let mut live = now.clone();
            for op in diff(&now, &wanted) {
                live.apply(&op);
                prop_assert_eq!(live.dangling(), None, "after {}", op);
            }
            // Nothing that packets could reach before was rewritten, but for the words that publish.
            for (slot, split) in &reachable_before.splits {
                prop_assert_eq!(live.splits.get(slot), Some(split));
            }
            for (slot, group) in &reachable_before.groups {
                prop_assert_eq!(live.groups.get(slot), Some(group));
            }
            for (slot, list) in &reachable_before.members {
                prop_assert_eq!(live.members.get(slot), Some(list));
            }
            for (slot, node) in &reachable_before.nodes {
                prop_assert_eq!(live.nodes.get(slot), Some(node));
            }
            now = observed(&live);
            prop_assert_eq!(&now, &observed(&wanted));
            prop_assert_eq!(diff(&now, &lowered(&now, &state, tick + 1)), []);
        }
    }
}

#[test]
fn new_weights_are_a_new_split_and_the_endpoints_stay() {
    let versions = [("v1", version([(1, 1), (2, 1)])), ("v2", version([(3, 1)]))];
    let before = laid(&Tables::default(), &state(vec![split(&[("v1", 90), ("v2", 10)])], &versions), 5);
    let wanted = lowered(&before, &state(vec![split(&[("v1", 50), ("v2", 50)])], &versions), 6);
    let ops = diff(&before, &wanted);
    assert!(ops.iter().any(|op| matches!(op, Op::FlipRules(..))), "{ops:?}");
    assert!(!ops.iter().any(|op| matches!(op, Op::PutEndpoint(..) | Op::PutGroup(..) | Op::Drain(..))), "{ops:?}");
    assert_ne!(before.splits.keys().next(), wanted.splits.keys().next());
}

#[test]
fn more_endpoints_leave_the_split_alone() {
    let with = |hosts: &[u8]| {
        let v2 = version(hosts.iter().map(|&host| (host, 1)));
        state(vec![split(&[("v1", 9), ("v2", 1)])], &[("v1", version([(1, 1)])), ("v2", v2)])
    };
    let before = laid(&Tables::default(), &with(&[3]), 5);
    let wanted = lowered(&before, &with(&[3, 4, 5]), 6);
    let ops = diff(&before, &wanted);
    assert!(!ops.iter().any(|op| matches!(op, Op::PutSplit(..) | Op::FlipRules(..))), "{ops:?}");
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::FlipGroup(..))).count(), 1);
}

#[test]
fn an_endpoint_that_leaves_drains_and_comes_back_as_the_same() {
    let with = |hosts: &[u8]| state(vec![split(&[("v1", 1)])], &[("v1", version(hosts.iter().map(|&host| (host, 1))))]);
    let both = laid(&Tables::default(), &with(&[1, 2]), 100);
    let one = laid(&both, &with(&[1]), 200);
    let drains: Vec<u32> = one.endpoints.values().map(|it| it.drain_by).collect();
    assert_eq!(drains, [0, 200 + ticks(30)]);
    let again = laid(&one, &with(&[1, 2]), 210);
    assert_eq!(again.endpoints, both.endpoints, "same slots, same generations: its flows are still its own");
    let late = laid(&one, &with(&[1, 3]), 1_000);
    assert_eq!(late.endpoints[&1].generation, 2, "past the deadline the slot is used again, as another generation");
}

#[test]
fn a_dead_version_fails_spills_or_holds() {
    let case = |dead: DeadVersion| {
        let with = |hosts: &[u8]| {
            let mut split = split(&[("v1", 90), ("v2", 10)]);
            split.dead = dead;
            let v2 = version(hosts.iter().map(|&host| (host, 1)));
            state(vec![split], &[("v1", version([(1, 1)])), ("v2", v2)])
        };
        let before = laid(&Tables::default(), &with(&[3]), 5);
        laid(&before, &with(&[]), 6)
    };
    let groups = |tables: &Tables| tables.versions.values().filter(|version| version.group != 0).count();
    let root_is_leaf = |tables: &Tables| tables.splits.values().all(|split| split.root & LEAF != 0);
    let fail = case(DeadVersion::Fail);
    assert_eq!((groups(&fail), root_is_leaf(&fail)), (1, false), "its share has nowhere to go");
    let spill = case(DeadVersion::Spill);
    assert_eq!((groups(&spill), root_is_leaf(&spill)), (1, true), "everything goes to v1");
    let hold = case(DeadVersion::Hold);
    assert_eq!((groups(&hold), root_is_leaf(&hold)), (2, false), "it keeps the endpoints that it had");
    assert!(hold.endpoints.values().all(|it| it.drain_by == 0));
}

#[test]
fn limits_name_the_object() {
    let many: Vec<(String, u32)> = (0..65).map(|n| (format!("v{n:02}"), 1)).collect();
    let split = StateSplit { choosing: Choosing::Exact, dead: DeadVersion::Fail, weights: many.clone() };
    let versions: Vec<(&str, Version)> = many.iter().map(|(name, _)| (name.as_str(), version([(1, 1)]))).collect();
    let error = refusal(&Tables::default(), &state(vec![split], &versions), 1);
    assert_eq!(error.to_string(), "default/a:80/tcp rule 0: 65 versions, but 64 are the limit");
}
