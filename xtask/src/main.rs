//! The workshop: sets a machine up, shows the demo, runs the tests and the checks. Shells out and links nothing.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod demo;
mod process;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What `cargo xtask` can do.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, shows and checks canary",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring what is missing to this machine: a toolchain for BPF, bpf-linker, a bpffs, packages that the tests call
    Setup,
    /// Set up, build and walk through a canary rollout with real connections between network namespaces
    Demo(demo::Options),
    /// Set up and run the tests of every tier; the last line counts what ran
    Test(test::Options),
    /// Formatting, clippy, licences, documentation, tidiness
    Ci,
    /// Nanoseconds per packet of the kernel programs; `bench http`: microseconds per request, beside other balancers
    Bench(bench::Options),
    /// Arrows between modules, length of files, first sentences
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::run().map(|_| true),
        Task::Demo(options) => demo::run(&options).map(|()| true),
        Task::Test(options) => Ok(test::run(&options)),
        Task::Ci => ci::run(),
        Task::Bench(options) => bench::run(&options).map(|()| true),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
