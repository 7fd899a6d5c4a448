//! The guide, command by command, as a reader would type it.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use canary_tests::story::program;

/// Removes what the guide makes, however far it came. `cargo` has built everything before this test runs.
const BEFORE: &str = r#"
set -eu
cargo() { :; }
cleanup() {
    status=$?
    trap - EXIT
    if [ "$status" != 0 ]; then
        [ -n "${lab:-}" ] && [ -e "$lab/log" ] && cat "$lab/log" >&2
        [ -n "${agent:-}" ] && kill "$agent" 2>/dev/null && wait "$agent"
        canary detach --pin /sys/fs/bpf/canary-guide >/dev/null 2>&1
        sh docs/examples/guide/lab.sh down
        [ -n "${lab:-}" ] && rm -rf "$lab"
    fi
    exit "$status"
}
trap cleanup EXIT
"#;

/// The blocks of shell in a document, one after the other, each announced by its number.
fn script(text: &str) -> String {
    let mut script = BEFORE.to_owned();
    let mut number = 0;
    let mut inside = false;
    for line in text.lines() {
        if line == "```sh" {
            number += 1;
            inside = true;
            script.extend(["echo '=== block ", &number.to_string(), "'\n"]);
        } else if line == "```" {
            inside = false;
        } else if inside {
            script.push_str(line);
            script.push('\n');
        }
    }
    script
}

#[test]
fn every_command_of_the_guide_does_what_it_says() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = script(&fs::read_to_string(root.join("docs/guide.md"))?);
    let canary = program("canary")?;
    let bin = canary.parent().context("a program is in a directory")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&root)
        .env("PATH", path)
        .env("HELLOWORLD", program("helloworld")?)
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the guide ended with {}:\n{out}\n{err}", output.status);
    let blocks: Vec<&str> = out.split("=== block ").skip(1).collect();
    ensure!(!err.contains("curl:"), "a connection failed:\n{err}");
    let expected = [
        (3, "10 Hello version: v2, instance: v2a"),
        (4, "1 split: intended, programmed and observed agree."),
        (5, "50 Hello version: v2, instance: v2a"),
        (6, "25 Hello version: v2, instance: v2b"),
        (7, "draining ("),
        (8, "v1=90 v2=10 → v1=50 v2=50"),
        (9, "rule office matches clients of 192.0.2.128/25"),
        (10, "RoutePolicy default/helloworld deleted"),
        (11, "1 split: intended, programmed and observed agree."),
        (12, "removed /sys/fs/bpf/canary-guide/v1/links/tc-in-eth0"),
    ];
    ensure!(blocks.len() == expected.len() + 2, "the guide has {} blocks of commands", blocks.len());
    for (number, text) in expected {
        let block = blocks.get(number - 1).context("a block of each number")?;
        ensure!(block.contains(text), "block {number} should say `{text}`:\n{block}");
    }
    Ok(())
}
