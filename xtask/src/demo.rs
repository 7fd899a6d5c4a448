//! `cargo xtask demo`: set-up, release build, then the demo takes the place of this process.
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup;

/// What to show. The meaning is the demo's; here are only the names.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Connections in each step
    #[arg(long, default_value_t = 1_000)]
    connections: u32,
    /// Weights of v1 and v2 in the first step
    #[arg(long, default_value = "90,10")]
    weights: String,
    /// Where the kernel program is attached
    #[arg(long, default_value = "tc", value_parser = ["xdp", "tc", "clsact"])]
    attach: String,
    /// Use the service's IPv6 address
    #[arg(long)]
    ipv6: bool,
    /// Show the focused canary instead: who sees v2 is decided by a cookie
    #[arg(long)]
    focused: bool,
    /// `table` or `json`
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// Shows the demo. Returns only when it could not be started.
pub(crate) fn run(options: &Options) -> Result<()> {
    let environment = setup::run()?;
    let arguments = ["-p", "canary-user", "--bins", "--release"];
    let release = setup::build(&environment, "canary and the demo (release)", &arguments)?;
    let mut demo = environment.command(&release.join("demo").to_string_lossy());
    demo.args(["--connections", &options.connections.to_string()])
        .args(["--weights", &options.weights])
        .args(["--attach", &options.attach])
        .args(["--output", &options.output])
        .env("CANARY_BIN", release.join("canary"));
    if options.ipv6 {
        demo.arg("--ipv6");
    }
    if options.focused {
        demo.arg("--focused");
    }
    // Replaced, not started: ctrl-C and the exit code are the demo's own, and nobody returns to the prompt before it
    // has cleaned up.
    Err(demo.exec()).with_context(|| format!("cannot start {}", release.join("demo").display()))
}
