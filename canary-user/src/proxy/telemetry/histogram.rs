//! Distributions with the buckets that Istio's have by default.
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Upper ends of the buckets, in thousandths: Envoy's, for times in ms and sizes in bytes alike.
const ENDS_MILLI: [u64; LABELS.len()] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// The same as they are printed; what is above has `+Inf`.
pub const LABELS: [&str; 19] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1800000", "3600000",
];

const BUCKETS: usize = LABELS.len() + 1;

/// A distribution that grows.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_milli: AtomicU64,
}

/// A distribution at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    sum_milli: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: array::from_fn(|_| AtomicU64::new(0)), sum_milli: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds a value, in thousandths.
    pub(super) fn add(&self, milli: u64) {
        let at = ENDS_MILLI.partition_point(|end| *end < milli);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_milli.fetch_add(milli, Relaxed);
    }

    pub(super) fn read(&self) -> Distribution {
        Distribution {
            buckets: self.buckets.each_ref().map(|it| it.load(Relaxed)),
            sum_milli: self.sum_milli.load(Relaxed),
        }
    }
}

impl Distribution {
    /// Values up to each end of [`LABELS`], and all of them at last.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().scan(0, |below, bucket| {
            *below += bucket;
            Some(*below)
        })
    }

    /// Sum of all values.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for a chart; exact up to 2^53 thousandths")]
    pub fn sum(&self) -> f64 {
        self.sum_milli as f64 / 1_000.0
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (mine, more) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += more;
        }
        self.sum_milli += other.sum_milli;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_end_they_do_not_pass() {
        for (milli, label) in [(0, "0.5"), (500, "0.5"), (501, "1"), (1_000, "1"), (5_001, "10"), (60_000_000, "60000")]
        {
            let histogram = Histogram::default();
            histogram.add(milli);
            let below: Vec<u64> = histogram.read().cumulative().collect();
            let first = below.iter().position(|count| *count == 1).unwrap();
            assert_eq!(LABELS[first], label, "{milli}");
            assert_eq!(below[LABELS.len()], 1, "every value is below infinity");
        }
        let histogram = Histogram::default();
        histogram.add(3_600_000_001);
        histogram.add(1);
        let read = histogram.read();
        assert_eq!(read.cumulative().collect::<Vec<_>>()[LABELS.len() - 1..], [1, 2]);
        assert!((read.sum() - 3_600_000.002).abs() < 1e-6);
    }

    #[test]
    fn labels_say_where_buckets_end() {
        let ends = LABELS.map(|label| label.parse::<f64>().unwrap() * 1_000.0);
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let same = ends.iter().zip(ENDS_MILLI).all(|(label, end)| (label - end as f64).abs() < 0.5);
        assert!(same, "{ends:?}");
    }
}
