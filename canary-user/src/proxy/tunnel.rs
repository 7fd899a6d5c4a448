//! What a connection becomes after 101: bytes, both ways.
use std::sync::{Mutex, PoisonError};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

/// The two sides of a connection that changed its protocol.
#[derive(Debug, Default)]
pub(super) struct Tunnel(Mutex<Option<(OnUpgrade, OnUpgrade)>>);

impl Tunnel {
    /// Remembers the sides, until HTTP has ended on both.
    pub(super) fn open(&self, client: OnUpgrade, endpoint: OnUpgrade) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((client, endpoint));
    }

    /// Copies until both sides are done. At once when nothing was opened.
    pub(super) async fn run(&self) {
        let sides = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((client, endpoint)) = sides else { return };
        let copied = match tokio::try_join!(client, endpoint) {
            Ok((client, endpoint)) => {
                copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(endpoint)).await.map(drop)
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = copied {
            tracing::debug!(%error, "an upgraded connection ended badly");
        }
    }
}
