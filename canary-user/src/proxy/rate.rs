//! How fast the requests of one connection may come.
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// What may come at once after a silence.
const BURST: Duration = Duration::from_millis(100);

/// Requests of a connection, spaced by the generic cell rate algorithm (ITU-T I.371, virtual scheduling): what comes too
/// early waits.
#[derive(Debug)]
pub(super) struct Rate {
    /// Nanoseconds between requests.
    spacing: u64,
    since: Instant,
    /// When the next request is expected if they come evenly, in nanoseconds since then.
    expected: AtomicU64,
}

impl Rate {
    /// No more than so many a second.
    pub(super) fn new(per_second: u32) -> Self {
        let spacing = 1_000_000_000 / u64::from(per_second.max(1));
        Self { spacing, since: Instant::now(), expected: AtomicU64::new(0) }
    }

    /// A request comes: until when it has to wait, if it must.
    pub(super) fn come(&self) -> Option<Instant> {
        let early = self.early(nanoseconds(self.since.elapsed()));
        (early > 0).then(|| Instant::now() + Duration::from_nanos(early))
    }

    /// By how much a request that comes now is too early, all in nanoseconds.
    fn early(&self, now: u64) -> u64 {
        let after = |expected: u64| expected.max(now).saturating_add(self.spacing);
        let before = self.expected.fetch_update(Relaxed, Relaxed, |expected| Some(after(expected)));
        // Whoever comes after a silence never waits.
        before.map_or(0, after).saturating_sub(now).saturating_sub(nanoseconds(BURST).max(self.spacing))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_slow_rates_the_first_request_passes_too() {
        let rate = Rate::new(1);
        let early: Vec<_> = (0..3).map(|_| rate.early(0) / 1_000_000).collect();
        assert_eq!(early, [0, 1_000, 2_000]);
    }

    #[test]
    fn a_burst_passes_the_rest_is_spaced_and_after_a_silence_there_is_a_burst_again() {
        let rate = Rate::new(100);
        for hour in 0..3 {
            let now = hour * 3_600_000_000_000;
            let early: Vec<_> = (0..15).map(|_| rate.early(now) / 1_000_000).collect();
            assert_eq!(early, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 40, 50]);
        }
    }
}
