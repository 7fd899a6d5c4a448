//! `load`: opens connections to a virtual address and prints who answered, as JSON.
use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Result;
use canary_tests::load::{Load, Progress, Protocol, hold, run};
use clap::Parser;

/// Opens connections and counts who answers. Exit code 1 when one fails.
#[derive(Debug, Parser)]
struct Options {
    /// Virtual address and port, such as `10.96.0.10:5000` or `[fd00:96::10]:5000`
    target: SocketAddr,
    /// Connections in all
    #[arg(short = 'n', long, default_value_t = 1_000)]
    connections: u32,
    /// Connections at a time
    #[arg(short, long, default_value_t = 16)]
    concurrency: u32,
    /// Transport
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    protocol: Protocol,
    /// Open all connections at once and send a request on each every 100 ms, for so many seconds
    #[arg(long, conflicts_with_all = ["concurrency", "protocol"])]
    hold: Option<u64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let progress = Progress::new();
    let tally = if let Some(seconds) = options.hold {
        let watcher = Arc::clone(&progress);
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            watcher.stop();
        });
        hold(options.target, options.connections, Duration::from_millis(100), &progress)?
    } else {
        let Options { target, protocol, connections, concurrency, .. } = options;
        run(Load { protocol, concurrency, ..Load::tcp(target, connections) }, &progress)?
    };
    println!("{}", serde_json::to_string_pretty(&tally)?);
    tally.none_failed()
}
