//! Where requests go: versions, answers, redirects, rewrites.
use std::{collections::BTreeMap, time::Duration};

use futures::SinkExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
};

use super::fixture::{Raw, at, endpoints, named, nobody, proxy, route, rude, rule, server, split, state, text};
use crate::{
    proxy::{Flag, telemetry::Ended},
    state::{HeaderOperations, HttpAction, Redirect, RequestMatch, RewritePart, State, Text, UriRegexRewrite},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_are_split_exactly() {
    let (v1, v2) = (at(named("v1").await), at(named("v2").await));
    let versions = [("v1", v1), ("v2", v2)];
    let proxy = proxy(&state(vec![split(90, 10)], &versions)).await;
    let clients = (0..4).map(|_| async {
        let mut client = Raw::to(&proxy).await;
        let mut heard = BTreeMap::<String, u32>::new();
        for _ in 0..250 {
            let (status, body) = client.get("/").await;
            assert_eq!(status, 200);
            *heard.entry(body).or_default() += 1;
        }
        heard
    });
    let heard = futures::future::join_all(clients).await;
    let canary: u32 = heard.iter().filter_map(|it| it.get("v2")).sum();
    assert!((99..=101).contains(&canary), "{canary} of 1000");

    let counts = proxy.table.borrow().requests().counts;
    let of = |version: &str| &counts.iter().find(|(key, _)| key.version == version).unwrap().1;
    assert_eq!(of("v2").requests, u64::from(canary));
    assert_eq!(of("v1").requests + of("v2").requests, 1_000);
    assert_eq!(of("v1").classes(), [0, of("v1").requests, 0, 0, 0]);
}

#[tokio::test]
async fn a_connection_follows_the_newest_table() {
    let versions = [("v1", at(named("v1").await)), ("v2", at(named("v2").await))];
    let proxy = proxy(&state(vec![split(100, 0)], &versions)).await;
    let mut client = Raw::to(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await, (200, "v1".into()));
    }
    proxy.change(&state(vec![split(0, 100)], &versions));
    for _ in 0..20 {
        assert_eq!(client.get("/").await, (200, "v2".into()));
    }
    proxy.change(&State::default());
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = client.hear_all().await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn requests_and_answers_are_changed_on_the_way() {
    let echo = |request: hyper::Request<hyper::body::Incoming>| async move {
        let (parts, _) = request.into_parts();
        text(format!("{} {} {:?}", parts.method, parts.uri, parts.headers))
    };
    let versions = [("v1", at(server(false, echo).await))];
    let mut forward = rule(route(&[("v1", 1)]));
    forward.matches = vec![RequestMatch { uri: Some(Text::Prefix("/old".into())), ..RequestMatch::default() }];
    let HttpAction::Route(to) = &mut forward.action else { panic!("no route") };
    to.rewrite.uri = Some("/new".into());
    to.rewrite.authority = Some("other.example".into());
    let set = &mut to.destinations[0].headers.request.set;
    set.insert("x-version".into(), "v1".into());
    set.insert("x-seen".into(), "%REQ(x-who)% at %REQ(Host)% %DOWNSTREAM_LOCAL_ADDRESS%%REQ(:path)%".into());
    let add = [("x-by".into(), "rule, %RESPONSE_CODE% %PROTOCOL%".into())].into();
    forward.headers.response = HeaderOperations { add, ..Default::default() };
    let redirect = HttpAction::Redirect(Redirect {
        bare: false,
        prefix: None,
        code: 308,
        uri: Some("/there".into()),
        authority: None,
        scheme: None,
        port: None,
    });
    let mut moved = rule(redirect);
    moved.matches = vec![RequestMatch { uri: Some(Text::Exact("/here".into())), ..RequestMatch::default() }];
    let mut fixed = rule(HttpAction::Answer { status: 418, body: "short".into() });
    fixed.matches = vec![RequestMatch { uri: Some(Text::Exact("/tea".into())), ..RequestMatch::default() }];
    let proxy = proxy(&state(vec![forward, moved, fixed], &versions)).await;
    let mut client = Raw::to(&proxy).await;

    client.say("GET /old/a?b=1 HTTP/1.1\r\nHost: web\r\nConnection: x-hop\r\nx-hop: 1\r\nX-Who: ada\r\n\r\n").await;
    let answer = client.hear("}").await;
    for wanted in [
        "GET /new/a?b=1",
        "\"host\": \"other.example\"",
        "\"x-version\": \"v1\"",
        "\"x-seen\": \"ada at web 10.96.0.1:80/old/a?b=1\"",
        "x-by: rule, 200 HTTP/1.1\r\n",
        "127.0.0.1",
    ] {
        assert!(answer.contains(wanted), "{wanted} in {answer}");
    }
    assert!(!answer.contains("x-hop") && !answer.contains("server: canary"), "{answer}");

    client.say("GET /here?q HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = client.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308") && answer.contains("location: http://web/there?q\r\n"), "{answer}");
    assert_eq!(client.get("/tea").await, (418, "short".into()));
    client.say("GET /none HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = client.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("x-canary-flags: NR"), "{answer}");
    assert!(answer.contains("server: canary"), "{answer}");
}

#[tokio::test]
async fn failures_have_their_status_and_flag() {
    let silent = server(false, |_| async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        text("late")
    });
    let (closed, rude) = (nobody().await, rude().await);
    let versions = [("none", endpoints(&[])), ("closed", at(closed)), ("silent", at(silent.await)), ("rude", at(rude))];
    let rules = ["none", "closed", "silent", "rude", "unknown"].map(|name| {
        let mut it = rule(route(&[(name, 1)]));
        it.name = name.into();
        it.timeout_ms = Some(200);
        it.matches = vec![RequestMatch { uri: Some(Text::Exact(format!("/{name}"))), ..RequestMatch::default() }];
        it
    });
    let proxy = proxy(&state(rules.into(), &versions)).await;
    let mut client = Raw::to(&proxy).await;
    let table = [
        ("none", 503, Flag::UH),
        ("closed", 503, Flag::UF),
        ("silent", 504, Flag::UT),
        ("rude", 503, Flag::UC),
        ("unknown", 503, Flag::NC),
        ("other", 404, Flag::NR),
    ];
    for (path, status, flag) in table {
        client.say(format!("GET /{path} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
        let answer = client.hear("\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains(&format!("x-canary-flags: {}\r\n", flag.name())), "{path}: {answer}");
        let counts = proxy.table.borrow().requests().counts;
        let name = if flag == Flag::NR { "" } else { path };
        let (_, count) = counts.iter().find(|(key, _)| key.rule == name).unwrap();
        assert_eq!((count.requests, count.flag(flag)), (1, 1), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    let silent = server(false, |request: hyper::Request<hyper::body::Incoming>| async {
        let _ = request.into_body().collect().await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        text("late")
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(silent.await))])).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    for _ in 0..100 {
        let gone: u64 = proxy.table.borrow().requests().counts.iter().map(|(_, it)| it.flag(Flag::DC)).sum();
        if gone == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not counted");
}

#[tokio::test]
async fn paths_are_rewritten_by_a_regex() {
    let echo = |request: hyper::Request<hyper::body::Incoming>| async move { text(request.uri().to_string()) };
    let mut forward = rule(route(&[("v1", 1)]));
    let HttpAction::Route(to) = &mut forward.action else { panic!("no route") };
    let parts = vec![RewritePart::Group(2), RewritePart::Group(1)];
    to.rewrite.uri_regex = Some(UriRegexRewrite { pattern: "^(/a)(.*)".into(), rewrite: parts });
    let proxy = proxy(&state(vec![forward], &[("v1", at(server(false, echo).await))])).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!(client.get("/a/b?c=/a").await, (200, "/b/a?c=/a".into()));
    assert_eq!(client.get("/other").await, (200, "/other".into()));
    // What comes out is no path.
    assert_eq!(client.get("/ab").await.0, 400);
}

/// A request is over with the last byte of its answer, not with the head.
#[tokio::test]
async fn requests_are_counted_by_code_and_time() {
    let endpoint = server(false, |request: Request<Incoming>| async move {
        let slow = request.uri().path() == "/slow";
        let (mut body, frames) = futures::channel::mpsc::channel(1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(if slow { 120 } else { 0 })).await;
            let _ = body.send(Ok(Frame::data(Bytes::from("end")))).await;
        });
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        *answer.status_mut() = if slow { StatusCode::IM_A_TEAPOT } else { StatusCode::OK };
        answer
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(endpoint.await))])).await;
    let mut client = Raw::to(&proxy).await;
    for path in ["/", "/slow", "/"] {
        client.say(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
        client.hear("end\r\n0\r\n\r\n").await;
    }
    let all = proxy.table.borrow().requests().counts;
    let (_, count) = all.iter().find(|(key, _)| key.version == "v1").unwrap();
    assert_eq!(count.requests, 3);
    let ended: Vec<_> = count.ended.iter().map(|(ended, series)| (ended.code, series.count)).collect();
    assert_eq!(ended, [(200, 2), (418, 1)]);
    let slow = count.ended[&Ended::with(418)].duration;
    let within_100_ms = slow.cumulative().nth(6);
    assert!(within_100_ms == Some(0) && slow.sum() >= 120.0, "{slow:?}");
}
