//! The demo itself: it succeeds, says so to programs, and leaves nothing behind when it is interrupted.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::cleanup::{BPFFS, Directory};
use serde_json::Value;

/// The demo, with a directory for its temporary files.
fn demo(arguments: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).env("TMPDIR", temporary).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// What is left on disk and in bpffs by the process of that number.
fn left_behind(pid: u32, temporary: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in [temporary, Path::new(BPFFS)] {
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if directory == temporary || name.starts_with(&format!("canary-test-{pid}-")) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

fn walk(arguments: &[&str]) -> Result<()> {
    let temporary = Directory::temporary()?;
    let child = demo(arguments, temporary.path()).spawn()?;
    let pid = child.id();
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let (said, complaints) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "{status}: {complaints}\n{said}");
    let document: Value = serde_json::from_str(&said).with_context(|| said.clone().into_owned())?;
    assert_eq!(document.get("ok"), Some(&Value::Bool(true)));
    let steps = document.get("steps").and_then(Value::as_array).context("steps")?;
    assert_eq!(steps.len(), 6);
    for step in steps {
        let versions = step.get("versions").and_then(Value::as_array).context("versions")?;
        let counts = versions.iter().filter_map(|version| version.get("connections")?.as_u64());
        assert_eq!(counts.sum::<u64>(), 200, "{step}");
    }
    assert_eq!(left_behind(pid, temporary.path())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_focused_demo_walks() -> Result<()> {
    walk(&["--focused", "--connections", "200", "-o", "json"])
}

#[test]
fn the_demo_walks_by_tc() -> Result<()> {
    walk(&["--connections", "200", "-o", "json"])
}

#[test]
fn the_demo_walks_by_xdp_over_ipv6_with_one_per_cent() -> Result<()> {
    walk(&["--connections", "200", "--attach", "xdp", "--ipv6", "--weights", "99,1", "-o", "json"])
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing_behind() -> Result<()> {
    let temporary = Directory::temporary()?;
    let mut child = demo(&["--connections", "100000"], temporary.path()).spawn()?;
    let pid = child.id();
    // In the middle of the walk: the agent has pinned its maps.
    let started = Instant::now();
    while left_behind(pid, temporary.path())?.len() < 2 {
        ensure!(started.elapsed() < Duration::from_secs(30), "the demo does not get going");
        ensure!(child.try_wait()?.is_none(), "the demo ended by itself");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
    let children = children_of(pid)?;
    assert!(children.len() >= 5, "four servers and an agent: {children:?}");
    ensure!(Command::new("kill").args(["-INT", &pid.to_string()]).status()?.success());
    assert_eq!(child.wait()?.code(), Some(130));
    assert_eq!(left_behind(pid, temporary.path())?, Vec::<String>::new());
    let started = Instant::now();
    while children.iter().any(|child| is_running(*child)) {
        ensure!(started.elapsed() < Duration::from_secs(5), "some of {children:?} live on");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn children_of(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(number) = entry?.file_name().to_string_lossy().parse() else { continue };
        // After the name in parentheses: state, then the parent.
        if stat(number).split_whitespace().nth(1) == Some(pid.to_string().as_str()) {
            children.push(number);
        }
    }
    Ok(children)
}

/// Whether a process does something: one that is dead and not yet waited for does not.
fn is_running(pid: u32) -> bool {
    stat(pid).starts_with(|state| !matches!(state, 'Z' | 'X'))
}

/// What the kernel says about a process, from its state on; empty when it is gone.
fn stat(pid: u32) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    line.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}
