//! Arguments of `canary kube`.
use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

use super::Output;
use crate::agent::settings::PIN;

/// What is there to do about Kubernetes.
#[derive(Debug, Subcommand)]
pub enum KubeCommand {
    /// Say what is on this node, where canary would be attached, and what would not work.
    #[command(after_help = "\
Needs no agent and changes nothing: canary's programs are loaded and let go of again.

Examples:
  canary kube check
  canary kube check -o json
  canary kube check --host-root /host")]
    Check(KubeCheckArgs),
}

/// `canary kube check`.
#[derive(Debug, Args)]
pub struct KubeCheckArgs {
    /// Where the root of the node is mounted, in a container that has its network.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// Where kube-proxy says how it works: its metricsBindAddress.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:10249")]
    pub kube_proxy: SocketAddr,
    /// Directory of the agent's pins, by which its programs are known.
    #[arg(long, value_name = "DIR", default_value = PIN)]
    pub pin: PathBuf,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}
