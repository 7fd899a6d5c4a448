//! The command line's grammar, with help and examples: the source of the man pages and of `docs/reference-cli.md`.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::agent::settings::{Options, PIN};

mod change;
mod get;
mod node;
#[cfg(test)]
mod tests;
mod trace;

pub use change::{ApplyArgs, DeleteArgs, SetWeightArgs, UndoArgs};
pub use get::{GetArgs, Listed, Resource};
pub use node::{KubeCheckArgs, KubeCommand};
pub use trace::{HttpRequest, Proto, TraceArgs};

/// Exit codes, as every help page ends with.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, and everything is well
  1  failed, or the answer is no: refused; degraded, not enforced or with errors (status, and
     after a change);
     left alone (trace); errors (analyze, compile); disagreement, not enforced, a share without
     endpoints (verify)
  2  wrong usage
  3  analyze found warnings but no errors
  4  no agent could be reached";

/// canary sends an exact share of a service's traffic to a new version, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "canary", version, about, long_about = None, propagate_version = true)]
#[command(after_help = concat!("Examples:
  canary agent --config /etc/canary --attach tc:eth0
  canary status
  canary set-weight helloworld v1=90 v2=10
  canary get versions"))]
pub struct Cli {
    /// Socket of the agent [default: /run/canary/agent.sock].
    #[arg(long, global = true, value_name = "PATH", env = "CANARY_SOCKET", hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// When to use colour.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Form of the output.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: keep the kernel's weight tables in step with a directory of objects.
    #[command(after_help = "\
Examples:
  canary agent --config /etc/canary --attach xdp:eth0
  canary agent --config ./objects --attach tc:front --attach tc:back --metrics 127.0.0.1:9464
  canary agent --config-file /etc/canary/agent.toml

The configuration file has the flags' names as keys: `config = \"/etc/canary/objects\"`, `attach = [\"tc:eth0\"]`,
`flows = 1048576`, and `socket` besides. Flags win. SIGTERM and SIGINT end the agent and leave the data plane in
place (`canary detach` removes it); SIGHUP reads everything again.")]
    Agent(Box<AgentArgs>),
    /// Say how the agent is, what is attached, what is not enforced and why.
    #[command(after_help = "\
Examples:
  canary status
  canary status -o json
  canary status --probe

It fails (1) while something is not as it is written: the agent is not ready, a service is not enforced, an object has
an error.")]
    Status(StatusArgs),
    /// Add or change objects: all are checked, then all are written, and the change is in force when this returns.
    #[command(after_help = "\
Examples:
  canary apply -f helloworld.yaml
  canary apply -f objects/ --dry-run
  sed s/v1/v2/ rule.yaml | canary apply -f -")]
    Apply(ApplyArgs),
    /// Remove objects.
    #[command(after_help = "\
Examples:
  canary delete virtualservice helloworld
  canary delete vs shop/cart checkout
  canary delete vs/helloworld dr/helloworld
  canary delete -f helloworld.yaml --dry-run")]
    Delete(DeleteArgs),
    /// List services, versions, endpoints, flows, or packets that were left alone.
    #[command(after_help = "\
Examples:
  canary get services
  canary get versions helloworld -o wide
  canary get service/helloworld
  canary get endpoints helloworld --watch
  canary get flows --limit 20 -o json
  canary get leaves")]
    Get(GetArgs),
    /// Set all weights of a rule in one step; existing flows stay where they are.
    #[command(after_help = "\
Weights are whole numbers of any sum: the share of a version is its weight divided by the sum.

Examples:
  canary set-weight helloworld v1=90 v2=10
  canary set-weight default/helloworld v1=999 v2=1
  canary set-weight helloworld v1=50 v2=50 --rule employees
  canary set-weight shop/cart v1=9 v2=1 --kube --dry-run
  kubectl canary set-weight helloworld v1=90 v2=10")]
    SetWeight(SetWeightArgs),
    /// Show who changed which weights when, newest first.
    #[command(after_help = "Examples:\n  canary history\n  canary history helloworld -o json")]
    History(HistoryArgs),
    /// Take back the newest change of weights, or one by its number.
    #[command(after_help = "Examples:\n  canary undo\n  canary undo 17\n  canary undo --dry-run")]
    Undo(UndoArgs),
    /// Check files without an agent: Istio's analyzers and canary's own.
    #[command(after_help = "\
Exits with 0 when there is nothing worse than a note, 3 for warnings, 1 for errors.

Examples:
  canary analyze -f objects/
  canary analyze -f rule.yaml -f service.yaml -o json")]
    Analyze(FilesArgs),
    /// Show what files come to, without an agent: rules, splits, shares, endpoints. The same input gives the same bytes.
    #[command(
        after_help = "Examples:\n  canary compile -f objects/ -o json\n  canary compile -f objects/ -o json | diff before.json -"
    )]
    Compile(FilesArgs),
    /// Ask the loaded kernel program what it would do with the first packet of a flow, or which rule an HTTP request would meet. Has no effect.
    #[command(after_help = "\
With --http nothing is sent: the rules in force are tried on the request, and those that do not match say why. An exact
split gives shares, not the version: that depends on the requests before.

Examples:
  canary trace --from 192.0.2.7 --to 10.96.0.10:5000
  canary trace --to 10.96.0.10:5000 --http 'GET /reviews?v=2' -H 'cookie: user=jason'
  canary trace --from 192.0.2.7:40000 --to 10.96.0.10:5000 --count 100
  canary trace --from 2001:db8::7 --to '[fd00:96::10]:53' --proto udp")]
    Trace(TraceArgs),
    /// Compare what is intended, what is programmed and what flows did, with the bound of each split.
    #[command(after_help = "\
An exact split of two versions is off by at most 1 flow, of three or four by at most 2; a split keyed by flow by
six standard deviations. A split keyed by client is judged by its programmed weights only.

Examples:
  canary verify
  canary verify helloworld -o json")]
    Verify(VerifyArgs),
    /// Watch versions, weights and flows live. Needs a terminal.
    #[command(after_help = "Keys: q quits, up and down scroll.\n\nExamples:\n  canary top\n  canary top --interval 5")]
    Top(TopArgs),
    /// Remove canary's programs, maps and links from the kernel. Flows in them are cut.
    #[command(after_help = "Examples:\n  canary detach\n  canary detach --pin /sys/fs/bpf/other")]
    Detach(DetachArgs),
    /// On a node of a Kubernetes cluster.
    #[command(subcommand, after_help = "Examples:\n  canary kube check")]
    Kube(KubeCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  canary completions bash > /usr/share/bash-completion/completions/canary")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write all of them.
    #[command(after_help = "Examples:\n  canary man | man -l -\n  canary man --dir /usr/share/man/man1")]
    Man {
        /// Write `canary.1`, `canary-agent.1`, … to this directory.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version of this program and of the agent.
    #[command(after_help = "Examples:\n  canary version")]
    Version(Output),
}

/// `canary agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// TOML file with settings; flags win.
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub options: Options,
}

/// `canary status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Fail only if the agent has never been ready since it started: for a readiness probe. Wrong objects, or an API
    /// server that is silent, do not make an agent that works stop to be ready.
    #[arg(long)]
    pub probe: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only of this service.
    #[arg(value_parser = parse_service)]
    pub service: Option<String>,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary analyze`, `canary compile`.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// File, directory (its *.yaml, *.yml and *.json, also in subdirectories), or - for standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Address of the proxy of the agent that the files are for; may be repeated. Without it there is one somewhere.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "without_proxy")]
    pub proxy: Vec<std::net::SocketAddr>,
    /// The files are for an agent without a proxy: rules that need one are errors.
    #[arg(long)]
    pub without_proxy: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this service.
    #[arg(value_parser = parse_service)]
    pub service: Option<String>,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `canary top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
}

/// `canary detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Directory of the pins.
    #[arg(long, value_name = "DIR", default_value = PIN)]
    pub pin: PathBuf,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// Whether this process was called as a plugin of kubectl: `kubectl canary` runs `kubectl-canary`.
#[must_use]
pub fn is_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(std::path::Path::file_name).is_some_and(|name| name == "kubectl-canary")
}

/// A service as people name it: `service/helloworld` too, as `-o name` prints it and kubectl takes it.
#[expect(clippy::unnecessary_wraps, reason = "the form that clap wants")]
fn parse_service(text: &str) -> Result<String, std::convert::Infallible> {
    let kinds = ["service/", "services/", "svc/"];
    Ok(kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text).into())
}
