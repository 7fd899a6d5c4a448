//! Policies of versions with real connections: limits, protocols, ejections and cookies.
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{StatusCode, Version};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    balance::{outliers, with},
    fixture::{Proxy, Raw, at, counting, endpoints, named, proxy, route, rule, server, state, text},
};
use crate::state::{Balancing, ConnectionPool, HashKey, HttpRule, OutlierDetection, TrafficPolicy};

fn to_v1() -> HttpRule {
    rule(route(&[("v1", 1)]))
}

async fn with_policy(endpoints: &[SocketAddr], policy: TrafficPolicy) -> Proxy {
    let addresses: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    proxy(&with(state(vec![to_v1()], &[("v1", super::fixture::endpoints(&addresses))]), policy)).await
}

fn limited(connections: ConnectionPool) -> TrafficPolicy {
    TrafficPolicy { connections, ..TrafficPolicy::default() }
}

/// A server that answers `slow` when it is let, and everything else at once; and how many requests it has begun.
async fn held() -> (SocketAddr, Arc<Semaphore>, Arc<AtomicU32>) {
    let (let_go, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let (wait, count) = (let_go.clone(), begun.clone());
    let address = server(false, move |request| {
        let (wait, count) = (wait.clone(), count.clone());
        async move {
            count.fetch_add(1, Relaxed);
            if request.uri().path() == "/slow" {
                wait.acquire().await.unwrap().forget();
            }
            text("done")
        }
    });
    (address.await, let_go, begun)
}

async fn until(count: &AtomicU32, wanted: u32) {
    let reached = async {
        while count.load(Relaxed) < wanted {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reached).await.unwrap();
}

const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: web\r\n\r\n";

#[tokio::test]
async fn one_request_too_many_is_told_so() {
    let (address, let_go, begun) = held().await;
    let policy = limited(ConnectionPool { max_requests: Some(1), ..ConnectionPool::default() });
    let proxy = with_policy(&[address], policy).await;
    let (mut first, mut second) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    first.say(SLOW).await;
    until(&begun, 1).await;
    second.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = second.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("x-canary-flags: UO\r\n") && answer.contains("x-envoy-overloaded: true\r\n"), "{answer}");
    let_go.add_permits(1);
    first.hear("done").await;
    assert_eq!(second.get("/").await, (200, "done".into()));
}

#[tokio::test]
async fn requests_wait_for_a_connection_in_order_and_not_too_many() {
    let (address, let_go, begun) = held().await;
    let (front, connections) = counting(address).await;
    let limits = ConnectionPool { max_connections: Some(1), max_pending: Some(2), ..ConnectionPool::default() };
    let proxy = with_policy(&[front], limited(limits)).await;
    let mut clients = [Raw::to(&proxy).await, Raw::to(&proxy).await, Raw::to(&proxy).await];
    for client in &mut clients {
        client.say(SLOW).await;
        until(&begun, 1).await;
    }
    let mut refused = Raw::to(&proxy).await;
    // The two before it wait already: they were said before, on the same thread.
    let told = async {
        loop {
            match refused.get("/").await {
                (503, _) => break,
                other => assert_eq!(other.0, 503),
            }
        }
    };
    told.await;
    let_go.add_permits(3);
    for client in &mut clients {
        client.hear("done").await;
    }
    assert_eq!(refused.get("/").await, (200, "done".into()));
    assert_eq!(connections.load(Relaxed), 1);
}

#[tokio::test]
async fn whoever_gives_up_waiting_makes_room() {
    let (address, let_go, begun) = held().await;
    let limits = ConnectionPool { max_connections: Some(1), max_pending: Some(1), ..ConnectionPool::default() };
    let proxy = with_policy(&[address], limited(limits)).await;
    let (mut first, mut second) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    first.say(SLOW).await;
    until(&begun, 1).await;
    second.say(SLOW).await;
    drop(second);
    sleep(Duration::from_millis(50)).await;
    let mut third = Raw::to(&proxy).await;
    third.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    let_go.add_permits(1);
    first.hear("done").await;
    third.hear("done").await;
}

#[tokio::test]
async fn connections_end_when_the_policy_says() {
    let cases = [
        (ConnectionPool::default(), 1),
        (ConnectionPool { max_requests_per_connection: Some(2), ..ConnectionPool::default() }, 2),
        (ConnectionPool { max_requests_per_connection: Some(1), ..ConnectionPool::default() }, 4),
        (ConnectionPool { idle_timeout_ms: Some(1), ..ConnectionPool::default() }, 4),
        (ConnectionPool { max_connection_duration_ms: Some(1), ..ConnectionPool::default() }, 4),
        // One that ends makes room for the next.
        (
            ConnectionPool {
                max_requests_per_connection: Some(1),
                max_connections: Some(1),
                ..ConnectionPool::default()
            },
            4,
        ),
    ];
    for (limits, wanted) in cases {
        for http2 in [false, true] {
            let address = server(http2, |_| async { text("done") }).await;
            let (front, connections) = counting(address).await;
            let limits = ConnectionPool { upgrade: http2, ..limits.clone() };
            let proxy = with_policy(&[front], limited(limits.clone())).await;
            let mut client = Raw::to(&proxy).await;
            for _ in 0..4 {
                assert_eq!(client.get("/").await, (200, "done".into()), "{limits:?}");
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(connections.load(Relaxed), wanted, "{limits:?}");
        }
    }
}

#[tokio::test]
async fn http_1_clients_may_be_spoken_for_in_http_2() {
    let address = server(true, |request| async move {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        text(format!("{:?} {host} {}", request.version(), request.uri().path()))
    });
    let upgrade = ConnectionPool { upgrade: true, ..ConnectionPool::default() };
    let proxy = with_policy(&[address.await], limited(upgrade)).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!(client.get("/a").await, (200, format!("{:?} web /a", Version::HTTP_2)));
}

#[tokio::test]
async fn a_connection_has_as_many_streams_as_it_may() {
    for (most, wanted) in [(None, 1), (Some(1), 3), (Some(2), 2)] {
        let let_go = Arc::new(Semaphore::new(0));
        let begun = Arc::new(AtomicU32::new(0));
        let (wait, count) = (let_go.clone(), begun.clone());
        let address = server(true, move |request| {
            let (wait, count) = (wait.clone(), count.clone());
            async move {
                if request.uri().path() == "/slow" {
                    count.fetch_add(1, Relaxed);
                    wait.acquire().await.unwrap().forget();
                }
                text("done")
            }
        });
        let (front, connections) = counting(address.await).await;
        let limits = ConnectionPool { upgrade: true, max_concurrent_streams: most, ..ConnectionPool::default() };
        let proxy = with_policy(&[front], limited(limits)).await;
        let mut clients = [Raw::to(&proxy).await, Raw::to(&proxy).await, Raw::to(&proxy).await];
        for (n, client) in (1..).zip(&mut clients) {
            client.say(SLOW).await;
            until(&begun, n).await;
        }
        assert_eq!(connections.load(Relaxed), wanted, "{most:?}");
        let_go.add_permits(3);
        for client in &mut clients {
            client.hear("done").await;
        }
    }
}

#[tokio::test]
async fn what_endpoints_do_ejects_them() {
    let failing = server(false, |_| async {
        let mut answer = text("bad");
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    });
    let silent = server(false, |_| std::future::pending());
    let gone: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (name, bad) in [("fails", failing.await), ("is silent", silent.await), ("is gone", gone)] {
        let good = named("good").await;
        let policy = TrafficPolicy {
            balancing: Balancing::RoundRobin,
            outliers: Some(OutlierDetection { max_ejection_percent: 50, ..outliers() }),
            ..TrafficPolicy::default()
        };
        let mut hurried = to_v1();
        hurried.timeout_ms = Some(200);
        let both = endpoints(&[&bad.to_string(), &good.to_string()]);
        let proxy = proxy(&with(state(vec![hurried], &[("v1", both)]), policy)).await;
        let mut client = Raw::to(&proxy).await;
        let mut bad_answers = 0;
        for _ in 0..12 {
            bad_answers += u32::from(client.get("/").await.0 >= 500);
        }
        assert_eq!(bad_answers, 2, "{name}");
        let ejected: Vec<SocketAddr> =
            proxy.table.borrow().ejections().iter().filter(|it| it.out).map(|it| it.endpoint).collect();
        assert_eq!(ejected, [bad], "{name}");
    }
}

#[tokio::test]
async fn nobody_is_left() {
    let policy = TrafficPolicy { outliers: Some(outliers()), ..TrafficPolicy::default() };
    let failing = server(false, |_| async {
        let mut answer = text("bad");
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    });
    let proxy = proxy(&with(state(vec![to_v1()], &[("v1", at(failing.await))]), policy)).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!([client.get("/").await.0, client.get("/").await.0, client.get("/").await.0], [502, 502, 503]);
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = client.hear("\r\n\r\n").await;
    assert!(answer.contains("x-canary-flags: UH\r\n"), "{answer}");
}

#[tokio::test]
async fn a_cookie_comes_with_the_answer() {
    let key = HashKey::Cookie { name: "user".into(), path: "/".into(), ttl_seconds: Some(60) };
    let policy = TrafficPolicy { balancing: Balancing::Hash { key, table_size: 65_537 }, ..TrafficPolicy::default() };
    let both = [named("one").await, named("other").await];
    let proxy = with_policy(&both, policy).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let head = client.hear("\r\n\r\n").await;
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let first = client.hear(if head.contains("length: 3") { "one" } else { "other" }).await;
    for _ in 0..5 {
        let mut again = Raw::to(&proxy).await;
        let pair = cookie.split(';').next().unwrap();
        again.say(format!("GET / HTTP/1.1\r\nHost: web\r\nCookie: {pair}\r\nConnection: close\r\n\r\n")).await;
        let all = again.hear_all().await;
        assert!(all.ends_with(&first) && !all.contains("set-cookie"), "{all}");
    }
}
