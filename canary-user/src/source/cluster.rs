//! A cluster as a source of Snapshots: what its API server holds, as far as watches have told.
//!
//! Level-triggered like a directory: whoever reads gets everything that is known at that moment. While the API server
//! cannot be reached that is what was known last. Before every kind was listed once there is nothing to read, for a part
//! would look as if the rest had been deleted.
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Object, Snapshot};

mod follow;
mod kinds;
mod lease;
mod remarks;
mod routes;
#[cfg(test)]
mod tests;
mod trim;

pub use follow::{Access, ConnectError, Followers};
use kinds::{KINDS, Kind, NODES};
pub use remarks::{Remark, Remarks, Says};
pub use routes::{Route, RouteError, Routes};

/// How canary calls itself where objects name their controller.
pub(crate) const CONTROLLER: &str = "canary.io/gateway-controller";

/// In front of the resource, in the place of a file: `kubernetes:virtualservices.networking.istio.io`.
const PLACE: &str = "kubernetes:";
/// A burst of changes is told of when nothing has happened for so long, or after [`BURST_MAX`].
const QUIET: Duration = Duration::from_millis(10);
const BURST_MAX: Duration = Duration::from_millis(200);
/// An API server that was silent and has not failed again for so long, which is more than the watcher waits at most (a minute,
/// and half a one until a connection fails), works:
/// a watch that goes on where it was says nothing until something happens.
const TROUBLED: Duration = Duration::from_secs(100);
/// Objects of a resource that the API server says it does not have are believed to be gone after this time: while one
/// starts, it may not know yet what it has.
const ABSENT_AFTER: Duration = Duration::from_secs(10);

/// Whether an object comes from a cluster, by its place.
#[must_use]
pub fn is_origin(file: &std::path::Path) -> bool {
    file.to_str().is_some_and(|file| file.starts_with(PLACE))
}

/// The resources that are read, as `kubectl` names them.
#[must_use]
pub fn resources() -> Vec<String> {
    KINDS.iter().map(Kind::resource).collect()
}

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server has not been read: {}", missing.join("; "))]
pub struct Behind {
    /// Resources that were not listed yet by the reason.
    pub missing: Vec<String>,
}

/// What an API server holds.
#[derive(Debug, Clone)]
pub struct Cluster {
    holdings: Holdings,
    changed: watch::Receiver<u64>,
}

/// What the watches have told, one entry a kind. Shared by those that tell and those that read.
#[derive(Debug, Clone)]
pub(super) struct Holdings {
    held: Arc<Mutex<BTreeMap<&'static str, Held>>>,
    tell: watch::Sender<u64>,
}

/// Objects of one kind by namespace and name.
type Objects = BTreeMap<(String, String), Arc<Object>>;

#[derive(Debug, Default)]
struct Held {
    objects: Objects,
    /// It was listed once, or is known to be absent.
    known: bool,
    /// Why the API server did not tell, and when that was found.
    trouble: Option<(String, Instant)>,
    /// Since when it says that there is no such resource.
    absent_since: Option<Instant>,
    /// The object is gone, and counts on: only ever a Node's.
    outlived: bool,
}

/// Why a Node that is gone counts on: traffic still comes to the node, whose addresses are no more than written there.
const OUTLIVED: &str = "the Node of this agent is gone; what it said last counts until there is one again";

impl Held {
    /// Notes that what was held is gone, and whether it counts on.
    fn outlive(&mut self, kind: &Kind) -> bool {
        self.outlived = kind.plural == NODES && !self.objects.is_empty();
        if self.outlived {
            self.trouble = None;
        }
        self.outlived
    }
}

impl Cluster {
    /// Everything that is known now. Kinds and objects in a fixed order.
    ///
    /// # Errors
    /// When something was never listed.
    pub fn read(&self) -> Result<Snapshot, Behind> {
        let held = self.holdings.lock();
        let missing = KINDS.iter().filter(|kind| !held.get(kind.plural).is_some_and(|held| held.known));
        let missing = by_reason(missing.map(|kind| {
            let why = held.get(kind.plural).and_then(|held| held.trouble.as_ref());
            (kind, why.map_or("no answer yet", |(why, _)| why))
        }));
        if !missing.is_empty() {
            return Err(Behind { missing });
        }
        let objects =
            KINDS.iter().filter_map(|kind| held.get(kind.plural)).flat_map(|held| held.objects.values().cloned());
        Ok(Snapshot { objects: objects.collect(), diagnostics: Vec::new() })
    }

    /// Resources that the API server does not tell about at present, and why. What was known stays.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let held = self.holdings.lock();
        let why = |held: &Held| -> Option<String> {
            let told = held.trouble.as_ref().filter(|(_, since)| since.elapsed() < TROUBLED);
            told.map(|(why, _)| why.clone()).or_else(|| held.outlived.then(|| OUTLIVED.to_owned()))
        };
        let troubled: Vec<(&Kind, String)> =
            KINDS.iter().filter_map(|kind| Some((kind, why(held.get(kind.plural)?)?))).collect();
        by_reason(troubled.iter().map(|(kind, why)| (*kind, why.as_str())))
    }

    /// Waits until something has changed since the last call. A burst counts once. Cancel-safe.
    /// `false` when nobody tells any more.
    pub async fn changed(&mut self) -> bool {
        let mut seen = self.changed.clone();
        if seen.changed().await.is_err() {
            return false;
        }
        let end = Instant::now() + BURST_MAX;
        while Instant::now() < end {
            match tokio::time::timeout(QUIET, seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.changed = seen;
        true
    }
}

impl Holdings {
    /// Nothing known yet, and who reads it.
    pub(super) fn new() -> (Self, Cluster) {
        let (tell, changed) = watch::channel(0);
        let holdings = Self { held: Arc::default(), tell };
        (holdings.clone(), Cluster { holdings, changed })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Held>> {
        // Nothing is done under the lock that could leave it half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on one kind; `work` says whether anything is different.
    fn change(&self, kind: &Kind, work: impl FnOnce(&mut Held) -> bool) {
        let mut held = self.lock();
        let held_here = held.entry(kind.plural).or_default();
        let state = |held: &Held| (held.trouble.is_some(), held.outlived);
        let before = state(held_here);
        if work(held_here) | (state(held_here) != before) {
            drop(held);
            self.tell.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    /// A whole list.
    pub(super) fn replace(&self, kind: &Kind, objects: Vec<Object>) {
        self.change(kind, |held| {
            if objects.is_empty() && held.outlive(kind) {
                return false;
            }
            let mut new = Objects::new();
            let mut different = !held.known;
            for object in objects {
                let key = (object.namespace.clone(), object.name.clone());
                // What is the same stays the same in memory, too.
                let same = held.objects.remove(&key).filter(|old| **old == object);
                different |= same.is_none();
                new.insert(key, same.unwrap_or_else(|| Arc::new(object)));
            }
            different |= !held.objects.is_empty(); // These are gone.
            *held = Held { objects: new, known: true, ..Held::default() };
            different
        });
    }

    /// An object that is new or different.
    pub(super) fn put(&self, kind: &Kind, object: Object) {
        self.change(kind, |held| {
            (held.trouble, held.outlived) = (None, false);
            let key = (object.namespace.clone(), object.name.clone());
            if held.objects.get(&key).is_some_and(|old| **old == object) {
                return false; // Only what is not looked at is different.
            }
            held.objects.insert(key, Arc::new(object));
            true
        });
    }

    /// An object that is gone.
    pub(super) fn remove(&self, kind: &Kind, object: &Object) {
        self.change(kind, |held| {
            if held.outlive(kind) {
                return false;
            }
            held.trouble = None;
            held.objects.remove(&(object.namespace.clone(), object.name.clone())).is_some()
        });
    }

    /// The API server does not tell; what was known stays.
    pub(super) fn trouble(&self, kind: &Kind, why: String) {
        self.change(kind, |held| {
            held.trouble = Some((why, Instant::now()));
            false
        });
    }

    /// The API server says that it has no such resource.
    pub(super) fn absent(&self, kind: &Kind) {
        // Where not even Services are to be had, this is not the API server's answer.
        let services = self.lock().get("services").is_some_and(|held| held.trouble.is_some());
        if services {
            return self.trouble(kind, "it is not found, and Services neither".into());
        }
        self.change(kind, |held| {
            held.trouble = None;
            let since = *held.absent_since.get_or_insert_with(Instant::now);
            if held.known && (held.objects.is_empty() || since.elapsed() < ABSENT_AFTER) {
                return false;
            }
            held.objects.clear();
            held.known = true;
            true
        });
    }
}

/// Resources by what is wrong with them: a server that is gone is the same trouble for all.
fn by_reason<'a>(troubled: impl Iterator<Item = (&'a Kind, &'a str)>) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (kind, why) in troubled {
        reasons.entry(why).or_default().push(kind.resource());
    }
    reasons.into_iter().map(|(why, kinds)| format!("{}: {why}", kinds.join(", "))).collect()
}

/// In the place of a file.
fn place(kind: &Kind) -> PathBuf {
    format!("{PLACE}{}", kind.resource()).into()
}
