//! What clients were kept from, by reason.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a client got less than it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It waited, for there are as many connections as there may be.
    Connections,
    /// The head of its request did not come in time.
    SlowHead,
    /// The body of its request made no progress.
    SlowBody,
    /// It did not take its answer.
    SlowReader,
    /// Its connection was cut off at the end of the drain.
    Drain,
    /// Its request waited, for those of its connection came too fast.
    Rate,
}

impl Reason {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 6] =
        [Self::Connections, Self::SlowHead, Self::SlowBody, Self::SlowReader, Self::Drain, Self::Rate];

    /// Place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::SlowHead => "slow-head",
            Self::SlowBody => "slow-body",
            Self::SlowReader => "slow-reader",
            Self::Drain => "drain",
            Self::Rate => "rate",
        }
    }
}

/// Counts by reason. They only grow.
#[derive(Debug, Default)]
pub struct Limited([AtomicU64; Reason::ALL.len()]);

impl Limited {
    pub(super) fn count(&self, reason: Reason) {
        self.add(reason, 1);
    }

    pub(super) fn add(&self, reason: Reason, times: u64) {
        if let Some(count) = self.0.get(reason.index()) {
            count.fetch_add(times, Relaxed);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(reason.index()).map_or(0, |count| count.load(Relaxed))
    }
}
