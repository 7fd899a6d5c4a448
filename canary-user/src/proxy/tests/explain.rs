//! What is said about a request is what becomes of it.
use std::net::SocketAddr;

use hyper::HeaderMap;

use super::fixture::{FRONTEND, endpoints, route, rule, split, state};
use crate::{
    proxy::{
        explain::{Choice, Explained, Outcome, explain},
        matching::{CompiledMatch, matches},
        view::RequestView,
    },
    state::{Choosing, HttpAction, HttpRule, Redirect, RequestMatch, State, Text},
};

const CLIENT: &str = "192.0.2.7:40000";

fn asked(state: &State, method: &str, target: &str, headers: &[(&str, &str)]) -> Explained {
    let client: SocketAddr = CLIENT.parse().unwrap();
    let headers = headers_of(headers);
    let request =
        RequestView { method, scheme: "http", authority: "web", target, headers: &headers, client: client.ip() };
    explain(state, client, FRONTEND, &request)
}

fn headers_of(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse::<hyper::header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect()
}

fn only(of: RequestMatch) -> HttpRule {
    HttpRule { matches: vec![of], ..rule(route(&[("v2", 1)])) }
}

fn named(name: &str, test: Text) -> std::collections::BTreeMap<String, Text> {
    [(name.to_owned(), test)].into()
}

#[test]
fn each_part_of_a_rule_says_why_it_does_not_match() {
    let none = RequestMatch::default;
    let cases = [
        (RequestMatch { uri: Some(Text::Prefix("/b".into())), ..none() }, "path is `/a`, not with the prefix `/b`"),
        (RequestMatch { method: Some(Text::Exact("PUT".into())), ..none() }, "method is `GET`, not exactly `PUT`"),
        (RequestMatch { scheme: Some(Text::Exact("https".into())), ..none() }, "scheme is `http`, not exactly `https`"),
        (RequestMatch { authority: Some(Text::Regex("w.".into())), ..none() }, "authority is `web`, not all of `w.`"),
        (RequestMatch { headers: named("x", Text::Present), ..none() }, "header `x` is missing"),
        (RequestMatch { headers: named("y", Text::Exact("2".into())), ..none() }, "header `y` is `1`, not exactly `2`"),
        (
            RequestMatch { without_headers: named("y", Text::Present), ..none() },
            "header `y` is `1`, which must not be there",
        ),
        (RequestMatch { query: named("q", Text::Exact("2".into())), ..none() }, "query `q` is `1`, not exactly `2`"),
        (
            RequestMatch { cookies: named("c", Text::Exact("d".into())), ..none() },
            "cookie `c` is missing, not exactly `d`",
        ),
        (
            RequestMatch { sources: vec!["10.0.0.0/8".parse().unwrap()], ..none() },
            "client 192.0.2.7 is not in 10.0.0.0/8",
        ),
    ];
    for (alternative, why) in cases {
        let state = state(vec![only(alternative), split(90, 10)], &[]);
        let explained = asked(&state, "GET", "/a?q=1", &[("y", "1")]);
        assert_eq!((explained.rule, explained.passed.as_slice()), (Some(1), [why.to_owned()].as_slice()));
    }
}

#[test]
fn alternatives_are_told_apart() {
    let path = |path: &str| RequestMatch { uri: Some(Text::Exact(path.into())), ..RequestMatch::default() };
    let two = HttpRule { matches: vec![path("/x"), path("/y")], ..split(1, 1) };
    let explained = asked(&state(vec![two], &[]), "GET", "/a", &[]);
    assert_eq!(explained.outcome, Outcome::Unmatched);
    assert_eq!(
        explained.passed,
        ["alternative 1: path is `/a`, not exactly `/x`; alternative 2: path is `/a`, not exactly `/y`"]
    );
}

#[test]
fn outcomes_of_every_kind() {
    let versions = [("v1", endpoints(&["10.0.0.1:80"])), ("v2", endpoints(&[]))];
    let outcome = |rule: HttpRule| asked(&state(vec![rule], &versions), "GET", "/a?b", &[]).outcome;
    let choice = |choosing, certain: Option<&str>| {
        let one = vec!["10.0.0.1:80".parse().unwrap()];
        let versions = vec![("v1".into(), 90, one), ("v2".into(), 10, vec![])];
        Outcome::Versions(Choice { choosing, versions, certain: certain.map(str::to_owned) })
    };
    assert_eq!(outcome(split(90, 10)), choice(Choosing::Exact, None));
    let mut keyed = split(90, 10);
    let HttpAction::Route(to) = &mut keyed.action else { panic!("no route") };
    to.choosing = Choosing::KeyedClient;
    assert!(
        [choice(Choosing::KeyedClient, Some("v1")), choice(Choosing::KeyedClient, Some("v2"))]
            .contains(&outcome(keyed))
    );
    let to = Redirect {
        code: 302,
        uri: Some("/there".into()),
        prefix: None,
        authority: None,
        scheme: None,
        port: None,
        bare: false,
    };
    let location = Some("http://web/there?b".into());
    assert_eq!(outcome(rule(HttpAction::Redirect(to))), Outcome::Redirect { status: 302, location });
    let answer = HttpAction::Answer { status: 410, body: String::new() };
    assert_eq!(outcome(rule(answer)), Outcome::Answer { status: 410 });
    assert_eq!(asked(&State::default(), "GET", "/", &[]).outcome, Outcome::NoService);
    let mut kernel = state(vec![], &versions);
    kernel.services.values_mut().for_each(|service| service.http = None);
    assert_eq!(asked(&kernel, "GET", "/", &[]).outcome, Outcome::Kernel);
}

proptest::proptest! {
    /// A rule that is passed over says why, and one that is met does not match by accident.
    #[test]
    fn a_reason_is_given_exactly_where_a_rule_does_not_match(
        path in "/[ab]{0,2}", method in "GET|PUT", value in proptest::option::of("[xy]"),
        wanted in proptest::option::of("/[ab]?"), verb in proptest::option::of("GET|PUT"),
        header in proptest::option::of("[xy]"), without in proptest::option::of("[xy]"),
    ) {
        let exact = |text: Option<String>| text.map(Text::Exact);
        let alternative = RequestMatch {
            uri: wanted.map(Text::Prefix),
            method: exact(verb),
            headers: exact(header).into_iter().map(|test| ("h".to_owned(), test)).collect(),
            without_headers: exact(without).into_iter().map(|test| ("h".to_owned(), test)).collect(),
            ..RequestMatch::default()
        };
        let headers: Vec<(&str, &str)> = value.iter().map(|value| ("h", value.as_str())).collect();
        let explained = asked(&state(vec![only(alternative.clone())], &[]), &method, &path, &headers);
        let client: SocketAddr = CLIENT.parse().unwrap();
        let map = headers_of(&headers);
        let request = RequestView {
            method: &method, scheme: "http", authority: "web", target: &path, headers: &map, client: client.ip(),
        };
        let met = matches(&[CompiledMatch::new(&alternative)], &request).is_some();
        proptest::prop_assert_eq!(explained.rule.is_some(), met);
        proptest::prop_assert_eq!(explained.passed.len(), usize::from(!met));
        proptest::prop_assert!(explained.passed.iter().all(|why| !why.is_empty()));
    }
}
