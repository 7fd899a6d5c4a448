//! Bodies that are streamed, upgrades, HTTP/2.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::SinkExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::fixture::{Raw, Reply, accepting, at, counting, named, proxy, route, rule, server, state, text};
use crate::state::State;

fn to_v1(endpoint: std::net::SocketAddr) -> State {
    state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(endpoint))])
}

/// Answers with the request's body as it comes, and its trailers.
async fn echo(request: Request<Incoming>) -> Reply {
    let mut answer = Response::new(request.into_body().boxed());
    answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    answer
}

#[tokio::test]
async fn large_bodies_pass_without_being_kept() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 256;
    let proxy = proxy(&to_v1(server(false, echo).await)).await;
    let client = Raw::to(&proxy).await;
    let (mut read, mut write) = client.0.into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let progress = sent.clone();
    let writer = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES);
        write.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; PIECE];
        for _ in 0..PIECES {
            write.write_all(&piece).await.unwrap();
            progress.fetch_add(PIECE, Relaxed);
        }
        write
    });
    // Nobody reads: what got through is what sockets and buffers hold, far less than the body.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = sent.load(Relaxed);
    assert!(held < PIECE * PIECES / 4, "{held} bytes were taken in");
    let mut heard = 0;
    let mut buffer = vec![0; PIECE];
    while heard < PIECE * PIECES {
        heard += read.read(&mut buffer).await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn chunks_and_trailers_pass() {
    let proxy = proxy(&to_v1(server(false, echo).await)).await;
    let mut client = Raw::to(&proxy).await;
    for _ in 0..2 {
        client
            .say("POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.say("3\r\nabc\r\n").await;
        let head = client.hear("3\r\nabc\r\n").await; // Before the body is complete.
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
        client.say("2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n").await;
        let rest = client.hear("\r\n\r\n").await;
        assert_eq!(rest, "2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n");
    }
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_continue() {
    let proxy = proxy(&to_v1(server(false, echo).await)).await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.hear("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("hi").await;
    assert!(client.hear("\r\n\r\nhi").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let endpoint = server(false, |mut request: Request<Incoming>| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let mut answer = text("");
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        answer.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        answer
    });
    let proxy = proxy(&to_v1(endpoint.await)).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let answer = client.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    // Nothing of HTTP holds in there, and nothing is closed for its silence.
    client.say(b"\n\0\r\nGET\n").await;
    assert_eq!(client.hear("GET\n").await, "\n\0\r\nGET\n");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    client.say("still").await;
    assert_eq!(client.hear("still").await, "still");
    client.0.shutdown().await.unwrap();
    assert_eq!(client.hear_all().await, "");
}

#[tokio::test]
async fn http2_reaches_the_endpoint_with_trailers() {
    let behind = server(true, |request: Request<Incoming>| async move {
        assert_eq!(request.uri().authority().unwrap(), "web");
        assert_eq!(request.headers()["te"], "trailers");
        echo(request).await
    });
    let behind = behind.await;
    let (front, connections) = counting(behind).await;
    let proxy = proxy(&to_v1(front)).await;
    let stream = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let (mut body, frames) = futures::channel::mpsc::channel(4);
        let request = Request::post("http://web/x").header("te", "trailers").body(StreamBody::new(frames)).unwrap();
        let answer = client.send_request(request);
        body.send(Ok::<_, hyper::Error>(Frame::data(Bytes::from("one")))).await.unwrap();
        let mut answer = answer.await.unwrap().into_body();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        body.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
        drop(body);
        assert_eq!(answer.collect().await.unwrap().trailers(), Some(&trailers));
    }
    assert_eq!(connections.load(Relaxed), 1, "one connection serves all");
}

#[tokio::test]
async fn a_stale_connection_is_tried_once_more_when_it_does_no_harm() {
    // Answers the first request of a connection, and closes it when the second one comes.
    let (endpoint, connections) = accepting(|mut stream, connections| async move {
        connections.fetch_add(1, Relaxed);
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let proxy = proxy(&to_v1(endpoint)).await;
    let mut client = Raw::to(&proxy).await;
    assert_eq!(client.get("/").await, (200, "ok".into()));
    assert_eq!(client.get("/").await, (200, "ok".into()));
    assert_eq!(connections.load(Relaxed), 2);
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n").await;
    let answer = client.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("x-canary-flags: UC"), "{answer}");
    assert_eq!(connections.load(Relaxed), 2, "a POST is not sent twice");
}

#[tokio::test]
async fn endpoints_keep_their_connections() {
    let (front, accepted) = counting(named("v1").await).await;
    let proxy = proxy(&to_v1(front)).await;
    for _ in 0..10 {
        let mut client = Raw::to(&proxy).await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await, (200, "v1".into()));
        }
    }
    assert!(accepted.load(Relaxed) <= 2, "{} connections", accepted.load(Relaxed));
}

#[tokio::test]
async fn events_come_as_they_are_sent() {
    let endpoint = server(false, |_| async {
        let (mut events, frames) = futures::channel::mpsc::channel(1);
        tokio::spawn(async move {
            for n in 0..2 {
                events.send(Ok(Frame::data(Bytes::from(format!("event {n}\n"))))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2_500)).await;
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    });
    let proxy = proxy(&to_v1(endpoint.await)).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear("event 0\n\r\n").await;
    client.hear("event 1\n\r\n").await; // Later than the idle time: an open answer is not idle.
}

/// What a connection says until its end, a read at a time.
async fn reads(mut stream: TcpStream) -> Vec<Vec<u8>> {
    let mut reads = vec![];
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        reads.push(buffer[..len].to_vec());
    }
    reads
}

#[tokio::test]
async fn first_bytes_may_come_in_pieces() {
    let proxy = proxy(&to_v1(named("v1").await)).await;
    for pieces in [
        ["P", "UT / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"],
        ["PRI * HTTP/2.0\r", "\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"],
    ] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.shutdown().await.unwrap();
        let heard = reads(stream).await.concat();
        if pieces[0] == "P" {
            assert!(heard.starts_with(b"HTTP/1.1 200 OK\r\n") && heard.ends_with(b"v1"), "{heard:?}");
        } else {
            assert_eq!(heard.get(3), Some(&4), "a frame with settings: {heard:?}");
        }
    }
}

/// The last answer of a connection goes out with the end of the stream.
#[tokio::test]
async fn the_last_answer_comes_whole() {
    let large = vec![b'x'; 1 << 20];
    let body = large.clone();
    let endpoint = server(false, move |request: Request<Incoming>| {
        let body = if request.uri().path() == "/large" { body.clone() } else { b"small".to_vec() };
        async { text(body) }
    });
    let proxy = proxy(&to_v1(endpoint.await)).await;
    for (path, body) in [("/large", &large[..]), ("/", b"small")] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let heard = reads(stream).await.concat();
        assert!(heard.windows(19).any(|it| it == b"connection: close\r\n"), "{path}");
        assert!(heard.ends_with(body), "{path}: {} bytes", heard.len());
    }
}

/// An endpoint may answer before it has the whole request: its connection is free when both are over.
#[tokio::test]
async fn a_connection_is_kept_whose_request_ends_after_its_answer() {
    let (endpoint, connections) = accepting(|mut stream, connections| async move {
        connections.fetch_add(1, Relaxed);
        let mut heard = Vec::new();
        for end in ["\r\n\r\n", "late\r\n", "\r\n\r\n"] {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(stream.read_u8().await.unwrap());
            }
            if end == "\r\n\r\n" {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
        let _ = stream.read_u8().await;
    })
    .await;
    let proxy = proxy(&to_v1(endpoint)).await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\n").await;
    client.hear("\r\n\r\nok").await;
    client.say("late\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.get("/").await, (200, "ok".into()));
    assert_eq!(connections.load(Relaxed), 1);
}
