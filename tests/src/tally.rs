//! What arrived where, and whether that is what the weights promise.
use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::server::Hello;

/// Connections by version and instance, and those that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Answers by version, then by instance.
    pub versions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Connections without a right answer.
    pub failed: u64,
    /// What went wrong with the first of them.
    pub failures: Vec<String>,
}

/// Failures beyond so many are only counted.
const FAILURES_KEPT: usize = 20;

impl Tally {
    /// Counts one answer.
    pub fn answered(&mut self, hello: Hello) {
        *self.versions.entry(hello.version).or_default().entry(hello.instance).or_default() += 1;
    }

    /// Counts one failure.
    pub fn failed(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(why);
        }
    }

    /// Answers of one version.
    #[must_use]
    pub fn of(&self, version: &str) -> u64 {
        self.versions.get(version).map_or(0, |instances| instances.values().sum())
    }

    /// Answers of one instance.
    #[must_use]
    pub fn of_instance(&self, instance: &str) -> u64 {
        self.versions.values().filter_map(|instances| instances.get(instance)).sum()
    }

    /// Answers of all versions.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.versions.values().flat_map(BTreeMap::values).sum()
    }

    /// Counts what another tally counted.
    pub fn add(&mut self, other: &Self) {
        for (version, instances) in &other.versions {
            for (instance, count) in instances {
                *self.versions.entry(version.clone()).or_default().entry(instance.clone()).or_default() += count;
            }
        }
        self.failed += other.failed;
        self.failures.extend(other.failures.iter().take(FAILURES_KEPT).cloned());
    }

    /// # Errors
    /// When a connection failed; says why the first ones did.
    pub fn none_failed(&self) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} connections failed: {}",
            self.failed,
            self.failed + self.answers(),
            self.failures.join("; ")
        );
        Ok(())
    }
}

/// Two versions and their weights, as `v1=90 v2=10` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Weight of v1.
    pub v1: u32,
    /// Weight of v2, the canary.
    pub v2: u32,
}

impl Weights {
    /// Weight of a version by its name; others have none.
    #[must_use]
    pub fn of(self, version: &str) -> u32 {
        match version {
            "v1" => self.v1,
            "v2" => self.v2,
            _ => 0,
        }
    }

    /// Flows that `version` should get of `total`. Exact below 2⁵³.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
    pub fn share(self, version: &str, total: u64) -> f64 {
        let sum = u64::from(self.v1) + u64::from(self.v2);
        (total * u64::from(self.of(version))) as f64 / sum as f64
    }

    /// How many flows `version` got too many (positive) or too few.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
    pub fn deviation(self, version: &str, tally: &Tally) -> f64 {
        tally.of(version) as f64 - self.share(version, tally.answers())
    }

    /// Judges the flows that came since the weights were set, all of them: that is what the guarantee of exact
    /// splits speaks of. No version may be more than one flow from its share, and weight 0 means never.
    ///
    /// # Errors
    /// When a version is, a connection failed, or a version that nobody asked for answered.
    pub fn hold_for(self, tally: &Tally) -> Result<()> {
        tally.none_failed()?;
        for version in tally.versions.keys().map(String::as_str) {
            ensure!(self.of(version) > 0, "{version} has weight 0 and got {} connections", tally.of(version));
        }
        for version in ["v1", "v2"] {
            let deviation = self.deviation(version, tally);
            if deviation.abs() > 1.0 {
                bail!(
                    "{version} got {} of {} connections; {}:{} asks for {:.1}, so it is off by {deviation:+.1}",
                    tally.of(version),
                    tally.answers(),
                    self.v1,
                    self.v2,
                    self.share(version, tally.answers())
                );
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for Weights {
    type Err = anyhow::Error;

    /// Reads `90,10`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[v1, v2]) if v1 > 0 || v2 > 0 => Ok(Self { v1, v2 }),
            _ => bail!("`{text}` is not two weights such as `90,10` (not both 0)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hello, Tally, Weights};

    fn tally(v1: u64, v2: u64) -> Tally {
        let mut tally = Tally::default();
        for (version, count) in [("v1", v1), ("v2", v2)] {
            for number in 0..count {
                let instance = format!("{version}-{}", number % 3);
                tally.answered(Hello { version: version.into(), instance });
            }
        }
        tally
    }

    #[test]
    fn one_flow_off_is_the_limit() {
        let weights = Weights { v1: 90, v2: 10 };
        let cases = [("exact", 900, 100, true), ("one more", 899, 101, true), ("two more", 898, 102, false)];
        for (name, v1, v2, expected) in cases {
            assert_eq!(weights.hold_for(&tally(v1, v2)).is_ok(), expected, "{name}");
        }
        // 15 connections at 90:10 ask for 1.5.
        let cases = [("below", 14, 1, true), ("above", 13, 2, true), ("two", 12, 3, false), ("none", 15, 0, false)];
        for (name, v1, v2, expected) in cases {
            assert_eq!(weights.hold_for(&tally(v1, v2)).is_ok(), expected, "{name}");
        }
    }

    #[test]
    fn weight_zero_means_never() {
        assert!(Weights { v1: 100, v2: 0 }.hold_for(&tally(1_000, 0)).is_ok());
        assert!(Weights { v1: 100, v2: 0 }.hold_for(&tally(999, 1)).is_err());
        let mut stranger = tally(900, 100);
        stranger.answered(Hello { version: "v3".into(), instance: "v3-1".into() });
        assert!(Weights { v1: 90, v2: 10 }.hold_for(&stranger).is_err());
    }

    #[test]
    fn a_failed_connection_is_no_success() {
        let mut tally = tally(900, 100);
        tally.failed("connection reset".into());
        let error = Weights { v1: 90, v2: 10 }.hold_for(&tally).unwrap_err().to_string();
        assert_eq!(error, "1 of 1001 connections failed: connection reset");
    }

    #[test]
    fn weights_are_read() {
        assert_eq!("99,1".parse::<Weights>().unwrap(), Weights { v1: 99, v2: 1 });
        for text in ["", "90", "0,0", "90,10,5", "90;10", "-1,5"] {
            assert!(text.parse::<Weights>().is_err(), "{text}");
        }
    }
}
