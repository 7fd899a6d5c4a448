//! The unix socket: who owns it, who may connect, and how long they may take.
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, http::StatusCode, routing::any};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use crate::{
    agent::lock,
    api::{
        error::ApiError,
        peer::{self, Peer, Policy},
    },
    stop::{self, stopped},
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 128;
/// Longest time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time that connections get to finish when the agent stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The place is taken.
    #[error(transparent)]
    Place(#[from] lock::LockError),
    /// No such group.
    #[error(
        "there is no group `{group}` on this host: create it with `groupadd --system {group}`, or give another --socket-group"
    )]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {path}")]
    Bind {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the socket: mode 0660, owned by `group` where one is given. The lock of the path must be held.
///
/// # Errors
/// When something is in the way or the group does not exist.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(UnixListener, Policy), SocketError> {
    let failed = |source| SocketError::Bind { path: path.into(), source };
    let gid = match group {
        None => None,
        Some(group) => {
            let groups = fs::read_to_string("/etc/group").unwrap_or_default();
            let gid = peer::group_id(group, &groups);
            Some(gid.ok_or_else(|| SocketError::NoGroup { group: group.into() })?)
        }
    };
    lock::remove_stale(path)?;
    // Bound beside its place and renamed: nobody meets it with another mode or owner.
    let temporary = PathBuf::from(format!("{}.new", path.display()));
    lock::remove_stale(&temporary)?;
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    if let Some(gid) = gid {
        chown(&temporary, None, Some(gid)).map_err(failed)?;
    }
    fs::rename(&temporary, path).map_err(failed)?;
    let meta = fs::metadata(path).map_err(failed)?;
    Ok((listener, Policy::of_host(meta.uid(), meta.gid())))
}

/// Serves `router` until `stop` becomes true (or its sender is gone), then lets connections finish for a moment.
pub async fn serve(listener: UnixListener, policy: Policy, router: Router, mut stop: watch::Receiver<bool>) {
    let policy = Arc::new(policy);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: those that are open must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, policy, stop) = (router.clone(), policy.clone(), stop.clone());
        tokio::spawn(async move {
            let _slot = slot;
            connection(stream, &policy, router, stop).await;
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(LAST_WORDS, slots.acquire_many(all)).await;
}

async fn connection(stream: UnixStream, policy: &Policy, router: Router, mut stop: watch::Receiver<bool>) {
    let peer = match stream.peer_cred() {
        Ok(credentials) => Peer { uid: credentials.uid(), gid: credentials.gid() },
        Err(error) => {
            tracing::warn!(%error, "refused a connection: its peer is unknown");
            return;
        }
    };
    let service = if policy.admits(peer) {
        router.layer(Extension(policy.author(peer)))
    } else {
        tracing::warn!(uid = peer.uid, gid = peer.gid, "refused a connection");
        Router::new().fallback(any(move || async move { refuse(peer) }))
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = stop::serve(served, http1::Connection::graceful_shutdown, &mut stop).await {
        tracing::debug!(%error, uid = peer.uid, "connection ended badly");
    }
}

fn refuse(peer: Peer) -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("user {} may not use this agent", peer.uid),
        "run as root, or join the group of the socket (see --socket-group) and log in again",
    )
}
