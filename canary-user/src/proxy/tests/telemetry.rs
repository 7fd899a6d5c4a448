//! What is counted of requests, and when.
use std::time::Duration;

use hyper::{Response, body::Bytes};

use super::fixture::{Proxy, Raw, at, named, proxy, route, rule, server, split, state, text};
use crate::{
    proxy::{
        Flag, Flags,
        telemetry::{Count, Ended, Spoken},
    },
    state::State,
};

fn of(proxy: &Proxy, version: &str) -> Count {
    let counts = proxy.table.borrow().requests().counts;
    counts.into_iter().find(|(key, _)| key.version == version).expect(version).1
}

/// Looks until it is so: a connection's task may end a little later than the client sees.
async fn eventually(what: &str, is: impl Fn() -> bool) {
    for _ in 0..250 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {what}");
}

#[tokio::test]
async fn statuses_and_sizes_are_counted_by_version() {
    let teapot = server(false, |request: hyper::Request<hyper::body::Incoming>| async move {
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        let mut reply = text("short");
        *reply.status_mut() = hyper::StatusCode::IM_A_TEAPOT;
        reply
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(teapot.await))])).await;
    let mut client = Raw::to(&proxy).await;
    client.say("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 7\r\n\r\nseven..").await;
    client.hear("short").await;
    client
        .say("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        .await;
    client.hear("short").await;
    let count = of(&proxy, "v1");
    assert_eq!(count.requests, 2);
    let series = count.ended[&Ended::with(418)];
    assert_eq!((series.count, count.ended.len()), (2, 1));
    assert!((series.received.sum() - 12.0).abs() < 1e-9, "seven of Content-Length, five in chunks");
    assert!((series.sent.sum() - 10.0).abs() < 1e-9);
    assert!(series.duration.sum() > 0.0);
}

#[tokio::test]
async fn counters_go_on_when_rules_change_and_when_a_version_has_no_weight_for_a_while() {
    let versions = [("v1", at(named("v1").await)), ("v2", at(named("v2").await))];
    let proxy = proxy(&state(vec![split(0, 1)], &versions)).await;
    let mut client = Raw::to(&proxy).await;
    client.get("/").await;
    let all = rule(route(&[("v1", 1)]));
    proxy.change(&state(vec![all], &versions));
    client.get("/").await;
    assert_eq!((of(&proxy, "v1").requests, of(&proxy, "v2").requests), (1, 1), "v2 is in no rule, but is there");
    proxy.change(&state(vec![split(1, 1)], &versions));
    let splits = proxy.table.borrow().requests().splits;
    assert_eq!(splits[0].versions, [("v1".into(), 1, 0), ("v2".into(), 1, 0)], "since the weights were changed");
    client.get("/").await;
    client.get("/").await;
    assert_eq!((of(&proxy, "v1").requests, of(&proxy, "v2").requests), (2, 2));
    let splits = proxy.table.borrow().requests().splits;
    assert_eq!(splits[0].versions, [("v1".into(), 1, 1), ("v2".into(), 1, 1)]);
    proxy.change(&State::default());
    assert!(proxy.table.borrow().requests().counts.is_empty(), "the service is gone");
}

#[tokio::test]
async fn what_is_no_request_is_counted_too() {
    let proxy = proxy(&state(vec![split(1, 1)], &[("v1", at(named("v1").await))])).await;
    let refused = |code| Ended { flags: Flag::DPE.into(), ..Ended::with(code) };
    let long = format!("GET / HTTP/1.1\r\nHost: web\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    for (bytes, code) in [("no request\r\n\r\n", 400), (long.as_str(), 431)] {
        let mut client = Raw::to(&proxy).await;
        client.say(bytes).await;
        let answer = client.hear_all().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        eventually("counted", || of(&proxy, "").ended.contains_key(&refused(code))).await;
    }
    let mut slow = Raw::to(&proxy).await;
    slow.say("GET / HT").await;
    assert_eq!(slow.hear_all().await, "", "nobody answers what nobody has asked");
    eventually("counted", || of(&proxy, "").ended.contains_key(&refused(0))).await;
    let mut two = Raw::to(&proxy).await;
    two.say("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    two.hear_all().await;
    eventually("counted", || of(&proxy, "").ended.contains_key(&Ended::with(400))).await;
}

#[tokio::test]
async fn requests_to_a_service_that_is_gone_are_counted() {
    let proxy = proxy(&State::default()).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear_all().await;
    let lost = proxy.table.borrow().requests().lost;
    assert_eq!((lost.requests, lost.flag(Flag::NR), lost.classes()), (1, 1, [0, 0, 0, 1, 0]));
}

#[tokio::test]
async fn an_answer_that_breaks_off_keeps_its_status_and_gets_a_flag() {
    let promise = || Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for patient in [false, true] {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1_024]).await;
                stream.write_all(&promise()).await.unwrap();
                if patient {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                }
            });
        }
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(address))])).await;
    let flagged = |flag| Ended { flags: Flags::from(flag), ..Ended::with(200) };
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear_all().await;
    eventually("counted", || of(&proxy, "v1").ended.contains_key(&flagged(Flag::UC))).await;
    let mut client = Raw::to(&proxy).await;
    client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    client.hear("half").await;
    drop(client);
    eventually("counted", || of(&proxy, "v1").ended.contains_key(&flagged(Flag::DC))).await;
}

#[tokio::test]
async fn grpc_is_counted_with_its_own_status() {
    use http_body_util::{BodyExt, StreamBody};
    use hyper::{HeaderMap, body::Frame};
    let grpc = server(true, |_| async {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "5".parse().unwrap())]);
        let frames = [Ok(Frame::data(Bytes::from_static(b"....."))), Ok(Frame::trailers(trailers))];
        Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))))
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(grpc.await))])).await;
    let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for kind in ["application/grpc+proto", "application/grpcish"] {
        let request = hyper::Request::post("http://web/a.B/C").header("content-type", kind);
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    }
    let counted = Ended { spoken: Spoken::Grpc, grpc_status: Some(5), ..Ended::with(200) };
    eventually("counted", || of(&proxy, "v1").ended.contains_key(&counted)).await;
    eventually("counted", || of(&proxy, "v1").ended.contains_key(&Ended::with(200))).await;
}

#[tokio::test]
async fn a_request_gets_an_id_and_keeps_those_of_traces() {
    let echo = server(false, |request: hyper::Request<hyper::body::Incoming>| async move {
        text(format!("{:?}", request.headers()))
    });
    let proxy = proxy(&state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(echo.await))])).await;
    let mut client = Raw::to(&proxy).await;
    let (_, seen) = client.get("/").await;
    let id = seen.split("\"x-request-id\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "{id}");
    assert!(!seen.contains("traceparent") && !seen.contains("\"b3\""), "{seen}");
    let sent = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=1,b=2"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
        ("x-b3-traceid", "80f198ee56343ba8"),
        ("x-request-id", "mine"),
    ];
    let headers: String = sent.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    client.say(format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n")).await;
    let seen = client.hear("}").await;
    for (name, value) in sent {
        assert!(seen.contains(&format!("\"{name}\": \"{value}\"")), "{name}: {seen}");
    }
}
