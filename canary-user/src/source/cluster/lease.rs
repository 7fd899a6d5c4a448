//! A Lease: of all agents of a cluster one at a time holds it, and only that one writes.
use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{GetParams, ObjectMeta, PostParams},
};

/// Of the Lease.
const NAME: &str = "canary-status";
/// Who has not renewed it for so long has lost it.
const DURATION: Duration = Duration::from_secs(15);
/// How often its holder renews it.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);
/// How often the others look, a little more or less, each at times of its own: there is one on every node.
const LOOK: Duration = Duration::from_secs(8);
const LOOK_MORE: Duration = Duration::from_secs(4);

/// One agent's view of the Lease.
#[derive(Debug)]
pub(super) struct Lease {
    api: Api<Object>,
    holder: String,
    /// The version that was seen last, and when first. By one's own clock: those of nodes differ.
    seen: Option<(Option<String>, Instant)>,
    held: bool,
}

impl Lease {
    /// The Lease in a namespace, for whoever goes by a name that nobody else has.
    pub(super) fn new(client: Client, namespace: &str, holder: String) -> Self {
        Self { api: Api::namespaced(client, namespace), holder, seen: None, held: false }
    }

    /// Whether it was held when it was looked at last.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Time until it is to be looked at again.
    pub(super) fn pause(&self) -> Duration {
        if self.held { RENEWAL } else { LOOK + LOOK_MORE * u32::try_from(any() % 100).unwrap_or_default() / 100 }
    }

    /// Takes it if it is free, or renews it; whether it is held then.
    ///
    /// # Errors
    /// When the API server refuses, or does not answer: then it must not be taken to be held.
    pub(super) async fn hold(&mut self) -> Result<bool, Error> {
        let was_held = std::mem::take(&mut self.held);
        self.held = self.take(was_held).await?;
        Ok(self.held)
    }

    async fn take(&mut self, was_held: bool) -> Result<bool, Error> {
        // Whoever only looks may be told what the API server has in its cache: it takes the Lease by the version that it saw.
        let how = if was_held { GetParams::default() } else { GetParams::any() };
        let found = match self.api.get_with(NAME, &how).await {
            Err(Error::Api(status)) if status.code == 404 => None,
            found => Some(found?),
        };
        let Some(mut lease) = found else {
            let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
            return won(self
                .api
                .create(&PostParams::default(), &Object { metadata, spec: Some(self.spec(0, None)) })
                .await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let is_own = spec.holder_identity.as_ref() == Some(&self.holder);
        let version = lease.metadata.resource_version.clone();
        if !is_own && !spec.holder_identity.as_deref().unwrap_or_default().is_empty() && !self.is_stale(version) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(i32::from(!is_own));
        let acquired = spec.acquire_time.filter(|_| is_own);
        lease.spec = Some(self.spec(transitions, acquired));
        // With the version that was read: of two that take it one fails.
        let held = won(self.api.replace(NAME, &PostParams::default(), &lease).await)?;
        if held {
            self.seen = None;
        }
        Ok(held)
    }

    /// Whether its holder has let it lapse.
    fn is_stale(&mut self, version: Option<String>) -> bool {
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// A name for who runs on `node` that nobody else has, also not who ran there before.
pub(super) fn identity(node: &str) -> String {
    format!("{node}_{:016x}", any())
}

/// Any number: the standard library takes the keys of its maps from the system.
fn any() -> u64 {
    RandomState::new().hash_one(())
}

/// Whether a write came first.
fn won(written: Result<Object, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
