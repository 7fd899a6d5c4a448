//! Further attempts: when there are some, where, and how many.
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::fixture::{Proxy, Raw, accepting, at, endpoints, nobody, proxy, route, rule, server, state, text};
use crate::{
    proxy::{Flag, Flags, telemetry::Count},
    state::{Retries, RetryOn, Version},
};

/// Two further attempts for `on`, written in the rule, without much of a pause.
fn on(on: &[RetryOn]) -> Retries {
    Retries { on: on.iter().copied().collect(), explicit: true, backoff_ms: 1, ..Retries::default() }
}

async fn retrying(retries: Retries, version: Version) -> Proxy {
    let mut rule = rule(route(&[("v1", 1)]));
    rule.policy.retries = Some(retries);
    proxy(&state(vec![rule], &[("v1", version)])).await
}

fn count(proxy: &Proxy) -> Count {
    proxy.table.borrow().counts().into_iter().find(|(key, _)| key.version == "v1").unwrap().1
}

/// Answers the `n`-th request, from 1, with what `reply` makes of `n`.
async fn numbered(reply: fn(u32) -> Response<String>) -> (SocketAddr, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let address = server(false, move |request: Request<Incoming>| {
        let n = counted.fetch_add(1, Relaxed) + 1;
        async move {
            let _ = request.into_body().collect().await;
            let (parts, body) = reply(n).into_parts();
            Response::from_parts(parts, text(body).into_body())
        }
    });
    (address.await, asked)
}

fn status(status: u16) -> Response<String> {
    Response::builder().status(status).body(format!("{status}")).unwrap()
}

/// Takes a request, and ends the connection instead of an answer.
async fn rude() -> (SocketAddr, Arc<AtomicU32>) {
    accepting(|stream, asked| async move {
        stream.readable().await.unwrap();
        let _ = stream.try_read(&mut [0; 4_096]);
        asked.fetch_add(1, Relaxed);
    })
    .await
}

async fn ask(proxy: &Proxy, method: &str, body: &str) -> String {
    let mut client = Raw::to(proxy).await;
    let length = body.len();
    let close = "Connection: close\r\n";
    client.say(format!("{method} / HTTP/1.1\r\nHost: web\r\n{close}Content-Length: {length}\r\n\r\n{body}")).await;
    client.hear_all().await
}

#[tokio::test]
async fn who_cannot_be_connected_to_is_passed_over() {
    let live = server(false, |request: Request<Incoming>| async move {
        let attempt = request.headers()["x-envoy-attempt-count"].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(format!("{attempt} {}", String::from_utf8_lossy(&body)))
    });
    let version = endpoints(&[&nobody().await.to_string(), &live.await.to_string()]);
    let proxy = retrying(Retries::default(), version).await;
    let mut further = 0;
    for _ in 0..10 {
        // With a body, and not to be sent twice: but nothing was sent.
        let answer = ask(&proxy, "POST", "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let second = answer.ends_with("\r\n\r\n2 hello");
        assert!(second || answer.ends_with("\r\n\r\n1 hello"), "{answer}");
        further += u64::from(second);
    }
    assert!(further > 0);
    let count = count(&proxy);
    assert_eq!((count.requests, count.retries), (10, further));
    assert!(count.ended.keys().all(|ended| ended.flags == Flags::NONE), "{count:?}");
}

#[tokio::test]
async fn what_may_do_harm_is_not_sent_twice_unless_the_rule_asks() {
    let both = [RetryOn::Reset, RetryOn::ServerError];
    let silent = || Retries { explicit: false, ..on(&both) };
    let table = [
        ("nothing for a lost answer by default", Retries::default(), "GET", "", 1),
        ("idempotent", silent(), "GET", "", 3),
        ("idempotent, but its body is gone", silent(), "PUT", "x", 1),
        ("not idempotent", silent(), "POST", "", 1),
        ("not idempotent, but asked for", on(&both), "POST", "", 3),
        ("asked for, but its body is gone", on(&both), "POST", "x", 1),
    ];
    for (name, retries, method, body, expected) in table {
        let (address, asked) = rude().await;
        let proxy = retrying(retries, at(address)).await;
        let answer = ask(&proxy, method, body).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{name}: {answer}");
        assert_eq!(asked.load(Relaxed), expected, "{name}");
        let flags = if expected == 3 { "x-canary-flags: UC,URX\r\n" } else { "x-canary-flags: UC\r\n" };
        assert!(answer.contains(flags), "{name}: {answer}");
        let count = count(&proxy);
        assert_eq!(count.flag(Flag::URX), u64::from(expected == 3), "{name}");
        assert_eq!((count.flag(Flag::UC), count.retries), (1, u64::from(expected) - 1), "{name}");
    }
}

type Reply = fn(u32) -> Response<String>;

#[tokio::test]
async fn answers_that_ask_for_another_attempt() {
    let statuses = |list: &[u16]| Retries { statuses: list.iter().copied().collect(), ..on(&[]) };
    let limited = |n| {
        let mut answer = status(if n < 3 { 503 } else { 200 });
        answer.headers_mut().insert("x-envoy-ratelimited", "true".parse().unwrap());
        answer
    };
    let table: [(&str, Retries, Reply, u16, u32); 11] = [
        ("5xx", on(&[RetryOn::ServerError]), |n| status(if n < 3 { 500 } else { 200 }), 200, 3),
        ("5xx no more", on(&[RetryOn::ServerError]), |_| status(500), 500, 3),
        ("by default", Retries::default(), |_| status(503), 503, 1),
        ("gateway error", on(&[RetryOn::GatewayError]), |n| status([502, 504, 200][n as usize - 1]), 200, 3),
        ("no gateway error", on(&[RetryOn::GatewayError]), |_| status(500), 500, 1),
        ("conflict", on(&[RetryOn::Conflict]), |n| status(if n < 2 { 409 } else { 200 }), 200, 2),
        ("another 4xx", on(&[RetryOn::Conflict]), |_| status(404), 404, 1),
        ("a status of the list", statuses(&[418, 404]), |n| status(if n < 2 { 404 } else { 418 }), 418, 3),
        ("none of it", statuses(&[418]), |_| status(404), 404, 1),
        ("limits are kept to", on(&[RetryOn::ServerError]), limited, 503, 1),
        ("but for those who say so", on(&[RetryOn::EnvoyRatelimited]), limited, 200, 3),
    ];
    for (name, retries, reply, expected, attempts) in table {
        let (address, asked) = numbered(reply).await;
        let proxy = retrying(retries, at(address)).await;
        let answer = ask(&proxy, "GET", "").await;
        // An endpoint's answer stays what it is, also when it is the last of several.
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{name}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{name}: {answer}");
        // The limited one says 200 with the header that asks for more, and would go on.
        assert_eq!(asked.load(Relaxed), attempts, "{name}");
        let exhausted = attempts == 3 && (expected != 200 || name.starts_with("but"));
        assert_eq!(count(&proxy).flag(Flag::URX), u64::from(exhausted), "{name}");
    }
}

#[tokio::test]
async fn a_slow_attempt_gives_way_to_another() {
    let slow = server(false, |_| async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        text("late")
    });
    let slow = slow.await;
    let (quick, _) = numbered(|_| status(200)).await;
    let retries = Retries { per_try_timeout_ms: Some(100), ..on(&[RetryOn::GatewayError]) };
    let other = retrying(retries.clone(), endpoints(&[&slow.to_string(), &quick.to_string()])).await;
    for _ in 0..4 {
        assert!(ask(&other, "GET", "").await.starts_with("HTTP/1.1 200"));
    }
    // Each attempt takes a turn, so it depends on who is first.
    let retries_made = count(&other).retries;
    assert!((2..=4).contains(&retries_made), "{retries_made}");
    let none = retrying(retries, at(slow)).await;
    let answer = ask(&none, "GET", "").await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("x-canary-flags: UT,URX\r\n"), "{answer}");
}

#[tokio::test]
async fn those_that_failed_are_avoided() {
    let (bad, failed) = numbered(|_| status(500)).await;
    let (worse, failed_too) = numbered(|_| status(500)).await;
    let (good, _) = numbered(|_| status(200)).await;
    let all = [bad, worse, good].map(|it| it.to_string());
    let proxy = retrying(on(&[RetryOn::ServerError]), endpoints(&all.each_ref().map(String::as_str))).await;
    for _ in 0..12 {
        assert!(ask(&proxy, "GET", "").await.starts_with("HTTP/1.1 200"));
    }
    assert!(failed.load(Relaxed) <= 12 && failed_too.load(Relaxed) <= 12);
}

/// Refuses the first streams of each connection, then says by gRPC that it is not there, then answers.
async fn refusing(refuse: u32) -> (SocketAddr, Arc<AtomicU32>) {
    accepting(move |stream, asked| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if asked.fetch_add(1, Relaxed) < refuse {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let answer = Response::builder().header("grpc-status", "14").body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
    })
    .await
}

async fn ask_http2(proxy: &Proxy, method: &str) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri("http://web/").body(Empty::<Bytes>::new()).unwrap();
    client.send_request(request).await.unwrap()
}

#[tokio::test]
async fn refused_streams_and_grpc_statuses() {
    let default = || Retries { backoff_ms: 1, ..Retries::default() };
    let table = [
        // What was refused was not looked at.
        ("refused", default(), 2, "POST", StatusCode::OK, 3),
        ("refused to the end", default(), 9, "POST", StatusCode::SERVICE_UNAVAILABLE, 3),
        ("unavailable", default(), 0, "GET", StatusCode::OK, 3),
        ("unavailable, and not idempotent", default(), 0, "POST", StatusCode::OK, 1),
        ("unavailable, and asked for", on(&[RetryOn::Unavailable]), 0, "POST", StatusCode::OK, 3),
        ("another status", on(&[RetryOn::Cancelled, RetryOn::Internal]), 0, "GET", StatusCode::OK, 1),
    ];
    for (name, retries, refuse, method, expected, attempts) in table {
        let (address, asked) = refusing(refuse).await;
        let proxy = retrying(retries, at(address)).await;
        let answer = ask_http2(&proxy, method).await;
        assert_eq!(answer.status(), expected, "{name}");
        assert_eq!(asked.load(Relaxed), attempts, "{name}");
    }
}

#[tokio::test]
async fn a_failing_version_is_not_flooded() {
    let proxy =
        Arc::new(retrying(Retries { backoff_ms: 300, ..on(&[RetryOn::ConnectFailure]) }, at(nobody().await)).await);
    let clients = (0..20).map(|_| {
        let proxy = proxy.clone();
        tokio::spawn(async move { ask(&proxy, "GET", "").await })
    });
    for answer in futures::future::join_all(clients).await {
        assert!(answer.unwrap().starts_with("HTTP/1.1 503"));
    }
    // 40 without a budget. A pause may be short, so that its place in the budget is used again.
    let count = count(&proxy);
    assert!((3..30).contains(&count.retries), "{count:?}");
    assert_eq!(count.flag(Flag::UF), 20);
}

#[tokio::test]
async fn a_versions_policy_may_allow_no_more_of_them_and_sees_each_attempt() {
    use super::balance::{outliers, with};
    use crate::state::{Balancing, ConnectionPool, OutlierDetection, TrafficPolicy};
    let (bad, asked) = numbered(|_| status(503)).await;
    let mut rule = rule(route(&[("v1", 1)]));
    rule.policy.retries = Some(on(&[RetryOn::GatewayError]));
    let of = |max_retries| TrafficPolicy {
        balancing: Balancing::Random,
        connections: ConnectionPool { max_retries, ..ConnectionPool::default() },
        outliers: Some(OutlierDetection { consecutive_5xx: 4, ..outliers() }),
        ..TrafficPolicy::default()
    };
    let wanted = |max_retries| with(state(vec![rule.clone()], &[("v1", at(bad))]), of(max_retries));
    let table = crate::proxy::table::RouteTable::build(&wanted(Some(1)), None);
    let version = table.service(super::fixture::FRONTEND).unwrap().version("v1").unwrap();
    let first = version.retry();
    assert!(first.is_ok() && version.retry().is_err());
    drop(first);
    assert!(version.retry().is_ok());
    // Three attempts, three errors; the next request's first one ejects the only endpoint.
    let proxy = proxy(&wanted(Some(1))).await;
    ask(&proxy, "GET", "").await;
    assert_eq!((asked.load(Relaxed), proxy.table.borrow().ejections()[0].out), (3, false));
    ask(&proxy, "GET", "").await;
    assert!(proxy.table.borrow().ejections()[0].out);
}
