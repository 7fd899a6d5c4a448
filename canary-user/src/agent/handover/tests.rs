//! Two ends of a hand-over on one socket, and whoever does not keep to its words.
use std::{net::TcpStream, os::unix::net::UnixListener, thread};

use super::*;

fn socket() -> Socket {
    Socket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn sockets_and_the_work_change_hands_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let api = dir.path().join("agent.sock");
    let listener = UnixListener::bind(beside(&api)).unwrap();
    // More than one message holds.
    let own: Vec<Socket> = (0..=AT_ONCE).map(|_| socket()).collect();
    let last = own[AT_ONCE].local_addr().unwrap();
    let old = thread::spawn(move || {
        let successor = Successor::meet(listener.accept().unwrap().0, &own).unwrap();
        drop(own);
        successor.let_work()
    });
    let (mut predecessor, sockets) = Predecessor::ask(&api).unwrap().unwrap();
    assert_eq!(sockets.len(), AT_ONCE + 1);
    predecessor.let_go().unwrap();
    assert!(!old.is_finished(), "it waits until the new one works");
    predecessor.relieve().unwrap();
    old.join().unwrap().unwrap();
    // Still open, in other hands.
    TcpStream::connect(last).unwrap();
    sockets[AT_ONCE].accept().unwrap();
}

#[test]
fn without_a_running_agent_there_is_nothing_to_take_over() {
    let dir = tempfile::tempdir().unwrap();
    let api = dir.path().join("agent.sock");
    assert!(Predecessor::ask(&api).unwrap().is_none());
    drop(UnixListener::bind(beside(&api)).unwrap()); // It died and left its socket.
    assert!(Predecessor::ask(&api).unwrap().is_none());
}

#[test]
fn whoever_breaks_off_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let api = dir.path().join("agent.sock");
    let listener = UnixListener::bind(beside(&api)).unwrap();
    let meets = |say: Vec<u8>| {
        let own = [socket()];
        let path = beside(&api);
        let new = thread::spawn(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(&say).unwrap();
        });
        let error = Successor::meet(listener.accept().unwrap().0, &own).unwrap_err().to_string();
        new.join().unwrap();
        error
    };
    assert_eq!(meets(vec![]), "the other agent broke off the hand-over before its greeting");
    assert_eq!(meets(b"canary 9".into()), "the other agent broke off the hand-over before a greeting of this version");
    let error = meets(GREETING.into());
    assert!(error.starts_with("the other agent broke off the hand-over before it"), "{error}");
}

#[tokio::test]
async fn only_the_agents_own_user_may_ask() {
    let dir = tempfile::tempdir().unwrap();
    let path = beside(&dir.path().join("agent.sock"));
    let _listener = listen(&path).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}
