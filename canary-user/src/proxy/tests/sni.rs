//! Which rule takes a server name.
use std::net::IpAddr;

use super::passing::{tls_rule, tls_state};
use crate::{
    proxy::table::RouteTable,
    state::{TlsMatch, TlsRule},
};

fn entry(sources: &[&str], names: &[&str]) -> TlsMatch {
    let sources = sources.iter().map(|it| it.parse().unwrap()).collect();
    TlsMatch { sources, names: names.iter().map(|it| (*it).to_owned()).collect() }
}

fn rules(matches: &[Vec<TlsMatch>]) -> Vec<TlsRule> {
    let rules = matches.iter().enumerate().map(|(at, matches)| TlsRule {
        name: at.to_string(),
        matches: matches.clone(),
        ..tls_rule(&[], &[("v1", 1)])
    });
    rules.collect()
}

/// Names of the rules that take these (name, client).
fn taken(rules: Vec<TlsRule>, asked: &[(Option<&str>, &str)]) -> Vec<Option<usize>> {
    let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
    let table = RouteTable::build(&tls_state(rules, &[]), None);
    let service = table.service(super::fixture::FRONTEND).unwrap();
    let tls = service.tls.as_ref().unwrap();
    let asked = asked.iter().map(|(name, client)| {
        let rule = tls.rule(*name, client.parse::<IpAddr>().unwrap())?;
        names.iter().position(|name| rule.name() == *name)
    });
    asked.collect()
}

#[test]
fn the_most_precise_name_decides_and_of_equal_ones_the_first() {
    let found = rules(&[
        vec![entry(&[], &["*.example.com"])],
        vec![entry(&[], &["a.example.com", "*.b.example.com"])],
        vec![entry(&[], &["*.example.com"]), entry(&[], &["c.example.com"])],
        vec![entry(&[], &["*.com"])],
    ]);
    let cases = [
        (Some("a.example.com"), Some(1)),
        (Some("x.example.com"), Some(0)),
        (Some("x.b.example.com"), Some(1)),
        (Some("x.y.example.com"), Some(0)),
        (Some("c.example.com"), Some(2)),
        (Some("b.example.com"), Some(0)),
        (Some("example.com"), Some(3)),
        (Some(".example.com"), Some(3)),
        (Some("com"), None),
        (Some("example.org"), None),
        (Some("xa.example.com"), Some(0)),
        (None, None),
    ];
    for (name, expected) in cases {
        assert_eq!(taken(found.clone(), &[(name, "10.0.0.1")]), [expected], "{name:?}");
    }
}

#[test]
fn any_name_is_less_than_a_wildcard_and_none_is_one_too() {
    for any in [entry(&[], &[]), entry(&[], &["*"])] {
        let found = rules(&[vec![any], vec![entry(&[], &["*.com"])]]);
        let asked = [(Some("a.com"), "10.0.0.1"), (Some("a.org"), "10.0.0.1"), (None, "10.0.0.1")];
        assert_eq!(taken(found, &asked), [Some(1), Some(0), Some(0)]);
    }
}

#[test]
fn rules_for_others_are_none_and_whom_no_rule_is_for_gets_the_rest() {
    let mut found = rules(&[
        vec![entry(&["10.1.0.0/16"], &["a.example.com"])],
        vec![entry(&["10.2.0.0/16", "fd00::/8"], &["*.example.com"])],
        vec![entry(&[], &["b.example.org"])],
    ]);
    let cases = [
        ("a.example.com", "10.1.0.1", Some(0)),
        ("a.example.com", "10.2.0.1", Some(1)),
        ("a.example.com", "fd00::1", Some(1)),
        ("c.example.com", "10.1.0.1", None),
        ("a.example.com", "10.3.0.1", None),
    ];
    for (name, client, expected) in cases {
        assert_eq!(taken(found.clone(), &[(Some(name), client)]), [expected], "{name} {client}");
    }
    found[2].rest = true;
    let cases = [
        ("b.example.org", "10.1.0.1", Some(2)),
        ("a.example.com", "10.3.0.1", Some(2)),
        ("c.example.com", "10.1.0.1", None),
    ];
    for (name, client, expected) in cases {
        assert_eq!(taken(found.clone(), &[(Some(name), client)]), [expected], "{name} {client}, with the rest");
    }
}
