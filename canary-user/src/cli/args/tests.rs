//! The grammar is sound, and its examples are true.
use clap::CommandFactory;

use super::{change::parse_weight, *};

#[test]
fn the_grammar_is_sound_and_every_command_has_an_example() {
    let mut cli = Cli::command();
    cli.build();
    cli.clone().debug_assert();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:\n  canary "), "`canary {}` has no example", command.get_name());
    }
}

#[test]
fn every_example_parses() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.get_after_help().unwrap().to_string();
        for line in help.lines().filter_map(|line| line.strip_prefix("  canary ")) {
            let line = line.split([';', '|', '>']).next().unwrap();
            // Every second piece is in quotes, and one word.
            let words = line.split('\'').enumerate().flat_map(|(index, piece)| match index % 2 {
                0 => piece.split_whitespace().collect(),
                _ => vec![piece],
            });
            let parsed = Cli::try_parse_from(std::iter::once("canary").chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn weights_and_clients() {
    assert_eq!(parse_weight("v1=90"), Ok(("v1".into(), 90)));
    assert_eq!(parse_weight("v1").unwrap_err(), "`v1` is not VERSION=WEIGHT such as `v2=10`");
    assert_eq!(parse_weight("=1").unwrap_err(), "`=1` names no version");
    assert_eq!(
        parse_weight("v1=10%").unwrap_err(),
        "`10%` is not a weight: a whole number from 0 to 4294967295, without %"
    );
    for (text, address) in [
        ("192.0.2.7", "192.0.2.7:32768"),
        ("192.0.2.7:80", "192.0.2.7:80"),
        ("2001:db8::7", "[2001:db8::7]:32768"),
        ("[2001:db8::7]:80", "[2001:db8::7]:80"),
    ] {
        assert_eq!(trace::parse_client(text).unwrap().to_string(), address);
    }
    assert_eq!(trace::parse_client("localhost").unwrap_err(), "`localhost` is not IP or IP:PORT");
}

#[test]
fn a_misspelt_level_is_wrong_usage() {
    let parse = |level| Cli::try_parse_from(["canary", "agent", "--config", "/", "--attach", "tc:a", "--log", level]);
    let error = parse("loud").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("error, warn, info, debug, trace"), "{error}");
    parse("debug").unwrap();
}

#[test]
fn help_is_a_command_too() {
    let text = |words: &[&str]| Cli::try_parse_from(words).unwrap_err().to_string();
    assert!(text(&["canary", "help"]).contains("\n  set-weight "));
    assert_eq!(text(&["canary", "help", "undo"]), text(&["canary", "undo", "--help"]));
}
