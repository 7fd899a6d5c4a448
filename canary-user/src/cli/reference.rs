//! Man pages, completions and `docs/reference-cli.md`, all made from the grammar.
use std::{fmt::Write as _, io, path::Path};

use clap::{Command, CommandFactory};

use crate::cli::{
    Exit, Failure,
    args::{Cli, EXIT_CODES},
    output::Screen,
};

/// The grammar with the exit codes at the end of every help page.
#[must_use]
pub fn command() -> Command {
    fn with_codes(command: Command) -> Command {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        command.after_help(format!("{examples}\n\n{EXIT_CODES}"))
    }
    with_codes(Cli::command()).mut_subcommands(|command| with_codes(command).mut_subcommands(with_codes))
}

pub(super) fn completions(screen: &mut Screen<'_>, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "canary", &mut script);
    screen.out.write_all(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man(screen: &mut Screen<'_>, dir: Option<&Path>) -> Result<Exit, Failure> {
    // `canary help` has no page of its own.
    let pages = command().disable_help_subcommand(true);
    match dir {
        None => clap_mangen::Man::new(pages).render(&mut screen.out)?,
        Some(dir) => {
            let cannot = |error: io::Error| Failure::new(format!("cannot write to {}: {error}", dir.display()), "");
            clap_mangen::generate_to(pages, dir).map_err(cannot)?;
        }
    }
    Ok(Exit::Done)
}

/// The text of `docs/reference-cli.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Command line\n\n<!-- Made from the program: UPDATE_DOCS=1 cargo test -p canary-user reference -->\n\n",
    );
    let mut all = command();
    // As narrow as a page, whatever terminal this is made on.
    all = all.term_width(100).color(clap::ColorChoice::Never);
    all.build();
    section(&mut text, &mut all.clone(), "canary");
    // `canary help COMMAND` says the same again.
    for command in all.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let name = format!("canary {}", command.get_name());
        section(&mut text, command, &name);
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            let name = format!("{name} {}", below.get_name());
            section(&mut text, below, &name);
        }
    }
    text
}

fn section(text: &mut String, command: &mut Command, name: &str) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let help = help.join("\n");
    let help = help.split("\nExit codes:").next().unwrap_or_default().trim_end();
    // Writing to a String cannot fail.
    let _ = write!(text, "## {name}\n\n```text\n{help}\n```\n\n");
    if name == "canary" {
        let _ = write!(text, "## Exit codes\n\n```text\n{EXIT_CODES}\n```\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_the_program_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference-cli.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == markdown(),
            "docs/reference-cli.md is out of date: UPDATE_DOCS=1 cargo test -p canary-user reference"
        );
    }

    #[test]
    fn man_pages_and_completions_come_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let mut screen = Screen { out: &mut out, err: &mut Vec::new(), colour: false };
        man(&mut screen, Some(dir.path())).unwrap();
        for page in ["canary.1", "canary-set-weight.1", "canary-agent.1"] {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains("Exit codes:"), "{page}");
        }
        assert!(!dir.path().join("canary-help.1").exists());
        man(&mut screen, None).unwrap();
        completions(&mut screen, clap_complete::Shell::Bash).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("canary\\-help"));
        assert!(text.contains("set\\-weight") && text.contains("complete -F _canary"));
    }
}
