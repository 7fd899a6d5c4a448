//! Which endpoint gets a request, by the version's policy; without sockets.
use std::{collections::BTreeMap, net::SocketAddr};

use hyper::HeaderMap;

use super::fixture::{FRONTEND, endpoints, route, rule, state};
use crate::{
    proxy::{
        balance::part,
        endpoint::{Chosen, Kind, Picked, Seen, Ticket},
        rule::Ends,
        table::RouteTable,
        view::RequestView,
    },
    state::{Balancing, HashKey, OutlierDetection, State, TrafficPolicy, Warmup},
};

const THREE: &[&str] = &["10.9.0.1:80", "10.9.0.2:80", "10.9.0.3:80"];

pub(super) fn with(mut wanted: State, policy: TrafficPolicy) -> State {
    let service = wanted.services.values_mut().next().unwrap();
    service.http.as_mut().unwrap().policies.insert("v1".into(), policy);
    wanted
}

fn wanted(addresses: &[&str], policy: TrafficPolicy) -> State {
    with(state(vec![rule(route(&[("v1", 1)]))], &[("v1", endpoints(addresses))]), policy)
}

fn balancing(balancing: Balancing) -> TrafficPolicy {
    TrafficPolicy { balancing, ..TrafficPolicy::default() }
}

pub(super) fn outliers() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 2,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: None,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 100,
        min_health_percent: 0,
    }
}

fn next(table: &RouteTable) -> Option<Picked> {
    table.service(FRONTEND).unwrap().version("v1").unwrap().next()
}

fn shares(table: &RouteTable, requests: u32) -> BTreeMap<SocketAddr, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        *shares.entry(next(table).unwrap().address).or_insert(0) += 1;
    }
    shares
}

fn chosen(table: &RouteTable, address: &str) -> Chosen {
    let mut picks = (0..1_000).filter_map(|_| next(table)?.chosen);
    picks.find(|chosen| chosen.endpoint.address == address.parse().unwrap()).unwrap()
}

/// The endpoint of a request with these headers and this target, and the cookie for its answer.
fn asked(table: &RouteTable, headers: &[(&str, &str)], target: &str, client: &str) -> (SocketAddr, Option<String>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name.parse::<hyper::header::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let client: SocketAddr = client.parse().unwrap();
    let (method, scheme, authority) = ("GET", "http", "web");
    let view = RequestView { method, scheme, authority, target, headers: &map, client: client.ip() };
    let ends = Ends { client, frontend: FRONTEND };
    let picked = table.service(FRONTEND).unwrap().version("v1").unwrap().pick(|| (view, ends)).unwrap();
    (picked.address, picked.cookie.map(|cookie| cookie.to_str().unwrap().to_owned()))
}

#[test]
fn chance_follows_weights() {
    let mut wanted = wanted(&THREE[..2], balancing(Balancing::Random));
    let version = wanted.services.values_mut().next().unwrap().versions.get_mut("v1").unwrap();
    *version.endpoints.values_mut().next().unwrap() = 3;
    let table = RouteTable::build(&wanted, None);
    let heavy = shares(&table, 4_000)[&THREE[0].parse().unwrap()];
    // Six sigma of a binomial is 6 * sqrt(4000 * 0.75 * 0.25) = 164.
    assert!((2_836..3_164).contains(&heavy), "{heavy}");
}

#[test]
fn the_least_busy_of_two_is_asked() {
    let table = RouteTable::build(&wanted(&THREE[..2], balancing(Balancing::LeastRequest)), None);
    let busy = chosen(&table, THREE[0]);
    let tickets: Vec<Ticket> =
        (0..5).map(|_| Ticket::new(busy.endpoint.clone(), busy.group.usage.take(Kind::Request).unwrap())).collect();
    // Only if it is drawn twice: one in four.
    let share = |table: &RouteTable| shares(table, 4_000).get(&THREE[0].parse().unwrap()).copied().unwrap_or(0);
    let busy_share = share(&table);
    assert!((836..1_164).contains(&busy_share), "{busy_share}");
    drop(tickets);
    let even = share(&table);
    assert!((1_810..2_190).contains(&even), "{even}");
}

/// Key, target and client of the n-th request.
type Request = fn(u32) -> (String, String, String);

#[test]
fn the_same_key_goes_to_the_same_endpoint() {
    let hash = |key| balancing(Balancing::Hash { key, table_size: 65_537 });
    let cookie = || HashKey::Cookie { name: "user".into(), path: String::new(), ttl_seconds: None };
    let cases: [(HashKey, Request); 4] = [
        (HashKey::Header("x-user".into()), |n| (format!("u{n}"), "/".into(), String::new())),
        (HashKey::Query("u".into()), |n| (String::new(), format!("/?a=b&u={n}"), String::new())),
        (HashKey::SourceIp, |n| (String::new(), "/".into(), format!("10.1.0.{}", n % 250))),
        (cookie(), |n| (format!("u{n}"), "/".into(), String::new())),
    ];
    for (key, request) in cases {
        let table = RouteTable::build(&wanted(THREE, hash(key.clone())), None);
        let fewer = RouteTable::build(&wanted(&THREE[..2], hash(key.clone())), None);
        let (mut all, mut moved) = (BTreeMap::new(), 0);
        for n in 0..200 {
            let (user, target, client) = request(n);
            let to = |table: &RouteTable, port: u16, quote: &str| {
                let cookies = format!("a=b; user={quote}{user}{quote}");
                let client = if client.is_empty() { format!("10.0.0.1:{port}") } else { format!("{client}:{port}") };
                asked(table, &[("x-user", &user), ("cookie", &cookies)], &target, &client)
            };
            let (first, set) = to(&table, 1, "");
            assert_eq!((to(&table, 2, "\"").0, set), (first, None), "{key:?}");
            *all.entry(first).or_insert(0) += 1;
            moved += u32::from(first != THREE[2].parse().unwrap() && to(&fewer, 1, "").0 != first);
        }
        assert_eq!(all.len(), 3, "{key:?} {all:?}");
        // An endpoint that goes away takes few others' keys with it.
        assert!(moved < 40, "{key:?} {moved}");
    }
}

#[test]
fn a_client_without_the_cookie_gets_one_that_leads_back() {
    let key = |ttl_seconds| HashKey::Cookie { name: "user".into(), path: "/p".into(), ttl_seconds };
    let table =
        |ttl| RouteTable::build(&wanted(THREE, balancing(Balancing::Hash { key: key(ttl), table_size: 251 })), None);
    let day = table(Some(86_400));
    for port in 1_000..1_050 {
        let client = format!("10.0.0.1:{port}");
        let (first, cookie) = asked(&day, &[], "/", &client);
        let cookie = cookie.unwrap();
        let (pair, rest) = cookie.split_once(';').unwrap();
        assert_eq!(rest, " Max-Age=86400; Path=/p; HttpOnly");
        assert_eq!(asked(&day, &[("cookie", pair)], "/", "10.0.0.2:1"), (first, None));
        // All requests of a connection get the same.
        assert_eq!(asked(&day, &[], "/", &client).1.as_ref(), Some(&cookie));
    }
    assert!(asked(&table(Some(0)), &[], "/", "10.0.0.1:1").1.unwrap().ends_with("\"; Path=/p; HttpOnly"));
    assert_eq!(asked(&table(None), &[], "/", "10.0.0.1:1").1, None);
}

#[test]
fn an_ejected_endpoint_gets_nothing_and_the_table_may_change() {
    for balancing in [Balancing::Random, Balancing::RoundRobin, Balancing::LeastRequest] {
        let policy = TrafficPolicy { balancing, outliers: Some(outliers()), ..TrafficPolicy::default() };
        let table = RouteTable::build(&wanted(THREE, policy.clone()), None);
        let bad = chosen(&table, THREE[0]);
        bad.saw(Seen::Status(500));
        assert_eq!(shares(&table, 300).len(), 3);
        bad.saw(Seen::Status(500));
        assert_eq!(shares(&table, 300).len(), 2, "{policy:?}");
        // Another endpoint goes, and another policy comes: it rests all the same.
        let changed = TrafficPolicy { warmup: None, balancing: Balancing::Random, ..policy };
        let next = RouteTable::build(&wanted(&THREE[..2], changed), Some(&table));
        assert_eq!(shares(&next, 100).keys().map(ToString::to_string).collect::<Vec<_>>(), THREE[1..2]);
        let told: Vec<_> = next.ejections().into_iter().map(|it| (it.version, it.total, it.out)).collect();
        assert_eq!(told, [("v1".into(), 1, true), ("v1".into(), 0, false)]);
    }
}

#[test]
fn keys_of_an_ejected_endpoint_go_to_the_others_and_no_other_moves() {
    let hash = Balancing::Hash { key: HashKey::Header("x-user".into()), table_size: 65_537 };
    let policy = TrafficPolicy { outliers: Some(outliers()), balancing: hash, ..TrafficPolicy::default() };
    let table = RouteTable::build(&wanted(THREE, policy), None);
    let to = |n: u32| asked(&table, &[("x-user", &format!("u{n}"))], "/", "10.0.0.1:1").0;
    let before: Vec<SocketAddr> = (0..300).map(to).collect();
    let bad: SocketAddr = THREE[0].parse().unwrap();
    let chosen = chosen(&table, THREE[0]);
    (0..2).for_each(|_| chosen.saw(Seen::Failed));
    let mut heirs = BTreeMap::<SocketAddr, u32>::new();
    for (n, before) in (0..).zip(before) {
        if before == bad {
            *heirs.entry(to(n)).or_default() += 1;
        } else {
            assert_eq!(to(n), before);
        }
    }
    assert!(heirs.len() == 2 && !heirs.contains_key(&bad), "{heirs:?}");
}

#[test]
fn not_too_many_are_ejected_and_too_few_are_not_enough() {
    let ejected = |max_ejection_percent, min_health_percent, bad: &[&str]| {
        let of = OutlierDetection { max_ejection_percent, min_health_percent, ..outliers() };
        let policy = TrafficPolicy { outliers: Some(of), balancing: Balancing::Random, ..TrafficPolicy::default() };
        let table = RouteTable::build(&wanted(THREE, policy), None);
        let bad: Vec<Chosen> = bad.iter().map(|address| chosen(&table, address)).collect();
        for bad in bad {
            (0..2).for_each(|_| bad.saw(Seen::Status(503)));
        }
        let out = table.ejections().iter().filter(|it| it.out).count();
        (out, next(&table).map_or(0, |_| shares(&table, 300).len()))
    };
    // As in Envoy: one of three is more than 10 %.
    assert_eq!(ejected(10, 0, &THREE[..1]), (0, 3));
    assert_eq!(ejected(34, 0, &THREE[..2]), (1, 2));
    assert_eq!(ejected(100, 0, THREE), (3, 0));
    // Panic: two thirds are out, fewer than half are well.
    assert_eq!(ejected(100, 50, &THREE[..2]), (2, 3));
    assert_eq!(ejected(100, 50, &THREE[..1]), (1, 2));
}

#[test]
fn a_new_endpoint_rises_to_its_share() {
    let warmup = Warmup { duration_ms: 2_000, aggression_milli: 1_000, minimum_percent: 10 };
    for slow in [Balancing::RoundRobin, Balancing::LeastRequest] {
        let policy = TrafficPolicy { warmup: Some(warmup.clone()), ..balancing(slow) };
        let table = RouteTable::build(&wanted(&THREE[..2], policy.clone()), None);
        let even = shares(&table, 2_000);
        assert!(even.values().all(|share| (800..1_200).contains(share)), "all are new: {even:?}");
        std::thread::sleep(std::time::Duration::from_millis(2_010));
        let table = RouteTable::build(&wanted(THREE, policy), Some(&table));
        // For its first second it has half of its weight: a fifth of all.
        let new = shares(&table, 2_000)[&THREE[2].parse().unwrap()];
        assert!((300..500).contains(&new), "{new}");
    }
}

#[test]
fn the_part_of_a_new_endpoint_is_envoys() {
    let of = |aggression_milli, minimum_percent| Warmup { duration_ms: 10_000, aggression_milli, minimum_percent };
    let cases = [
        (of(1_000, 10), 0, 0.1),
        (of(1_000, 10), 5_000, 0.5),
        (of(1_000, 10), 10_000, 1.0),
        (of(1_000, 60), 5_000, 0.6),
        (of(2_000, 10), 2_500, 0.5),
        (of(500, 10), 5_000, 0.25),
        // Time counts from the first second.
        (of(1_000, 0), 1, 0.1),
    ];
    for (warmup, age, wanted) in cases {
        let part = part(&warmup, age);
        assert!((part - wanted).abs() < 1e-9, "{warmup:?} {age}: {part}");
    }
}
