//! The command line against a whole agent over a real socket, and on files without one.
use std::fs;

use clap::Parser;

use super::*;
use crate::{
    agent::fake::{SERVICE, pods, route},
    api::tests::Whole,
};

/// What a command prints, and how it ends. Failures are printed as on standard error; remarks are left out.
fn canary(whole: &Whole, line: &str) -> (Exit, String) {
    let socket = whole.socket();
    let words = ["canary", "--socket", socket.to_str().unwrap()].into_iter().chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let mut out = Vec::new();
    let mut screen = Screen { out: &mut out, err: &mut Vec::new(), colour: false };
    let done = execute(&cli, &mut screen);
    let exit = end(done, &mut screen);
    (exit, String::from_utf8(out).unwrap())
}

mod change;
mod forms;
mod node;
mod offline;
mod trace;

fn with_flows(v1: u64, v2: u64) -> Whole {
    let whole = Whole::start();
    whole.kernel.inside().flows = [("v1".to_owned(), v1), ("v2".to_owned(), v2)].into();
    whole
}

#[test]
fn get_in_every_form() {
    let whole = with_flows(900, 100);
    for (line, expected) in [
        (
            "get services",
            "SERVICE                       ADDRESS               SPLIT             ENFORCED   FLOWS\n\
             default/helloworld:5000/tcp   10.96.0.10:5000/tcp   v1 90% / v2 10%   yes        1000\n",
        ),
        (
            "get versions helloworld",
            "SERVICE                       RULE      VERSION   WEIGHT   SHARE   FLOWS   REQUESTS   OBSERVED   DEVIATION   ENDPOINTS\n\
             default/helloworld:5000/tcp   http[0]   v1        90       90%     900     -          90%        0           3\n\
             default/helloworld:5000/tcp   http[0]   v2        10       10%     100     -          10%        0           1\n",
        ),
        (
            "get endpoints default/helloworld",
            "SERVICE                       VERSION   ENDPOINT          STATE    FLOWS\n\
             default/helloworld:5000/tcp   v1        10.244.1.1:5000   active   900\n\
             default/helloworld:5000/tcp   v1        10.244.1.2:5000   active   0\n\
             default/helloworld:5000/tcp   v1        10.244.1.3:5000   active   0\n\
             default/helloworld:5000/tcp   v2        10.244.2.1:5000   active   100\n",
        ),
        (
            "get flows",
            "CLIENT            ADDRESS               VERSION   ENDPOINT          STATE         IDLE\n\
             192.0.2.1:40000   10.96.0.10:5000/tcp   v1        10.244.0.1:5000   established   2s\n",
        ),
        ("get leaves not-ip", "REASON   PACKETS\nnot-ip   3\n"),
        ("get services -o name", "service/default/helloworld:5000/tcp\n"),
        ("get service/helloworld -o name", "service/default/helloworld:5000/tcp\n"),
        (
            "get version/default/helloworld:5000/tcp/http[0]/v1 -o name",
            "version/default/helloworld:5000/tcp/http[0]/v1\n",
        ),
        (
            "get versions service/helloworld -o name",
            "version/default/helloworld:5000/tcp/http[0]/v1\n\
          version/default/helloworld:5000/tcp/http[0]/v2\n",
        ),
        ("history svc/helloworld", "No weights have been changed.\n"),
        (
            "get leaves no-service -o yaml",
            "items:\n- reason: no-service\n  packets: 0\n  verdict: pass\n  meaning: 'Nobody''s virtual address, and no answer of \
             a known flow: the host''s own traffic must keep working.'\n",
        ),
        (
            "get leaves not-ip -o wide",
            "REASON   PACKETS   VERDICT   MEANING\n\
             not-ip   3         pass      Neither IPv4 nor IPv6: ARP and the like.\n",
        ),
    ] {
        assert_eq!(canary(&whole, line), (Exit::Done, expected.to_owned()), "{line}");
    }
    let (_, wide) = canary(&whole, "get versions -o wide");
    assert!(wide.lines().nth(1).unwrap().contains("±1"), "{wide}");
}

#[test]
fn a_name_that_nobody_has_is_an_error() {
    let whole = Whole::start();
    for what in ["get services", "get versions", "get endpoints", "get flows", "history", "verify"] {
        let (exit, text) = canary(&whole, &format!("{what} heloworld"));
        let expected = "error: there is no service `heloworld`\n  \
                        did you mean `helloworld`? `canary get services` lists them\n";
        assert_eq!((exit, text.as_str()), (Exit::Failed, expected), "{what}");
        let (exit, text) = canary(&whole, &format!("{what} nobody"));
        assert_eq!(exit, Exit::Failed);
        assert!(!text.contains("did you mean"), "{what}: {text}");
    }
    assert_eq!(
        canary(&whole, "get leave/no-servce"),
        (
            Exit::Failed,
            "error: there is no reason `no-servce`\n  did you mean `no-service`? `canary get leaves` lists them\n"
                .into()
        )
    );
    assert_eq!(canary(&whole, "get service/helloworld helloworld").0, Exit::Usage);
    assert_eq!(canary(&whole, "delete vs").0, Exit::Usage);
    assert_eq!(canary(&whole, "delete vs/helloworld dr").0, Exit::Usage);
    assert_eq!(canary(&whole, "delete vs/helloworld dr/helloworld --dry-run").0, Exit::Done);
    let (_, text) = canary(&whole, "set-weight service/heloworld v1=1 v2=1");
    assert!(text.contains("did you mean `helloworld`?"), "{text}");
}

#[test]
fn a_list_of_flows_says_when_it_was_cut() {
    let whole = Whole::start();
    let listed = |line: &str| {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Get(args) = &cli.command else { panic!("{line}") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen { out: &mut out, err: &mut err, colour: false };
        get::get(&whole.client(), &mut screen, args, false).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    assert_eq!(listed("canary get flows --limit 1").1, "");
    let (out, err) = listed("canary get flows --limit 0 -o json");
    assert_eq!(err, "there are more than 0 flows; --limit sets how many are listed\n");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json, serde_json::json!({"items": [], "truncated": true}));
    let (out, _) = listed("canary get flows helloworld -o json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["items"].as_array().unwrap().len(), &json["truncated"]), (1, &serde_json::json!(false)));
}

#[test]
fn status_says_how_the_agent_is() {
    let whole = Whole::start();
    let (exit, text) = canary(&whole, "status");
    assert_eq!(exit, Exit::Done, "{text}");
    for part in [
        "Agent:       ready since ",
        "Attached:    tc:eth0 (fake)",
        "1 service, 2 versions, 4 endpoints",
        "64 KiB in 1 map",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    fs::write(whole.config().join("route.yaml"), "kind: [").unwrap();
    whole.wait_for(|whole| canary(whole, "status").1.contains("Not enforced: default/helloworld:5000/tcp: "));
    let (exit, text) = canary(&whole, "status");
    assert_eq!(exit, Exit::Failed, "what is written is not in force");
    assert!(text.contains("Findings:\n"), "{text}");
    whole.kernel.inside().broken = Some("no space");
    fs::write(whole.config().join("route.yaml"), route(1, 1)).unwrap();
    whole.wait_for(|whole| canary(whole, "status").1.contains("Trouble:"));
    assert_eq!(canary(&whole, "status").0, Exit::Failed);
    let (_, text) = canary(&whole, "status");
    assert!(text.contains("Trouble:     the data plane refused: no space"), "{text}");
}

#[test]
fn verify_finds_what_disagrees() {
    let whole = with_flows(899, 101);
    let (exit, text) = canary(&whole, "verify");
    assert_eq!(exit, Exit::Done, "{text}");
    assert_eq!(
        text,
        "SERVICE                       RULE      VERSION   INTENDED   PROGRAMMED   FLOWS   SHARE   DEVIATION   BOUND   AGREES\n\
         default/helloworld:5000/tcp   http[0]   v1        90         90           899     89.9%   -1          ±1      yes\n\
         default/helloworld:5000/tcp   http[0]   v2        10         10           101     10.1%   +1          ±1      yes\n\
         1 split: intended, programmed and observed agree.\n"
    );
    whole.kernel.inside().flows.insert("v2".into(), 110);
    let (exit, text) = canary(&whole, "verify");
    assert_eq!(exit, Exit::Failed);
    assert!(text.ends_with("splits that disagree: 1 of 1; differences in the maps: 0.\n"), "{text}");
    whole.kernel.inside().flows.clear();
    whole.kernel.inside().lies.insert("v2".into(), 11);
    let (exit, text) = canary(&whole, "verify helloworld -o name");
    assert_eq!((exit, text.as_str()), (Exit::Failed, "split/default/helloworld:5000/tcp/http[0]\n"));
    assert_eq!(canary(&whole, "verify nobody").0, Exit::Failed);
}

#[test]
fn verify_finds_what_is_held_and_what_leads_nowhere() {
    let whole = Whole::start();
    assert_eq!(canary(&whole, "verify").0, Exit::Done);
    fs::write(whole.config().join("pods.yaml"), pods(&[("v1", 3)])).unwrap();
    whole.wait_for(|whole| canary(whole, "verify").0 == Exit::Failed);
    let (_, text) = canary(&whole, "verify");
    assert!(
        text.ends_with(
            "no endpoints: default/helloworld:5000/tcp http[0]: v2 has 10%\n\
             1 split: intended, programmed and observed agree; but 1 version with a share but without endpoints.\n"
        ),
        "{text}"
    );
    let (_, name) = canary(&whole, "verify -o name");
    assert_eq!(name, "version/default/helloworld:5000/tcp/http[0]/v2\n");
    assert_eq!(canary(&whole, "set-weight helloworld v1=1 v2=0").0, Exit::Done);
    assert_eq!(canary(&whole, "verify").0, Exit::Done, "nothing is sent where nobody is");

    fs::write(whole.config().join("route.yaml"), "kind: [").unwrap();
    whole.wait_for(|whole| canary(whole, "verify").0 == Exit::Failed);
    let (_, text) = canary(&whole, "verify helloworld");
    assert!(text.contains("not enforced: default/helloworld:5000/tcp: "), "{text}");
    assert!(text.ends_with("agree; but 1 service not enforced as written.\n"), "{text}");
    assert_eq!(canary(&whole, "verify -o name").1, "service/default/helloworld:5000/tcp\n");
    assert_eq!(canary(&whole, "verify -o json").0, Exit::Failed);
}

#[test]
fn trace_says_what_and_why() {
    let whole = Whole::start();
    assert_eq!(
        canary(&whole, "trace --from 192.0.2.7 --to 10.96.0.10:5000"),
        (Exit::Done, "192.0.2.7:32768 → 10.96.0.10:5000/tcp\n\
         \x20 service   default/helloworld:5000/tcp\n\
         \x20 rule      http[0]\n\
         \x20 version   v1\n\
         \x20 endpoint  10.244.0.1:5000\n\
         \x20 why       rule http[0] matches everybody; draw 0 of the sequence falls to this version (weight 90 of 100)\n".into())
    );
    assert_eq!(
        canary(&whole, "trace --from 192.0.2.7 --to 10.96.0.99:5000"),
        (Exit::Failed, "192.0.2.7:32768 → 10.96.0.99:5000/tcp\n  why       left alone: no-service\n".into())
    );
    for format in ["json", "yaml", "name", "wide"] {
        let line = format!("trace --from 192.0.2.7 --to 10.96.0.99:5000 --count 2 -o {format}");
        assert_eq!(canary(&whole, &line).0, Exit::Failed, "{line}");
    }
    let (_, many) = canary(&whole, "trace --from 192.0.2.7:65535 --to 10.96.0.10:5000 --count 20");
    assert!(many.ends_with("v1: 18 of 20 (90%)\nv2: 2 of 20 (10%)\n"), "{many}");
    assert!(many.contains("\n192.0.2.7:1 "), "ports go round past the last one: {many}");
}

#[test]
fn compile_is_canonical_and_needs_no_agent() {
    let mut whole = Whole::start();
    whole.stop();
    let line = format!("compile -f {} -o json", whole.config().display());
    let (exit, text) = canary(&whole, &line);
    assert_eq!(exit, Exit::Done, "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let service = &value["services"][0];
    assert_eq!(service["rules"][0]["versions"][1], serde_json::json!({"version": "v2", "weight": 10, "share": 0.1}));
    assert_eq!(service["versions"]["v1"]["endpoints"].as_object().unwrap().len(), 3);
    // The order of files and documents says nothing.
    let other = tempfile::tempdir().unwrap();
    let all = format!("{}---\n{}---\n{SERVICE}", pods(&[("v1", 3), ("v2", 1)]), route(90, 10));
    fs::write(other.path().join("all.yaml"), all).unwrap();
    assert_eq!(canary(&whole, &format!("compile -f {} -o json", other.path().display())).1, text);
}

#[test]
fn every_command_reads_the_same_files_of_a_directory() {
    let whole = Whole::start();
    let deep = whole.dir.path().join("given/deep/er");
    fs::create_dir_all(&deep).unwrap();
    let given = whole.dir.path().join("given");
    let lines = ["analyze", "compile", "apply", "delete"].map(|command| format!("{command} -f {}", given.display()));
    fs::write(deep.join(".hidden.yaml"), SERVICE).unwrap();
    for line in &lines {
        let (exit, text) = canary(&whole, line);
        assert_eq!(exit, Exit::Failed, "{line}: {text}");
        let expected = format!("error: there is no *.yaml, *.yml or *.json in {}\n", given.display());
        assert!(text.starts_with(&expected) && text.contains("subdirectories"), "{line}: {text}");
    }
    fs::write(deep.join("empty.yml"), "# nothing\n").unwrap();
    for line in &lines {
        let (exit, text) = canary(&whole, line);
        assert_eq!(exit, Exit::Failed, "{line}: {text}");
        assert!(text.starts_with("error: there is no object in "), "{line}: {text}");
    }
    fs::write(deep.join("pod.json"), r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "extra"}}"#).unwrap();
    assert!(canary(&whole, &lines[0]).1.contains("1 object: "));
    assert!(canary(&whole, &lines[2]).1.starts_with("Pod default/extra created\n"));
    assert!(canary(&whole, &lines[3]).1.starts_with("Pod default/extra deleted\n"));
    // The same object by two names is not two objects.
    fs::write(given.join("again.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: extra}\n").unwrap();
    let twice = format!("analyze -f {} -f {}", deep.display(), given.join("again.yaml").display());
    assert!(canary(&whole, &twice).1.contains("error [CAN0103] Pod default/extra"));
}

#[test]
fn analyze_tells_errors_from_warnings_by_its_exit_code() {
    let mut whole = Whole::start();
    whole.stop();
    let file = whole.dir.path().join("one.yaml");
    for (text, exit, part) in [
        (
            format!("{SERVICE}---\n{}---\n{}", route(90, 10), pods(&[("v1", 1), ("v2", 1)])),
            Exit::Done,
            "0 errors, 0 warnings",
        ),
        ("kind: [".to_owned(), Exit::Failed, "error ["),
        (route(0, 0), Exit::Failed, "error ["),
    ] {
        fs::write(&file, text).unwrap();
        let (ended, printed) = canary(&whole, &format!("analyze -f {}", file.display()));
        assert_eq!(ended, exit, "{printed}");
        assert!(printed.contains(part), "{printed}");
    }
    let (exit, text) = canary(&whole, "analyze -f /nowhere");
    assert_eq!(exit, Exit::Failed);
    assert!(text.starts_with("error: "), "{text}");
}

#[test]
fn top_needs_a_terminal_and_version_needs_no_agent() {
    let mut whole = Whole::start();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(canary(&whole, "version"), (Exit::Done, format!("canary {own}\nagent {own}\n")));
    whole.stop();
    assert_eq!(canary(&whole, "version"), (Exit::Done, format!("canary {own}\nagent not reached\n")));
}

/// What is left of a pipe when `head` has seen enough.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let whole = Whole::start();
    let socket = whole.socket();
    for line in ["get services", "get services -o json", "get services -o yaml", "status", "verify", "man", "history"] {
        let words = ["canary", "--socket", socket.to_str().unwrap()].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let mut err = Vec::new();
        let done = execute(&cli, &mut Screen { out: &mut Closed, err: &mut Vec::new(), colour: false });
        assert!(done.is_err(), "{line} writes something");
        let exit = end(done, &mut Screen { out: &mut err, err: &mut Vec::new(), colour: false });
        assert_eq!((exit, String::from_utf8(err).unwrap().as_str()), (Exit::Done, ""), "{line}");
    }
}
