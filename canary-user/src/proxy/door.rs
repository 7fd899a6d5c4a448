//! A listening socket: who comes in, how many at a time, and its end without a refused connection.
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::limited::{Limited, Reason};

/// What all doors of a proxy have in common.
#[derive(Debug, Clone)]
pub struct House {
    room: Arc<Semaphore>,
    succeeded: Arc<AtomicBool>,
    /// Counts of what was limited.
    pub(super) limited: Arc<Limited>,
}

impl House {
    /// One with room for so many connections at a time.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            succeeded: Arc::default(),
            limited: Arc::default(),
        }
    }

    /// One with as much room as open files allow: a client's connection takes one, its endpoint's another one, and a fourth
    /// of all is for everything else. The limit is raised as far as this process may.
    ///
    /// # Errors
    /// When the limit cannot be raised.
    pub fn as_files_allow() -> io::Result<Self> {
        let mut files = getrlimit(Resource::Nofile);
        if files.current != files.maximum {
            files.current = files.maximum;
            setrlimit(Resource::Nofile, files)?;
        }
        let most = files.current.and_then(|files| usize::try_from(files).ok());
        Ok(Self::new(most.map_or(Semaphore::MAX_PERMITS, |files| (files / 8 * 3).max(1))))
    }

    /// Says that another process accepts from the same sockets: this one leaves them alone when it stops.
    pub(super) fn succeeded(&self) {
        self.succeeded.store(true, Relaxed);
    }
}

/// A connection that came in.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Its place, free again with the end of the connection.
    pub(super) place: OwnedSemaphorePermit,
}

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    house: House,
    /// Came in, and has no place yet.
    waiting: Option<(TcpStream, SocketAddr)>,
}

impl Door {
    /// Makes a door of a socket.
    #[must_use]
    pub const fn new(listener: TcpListener, house: House) -> Self {
        Self { listener, house, waiting: None }
    }

    pub(super) const fn house(&self) -> &House {
        &self.house
    }

    /// The address that all connections have come to; none when it listens at every address of the host.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok().filter(|local| !local.ip().is_unspecified())
    }

    /// Waits for the next connection, and then for its place: whoever comes beyond the limit waits in the kernel's
    /// queue, as with `HAProxy`'s maxconn. Nobody is lost when this is dropped before it is done.
    pub(super) async fn next(&mut self) -> io::Result<Guest> {
        if self.waiting.is_none() {
            self.waiting = Some(self.listener.accept().await?);
            if self.house.room.available_permits() == 0 {
                self.house.limited.count(Reason::Connections);
                tracing::debug!("as many connections as there may be: the next ones wait");
            }
        }
        let place = self.house.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        match self.waiting.take() {
            Some((stream, peer)) => Ok(Guest { stream, peer, place }),
            None => Err(io::ErrorKind::WouldBlock.into()), // Only an accepted connection gets this far.
        }
    }

    /// Whether somebody else accepts from this socket.
    pub(super) fn has_successor(&self) -> bool {
        self.house.succeeded.load(Relaxed)
    }

    /// Closes the socket. The kernel would reset those that wait in its queue: they come in first, as far as there are
    /// places.
    pub(super) fn close(mut self) -> Vec<Guest> {
        let mut last = Vec::new();
        while let Ok(place) = self.house.room.clone().try_acquire_owned() {
            let next = match self.waiting.take() {
                Some(waiting) => waiting,
                None if self.has_successor() => break,
                None => match futures::FutureExt::now_or_never(self.listener.accept()) {
                    Some(Ok(accepted)) => accepted,
                    Some(Err(_)) | None => break,
                },
            };
            last.push(Guest { stream: next.0, peer: next.1, place });
        }
        last
    }
}
