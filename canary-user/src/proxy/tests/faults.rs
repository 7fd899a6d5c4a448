//! Faults on purpose.
use std::time::{Duration, Instant};

use super::fixture::{Proxy, Raw, at, named, proxy, route, rule, state};
use crate::{
    proxy::{Flag, telemetry::Count},
    state::{Abort, AbortWith, Delay, Fault, Percentage},
};

async fn faulty(delay: Option<Delay>, abort: Option<Abort>) -> Proxy {
    let mut rule = rule(route(&[("v1", 1)]));
    rule.policy.fault = Some(Fault { delay, abort });
    proxy(&state(vec![rule], &[("v1", at(named("v1").await))])).await
}

fn count(proxy: &Proxy) -> Count {
    proxy.table.borrow().counts().into_iter().find(|(key, _)| key.version == "v1").unwrap().1
}

#[tokio::test]
async fn an_exact_share_is_aborted() {
    let abort = Abort { percentage: Percentage::from_millionths(250_000), with: AbortWith::Http(418) };
    let proxy = faulty(None, Some(abort)).await;
    let mut client = Raw::to(&proxy).await;
    let mut aborted = 0;
    for _ in 0..100 {
        match client.get("/").await {
            (200, body) if body == "v1" => {}
            (418, body) if body == "fault filter abort" => aborted += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((24..=26).contains(&aborted), "{aborted} of 100");
    let count = count(&proxy);
    assert_eq!((count.requests, count.flag(Flag::FI), count.classes()[3]), (100, aborted, aborted));
}

#[tokio::test]
async fn a_delay_comes_before_the_endpoint_or_the_abort() {
    let delay = Delay { percentage: Percentage::ALL, fixed_ms: 300 };
    let late = faulty(Some(delay.clone()), None).await;
    let start = Instant::now();
    assert_eq!(Raw::to(&late).await.get("/").await, (200, "v1".into()));
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(count(&late).flag(Flag::DI), 1);

    let both = faulty(Some(delay), Some(Abort { percentage: Percentage::ALL, with: AbortWith::Http(503) })).await;
    let start = Instant::now();
    let mut client = Raw::to(&both).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = client.hear("fault filter abort").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("x-canary-flags: FI\r\n"), "{answer}");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    let count = count(&both);
    assert_eq!((count.flag(Flag::DI), count.flag(Flag::FI), count.requests), (1, 1, 1));
}

#[tokio::test]
async fn grpc_statuses_are_for_grpc_clients() {
    let proxy = faulty(None, Some(Abort { percentage: Percentage::ALL, with: AbortWith::Grpc(14) })).await;
    let mut client = Raw::to(&proxy).await;
    for (kind, status, grpc) in [
        ("application/grpc", "HTTP/1.1 200", true),
        ("application/grpc+proto", "HTTP/1.1 200", true),
        ("application/grpc-web", "HTTP/1.1 503", false),
        ("text/plain", "HTTP/1.1 503", false),
    ] {
        client.say(format!("GET / HTTP/1.1\r\nHost: web\r\nContent-Type: {kind}\r\n\r\n")).await;
        let answer = client.hear(if grpc { "\r\n\r\n" } else { "abort" }).await;
        assert!(answer.starts_with(status), "{kind}: {answer}");
        assert_eq!(answer.contains("grpc-status: 14\r\n"), grpc, "{kind}: {answer}");
    }
}

#[tokio::test]
async fn nobody_is_nobody() {
    let none = Percentage::from_millionths(0);
    let delay = Delay { percentage: none, fixed_ms: 60_000 };
    let proxy = faulty(Some(delay), Some(Abort { percentage: none, with: AbortWith::Http(500) })).await;
    let mut client = Raw::to(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await, (200, "v1".into()));
    }
}
