//! Clients and endpoints that speak different versions of HTTP.
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Version,
    body::{Bytes, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::fixture::{Proxy, Raw, at, proxy, route, rule, server, state, text};
use crate::state::{ConnectionPool, EndpointHttp, State, TrafficPolicy};

/// An endpoint that says what it was asked, in which version, for whom, with which cookies and body.
async fn witness(http2: bool) -> std::net::SocketAddr {
    server(http2, |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name: &str| {
            let all: Vec<_> = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            all.join(" | ")
        };
        let host = head.uri.authority().map_or_else(|| header("host"), ToString::to_string);
        let body = String::from_utf8_lossy(&body).into_owned();
        text(format!("{:?} {host} {} [{}] {body}", head.version, head.uri.path(), header("cookie")))
    })
    .await
}

async fn declared(endpoints: EndpointHttp, http2: bool, policy: Option<TrafficPolicy>) -> Proxy {
    let mut state: State = state(vec![rule(route(&[("v1", 1)]))], &[("v1", at(witness(http2).await))]);
    for service in state.services.values_mut() {
        let http = service.http.as_mut().unwrap();
        http.endpoint_http = endpoints;
        http.policies.extend(policy.clone().map(|policy| ("v1".to_owned(), policy)));
    }
    proxy(&state).await
}

/// What an HTTP/2 client hears.
async fn multiplexed(proxy: &Proxy, request: Request<Full<Bytes>>) -> (u16, Version, String) {
    let stream = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let answer = client.send_request(request).await.unwrap();
    let (status, version) = (answer.status().as_u16(), answer.version());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, version, String::from_utf8_lossy(&body).into_owned())
}

fn asked(body: &str) -> Request<Full<Bytes>> {
    let request = Request::post("http://web:80/a?b").header("cookie", "a=1").header("cookie", "b=2");
    request.body(Full::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn an_http_2_client_reaches_endpoints_of_http_1() {
    let proxy = declared(EndpointHttp::Http1, false, None).await;
    let heard = multiplexed(&proxy, asked("body")).await;
    assert_eq!(heard, (200, Version::HTTP_2, "HTTP/1.1 web:80 /a [a=1; b=2] body".into()));
}

#[tokio::test]
async fn an_http_1_client_reaches_endpoints_of_http_2() {
    let proxy = declared(EndpointHttp::Http2, true, None).await;
    let mut client = Raw::to(&proxy).await;
    for _ in 0..2 {
        assert_eq!(client.get("/a").await, (200, "HTTP/2.0 web /a [] ".into()));
    }
    client.say("POST /b HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert!(client.hear("abc").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_port_that_declares_nothing_and_a_policy_leave_it_to_the_client() {
    let own = ConnectionPool { as_client: true, ..ConnectionPool::default() };
    let policy = TrafficPolicy { connections: own, ..TrafficPolicy::default() };
    for (endpoints, policy) in [(EndpointHttp::AsClient, None), (EndpointHttp::Http1, Some(policy))] {
        let proxy = declared(endpoints, true, policy).await;
        let (status, _, heard) = multiplexed(&proxy, asked("")).await;
        assert!(status == 200 && heard.starts_with("HTTP/2.0 web:80 /a"), "{heard}");
    }
}

#[tokio::test]
async fn grpc_stays_http_2_on_a_port_that_declares_http() {
    let proxy = declared(EndpointHttp::Http1, true, None).await;
    let request = Request::post("http://web:80/a").header("content-type", "application/grpc+proto");
    let (status, _, heard) = multiplexed(&proxy, request.body(Full::default()).unwrap()).await;
    assert!(status == 200 && heard.starts_with("HTTP/2.0"), "{heard}");
}
