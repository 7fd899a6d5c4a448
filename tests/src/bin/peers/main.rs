//! `peers`: what canary costs on real connections, beside nftables, HAProxy, nginx and Envoy on the same work.
//!
//! The topology is helloworld's: client — node — pods, one pod of each version. Whatever balances runs in the node's
//! namespace and has one CPU for itself; clients and pods have the other one. Packets are steered to the CPU of whom
//! they are for. Each round starts every system anew, in another order. A second cable, from the client to a pod, is
//! what a request costs when nobody is between.
mod measure;
mod paced;
mod report;
mod systems;
mod topology;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use self::{
    measure::{Sample, Work},
    systems::{Kind, System},
    topology::{NODE_CPU, Topology},
};

/// Measures canary and its peers on the same work
#[derive(Debug, Parser)]
struct Options {
    /// Interleaved rounds; the table shows the median of them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for a figure in one round
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    systems: Vec<Kind>,
    /// Requests a second for the latencies
    #[arg(long, default_value_t = 4_000)]
    rate: u32,
    /// Envoy's program
    #[arg(long)]
    envoy: Option<std::path::PathBuf>,
    /// `table` or `json` (one line for each figure of each round)
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > NODE_CPU, "two CPUs are needed, one for the load and one for the node; here is {cpus}");
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        let mut order = options.systems.clone();
        let shift = round % order.len().max(1);
        order.rotate_left(shift);
        for kind in order {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, kind.name());
            let measured = one(kind, &options).with_context(|| kind.name().to_owned())?;
            for sample in measured {
                if options.output == "json" {
                    println!("{}", serde_json::to_string(&sample)?);
                }
                samples.push(sample);
            }
        }
    }
    if options.output == "table" {
        report::print(&samples);
    }
    Ok(())
}

/// All figures of one system, started for this.
fn one(kind: Kind, options: &Options) -> Result<Vec<Sample>> {
    let topology = Topology::new()?;
    let mut system = System::start(kind, &topology, options.envoy.as_deref())?;
    system.wait(&topology)?;
    let at_rest = system.memory()?;
    let length = Duration::from_secs(options.seconds);
    let mut samples = Vec::new();
    for work in Work::ALL.into_iter().filter(|work| kind.can(*work)) {
        system.prepare(work, &topology)?;
        let target = system.target(work);
        measure::check(&topology, target, work, kind != Kind::Direct)?;
        measure::closed(&topology, target, work, Duration::from_secs(1))?; // Caches, pools, flows.
        let before = system.cpu_seconds()?;
        let mut sample = match work {
            Work::SplitPaced | Work::FocusedPaced => measure::open(&topology, target, work, options.rate, length)?,
            _ => measure::closed(&topology, target, work, length)?,
        };
        sample.system = kind.name();
        sample.process_us = (system.cpu_seconds()? - before) / sample.requests * 1e6;
        sample.memory_mb = at_rest;
        ensure!(sample.errors == 0, "{work:?}: {} of {} requests failed", sample.errors, sample.requests);
        samples.push(sample);
    }
    Ok(samples)
}
