//! What became of requests, by service, rule and version.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hyper::StatusCode;

use super::Flag;
use crate::state::ServiceId;

/// What is counted for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountKey {
    /// The service.
    pub service: ServiceId,
    /// Name of the rule; empty: no rule matched.
    pub rule: String,
    /// Name of the version; empty: answered without one.
    pub version: String,
}

/// Counts as they were at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that were sent on this way.
    pub requests: u64,
    /// Answers by the first digit of their status, `1xx` first.
    pub classes: [u64; 5],
    /// Requests without an endpoint's answer, in the order of [`Flag::ALL`].
    pub flags: [u64; Flag::ALL.len()],
}

/// Counts that go on. They only grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    classes: [AtomicU64; 5],
    flags: [AtomicU64; Flag::ALL.len()],
}

impl Tally {
    fn read(&self) -> Count {
        Count {
            requests: self.requests.load(Relaxed),
            classes: self.classes.each_ref().map(|it| it.load(Relaxed)),
            flags: self.flags.each_ref().map(|it| it.load(Relaxed)),
        }
    }
}

/// The tallies of a table; those of the same names go on in the next one.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<CountKey, Arc<Tally>>);

impl Counts {
    /// The tally of a key: this table's, or else the one before's, or else a new one.
    pub(super) fn tally(&mut self, previous: Option<&Self>, key: CountKey) -> Arc<Tally> {
        let before = || previous.and_then(|it| it.0.get(&key)).cloned().unwrap_or_default();
        if let Some(tally) = self.0.get(&key) {
            return tally.clone();
        }
        let tally = before();
        self.0.insert(key, tally.clone());
        tally
    }

    /// All counts, in the order of their keys.
    pub(super) fn snapshot(&self) -> Vec<(CountKey, Count)> {
        self.0.iter().map(|(key, tally)| (key.clone(), tally.read())).collect()
    }
}

/// A request on its way: counted when it begins and when it is answered, or as [`Flag::DC`] when nobody waits for the
/// answer any more.
#[derive(Debug)]
pub(super) struct OnTheWay {
    tally: Option<Arc<Tally>>,
}

impl OnTheWay {
    /// It begins.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        tally.requests.fetch_add(1, Relaxed);
        Self { tally: Some(tally) }
    }

    /// It is answered.
    pub(super) fn answered(mut self, status: StatusCode, flag: Option<Flag>) {
        let Some(tally) = self.tally.take() else { return };
        let class = usize::from(status.as_u16() / 100).checked_sub(1);
        if let Some(class) = class.and_then(|class| tally.classes.get(class)) {
            class.fetch_add(1, Relaxed);
        }
        if let Some(flag) = flag.and_then(|flag| tally.flags.get(flag.index())) {
            flag.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if let Some(flag) = self.tally.as_ref().and_then(|tally| tally.flags.get(Flag::DC.index())) {
            flag.fetch_add(1, Relaxed);
        }
    }
}
