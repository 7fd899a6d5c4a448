//! Ends without a lost request: when the proxy stops, and when another process goes on.
use std::time::Duration;

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::{Proxy, Raw, at, named, proxy, server, split, state, text};
use crate::proxy::{
    door::{Door, House},
    limited::Reason,
};

async fn simple() -> Proxy {
    proxy(&state(vec![split(1, 0)], &[("v1", at(named("v1").await))])).await
}

/// One whose stop waits for a request that takes longer than everything else.
async fn with_something_open() -> (Proxy, Raw) {
    let endpoint = server(false, |request| async move {
        if request.uri().path() == "/long" {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        text("done")
    });
    let proxy = proxy(&state(vec![split(1, 0)], &[("v1", at(endpoint.await))])).await;
    let mut long = Raw::to(&proxy).await;
    long.say("GET /long HTTP/1.1\r\nHost: web\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    (proxy, long)
}

#[tokio::test]
async fn an_idle_connection_has_one_more_answer_that_says_so() {
    let proxy = simple().await;
    let (mut busy, mut idle, mut silent) = (Raw::to(&proxy).await, Raw::to(&proxy).await, Raw::to(&proxy).await);
    busy.get("/").await;
    idle.get("/").await;
    proxy.stop.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    for client in [&mut busy, &mut silent] {
        client.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let answer = client.hear_all().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(idle.hear_all().await, "");
    proxy.task.await.unwrap();
}

#[tokio::test]
async fn new_connections_are_answered_while_others_end() {
    let (proxy, mut long) = with_something_open().await;
    proxy.stop.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut late = Raw::to(&proxy).await;
    late.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let answer = late.hear_all().await;
    assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
    assert!(long.hear_all().await.ends_with("done"));
    proxy.task.await.unwrap();
    assert!(TcpStream::connect(proxy.address).await.is_err(), "its socket is closed");
    assert_eq!(proxy.house.limited.of(Reason::Drain), 0);
}

#[tokio::test]
async fn new_connections_are_left_to_a_successor() {
    let (proxy, mut long) = with_something_open().await;
    proxy.house.succeeded();
    proxy.stop.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Nobody has a copy of the socket here, so that it is seen to be closed at once.
    assert!(TcpStream::connect(proxy.address).await.is_err());
    assert!(long.hear_all().await.ends_with("done"));
    proxy.task.await.unwrap();
}

#[tokio::test]
async fn a_closed_door_leaves_nobody_in_the_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = vec![];
    for _ in 0..5 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    // The kernel has them; give tokio the time to notice.
    let mut door = Door::new(listener, House::new(10));
    let first = door.next().await.unwrap();
    let rest = door.close();
    assert_eq!(rest.len(), 4);
    assert_eq!(first.peer, clients[0].local_addr().unwrap());
}

#[tokio::test]
async fn http2_ends_between_two_streams() {
    let endpoint = server(true, |_| async { text("v1") }).await;
    let proxy = proxy(&state(vec![split(1, 0)], &[("v1", at(endpoint))])).await;
    let stream = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let ask = || Request::get("http://web/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(client.send_request(ask()).await.unwrap().status(), 200);
    proxy.stop.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.send_request(ask()).await.unwrap().status(), 200, "one that was on its way");
    ended.await.unwrap().unwrap(); // By GOAWAY: no error.
    proxy.task.await.unwrap();
}
