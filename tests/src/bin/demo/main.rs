//! `demo`: the story of a canary, on real connections, with the weights checked at every step.
mod focused;
mod show;
mod walk;

use std::process::ExitCode;

use anyhow::Result;
use canary_tests::{
    resources::Extras,
    stage::{Setting, Stage},
    story::Hook,
    tally::Weights,
};
use clap::Parser;

use show::{Output, Show};

/// Walks through a canary rollout of helloworld between network namespaces: 90:10, all to v1, 50:50 under traffic, v2
/// scaled up and down, roll-back. Exit code 0 when every step kept its guarantee, 1 when one did not.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Connections in each step
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Weights of v1 and v2 in the first step
    #[arg(long, default_value = "90,10")]
    weights: Weights,
    /// Where the kernel program is attached
    #[arg(long, value_enum, default_value_t = Hook::Tc)]
    attach: Hook,
    /// Use the service's IPv6 address
    #[arg(long)]
    ipv6: bool,
    /// Show the focused canary instead: who sees v2 is decided by a cookie
    #[arg(long)]
    focused: bool,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut show = Show::new(options.output, options.attach, options.ipv6);
    let ended = run(&options, &mut show);
    match show.finish(ended) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the stage, walks, and has cleaned up when it returns.
fn run(options: &Options, show: &mut Show) -> Result<()> {
    let Options { connections, weights, attach: hook, ipv6, .. } = *options;
    if options.focused {
        return focused::walk(hook, ipv6, connections, show);
    }
    show.say("making network namespaces for a client, a node, and pods of v1 (three) and v2 (one); starting the agent");
    let mut stage = Stage::new(&Setting { hook, ipv6, pods: (3, 1), weights, extras: Extras::default() })?;
    walk::walk(&mut stage, connections, weights, show)
}
