//! The command line: `canary agent` runs the agent, everything else is a client of one or works on files.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::FromArgMatches;

use crate::{
    agent::{
        run,
        settings::{SOCKET, Settings},
    },
    api::dto::DiagnosticV1,
    cli::{
        args::{AgentArgs, Cli, Command, DetachArgs, Format, KubeCommand},
        client::{Client, ClientError},
        output::{Paint, Screen},
    },
    diagnostic::chain,
    telemetry::log,
};

pub mod args;
mod change;
mod check;
pub mod client;
mod cluster;
mod get;
mod input;
mod node;
mod offline;
pub mod output;
mod read;
pub mod reference;
mod rows;
#[cfg(test)]
mod tests;
mod top;
mod trace;

/// How a command ends, as [`args::EXIT_CODES`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, and everything is well.
    Done = 0,
    /// Failed, or the answer is no.
    Failed = 1,
    /// Wrong usage that the grammar does not see.
    Usage = 2,
    /// Warnings but no errors.
    Warnings = 3,
    /// No agent could be reached.
    NoAgent = 4,
}

/// A command that could not be carried out: what goes to standard error.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    remedy: String,
    diagnostics: Vec<DiagnosticV1>,
    /// Nobody reads on, as with `| head`: no fault, and nothing to say.
    unread: bool,
}

impl Failure {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
            remedy: remedy.into(),
            diagnostics: Vec::new(),
            unread: false,
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message, "") }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoAgent { .. } | ClientError::Forbidden { .. } => Exit::NoAgent,
            _ => Exit::Failed,
        };
        let mut failure = Self { exit, ..Self::new(chain(&error), error.remedy()) };
        if let ClientError::Refused(body) = error {
            failure.diagnostics = body.diagnostics;
        }
        failure
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let unread = error.kind() == io::ErrorKind::BrokenPipe;
        Self { unread, ..Self::new(error.to_string(), "") }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = reference::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let var = |name: &str| env::var(name).ok();
    let mut out = io::stdout().lock();
    // Not locked: the agent's log goes there too, from other threads.
    let mut err = io::stderr();
    let colour = output::colour(cli.color, &io::stdout(), var);
    let mut screen = Screen { out: &mut out, err: &mut err, colour };
    let done = execute(&cli, &mut screen).and_then(|exit| {
        screen.out.flush()?;
        Ok(exit)
    });
    let colour = output::colour(cli.color, &io::stderr(), var);
    let (mut to, mut err) = (io::stderr(), io::stderr());
    ExitCode::from(end(done, &mut Screen { out: &mut to, err: &mut err, colour }) as u8)
}

/// How the process ends; `screen` is for complaints.
fn end(done: Result<Exit, Failure>, screen: &mut Screen<'_>) -> Exit {
    match done {
        Ok(exit) => exit,
        Err(Failure { unread: true, .. }) => Exit::Done,
        Err(failure) => {
            // There is nowhere left to complain.
            let _ = complain(screen, &failure);
            failure.exit
        }
    }
}

fn execute(cli: &Cli, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let socket = cli.socket.clone().unwrap_or_else(|| PathBuf::from(SOCKET));
    let client = || Client::new(&socket);
    match &cli.command {
        Command::Agent(args) => agent(args, cli),
        Command::Status(args) => read::status(&client()?, screen, args),
        Command::Apply(args) => change::apply(&client()?, screen, args),
        Command::Delete(args) => change::delete(&client()?, screen, args),
        Command::Get(args) => get::get(&client()?, screen, args, io::stdout().is_terminal()),
        Command::SetWeight(args) if args.is_kube() => cluster::set_weight(screen, args),
        Command::SetWeight(args) => change::set_weight(&client()?, screen, args),
        Command::History(args) => read::history(&client()?, screen, args),
        Command::Undo(args) => change::undo(&client()?, screen, args),
        Command::Analyze(args) => offline::analyze(screen, args),
        Command::Compile(args) => offline::compile(screen, args),
        Command::Trace(args) => trace::trace(&client()?, screen, args),
        Command::Verify(args) => check::verify(&client()?, screen, args),
        Command::Top(args) => top::run(&client()?, args),
        Command::Detach(args) => detach(screen, args),
        Command::Kube(KubeCommand::Check(args)) => node::check(screen, args),
        Command::Completions { shell } => reference::completions(screen, *shell),
        Command::Man { dir } => reference::man(screen, dir.as_deref()),
        Command::Version(output) => read::version(&client()?, screen, *output),
    }
}

fn agent(args: &AgentArgs, cli: &Cli) -> Result<Exit, Failure> {
    let mut options = args.options.clone();
    options.socket.clone_from(&cli.socket);
    let settings = Settings::read(options, args.config_file.as_deref(), |path| fs::read_to_string(path))
        .map_err(|error| Failure::new(chain(&error), "`canary agent --help` shows examples"))?;
    let colour = output::colour(cli.color, &io::stderr(), |name| env::var(name).ok());
    log::init(&settings.log, settings.log_format, colour).map_err(|error| Failure::new(error.to_string(), ""))?;
    run::run(&settings).map_err(|error| Failure::new(chain(&error), error.remedy(&settings)))?;
    Ok(Exit::Done)
}

fn detach(screen: &mut Screen<'_>, args: &DetachArgs) -> Result<Exit, Failure> {
    let removed = run::detach(&args.pin).map_err(|error| {
        let remedy = match error {
            run::DetachError::Lock(_) => "stop the agent first: `systemctl stop canary`",
            run::DetachError::Dataplane(_) => "run as root; nothing else was removed after the one that failed",
        };
        Failure::new(chain(&error), remedy)
    })?;
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&serde_json::json!({"removed": removed}), format)?,
        Format::Name => removed.iter().try_for_each(|path| screen.line(path.display().to_string()))?,
        _ if removed.is_empty() => screen.line(format!("nothing is pinned under {}", args.pin.display()))?,
        _ => removed.iter().try_for_each(|path| screen.line(format!("removed {}", path.display())))?,
    }
    Ok(Exit::Done)
}

fn complain(screen: &mut Screen<'_>, failure: &Failure) -> io::Result<()> {
    let title = screen.paint("error", Paint::Bad);
    screen.line(format!("{title}: {}", failure.message))?;
    for found in &failure.diagnostics {
        diagnostic(screen, found, "  ")?;
    }
    if !failure.remedy.is_empty() {
        screen.line(format!("  {}", failure.remedy))?;
    }
    Ok(())
}

/// One finding in one line, as `istioctl analyze` has it, and its remedy in another.
fn diagnostic(screen: &mut Screen<'_>, found: &DiagnosticV1, indent: &str) -> io::Result<()> {
    let paint = match found.severity.as_str() {
        "error" => Paint::Bad,
        "warning" => Paint::Warn,
        _ => Paint::Plain,
    };
    let severity = screen.paint(&found.severity, paint);
    let field = if found.field.is_empty() { String::new() } else { format!(" {}", found.field) };
    screen.line(format!(
        "{indent}{severity} [{}] {} ({}:{}){field}: {}",
        found.code, found.object, found.file, found.line, found.message
    ))?;
    if !found.remedy.is_empty() {
        screen.line(format!("{indent}  {}", found.remedy))?;
    }
    Ok(())
}
