//! Threads from their start to their end: sockets of before, rules that come later, and what they gave up.
use std::{net::SocketAddr, thread, time::Duration};

use tokio::net::TcpStream;

use super::fixture::{FRONTEND, Raw, at, named, split, state};
use crate::{
    proxy::{
        door::House,
        server::Settings,
        sockets::{Socket, Sockets},
        threads::Threads,
    },
    state::State,
};

async fn rules() -> State {
    state(vec![split(1, 0)], &[("v1", at(named("v1").await))])
}

/// A proxy of two threads at `address`, which takes over `before`.
fn start(address: SocketAddr, before: Vec<Socket>) -> (Threads, Vec<Socket>) {
    let sockets = Sockets::open(&[address], 2, before).unwrap();
    let copies = sockets.copies().unwrap();
    let settings =
        Settings { drain: Duration::from_secs(1), linger: Duration::from_millis(100), ..Settings::default() };
    (Threads::start(sockets, settings, House::new(100), |_, _| Some(FRONTEND), None).unwrap(), copies)
}

fn free() -> SocketAddr {
    Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn client(address: SocketAddr) -> Raw {
    Raw(TcpStream::connect(address).await.unwrap())
}

async fn stop(threads: Threads) {
    tokio::task::spawn_blocking(|| threads.stop()).await.unwrap();
}

#[tokio::test]
async fn connections_wait_for_the_first_rules() {
    let address = free();
    let (threads, copies) = start(address, vec![]);
    drop(copies);
    let mut early = client(address).await;
    early.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let waited = tokio::time::timeout(Duration::from_millis(200), early.0.readable()).await;
    assert!(waited.is_err(), "nobody knows yet what to answer");
    threads.routes().publish(&rules().await);
    assert!(early.hear("\r\n\r\nv1").await.starts_with("HTTP/1.1 200"));
    stop(threads).await;
}

#[tokio::test]
async fn an_address_of_before_is_served_for_the_time_of_a_drain() {
    let (old, kept) = free_and_kept();
    let new = free();
    let (threads, copies) = start(new, kept);
    drop(copies);
    threads.routes().publish(&rules().await);
    for address in [old, new] {
        assert_eq!(client(address).await.get("/").await, (200, "v1".into()));
    }
    let patience = std::time::Instant::now();
    while TcpStream::connect(old).await.is_ok() {
        assert!(patience.elapsed() < Duration::from_secs(20), "it is never closed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client(new).await.get("/").await, (200, "v1".into()));
    stop(threads).await;
}

#[tokio::test]
async fn threads_of_a_successor_have_what_comes_while_the_others_end() {
    let address = free();
    let rules = rules().await;
    let (first, copies) = start(address, vec![]);
    first.routes().publish(&rules);
    let mut kept = client(address).await;
    kept.get("/").await;
    let (second, copies) = start(address, copies);
    drop(copies);
    second.routes().publish(&rules);
    let ended = tokio::task::spawn_blocking(|| first.succeeded());
    for _ in 0..20 {
        assert_eq!(client(address).await.get("/").await, (200, "v1".into()));
    }
    kept.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let last = kept.hear_all().await;
    assert!(last.is_empty() || last.contains("connection: close"), "{last}");
    ended.await.unwrap();
    assert_eq!(client(address).await.get("/").await, (200, "v1".into()));
    stop(second).await;
}

#[test]
fn a_thread_without_powers_cannot_have_them_again() {
    let status = thread::spawn(|| {
        super::super::powers::give_up().unwrap();
        std::fs::read_to_string("/proc/thread-self/status").unwrap()
    });
    let status = status.join().unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
}

/// Sockets of a proxy that is gone, and their address.
fn free_and_kept() -> (SocketAddr, Vec<Socket>) {
    let address = free();
    (address, Sockets::open(&[address], 3, vec![]).unwrap().copies().unwrap())
}
