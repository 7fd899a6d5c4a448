//! Sockets that are made, taken over, and left.
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
};

use super::{Socket, Sockets, inherited, listen};

fn free() -> SocketAddr {
    listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap()
}

fn numbers(sockets: &Sockets) -> Vec<usize> {
    sockets.dealt.iter().map(Vec::len).collect()
}

#[test]
fn each_thread_has_a_socket_of_each_address() {
    let addresses = [free(), free()];
    let sockets = Sockets::open(&addresses, 3, vec![]).unwrap();
    assert_eq!(numbers(&sockets), [2, 2, 2]);
    for thread in &sockets.dealt {
        let at: Vec<SocketAddr> = thread.iter().map(|it| it.local_addr().unwrap()).collect();
        assert_eq!(at, addresses);
    }
    assert_eq!(sockets.copies().unwrap().len(), 6);
}

#[test]
fn all_sockets_of_before_are_served_by_more_or_fewer_threads() {
    let address = free();
    let before = || Sockets::open(&[address], 3, vec![]).unwrap().dealt.into_iter().flatten().collect::<Vec<Socket>>();
    assert_eq!(numbers(&Sockets::open(&[address], 2, before()).unwrap()), [2, 1]);
    assert_eq!(numbers(&Sockets::open(&[address], 5, before()).unwrap()), [1, 1, 1, 1, 1]);
}

#[test]
fn what_waits_in_a_queue_is_found_by_the_next_one() {
    let address = free();
    let first = Sockets::open(&[address], 1, vec![]).unwrap();
    let kept = first.copies().unwrap();
    let client = TcpStream::connect(address).unwrap();
    drop(first);
    let second = Sockets::open(&[address], 1, kept).unwrap();
    let (_, peer) = second.dealt[0][0].accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
fn sockets_of_other_addresses_are_retired() {
    let (old, new) = (free(), free());
    let before = Sockets::open(&[old], 1, vec![]).unwrap().copies().unwrap();
    let sockets = Sockets::open(&[new], 1, before).unwrap();
    assert_eq!(numbers(&sockets), [1]);
    assert_eq!(sockets.retired.iter().map(|it| it.local_addr().unwrap()).collect::<Vec<_>>(), [old]);
}

#[test]
fn an_address_of_somebody_else_is_named() {
    let error = Sockets::open(&["192.0.2.1:80".parse().unwrap()], 1, vec![]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().starts_with("192.0.2.1:80: "), "{error}");
}

#[test]
fn what_does_not_listen_is_left() {
    let listening: OwnedFd = listen("127.0.0.1:0".parse().unwrap()).unwrap().into();
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(inherited::sockets([file, listening, datagrams].into_iter()).len(), 1);
}
