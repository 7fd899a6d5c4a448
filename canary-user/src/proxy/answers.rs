//! Answers by status and flag, and how long they took.
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::Flag;

/// Upper bounds of the histogram's buckets in milliseconds: Istio's, so that its dashboards fit.
pub const BOUNDS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Statuses that have a counter at hand: 100 to 599.
const STATUSES: usize = 500;

/// Answers as they were at some time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// By status (0: none was sent) and flag.
    pub codes: BTreeMap<(u16, Option<Flag>), u64>,
    /// By duration: those within each of [`BOUNDS_MS`] but not the one before it, and then those beyond the last one.
    pub buckets: [u64; BOUNDS_MS.len() + 1],
    /// All durations together.
    pub took: Duration,
}

impl Answers {
    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        for (code, count) in &others.codes {
            *self.codes.entry(*code).or_default() += count;
        }
        for (bucket, count) in self.buckets.iter_mut().zip(others.buckets) {
            *bucket += count;
        }
        self.took += others.took;
    }
}

/// Counters of answers. They only grow.
#[derive(Debug)]
pub(super) struct Tally {
    plain: [AtomicU64; STATUSES],
    /// All others. They are seldom, so that a lock does no harm.
    others: Mutex<BTreeMap<(u16, Option<Flag>), u64>>,
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    microseconds: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            plain: [const { AtomicU64::new(0) }; STATUSES],
            others: Mutex::default(),
            buckets: [const { AtomicU64::new(0) }; BOUNDS_MS.len() + 1],
            microseconds: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// An answer was made; status 0 when nobody waited for one.
    pub(super) fn answered(&self, status: u16, flag: Option<Flag>) {
        let plain = usize::from(status).checked_sub(100).filter(|_| flag.is_none());
        if let Some(count) = plain.and_then(|at| self.plain.get(at)) {
            count.fetch_add(1, Relaxed);
        } else {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            *others.entry((status, flag)).or_default() += 1;
        }
    }

    /// A request is over, with the last byte of its answer.
    pub(super) fn took(&self, time: Duration) {
        let milliseconds = time.as_secs_f64() * 1e3;
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < milliseconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn read(&self) -> Answers {
        let plain = (100..).zip(&self.plain).map(|(status, count)| ((status, None), count.load(Relaxed)));
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others.iter().map(|(code, count)| (*code, *count));
        Answers {
            codes: plain.filter(|(_, count)| *count > 0).chain(others).collect(),
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Relaxed)),
            took: Duration::from_micros(self.microseconds.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_flag_and_time() {
        let tally = Tally::default();
        let cases = [
            (200, None, 300),
            (200, None, 500),
            (503, Some(Flag::UH), 501),
            (503, None, 1_000),
            (999, None, 2_000),
            (0, Some(Flag::DC), 9_000_000_000),
        ];
        for (status, flag, microseconds) in cases {
            tally.answered(status, flag);
            tally.took(Duration::from_micros(microseconds));
        }
        let mut read = tally.read();
        let codes = [
            ((0, Some(Flag::DC)), 1),
            ((200, None), 2),
            ((503, None), 1),
            ((503, Some(Flag::UH)), 1),
            ((999, None), 1),
        ];
        assert_eq!(read.codes, codes.into());
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[19]), (2, 2, 1), "a bound belongs to its bucket");
        assert_eq!(read.took, Duration::from_micros(9_000_004_301));
        let once = read.clone();
        read.add(&once);
        assert_eq!((read.codes[&(200, None)], read.buckets[0], read.took), (4, 4, once.took * 2));
    }
}
