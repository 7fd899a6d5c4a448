//! The proxy in an agent: the sockets that it begins with, and who has them after it.
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
};

use crate::{
    agent::{
        handover::{HandOverError, Predecessor, Successor},
        notify::Notifier,
        run::RunError,
        settings::Settings,
        view::View,
    },
    dataplane::Origins,
    proxy::{
        access_log::{self, Writer},
        door::House,
        sockets::{Socket, Sockets, inherited},
        threads::{self, Routes, Threads},
    },
};

/// What there is when an agent starts.
#[derive(Debug)]
pub(super) struct Before {
    /// From the service manager, or from the predecessor.
    pub(super) sockets: Vec<Socket>,
    /// An agent that waits to be relieved: its locks are free.
    pub(super) predecessor: Option<Predecessor>,
}

impl Before {
    /// Looks for sockets of an earlier agent, and has one that runs make room if it should.
    ///
    /// # Errors
    /// When a running agent does not make room.
    pub(super) fn find(settings: &Settings) -> Result<Self, RunError> {
        let mut sockets =
            inherited::from_manager().map_err(|source| RunError::Start { what: "with LISTEN_FDS", source })?;
        let running = if settings.take_over { Predecessor::ask(&settings.socket)? } else { None };
        let Some((mut predecessor, its)) = running else { return Ok(Self { sockets, predecessor: None }) };
        sockets.extend(its);
        predecessor.let_go()?;
        Ok(Self { sockets, predecessor: Some(predecessor) })
    }
}

/// The proxy of an agent, and the log of its requests.
#[derive(Debug)]
pub(super) struct Proxied {
    threads: Threads,
    log: Option<Writer>,
}

impl Proxied {
    /// Starts the proxy of `settings` with the sockets of `before`, and gives copies of its sockets to the service
    /// manager and the caller.
    ///
    /// # Errors
    /// When a file, a socket or a thread cannot be had.
    pub(super) fn start(
        settings: &Settings,
        before: Vec<Socket>,
        notifier: &Notifier,
    ) -> Result<(Self, Vec<Socket>), RunError> {
        let log = settings.access_log.as_ref().map(open_access_log).transpose()?;
        let start = || {
            let found = before.len();
            let sockets = Sockets::open(&settings.proxy, threads::count(), before)?;
            let copies = sockets.copies()?;
            notifier.keep(&copies, found > 0);
            let house = match settings.proxy_connections {
                Some(most) => House::new(usize::try_from(most).unwrap_or(usize::MAX)),
                None => House::as_files_allow()?,
            };
            let origins = Arc::new(LateOrigins::new(settings.dataplane.pin.clone()));
            let frontend_of = move |peer, local| origins.of(peer, local);
            let door = log.as_ref().map(Writer::log);
            Ok((Threads::start(sockets, settings.proxy_times, house, frontend_of, door)?, copies))
        };
        let (threads, copies) = start().map_err(|source| RunError::Start { what: "the proxy", source })?;
        Ok((Self { threads, log }, copies))
    }

    /// Where rules are published.
    pub(super) fn routes(&self) -> Routes {
        self.threads.routes()
    }

    /// Opens the log's file again, after it was renamed.
    pub(super) fn reopen_log(&self) {
        self.log.iter().for_each(Writer::reopen);
    }

    /// Ends as [`Threads::stop`] does, and then the log.
    pub(super) fn stop(self) {
        self.threads.stop();
        self.log.into_iter().for_each(Writer::stop);
    }

    /// Ends as [`Threads::succeeded`] does, and then the log.
    pub(super) fn succeeded(self) {
        self.threads.succeeded();
        self.log.into_iter().for_each(Writer::stop);
    }
}

fn open_access_log(settings: &access_log::Settings) -> Result<Writer, RunError> {
    Writer::start(settings).map_err(|source| RunError::AccessLog { path: settings.file.clone(), source })
}

/// Waits for an agent that takes over, and hands it `sockets`. One that breaks off changes nothing.
pub(super) async fn meet_successor(door: UnixListener, sockets: Vec<Socket>, tell: oneshot::Sender<Successor>) {
    let sockets = Arc::new(sockets);
    loop {
        let stream = match door.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot be taken over from");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        let sockets = sockets.clone();
        let met = tokio::task::spawn_blocking(move || {
            let talk = || {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream)
            };
            let stream = talk().map_err(|source| HandOverError::BrokenOff { before: "its greeting", source })?;
            Successor::meet(stream, &sockets)
        });
        match met.await {
            Ok(Ok(successor)) => {
                // Whoever would hear it is the agent, which lives as long as this.
                let _ = tell.send(successor);
                return;
            }
            Ok(Err(error)) => tracing::warn!(error = crate::diagnostic::chain(&error), "no hand-over"),
            Err(error) => tracing::error!(%error, "no hand-over"),
        }
    }
}

/// Tells the agent of before when this one works: its first pass has been tried.
pub(super) async fn relieve(predecessor: Predecessor, mut view: watch::Receiver<Arc<View>>) {
    if view.wait_for(|view| view.passes + view.failures > 0).await.is_err() {
        return; // The loop is gone, and this agent with it; the other one hears its end.
    }
    if let Err(error) = predecessor.relieve() {
        tracing::warn!(error = crate::diagnostic::chain(&error), "the agent of before ended early");
    }
}

/// The flow tables, opened when the first connection comes: only then are they sure to be there.
#[derive(Debug)]
struct LateOrigins {
    pin: PathBuf,
    tables: OnceLock<Origins>,
}

impl LateOrigins {
    const fn new(pin: PathBuf) -> Self {
        Self { pin, tables: OnceLock::new() }
    }

    fn of(&self, peer: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
        if self.tables.get().is_none() {
            match Origins::open(&self.pin) {
                // Another thread may have been first.
                Ok(tables) => drop(self.tables.set(tables)),
                Err(error) => {
                    tracing::error!(%error, "cannot look up whom a connection to the proxy was meant for");
                }
            }
        }
        self.tables.get()?.of(peer, local)
    }
}
