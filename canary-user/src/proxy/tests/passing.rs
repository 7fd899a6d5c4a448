//! TLS connections that are passed on: who gets them, every byte of them, and what fails.
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    client_hello::asking,
    fixture::{Proxy, Raw, at, endpoints, named, nobody, proxy, route, rule, state},
};
use crate::{
    proxy::{Flag, table::RouteTable, telemetry::Count},
    state::{Choosing, DeadVersion, Rule, Split, State, Tls, TlsMatch, TlsRule, Version},
};

mod openssl;

fn split(to: &[(&str, u32)]) -> Split {
    let weights = to.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect();
    Split { choosing: Choosing::Exact, dead: DeadVersion::Fail, weights }
}

pub(super) fn tls_rule(names: &[&str], to: &[(&str, u32)]) -> TlsRule {
    let names = names.iter().map(|it| (*it).to_owned()).collect();
    let matches = vec![TlsMatch { sources: vec![], names }];
    TlsRule { name: "tls[0]".into(), matches, rest: false, split: split(to) }
}

/// A state whose service has only rules for TLS.
pub(super) fn tls_state(rules: Vec<TlsRule>, versions: &[(&str, Version)]) -> State {
    let mut state = state(vec![], versions);
    let service = state.services.values_mut().next().unwrap();
    (service.http, service.tls) = (None, Some(Tls { rules }));
    state
}

/// A server that reads to the end and then says its name and what it has read.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await?;
                stream.write_all(&[name.as_bytes(), &read].concat()).await
            });
        }
    });
    address
}

/// Says this, ends its side, and hears the rest.
async fn exchange(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    hear(&mut client).await
}

async fn hear(client: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // A reset is an end too.
    let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the connection goes on");
    heard
}

fn count(proxy: &Proxy, version: &str) -> Count {
    let counts = proxy.table.borrow().counts();
    counts.into_iter().find(|(key, _)| key.version == version).map(|(_, count)| count).unwrap_or_default()
}

fn flagged(proxy: &Proxy, version: &str, flag: Flag) -> (u64, u64) {
    let count = count(proxy, version);
    (count.requests, count.flag(flag))
}

#[tokio::test]
async fn the_name_decides_and_every_byte_arrives_with_the_end_of_one_side() {
    let rules = vec![tls_rule(&["a.example.com"], &[("v1", 1)]), tls_rule(&["*.example.com"], &[("v2", 1)])];
    let versions = [("v1", at(echo("v1").await)), ("v2", at(echo("v2").await))];
    let proxy = proxy(&tls_state(rules, &versions)).await;
    let long = vec![7; 300_000];
    for (name, version) in [("a.example.com", "v1"), ("A.EXAMPLE.com", "v1"), ("b.example.com", "v2")] {
        for more in [&b""[..], b"early", &long] {
            let said = [&asking(Some(name)), more].concat();
            let heard = exchange(&proxy, &said).await;
            assert!(heard == [version.as_bytes(), &said].concat(), "{name}: {} bytes", heard.len());
        }
    }
    assert_eq!(flagged(&proxy, "v1", Flag::UF), (6, 0));
    assert_eq!(count(&proxy, "v1").classes(), [0; 5]);
    let requests = proxy.table.borrow().requests();
    assert!(requests.counts.is_empty(), "connections that are passed on are no requests");
    let splits: Vec<_> = requests.splits.into_iter().map(|split| (split.rule, split.versions)).collect();
    assert_eq!(splits, [(0, vec![("v1".into(), 1, 6)]), (1, vec![("v2".into(), 1, 3)])], "but they have shares");
}

#[tokio::test]
async fn the_hello_may_come_in_pieces() {
    let proxy = proxy(&tls_state(vec![tls_rule(&["a.b"], &[("v1", 1)])], &[("v1", at(echo("v1").await))])).await;
    let said = asking(Some("a.b"));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in said.chunks(11) {
        client.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.shutdown().await.unwrap();
    assert_eq!(hear(&mut client).await, [b"v1", said.as_slice()].concat());
}

#[tokio::test]
async fn the_split_of_connections_is_exact() {
    let versions = [("v1", at(echo("v1").await)), ("v2", at(echo("v2").await))];
    let proxy = proxy(&tls_state(vec![tls_rule(&["a.b"], &[("v1", 3), ("v2", 1)])], &versions)).await;
    let mut seen = BTreeMap::<Vec<u8>, u32>::new();
    for _ in 0..100 {
        *seen.entry(exchange(&proxy, &asking(Some("a.b"))).await[..2].to_vec()).or_default() += 1;
    }
    assert_eq!(seen, [(b"v1".to_vec(), 75), (b"v2".to_vec(), 25)].into());
}

#[tokio::test]
async fn what_no_rule_takes_ends_and_is_counted() {
    let proxy = proxy(&tls_state(vec![tls_rule(&["a.b"], &[("v1", 1)])], &[("v1", at(echo("v1").await))])).await;
    let cases = [asking(Some("b.b")), asking(None), b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n".to_vec()];
    for (number, said) in cases.into_iter().enumerate() {
        assert_eq!(exchange(&proxy, &said).await, b"");
        assert_eq!(flagged(&proxy, "", Flag::NR), (number as u64 + 1, number as u64 + 1));
    }
    assert_eq!(flagged(&proxy, "v1", Flag::NR), (0, 0));
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_hello_ends_too() {
    let proxy = proxy(&tls_state(vec![tls_rule(&["a.b"], &[("v1", 1)])], &[("v1", at(echo("v1").await))])).await;
    let half = &asking(Some("a.b"))[..30];
    assert_eq!(exchange(&proxy, half).await, b"", "it went away");
    let mut waiting = TcpStream::connect(proxy.address).await.unwrap();
    waiting.write_all(half).await.unwrap();
    assert_eq!(hear(&mut waiting).await, b"", "it took too long");
    assert_eq!(flagged(&proxy, "", Flag::DC), (2, 2));
    let mut silent = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(hear(&mut silent).await, b"", "it says nothing");
    assert_eq!(flagged(&proxy, "", Flag::DC), (2, 2), "which is no failure");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_gives_way_to_another_one() {
    let here = echo("v1").await;
    let both = endpoints(&[&nobody().await.to_string(), &here.to_string()]);
    let gone = endpoints(&[&nobody().await.to_string()]);
    let rules = [("both", "both"), ("gone", "gone"), ("none", "none"), ("missing", "missing")];
    let rules = rules.map(|(name, version)| tls_rule(&[name], &[(version, 1)])).to_vec();
    let proxy = proxy(&tls_state(rules, &[("both", both), ("gone", gone), ("none", endpoints(&[]))])).await;
    for _ in 0..4 {
        assert_eq!(exchange(&proxy, &asking(Some("both"))).await[..2], *b"v1");
    }
    assert_eq!(flagged(&proxy, "both", Flag::UF), (4, 0));
    for (name, flag) in [("gone", Flag::UF), ("none", Flag::UH), ("missing", Flag::NC)] {
        assert_eq!(exchange(&proxy, &asking(Some(name))).await, b"", "{name}");
        assert_eq!(flagged(&proxy, name, flag), (1, 1), "{name}");
    }
}

#[tokio::test]
async fn requests_and_tls_share_a_port_that_declares_nothing() {
    let versions = [("v1", at(named("v1").await)), ("default", at(echo("default").await))];
    let mut both = state(vec![rule(route(&[("v1", 1)]))], &versions);
    let plain = TlsRule { matches: vec![], rest: true, ..tls_rule(&[], &[("default", 1)]) };
    both.services.values_mut().next().unwrap().tls = Some(Tls { rules: vec![plain] });
    let proxy = proxy(&both).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!(client.get("/").await, (200, "v1".to_owned()));
    assert_eq!(client.get("/").await, (200, "v1".to_owned()));
    for name in [Some("a.b"), None] {
        assert!(exchange(&proxy, &asking(name)).await.starts_with(b"default"), "{name:?}");
    }
    let mut second = Raw::to(&proxy).await;
    second.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut settings = [1; 9];
    second.0.read_exact(&mut settings).await.unwrap();
    assert_eq!((settings[0], settings[3]), (0, 4), "the settings of HTTP/2");
}

#[tokio::test]
async fn connections_on_their_way_when_names_stop_to_matter_are_passed_on() {
    let versions = [("v1", at(echo("v1").await))];
    let named = tls_state(vec![tls_rule(&["a.b"], &[("v1", 1)])], &versions);
    let proxy = proxy(&named).await;
    assert_eq!(exchange(&proxy, &asking(Some("c.d"))).await, b"");
    let mut plain = named.clone();
    let service = plain.services.values_mut().next().unwrap();
    service.tls = None;
    service.rules = vec![Rule { name: "default".into(), sources: vec![], split: split(&[("v1", 1)]) }];
    proxy.change(&plain);
    assert_eq!(exchange(&proxy, &asking(Some("c.d"))).await[..2], *b"v1");
}

#[tokio::test]
async fn counters_go_on_when_a_rule_stays_and_another_one_comes() {
    let versions = [("v1", at(nobody().await)), ("v2", at(nobody().await))];
    let before = tls_state(vec![tls_rule(&["a.b"], &[("v1", 1), ("v2", 1)])], &versions);
    let draws = |table: &RouteTable, count: u32| -> Vec<String> {
        let service = table.service(super::fixture::FRONTEND).unwrap();
        let rule = service.tls.as_ref().unwrap().rule(Some("a.b"), [10, 0, 0, 1].into()).unwrap();
        let ends =
            crate::proxy::rule::Ends { client: "10.0.0.1:1".parse().unwrap(), frontend: super::fixture::FRONTEND };
        (0..count).map(|_| rule.route().unwrap().choose(ends).unwrap().version.clone()).collect()
    };
    let whole = draws(&RouteTable::build(&before, None), 8);
    let table = RouteTable::build(&before, None);
    let mut parts = draws(&table, 3);
    let mut after = before.clone();
    let rules = &mut after.services.values_mut().next().unwrap().tls.as_mut().unwrap().rules;
    rules.insert(0, TlsRule { name: "other".into(), ..tls_rule(&["c.d"], &[("v1", 1)]) });
    parts.extend(draws(&RouteTable::build(&after, Some(&table)), 5));
    assert_eq!(parts, whole);
}
