//! Counters of one way. A thread adds to cache lines of its own; a reader puts them together.
use std::{
    array,
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Count,
    histogram::{Distribution, Histogram},
};
use crate::proxy::{own::Flags, retry::Budget};

/// Parts that threads share out among them.
const SHARDS: usize = 8;
/// Ways to end that are told apart. More than any service has that is not out of its mind; the rest counts by class.
const SLOTS: usize = 32;

/// What was spoken on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spoken {
    /// Requests, but none of gRPC.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// A connection that is passed on as it is: not a request.
    Tls,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ended {
    /// Status of the answer; 0: none. Below 10: only the class is known (`5xx`).
    pub code: u16,
    /// Why it is not an endpoint's, or not whole, and what happened on the way.
    pub flags: Flags,
    /// What it was.
    pub spoken: Spoken,
    /// gRPC's own status.
    pub grpc_status: Option<u8>,
}

impl Ended {
    /// A whole answer of an endpoint.
    #[must_use]
    pub const fn with(code: u16) -> Self {
        Self { code, flags: Flags::NONE, spoken: Spoken::Http, grpc_status: None }
    }

    /// First digit of the status; 0 without an answer.
    #[must_use]
    pub const fn class(self) -> u16 {
        if self.code < 10 { self.code } else { self.code / 100 }
    }

    /// As a label: `200`, `5xx`, `0`.
    #[must_use]
    pub fn label(self) -> String {
        match self.code {
            1..10 => format!("{}xx", self.code),
            code => code.to_string(),
        }
    }

    const fn by_class(self) -> Self {
        Self { spoken: self.spoken, ..Self::with(self.class()) }
    }
}

/// Requests that ended alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Series {
    /// How many.
    pub count: u64,
    /// How long they took, in ms.
    pub duration: Distribution,
    /// Sizes of their bodies, in bytes.
    pub received: Distribution,
    /// Sizes of the answers' bodies, in bytes.
    pub sent: Distribution,
}

impl Series {
    /// Puts two together.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.duration.add(&other.duration);
        self.received.add(&other.received);
        self.sent.add(&other.sent);
    }
}

/// Counts that go on. They only grow.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tally {
    shards: [OnceLock<Box<Shard>>; SHARDS],
    pub(in crate::proxy) retries: Budget,
}

#[derive(Debug)]
struct Shard {
    begun: AtomicU64,
    /// Taken in turn, and never given back.
    slots: [OnceLock<Box<Slot>>; SLOTS],
    /// By class, when there is no slot left.
    rest: [OnceLock<Box<Slot>>; 10],
}

#[derive(Debug)]
struct Slot {
    ended: Ended,
    count: AtomicU64,
    duration: Histogram,
    received: Histogram,
    sent: Histogram,
}

impl Tally {
    pub(super) fn begin(&self) {
        self.shard().begun.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self, ended: Ended, lasted: Duration, received: u64, sent: u64) {
        let slot = self.shard().slot(ended);
        slot.count.fetch_add(1, Relaxed);
        slot.duration.add(u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX));
        slot.received.add(received.saturating_mul(1_000));
        slot.sent.add(sent.saturating_mul(1_000));
    }

    /// Requests that have begun.
    pub(in crate::proxy) fn begun(&self) -> u64 {
        self.shards().map(|shard| shard.begun.load(Relaxed)).sum()
    }

    pub(in crate::proxy) fn read(&self) -> Count {
        let mut ended = BTreeMap::<Ended, Series>::new();
        for slot in self.shards().flat_map(|shard| shard.slots.iter().chain(&shard.rest)).filter_map(OnceLock::get) {
            ended.entry(slot.ended).or_default().add(&slot.read());
        }
        Count { requests: self.begun(), ended, retries: self.retries.spent() }
    }

    /// Requests that have not ended. Adding up is for those who seldom ask.
    pub(in crate::proxy) fn open(&self) -> u64 {
        // Ends are read first: what begins and ends meanwhile must not make it less than none.
        let slots = self.shards().flat_map(|shard| shard.slots.iter().chain(&shard.rest)).filter_map(OnceLock::get);
        let ended: u64 = slots.map(|slot| slot.count.load(Relaxed)).sum();
        self.begun().saturating_sub(ended)
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }

    fn shard(&self) -> &Shard {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = THREADS.fetch_add(1, Relaxed) % SHARDS;
        }
        let [first, ..] = &self.shards;
        self.shards.get(MINE.with(|mine| *mine)).unwrap_or(first).get_or_init(Box::default)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            slots: array::from_fn(|_| OnceLock::new()),
            rest: array::from_fn(|_| OnceLock::new()),
        }
    }
}

impl Shard {
    /// The counters of one way to end. The first of its kind makes them; whoever comes second at the same time takes the
    /// next slot, if it is of another kind.
    fn slot(&self, ended: Ended) -> &Slot {
        let mut taken = self.slots.iter().map(|slot| slot.get_or_init(|| Slot::new(ended)));
        taken.find(|slot| slot.ended == ended).unwrap_or_else(|| {
            let class = usize::from(ended.class());
            let [first, ..] = &self.rest;
            self.rest.get(class).unwrap_or(first).get_or_init(|| Slot::new(ended.by_class()))
        })
    }
}

impl Slot {
    fn new(ended: Ended) -> Box<Self> {
        Box::new(Self {
            ended,
            count: AtomicU64::new(0),
            duration: Histogram::default(),
            received: Histogram::default(),
            sent: Histogram::default(),
        })
    }

    fn read(&self) -> Series {
        Series {
            count: self.count.load(Relaxed),
            duration: self.duration.read(),
            received: self.received.read(),
            sent: self.sent.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for thread in 0..12 {
                let tally = &tally;
                scope.spawn(move || {
                    for _ in 0..100 {
                        tally.begin();
                        tally.end(Ended::with(200 + thread % 2), Duration::from_millis(3), 7, 10);
                    }
                });
            }
        });
        let count = tally.read();
        assert_eq!(count.requests, 1_200);
        assert_eq!(count.ended.keys().map(|ended| ended.code).collect::<Vec<_>>(), [200, 201]);
        let series = count.ended[&Ended::with(200)];
        assert_eq!(series.count, 600);
        assert!((series.received.sum() - 4_200.0).abs() < 1e-9 && (series.sent.sum() - 6_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_server_that_answers_with_everything_makes_no_more_series_than_there_is_room_for() {
        let tally = Tally::default();
        for code in 100..1_000 {
            tally.end(Ended::with(code), Duration::ZERO, 0, 0);
        }
        let count = tally.read();
        assert!(count.ended.len() <= SLOTS + 10, "{}", count.ended.len());
        assert_eq!(count.ended.values().map(|series| series.count).sum::<u64>(), 900, "nothing is lost");
        assert_eq!(count.classes(), [100; 5]);
        assert_eq!(Ended::with(503).by_class().label(), "5xx");
        assert_eq!([Ended::with(0).label(), Ended::with(503).label()], ["0", "503"]);
    }
}
