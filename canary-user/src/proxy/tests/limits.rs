//! What clients cannot have: too many connections, endless bodies, answers that nobody takes, streams that are reset.
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::fixture::{Proxy, Raw, at, named, proxy, proxy_at, proxy_with_room, server, split, state, text};
use crate::proxy::{limited::Reason, table::RouteTable};

async fn collecting() -> Proxy {
    let endpoint = server(false, |request| async move {
        match request.into_body().collect().await {
            Ok(body) => text(body.to_bytes()),
            Err(_) => text("broken"),
        }
    });
    proxy(&state(vec![split(1, 0)], &[("v1", at(endpoint.await))])).await
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let state = state(vec![split(1, 0)], &[("v1", at(named("v1").await))]);
    let proxy = proxy_with_room(&state, 2).await;
    let (mut first, mut second) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    first.get("/").await;
    second.get("/").await;
    let mut third = Raw::to(&proxy).await;
    third.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.0.readable()).await;
    assert!(early.is_err(), "there is no place");
    drop(first);
    assert!(third.hear("\r\n\r\nv1").await.starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.house.limited.of(Reason::Connections), 1);
}

#[tokio::test]
async fn a_body_that_stops_is_answered_with_408() {
    let proxy = collecting().await;
    for head in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = Raw::to(&proxy).await;
        client.say(format!("POST / HTTP/1.1\r\nHost: web\r\n{head}")).await;
        let answer = client.hear_all().await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer:?}");
    }
    assert_eq!(proxy.house.limited.of(Reason::SlowBody), 2);
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_none_that_stops() {
    let proxy = collecting().await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n").await;
    for piece in ["a", "b", "c", "d", "e"] {
        tokio::time::sleep(Duration::from_millis(900)).await; // Of 3 s, and longer in sum.
        client.say(piece).await;
    }
    assert!(client.hear("\r\n\r\nabcde").await.starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.house.limited.of(Reason::SlowBody), 0);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut_off() {
    let endpoint = server(false, |_| async { text(vec![b'x'; 64 << 20]) });
    let proxy = proxy(&state(vec![split(1, 0)], &[("v1", at(endpoint.await))])).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let start = Instant::now();
    while proxy.house.limited.of(Reason::SlowReader) == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it waits for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What the kernel had taken, and then a reset.
    let mut rest = vec![];
    let error = client.0.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(rest.len() < 64 << 20, "{}", rest.len());
}

#[tokio::test]
async fn requests_that_come_too_fast_wait_those_of_other_connections_do_not() {
    let state = state(vec![split(1, 0)], &[("v1", at(named("v1").await))]);
    let proxy = proxy_at(RouteTable::build(&state, None), 10, 10).await; // One at once, then one in 100 ms.
    let start = Instant::now();
    let mut first = Raw::to(&proxy).await;
    for _ in 0..4 {
        first.get("/").await;
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    let limited = proxy.house.limited.of(Reason::Rate);
    assert!(limited > 0);
    Raw::to(&proxy).await.get("/").await;
    assert_eq!(proxy.house.limited.of(Reason::Rate), limited);
}

#[tokio::test]
async fn slow_heads_are_counted() {
    let proxy = collecting().await;
    let mut silent = Raw::to(&proxy).await;
    let mut slow = Raw::to(&proxy).await;
    slow.say("GET / HTTP/1.1\r\nHo").await;
    silent.hear_all().await;
    slow.hear_all().await;
    assert_eq!(proxy.house.limited.of(Reason::SlowHead), 2);
}

#[tokio::test]
async fn heads_that_are_too_large_are_431() {
    let proxy = collecting().await;
    let many: String = "x: 1\r\n".repeat(101);
    let long = format!("x: {}\r\n", "a".repeat(65 << 10));
    for headers in [many, long] {
        let mut client = Raw::to(&proxy).await;
        client.say(format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n")).await;
        let answer = client.hear("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

/// CVE-2023-44487: streams that are reset as soon as they are opened.
#[tokio::test]
async fn rapid_resets_end_an_http2_connection() {
    let proxy = collecting().await;
    let mut client = Raw(TcpStream::connect(proxy.address).await.unwrap());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1u32..400).step_by(2) {
        // HEADERS: `:method: GET`, `:scheme: http`, `:path: /`, with END_STREAM and END_HEADERS; then RST_STREAM, CANCEL.
        bytes.extend_from_slice(b"\0\0\x03\x01\x05");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(b"\x82\x86\x84");
        bytes.extend_from_slice(b"\0\0\x04\x03\0");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&8u32.to_be_bytes());
    }
    client.say(&bytes).await;
    let mut heard = vec![];
    let ended = tokio::time::timeout(Duration::from_secs(5), client.0.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the connection goes on");
    // GOAWAY with ENHANCE_YOUR_CALM.
    let calm = 11u32.to_be_bytes();
    let goaway = heard.windows(17).any(|frame| frame[3] == 7 && frame[13..] == calm);
    assert!(goaway, "{heard:?}");
}
