//! `cargo xtask test`: every tier, each test by name, one closing line.
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::{
    process::{self, Environment},
    setup,
};

/// Which tests to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this tier (repeatable); all when absent
    #[arg(long, value_enum)]
    tier: Vec<Tier>,
    /// Only tests whose name contains this
    filter: Option<String>,
    /// For the test programs, such as `--nocapture` or `--test-threads=1`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What a group of tests proves, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Meaning: unit tests, properties, examples in the documentation. Needs nothing
    Unit,
    /// The verifier accepts the programs; a frame in gives a verdict and a frame out. Needs `CAP_BPF`
    Kernel,
    /// Connections survive reality: real sockets between network namespaces. Needs root
    Netns,
}

/// Capabilities by their number in `linux/capability.h`.
const NET_ADMIN: (&str, u32) = ("CAP_NET_ADMIN", 12);
const SYS_ADMIN: (&str, u32) = ("CAP_SYS_ADMIN", 21);
const BPF: (&str, u32) = ("CAP_BPF", 39);

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::Netns => "netns",
        }
    }

    fn needs(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Unit => &[],
            Self::Kernel => &[BPF, NET_ADMIN],
            Self::Netns => &[BPF, NET_ADMIN, SYS_ADMIN],
        }
    }

    /// Arguments of `cargo test`, a list for each call.
    fn calls(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Unit => &[
                &["--workspace", "--exclude", "canary-ebpf", "--exclude", "canary-tests"],
                &["-p", "canary-tests", "--lib", "--bins"],
                &["-p", "canary-tests", "--test", "docs*", "--test", "deploy*"],
            ],
            Self::Kernel => &[&["-p", "canary-tests", "--test", "kernel*"]],
            Self::Netns => &[&["-p", "canary-tests", "--test", "netns*"]],
        }
    }
}

/// What the summaries of the test programs add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn read(line: &str) -> Option<Self> {
        let mut totals = Self::default();
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        for count in counts.split(';') {
            match count.trim().split_once(' ') {
                Some((number, "passed")) => totals.passed = number.parse().ok()?,
                Some((number, "failed")) => totals.failed = number.parse().ok()?,
                Some((number, "ignored")) => totals.ignored = number.parse().ok()?,
                _ => {}
            }
        }
        Some(totals)
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Runs the tests; true when all passed and none was left out.
pub(crate) fn run(options: &Options) -> bool {
    let mut totals = Totals::default();
    match prepare() {
        Ok(environment) => {
            let tiers = [Tier::Unit, Tier::Kernel, Tier::Netns];
            for tier in tiers.into_iter().filter(|tier| options.tier.is_empty() || options.tier.contains(tier)) {
                totals.add(run_tier(tier, &environment, options));
            }
        }
        Err(error) => {
            println!("no tier can run: {error:#}");
            totals.failed += 1;
        }
    }
    if totals.ignored > 0 {
        println!("{} ignored", totals.ignored);
    }
    if totals == Totals::default() {
        println!("no test has that name");
        totals.failed += 1;
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    totals.failed == 0
}

fn prepare() -> Result<Environment> {
    let mut environment = setup::run()?;
    let what = "canary and the servers and clients of the tests";
    let canary = setup::build(&environment, what, &["-p", "canary-user", "--bins"])?.join("canary");
    ensure!(canary.is_file(), "cargo did not build {}", canary.display());
    environment.set("CANARY_BIN", canary);
    Ok(environment)
}

/// Runs one tier. One that cannot run counts as a failure, whose reason is printed.
fn run_tier(tier: Tier, environment: &Environment, options: &Options) -> Totals {
    println!("\ntier {}", tier.name());
    let mut totals = Totals::default();
    if let Err(error) = run_calls(tier, environment, options, &mut totals) {
        println!("tier {} FAILED: {error:#}", tier.name());
        totals.failed += 1;
    }
    totals
}

fn run_calls(tier: Tier, environment: &Environment, options: &Options, totals: &mut Totals) -> Result<()> {
    let held = capabilities(&fs::read_to_string("/proc/self/status")?)?;
    let lacking: Vec<&str> =
        tier.needs().iter().filter(|(_, bit)| held & (1 << bit) == 0).map(|(name, _)| *name).collect();
    ensure!(lacking.is_empty(), "it needs {} and this process does not have it: run as root", lacking.join(", "));
    let mut broken = Vec::new();
    for call in tier.calls() {
        let mut command = environment.cargo(&["test", "--no-fail-fast"]);
        command.args(*call).args(options.filter.as_deref()).arg("--").args(&options.arguments);
        let before = totals.failed;
        let status = process::tee(&mut command, |line| {
            if let Some(counts) = Totals::read(line) {
                totals.add(counts);
            }
        })?;
        // A test program that fails says how many tests did; when none did, it was not built or it died.
        if !status.success() && totals.failed == before {
            broken.push(process::shown(&command));
        }
    }
    ensure!(broken.is_empty(), "no summary from `{}`: see what it says above", broken.join("`, `"));
    if *totals == Totals::default() && options.filter.is_none() {
        bail!("it has no tests");
    }
    Ok(())
}

fn capabilities(status: &str) -> Result<u64> {
    let line =
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff in /proc/self/status")?;
    u64::from_str_radix(line.trim(), 16).context("CapEff")
}

#[cfg(test)]
mod tests {
    use super::{Totals, capabilities};

    #[test]
    fn summaries_are_read() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        assert_eq!(Totals::read(line), Some(Totals { passed: 3, failed: 2, ignored: 1 }));
        assert_eq!(Totals::read("test model::tests::weights ... ok"), None);
        assert_eq!(Totals::read("test result: nonsense"), None);
    }

    #[test]
    fn capabilities_are_a_mask() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t0000000000201000\n").unwrap(), 1 << 12 | 1 << 21);
        assert!(capabilities("Name:\tx\n").is_err());
    }
}
