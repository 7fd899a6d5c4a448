//! `helloworld`: the server of one pod; prints `ready` when it listens.
use std::io::Write;

use anyhow::Result;
use canary_tests::server::{Hello, serve};
use clap::Parser;

/// An HTTP server and UDP echo that says its version.
#[derive(Debug, Parser)]
struct Options {
    /// Version to say
    #[arg(long)]
    version_name: String,
    /// Name of this instance
    #[arg(long)]
    instance: String,
    /// Port for both protocols
    #[arg(long, default_value_t = 5000)]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let hello = Hello { version: options.version_name, instance: options.instance };
    serve(hello, options.port, || {
        // Whoever waits for this line reads a pipe: without the flush it would wait for ever.
        println!("ready");
        let _ = std::io::stdout().flush();
    })
    .await
}
