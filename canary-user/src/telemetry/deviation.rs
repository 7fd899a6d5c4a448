//! How far a split is from its weights, and how far it may be.
//!
//! Pure, and exact where the guarantee is: whole numbers decide, fractions are for people.
use canary_common::build::tree;

use crate::{
    dataplane::SplitCounts,
    proxy::telemetry::Requests,
    state::{Choosing, ServiceId, Split},
};

/// One split: intended, programmed, observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Flows that were observed since the weights were last changed.
    pub flows: u64,
    /// Draws that no version's flow is counted for (yet), or the other way round: counters are not read at one instant.
    pub unaccounted: u64,
    /// By version, in order of names; also those that only one side knows.
    pub versions: Vec<JudgedVersion>,
    /// What is programmed is what is intended.
    pub programmed: bool,
    /// Every version is within its bound.
    pub within: bool,
}

/// One version of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedVersion {
    /// Its name.
    pub version: String,
    /// Weight in the state; `None` when the state's split lacks it.
    pub intended: Option<u32>,
    /// Weight in the maps; `None` when the maps lack it.
    pub programmed: Option<u32>,
    /// Flows that its programmed weight comes to.
    pub expected: f64,
    /// Flows that it got.
    pub observed: u64,
    /// How far `observed` may be from `expected`; `None` when flows say nothing about it (keyed by client).
    pub bound: Option<f64>,
}

impl JudgedVersion {
    /// Flows above (or below) the share.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people; counters stay below 2^52")]
    pub fn deviation(&self) -> f64 {
        self.observed as f64 - self.expected
    }
}

impl Judged {
    /// The largest deviation of a version, without its sign.
    #[must_use]
    pub fn worst(&self) -> f64 {
        self.versions.iter().map(|version| version.deviation().abs()).fold(0.0, f64::max)
    }
}

/// Flows by which an exact split with these weights may be off at most: what can be proved of its tree, rounded up.
#[must_use]
pub fn exact_bound(weights: &[u32]) -> u32 {
    // Never above the depth of a tree of 64 versions, which is 6.
    (0..=6).find(|&bound| tree(weights, 0).is_none_or(|tree| tree.guarantee() <= f64::from(bound))).unwrap_or(6)
}

/// What a split of requests did, in the form in which splits of flows are judged: each request is a draw.
#[must_use]
pub fn of_requests(requests: &Requests, service: &ServiceId, rule: usize) -> SplitCounts {
    let found = requests.splits.iter().find(|split| split.service == *service && split.rule == rule);
    // One that the proxy lacks follows nothing, which `judge` reports.
    let versions = found.map(|split| split.versions.clone()).unwrap_or_default();
    let draws = versions.iter().map(|(_, _, requests)| requests).sum();
    SplitCounts { service: service.clone(), rule, draws, versions }
}

/// Compares what one split should do with what it does.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "expected values are for people; whole numbers decide below")]
pub fn judge(intended: &Split, counts: &SplitCounts) -> Judged {
    let flows: u64 = counts.versions.iter().map(|(_, _, flows)| flows).sum();
    let unaccounted = counts.draws.abs_diff(flows);
    let sum: u64 = counts.versions.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
    let weights: Vec<u32> = counts.versions.iter().map(|(_, weight, _)| *weight).collect();
    let bound_exact = u64::from(exact_bound(&weights)).saturating_add(unaccounted);

    let mut within = true;
    let mut versions = Vec::with_capacity(counts.versions.len());
    for (name, weight, observed) in &counts.versions {
        let share = if sum == 0 { 0.0 } else { f64::from(*weight) / sum as f64 };
        let expected = flows as f64 * share;
        let (bound, fits) = match intended.choosing {
            // A version of weight 0 never gets a flow, whatever is in flight.
            _ if *weight == 0 => (Some(0.0), *observed == 0),
            Choosing::Exact => {
                let off = (u128::from(*observed) * u128::from(sum)).abs_diff(u128::from(flows) * u128::from(*weight));
                (Some(bound_exact as f64), off <= u128::from(bound_exact) * u128::from(sum))
            }
            Choosing::KeyedFlow => {
                let sigma = (flows as f64 * share * (1.0 - share)).sqrt();
                // One more for the rounding of the share to whole flows.
                let bound = 6.0 * sigma + 1.0 + unaccounted as f64;
                (Some(bound), (*observed as f64 - expected).abs() <= bound)
            }
            // One busy client moves any number of flows: only the programmed weights can be judged.
            Choosing::KeyedClient => (None, true),
        };
        within &= fits;
        let intended = weight_of(&intended.weights, name);
        versions.push(JudgedVersion {
            version: name.clone(),
            intended,
            programmed: Some(*weight),
            expected,
            observed: *observed,
            bound,
        });
    }
    for (name, weight) in &intended.weights {
        if !counts.versions.iter().any(|(programmed, _, _)| programmed == name) {
            versions.push(JudgedVersion {
                version: name.clone(),
                intended: Some(*weight),
                programmed: None,
                expected: 0.0,
                observed: 0,
                bound: None,
            });
        }
    }
    versions.sort_by(|a, b| a.version.cmp(&b.version));
    // A weight of 0 and no weight are the same.
    let programmed = versions.iter().all(|one| one.intended.unwrap_or(0) == one.programmed.unwrap_or(0));
    Judged { flows, unaccounted, versions, programmed, within }
}

fn weight_of(weights: &[(String, u32)], name: &str) -> Option<u32> {
    weights.iter().find(|(version, _)| version == name).map(|(_, weight)| *weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::fake::helloworld, state::DeadVersion};

    fn split(choosing: Choosing, weights: &[(&str, u32)]) -> Split {
        let weights = weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
        Split { choosing, dead: DeadVersion::Fail, weights }
    }

    fn counts(draws: u64, versions: &[(&str, u32, u64)]) -> SplitCounts {
        let versions = versions.iter().map(|&(name, weight, flows)| (name.to_owned(), weight, flows)).collect();
        SplitCounts { service: helloworld(), rule: 0, draws, versions }
    }

    #[test]
    fn the_bound_is_the_guarantee() {
        for (versions, bound) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (8, 2), (16, 2), (64, 2)] {
            assert_eq!(exact_bound(&vec![7; versions]), bound, "{versions} even ones");
        }
        let skewed: Vec<u32> = (0..16).map(|n| 1 << n).collect();
        assert_eq!(exact_bound(&skewed), 3, "no more than the depth, which is 4");
        assert_eq!(exact_bound(&[90, 0, 10]), 1, "a weight of 0 has no place in the tree");
    }

    #[test]
    fn exact_splits_are_judged_to_the_flow() {
        let intended = split(Choosing::Exact, &[("v1", 90), ("v2", 10)]);
        for (v1, v2, within) in [(900, 100, true), (901, 99, true), (902, 98, false), (8, 1, true), (9, 0, true)] {
            let judged = judge(&intended, &counts(v1 + v2, &[("v1", 90, v1), ("v2", 10, v2)]));
            assert_eq!(judged.within, within, "{v1}:{v2}");
            assert!(judged.programmed);
        }
    }

    #[test]
    fn flows_in_flight_widen_the_bound_and_are_said() {
        let intended = split(Choosing::Exact, &[("v1", 90), ("v2", 10)]);
        let judged = judge(&intended, &counts(1_001, &[("v1", 90, 902), ("v2", 10, 98)]));
        assert_eq!((judged.unaccounted, judged.within), (1, true));
        assert_eq!(judged.versions[0].bound, Some(2.0));
    }

    #[test]
    fn keyed_splits_are_judged_as_a_binomial() {
        let intended = split(Choosing::KeyedFlow, &[("v1", 95), ("v2", 5)]);
        let judge_at = |v2| judge(&intended, &counts(1_000_000, &[("v1", 95, 1_000_000 - v2), ("v2", 5, v2)])).within;
        assert!(judge_at(50_000) && judge_at(51_300));
        assert!(!judge_at(53_000));
        let client = split(Choosing::KeyedClient, &[("v1", 50), ("v2", 50)]);
        let judged = judge(&client, &counts(10, &[("v1", 50, 10), ("v2", 50, 0)]));
        assert!(judged.within && judged.versions[0].bound.is_none());
    }

    #[test]
    fn weights_that_differ_are_found() {
        let intended = split(Choosing::Exact, &[("v1", 90), ("v2", 10)]);
        assert!(!judge(&intended, &counts(0, &[("v1", 80), ("v2", 20)].map(|(n, w)| (n, w, 0)))).programmed);
        let lacking = judge(&intended, &counts(0, &[("v1", 90, 0)]));
        assert!(!lacking.programmed);
        assert_eq!(lacking.versions[1].programmed, None);
        assert!(judge(&intended, &counts(0, &[("v0", 0, 0), ("v1", 90, 0), ("v2", 10, 0)])).programmed);
        assert!(!judge(&intended, &counts(1, &[("v0", 0, 1), ("v1", 90, 0), ("v2", 10, 0)])).within);
    }
}
