//! Clients that are slow, or up to something, and the end.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};

use super::fixture::{Proxy, Raw, at, named, proxy, route, rule, server, state, text};

async fn simple() -> Proxy {
    proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(named("v1").await))])).await
}

#[tokio::test]
async fn what_smuggles_gets_400_and_the_end() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let endpoint = server(false, move |request: Request<Incoming>| {
        counted.fetch_add(1, Relaxed);
        async move {
            let _ = request.into_body().collect().await;
            text("v1")
        }
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(endpoint.await))])).await;
    let inside = "GET /admin HTTP/1.1\r\nHost: web\r\n\r\n";
    let bad = [
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\nx: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: web\n\n",
        "GET / HTTP/1.1\r\nHost: web\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in bad {
        for before in [0, 1] {
            let mut client = Raw::to(&proxy).await;
            for _ in 0..before {
                client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\nx").await;
                client.hear("\r\n\r\nv1").await;
            }
            asked.store(0, Relaxed);
            client.say(format!("{bytes}{inside}")).await;
            let answer = client.hear_all().await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{bytes:?}: {answer}");
            assert_eq!(asked.load(Relaxed), 0, "{bytes:?}");
        }
    }
}

#[tokio::test]
async fn a_chunk_that_is_none_ends_the_request() {
    let endpoint = server(false, |request: Request<Incoming>| async move {
        text(if request.into_body().collect().await.is_ok() { "whole" } else { "broken" })
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(endpoint.await))])).await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n").await;
    let answer = client.hear_all().await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn heads_have_their_limits() {
    let proxy = simple().await;
    let many = "x: 1\r\n".repeat(101);
    let long = format!("x: {}\r\n", "a".repeat(70_000));
    for headers in [many, long] {
        let mut client = Raw::to(&proxy).await;
        client.say(format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n")).await;
        let answer = client.hear_all().await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn slow_heads_are_cut_off_and_idle_connections_are_not() {
    let proxy = simple().await;
    // The first head, and one after another request; byte by byte, so that each read has something.
    for before in [0, 1] {
        let mut client = Raw::to(&proxy).await;
        for _ in 0..before {
            client.get("/").await;
            tokio::time::sleep(Duration::from_millis(700)).await; // Longer than a head may take, and fine.
        }
        let start = Instant::now();
        let slow = async {
            for byte in "GET / HTTP/1.1\r\nHost: web\r\nx: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
                use tokio::io::AsyncWriteExt;
                if client.0.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("still open");
        };
        slow.await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // Nothing said at all.
    assert_eq!(Raw::to(&proxy).await.hear_all().await, "");
    // Idle for longer than the idle time.
    let mut client = Raw::to(&proxy).await;
    client.get("/").await;
    assert_eq!(client.hear_all().await, "");
}

#[tokio::test]
async fn a_split_first_word_is_no_http2() {
    let proxy = simple().await;
    let mut client = Raw::to(&proxy).await;
    for part in ["P", "OST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n"] {
        client.say(part).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.hear("\r\n\r\nv1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn old_and_odd_requests_are_understood() {
    let proxy = simple().await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.0\r\n\r\n").await;
    assert!(client.hear_all().await.ends_with("\r\n\r\nv1"));
    let mut client = Raw::to(&proxy).await;
    client.say("GET http://other/x HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear("\r\n\r\nv1").await;
    client.say("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear("\r\n\r\nv1").await;
    client.say("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n").await;
    assert!(client.hear_all().await.starts_with("HTTP/1.1 404"));
    // Two requests in one piece have their answers in order.
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear("\r\n\r\nv1").await;
    client.hear("\r\n\r\nv1").await;
}

#[tokio::test]
async fn open_requests_finish_within_the_drain_time() {
    let slow = server(false, |request: Request<Incoming>| async move {
        let wait = if request.uri().path() == "/long" { 60_000 } else { 300 };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        text("done")
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(slow.await))])).await;
    let mut idle = Raw::to(&proxy).await;
    idle.get("/").await;
    let (mut short, mut long) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    short.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    long.say("GET /long HTTP/1.1\r\nHost: web\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    proxy.stop.send_replace(true);
    assert_eq!(idle.hear_all().await, "");
    let answer = short.hear_all().await;
    assert!(answer.ends_with("\r\n\r\ndone"), "{answer:?} after {:?}", start.elapsed());
    assert_eq!(long.hear_all().await, "");
    proxy.task.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
