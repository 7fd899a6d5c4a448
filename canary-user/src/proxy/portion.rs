//! A share of requests, drawn as exactly as versions are.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use canary_common::build::{Tree, name_hash, tree};

use super::rule::descend;
use crate::state::{Percentage, ServiceId};

/// At every moment, of n requests `percentage` of n were taken, and less than one more or fewer.
#[derive(Debug)]
pub(super) struct Portion {
    tree: Option<Tree>,
    draws: AtomicU64,
}

impl Portion {
    /// `what` tells the portions of a rule from each other: each takes requests of its own.
    pub(super) fn new(percentage: Percentage, id: &ServiceId, rule: &str, what: &str) -> Self {
        let parts = percentage.millionths();
        let rest = Percentage::ALL.millionths().saturating_sub(parts);
        let seed = name_hash(format!("{id}\0{rule}\0{what}").as_bytes());
        Self { tree: tree(&[parts, rest], seed), draws: AtomicU64::new(0) }
    }

    /// Whether the next request is one of them.
    pub(super) fn takes(&self) -> bool {
        let draw = self.draws.fetch_add(1, Relaxed);
        self.tree.as_ref().and_then(|tree| descend(tree, draw)) == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_exact_at_every_moment() {
        let id = ServiceId::tcp("web", 80);
        for parts in [0, 1, 2_500, 333_333, 500_000, 999_999, 1_000_000] {
            let portion = Portion::new(Percentage::from_millionths(parts), &id, "http[0]", "delay");
            let mut taken = 0_u32;
            for n in 1..=10_000_u32 {
                taken += u32::from(portion.takes());
                let exact = f64::from(n) * f64::from(parts) / 1e6;
                assert!((f64::from(taken) - exact).abs() < 1.0, "{parts}: {taken} of {n}");
            }
        }
    }
}
