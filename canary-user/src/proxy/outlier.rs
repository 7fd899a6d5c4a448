//! Outlier detection: what an endpoint's answers say of its health, and how long it rests. As Envoy does it.
//!
//! Times are milliseconds that the caller counts. An ejection ends by itself: nothing runs when no request comes.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::endpoint::Seen;
use crate::state::OutlierDetection;

/// The longest ejection, unless the first one is longer: Envoy's default.
const LONGEST_MS: u64 = 300_000;

/// What is known of an endpoint's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// One after another, of each kind.
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// End of the ejection; 0: it is not ejected.
    until_ms: AtomicU64,
    /// When it came back last.
    back_ms: AtomicU64,
    /// How many times the first ejection the last one was; forgotten one by one.
    times: AtomicU32,
    ejections: AtomicU64,
}

impl Health {
    /// Takes note of what became of a request; `Some`: that is enough to eject the endpoint, and why.
    pub(super) fn saw(&self, policy: &OutlierDetection, seen: Seen) -> Option<&'static str> {
        let status = match (seen, policy.consecutive_local_failures) {
            (Seen::Failed | Seen::TimedOut, Some(limit)) => {
                return one_more(&self.local_failures, limit).then_some("failures of connections");
            }
            (Seen::Failed, None) => 503,
            (Seen::TimedOut, None) => 504,
            (Seen::Status(status), _) => {
                forget(&self.local_failures);
                status
            }
        };
        if status < 500 {
            forget(&self.errors);
            forget(&self.gateway_errors);
            return None;
        }
        let mut why = None;
        if matches!(status, 502..=504) {
            why = one_more(&self.gateway_errors, policy.consecutive_gateway_errors).then_some("gateway errors");
        } else {
            forget(&self.gateway_errors);
        }
        let errors = one_more(&self.errors, policy.consecutive_5xx);
        why.or(errors.then_some("answers 5xx"))
    }

    /// Whether it is ejected. The time is asked for only if it has been, since nobody asked after its end.
    pub(super) fn is_out(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let until = self.until_ms.load(Relaxed);
        if until == 0 {
            return false;
        }
        if now_ms() < until {
            return true;
        }
        // Whoever ends the ejection writes when that was.
        if self.until_ms.compare_exchange(until, 0, Relaxed, Relaxed).is_ok() {
            self.back_ms.store(until, Relaxed);
            [&self.errors, &self.gateway_errors, &self.local_failures].into_iter().for_each(forget);
        }
        false
    }

    /// Ejects it; returns for how long. Not to be called for one that is ejected, nor by two at a time.
    pub(super) fn eject(&self, policy: &OutlierDetection, now_ms: u64) -> u64 {
        let well = now_ms.saturating_sub(self.back_ms.load(Relaxed));
        let forgotten = well.checked_div(policy.interval_ms).unwrap_or(0);
        let before = self.times.load(Relaxed).saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        let longest = policy.base_ejection_ms.max(LONGEST_MS);
        // As in Envoy, which counts one more than the longest has room for.
        let as_before = policy.base_ejection_ms.saturating_mul(u64::from(before));
        let times = if as_before < longest.saturating_add(policy.base_ejection_ms) { before + 1 } else { before };
        self.times.store(times, Relaxed);
        let length = policy.base_ejection_ms.saturating_mul(u64::from(times)).min(longest);
        self.until_ms.store(now_ms.saturating_add(length).max(1), Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        length
    }

    /// Ejections so far.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }
}

/// Whether `out` of `all` leave room for one more, by the policy.
pub(super) fn may_eject(policy: &OutlierDetection, out: usize, all: usize) -> bool {
    100 * (out + 1) <= usize::from(policy.max_ejection_percent) * all
}

/// Whether so few are well that all get requests.
pub(super) fn panics(policy: &OutlierDetection, out: usize, all: usize) -> bool {
    100 * all.saturating_sub(out) < usize::from(policy.min_health_percent) * all
}

/// Counts one more; whether that is the limit, with which counting starts again. 0 is no limit.
fn one_more(counter: &AtomicU32, limit: u32) -> bool {
    if limit == 0 || counter.fetch_add(1, Relaxed).saturating_add(1) < limit {
        return false;
    }
    counter.store(0, Relaxed);
    true
}

/// Written only if it changes: what all threads read stays in their caches.
fn forget(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests;
