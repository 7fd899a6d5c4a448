//! What became of requests, by service, rule and version.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use hyper::StatusCode;

use super::{
    Flag,
    answers::{self, Answers},
    retry::Budget,
};
use crate::state::ServiceId;

/// What mirrored requests are counted under, after the name of their rule: nobody hears the answers.
pub const MIRROR: &str = " (mirror)";

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
    /// Requests without an endpoint's answer, in the order of [`Flag::ALL`]; [`Flag::URX`] and [`Flag::DI`] come beside
    /// another one, or beside an answer that is passed on.
    pub flags: [u64; Flag::ALL.len()],
    /// Attempts after the first one.
    pub retries: u64,
}

/// Counts that go on. They only grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    /// Flags that came beside an answer or beside another one.
    notes: [AtomicU64; Flag::ALL.len()],
    pub(super) retries: Budget,
    answers: answers::Tally,
}

impl Tally {
    fn read(&self) -> (Count, Answers) {
        let answers = self.answers.read();
        let mut count = Count {
            requests: self.requests.load(Relaxed),
            classes: [0; 5],
            flags: self.notes.each_ref().map(|it| it.load(Relaxed)),
            retries: self.retries.spent(),
        };
        for ((status, flag), answers) in &answers.codes {
            let class = usize::from(status / 100).checked_sub(1).and_then(|class| count.classes.get_mut(class));
            let flag = flag.and_then(|flag| count.flags.get_mut(flag.index()));
            class.into_iter().chain(flag).for_each(|it| *it += answers);
        }
        (count, answers)
    }

    /// Counts a flag that is not an answer's own.
    pub(super) fn note(&self, flag: Flag) {
        if let Some(note) = self.notes.get(flag.index()) {
            note.fetch_add(1, Relaxed);
        }
    }

    /// Requests that are not answered yet: adding up is for those who seldom ask.
    pub(super) fn open(&self) -> u64 {
        let ended = self.answers.read().codes.values().sum();
        self.requests.load(Relaxed).saturating_sub(ended)
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
        self.in_detail().map(|(key, count, _)| (key.clone(), count)).collect()
    }

    /// The same with answers by status and time.
    pub(super) fn in_detail(&self) -> impl Iterator<Item = (&CountKey, Count, Answers)> {
        self.0.iter().map(|(key, tally)| {
            let (count, answers) = tally.read();
            (key, count, answers)
        })
    }
}

/// A request on its way: counted when it begins and when it is answered, or as [`Flag::DC`] when nobody waits for the
/// answer any more.
#[derive(Debug)]
pub(super) struct OnTheWay {
    tally: Option<Arc<Tally>>,
    began: Instant,
}

impl OnTheWay {
    /// It begins.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        tally.requests.fetch_add(1, Relaxed);
        Self { tally: Some(tally), began: Instant::now() }
    }

    /// A connection that is passed on has come to an endpoint, or to none.
    pub(super) fn ended(mut self, flag: Option<Flag>) {
        if let Some((tally, flag)) = self.tally.take().zip(flag) {
            tally.note(flag);
        }
    }

    /// The head of its answer is there. What is left goes with the answer's body: it ends with it.
    pub(super) fn answered(mut self, status: StatusCode, flag: Option<Flag>) -> Option<Ending> {
        let tally = self.tally.take()?;
        tally.answers.answered(status.as_u16(), flag);
        Some(Ending { tally, began: self.began })
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if let Some(tally) = &self.tally {
            tally.answers.answered(0, Some(Flag::DC));
            tally.answers.took(self.began.elapsed());
        }
    }
}

/// A request whose answer is being sent: over when this goes.
#[derive(Debug)]
pub(super) struct Ending {
    tally: Arc<Tally>,
    began: Instant,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tally.answers.took(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_open_until_they_are_answered_or_given_up() {
        let tally = Arc::new(Tally::default());
        let [answered, given_up, flagged, _open] = [(); 4].map(|()| OnTheWay::new(tally.clone()));
        assert_eq!(tally.open(), 4);
        answered.answered(StatusCode::OK, None);
        drop(given_up);
        flagged.answered(StatusCode::SERVICE_UNAVAILABLE, Some(Flag::UH));
        tally.note(Flag::URX); // Beside an answer: no further one.
        assert_eq!(tally.open(), 1);
    }
}
