//! Arguments of the commands that change something.
use std::path::PathBuf;

use clap::Args;

use super::{Output, parse_service};

/// `canary apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// File, directory (its *.yaml, *.yml and *.json, also in subdirectories), or - for standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Change nothing; show what each version would get (with `-o wide` the map writes, too).
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kind, such as `virtualservice` or `vs`; or `KIND/NAME`, as many as are wanted.
    #[arg(required_unless_present = "files")]
    pub kind: Option<String>,
    /// Names, `NAME` or `NAMESPACE/NAME`.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Namespace of names without one.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Delete the objects of this file or directory, or - for standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with = "kind")]
    pub files: Vec<PathBuf>,
    /// Pass over objects that are not there.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Delete also what others refer to, as a VirtualService to a DestinationRule's subsets.
    #[arg(long)]
    pub force: bool,
    /// Change nothing; show what each version would get (with `-o wide` the map writes, too).
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary set-weight`.
#[derive(Debug, Args)]
pub struct SetWeightArgs {
    /// Service: `helloworld`, `default/helloworld` or as `canary get services` shows it.
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// Weights of all versions of the rule, such as `v1=90 v2=10`.
    #[arg(value_name = "VERSION=WEIGHT", required = true, value_parser = parse_weight)]
    pub weights: Vec<(String, u32)>,
    /// Rule, where the VirtualService has several.
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,
    /// Change the VirtualService at the API server, with your own rights there; the agents of all nodes follow. Called as
    /// `kubectl canary` this is the default.
    #[arg(long)]
    pub kube: bool,
    /// Where the API server is, in the file that kubectl reads; implies --kube [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; implies --kube [default: the current one].
    #[arg(long, value_name = "NAME")]
    pub kube_context: Option<String>,
    /// Namespace of a service without one; implies --kube [default: that of the context].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Change nothing; show what each version would get (with `-o wide` the map writes, too).
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

impl SetWeightArgs {
    /// Whether the API server is meant, not an agent.
    #[must_use]
    pub fn is_kube(&self) -> bool {
        let named = self.kubeconfig.is_some() || self.kube_context.is_some() || self.namespace.is_some();
        self.kube || named || super::is_plugin()
    }
}

/// `canary undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// Number of the entry, as `canary history` shows it [default: the newest that is not undone].
    pub entry: Option<u64>,
    /// Change nothing; show what each version would get (with `-o wide` the map writes, too).
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

pub(super) fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let (version, weight) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not VERSION=WEIGHT such as `v2=10`"))?;
    if version.is_empty() {
        return Err(format!("`{text}` names no version"));
    }
    let weight = weight
        .parse()
        .map_err(|_| format!("`{weight}` is not a weight: a whole number from 0 to {}, without %", u32::MAX))?;
    Ok((version.into(), weight))
}
