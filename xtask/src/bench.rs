//! `cargo xtask bench`: nanoseconds per packet of the kernel programs.
use anyhow::{Result, bail};
use clap::Args;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Interleaved rounds; the table shows the least and the median of them
    #[arg(long, default_value_t = 41)]
    rounds: u32,
    /// Runs of a program in one round
    #[arg(long, default_value_t = 400_000)]
    repeat: u32,
    /// Directory of reference programs to measure in the same run
    #[arg(long)]
    reference: Option<std::path::PathBuf>,
    /// `table` or `json`
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    bail!("the bench is not built yet; these options would apply: {options:?}")
}
