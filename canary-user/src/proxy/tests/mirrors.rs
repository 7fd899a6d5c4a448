//! Copies of requests.
use std::{net::SocketAddr, time::Duration};

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::fixture::{Proxy, Raw, at, endpoints, nobody, proxy, route, rude, rule, server, state, text};
use crate::{
    proxy::{Flag, Flags, telemetry::Count},
    state::{Mirror, Percentage, Version},
};

/// Echoes to `v1`, copies to `v2`.
async fn mirrored(copies: Version, millionths: u32) -> Proxy {
    let echo = server(false, |request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(format!("{host} {}", body.len()))
    });
    let mut rule = rule(route(&[("v1", 1)]));
    rule.policy.mirrors = vec![Mirror { version: "v2".into(), percentage: Percentage::from_millionths(millionths) }];
    proxy(&state(vec![rule], &[("v1", at(echo.await)), ("v2", copies)])).await
}

/// A server that tells what it is asked: method, path, host and body, or that the body breaks off.
async fn telling() -> (SocketAddr, UnboundedReceiver<String>) {
    let (tell, told) = unbounded_channel();
    let address = server(false, move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let (parts, body) = request.into_parts();
            let host = parts.headers["host"].to_str().unwrap().to_owned();
            let body = match body.collect().await {
                Ok(body) => format!("{:?} {:?}", body.trailers().cloned(), body.to_bytes()),
                Err(_) => "broken off".into(),
            };
            tell.send(format!("{} {} {host} {body}", parts.method, parts.uri)).unwrap();
            let mut answer = text("not for you");
            *answer.status_mut() = hyper::StatusCode::IM_A_TEAPOT;
            answer
        }
    });
    (address.await, told)
}

async fn next(told: &mut UnboundedReceiver<String>) -> String {
    timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap()
}

/// The counts of the copies, when `enough` of them.
async fn copies(proxy: &Proxy, enough: impl Fn(&Count) -> bool) -> Count {
    for _ in 0..500 {
        let counts = proxy.table.borrow().counts();
        let (_, count) = counts.iter().find(|(key, _)| key.rule == "http[0] (mirror)" && key.version == "v2").unwrap();
        if enough(count) {
            return count.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", proxy.table.borrow().counts());
}

#[tokio::test]
async fn a_copy_has_it_all_and_its_answer_is_nobodys() {
    let (address, mut told) = telling().await;
    let proxy = mirrored(at(address), 1_000_000).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!(client.get("/a?b").await, (200, "web 0".into()));
    assert_eq!(next(&mut told).await, "GET /a?b web-shadow None b\"\"");

    client.say("POST /c HTTP/1.1\r\nHost: web:80\r\nContent-Length: 5\r\n\r\nhello").await;
    client.hear("\r\n\r\nweb:80 5").await;
    assert_eq!(next(&mut told).await, "POST /c web-shadow:80 None b\"hello\"");

    client.say("POST /d HTTP/1.1\r\nHost: web\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.say("3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n").await;
    client.hear("\r\n\r\nweb 5").await;
    assert_eq!(next(&mut told).await, "POST /d web-shadow Some({\"x-sum\": \"5\"}) b\"abcde\"");

    let count = copies(&proxy, |count| count.classes()[3] == 3).await;
    assert_eq!(count.requests, 3);
    assert!(count.ended.keys().all(|ended| ended.flags == Flags::NONE), "{count:?}");
    let counts = proxy.table.borrow().counts();
    let (_, own) = counts.iter().find(|(key, _)| key.version == "v1").unwrap();
    assert_eq!((own.requests, own.classes()), (3, [0, 3, 0, 0, 0]));
}

#[tokio::test]
async fn an_exact_share_is_copied() {
    let (address, mut told) = telling().await;
    let proxy = mirrored(at(address), 100_000).await;
    let mut client = Raw::to(&proxy).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.0, 200);
    }
    let count = copies(&proxy, |count| count.classes()[3] == count.requests).await;
    assert!((9..=11).contains(&count.requests), "{count:?}");
    for _ in 0..count.requests {
        next(&mut told).await;
    }
}

#[tokio::test]
async fn a_mirror_that_fails_or_hangs_is_not_felt() {
    let failing = [(at(nobody().await), Flag::UF), (at(rude().await), Flag::UC), (endpoints(&[]), Flag::UH)];
    for (version, flag) in failing {
        let proxy = mirrored(version, 1_000_000).await;
        assert_eq!(Raw::to(&proxy).await.get("/").await, (200, "web 0".into()), "{flag:?}");
        let count = copies(&proxy, |count| count.flag(flag) == 1).await;
        // No attempt after the first one, and nothing on the request's own account.
        assert_eq!((count.requests, count.retries), (1, 0), "{flag:?}");
    }
}

#[tokio::test]
async fn a_copy_that_cannot_keep_up_is_given_up() {
    const LENGTH: usize = 64 << 20;
    // Connections come in, and nobody reads.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = mirrored(at(deaf.local_addr().unwrap()), 1_000_000).await;
    let mut client = Raw::to(&proxy).await;
    client.say(format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let piece = vec![0; 1 << 20];
    timeout(Duration::from_secs(30), async {
        for _ in 0..LENGTH / piece.len() {
            client.0.write_all(&piece).await.unwrap();
        }
    })
    .await
    .expect("the copy holds the request up");
    client.hear(&format!("\r\n\r\nweb {LENGTH}")).await;
    copies(&proxy, |count| count.flag(Flag::DC) == 1).await;
}

#[tokio::test]
async fn a_request_that_breaks_off_does_so_for_the_copy_too() {
    let (address, mut told) = telling().await;
    let proxy = mirrored(at(address), 1_000_000).await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    assert!(next(&mut told).await.ends_with("broken off"));
}
