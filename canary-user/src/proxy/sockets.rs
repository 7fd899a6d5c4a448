//! Listening sockets: made, or taken over from whoever had them before, and dealt out to the threads.
//!
//! The sockets of an address share its connections out among them (`SO_REUSEPORT`), each with a queue of its own. So one
//! that was taken over is served as long as it is open, however many threads there are.
use std::{io, net::SocketAddr};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

pub mod inherited;
#[cfg(test)]
mod tests;

/// Connections that wait to be accepted, on each socket.
const BACKLOG: i32 = 1_024;

/// A listening socket that no runtime has yet.
pub type Socket = std::net::TcpListener;

/// The sockets of a proxy.
#[derive(Debug)]
pub struct Sockets {
    /// For each thread.
    pub(super) dealt: Vec<Vec<Socket>>,
    /// Taken over, at addresses that are not the proxy's any more.
    pub(super) retired: Vec<Socket>,
}

impl Sockets {
    /// Deals sockets at `addresses` out to `threads`: those of `before`, and new ones so that each thread has one.
    ///
    /// # Errors
    /// When an address cannot be listened at.
    pub fn open(addresses: &[SocketAddr], threads: usize, before: Vec<Socket>) -> io::Result<Self> {
        let mut dealt: Vec<Vec<Socket>> = (0..threads).map(|_| Vec::new()).collect();
        let mut retired = before;
        for address in addresses {
            let has_it = |socket: &mut Socket| socket.local_addr().is_ok_and(|its| its == *address);
            let mut here: Vec<Socket> = retired.extract_if(.., has_it).collect();
            while here.len() < threads {
                here.push(listen(*address)?);
            }
            for (socket, thread) in here.into_iter().zip((0..threads).cycle()) {
                if let Some(sockets) = dealt.get_mut(thread) {
                    sockets.push(socket);
                }
            }
        }
        Ok(Self { dealt, retired })
    }

    /// Copies of those that the proxy goes on with: for whoever keeps them beyond its end.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn copies(&self) -> io::Result<Vec<Socket>> {
        self.dealt.iter().flatten().map(Socket::try_clone).collect()
    }
}

/// A socket that shares its address with those of the other threads.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = || -> rustix::io::Result<Socket> {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?; // Accepted sockets have it from here.
        bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("{address}: {}", io::Error::from(error))))
}
