//! Sockets that a service manager kept while no agent ran: `LISTEN_FDS`, as systemd's file descriptor store hands them in.
use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::net::sockopt::socket_acceptconn;

use super::Socket;

/// Takes the sockets that this process was started with; the second call has none.
///
/// # Errors
/// When the service manager's words cannot be understood.
pub fn from_manager() -> io::Result<Vec<Socket>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let descriptors = sd_notify::listen_fds()?;
    if TAKEN.swap(true, Relaxed) {
        return Ok(Vec::new());
    }
    // SAFETY: they were open when the process began, for whoever reads `LISTEN_FDS`, and nobody else here does.
    let owned = descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(sockets(owned))
}

/// Those of them that listen.
pub fn sockets(descriptors: impl Iterator<Item = OwnedFd>) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for descriptor in descriptors {
        let listens = socket_acceptconn(&descriptor).unwrap_or(false);
        let socket = Socket::from(descriptor);
        match socket.local_addr() {
            Ok(_) if listens => sockets.push(socket),
            _ => tracing::warn!(?socket, "was handed something that is no listening socket; it is closed"),
        }
    }
    sockets
}
