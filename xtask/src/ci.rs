//! `cargo xtask ci`: everything that is checked besides the tests. Runs all steps, then says which failed.
use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    process::{self, Environment},
    setup, tidy,
};

/// Runs every check; true when all hold.
pub(crate) fn run() -> Result<bool> {
    let environment = setup::run()?;
    setup::cargo_deny(&environment)?;
    let mut steps = Steps::default();
    steps.run("tidy", tidy::run);
    let workspace = ["--workspace", "--exclude", "canary-ebpf"];
    steps.cargo(&environment, "format", &["fmt", "--all", "--check"]);
    let clippy = [&["clippy", "--quiet"], &workspace[..], &["--all-targets", "--", "-D", "warnings"]].concat();
    steps.cargo(&environment, "clippy", &clippy);
    steps.run("clippy of the kernel programs", || clippy_ebpf(&environment));
    steps.cargo(&environment, "deny", &["deny", "check", "bans", "licenses", "sources"]);
    steps.run("docs", || {
        let mut doc = environment.cargo(&[&["doc", "--quiet", "--no-deps"], &workspace[..]].concat());
        Ok(process::status(doc.env("RUSTDOCFLAGS", "-Dwarnings"))?.success())
    });
    Ok(steps.report())
}

/// The kernel programs are built by another toolchain, for another target, with a `core` of their own.
fn clippy_ebpf(environment: &Environment) -> Result<bool> {
    let toolchain = environment.get("CANARY_BPF_TOOLCHAIN").unwrap_or_default().to_string_lossy().into_owned();
    let there = Command::new("rustup").args(["run", &toolchain, "cargo", "clippy", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "clippy", "--toolchain", &toolchain]);
        if let Err(error) = process::run_within(&mut add, Duration::from_mins(2)) {
            // Debian's toolchain has no clippy of the same version; rustc's own warnings still stop the build.
            eprintln!("ci: clippy of the kernel programs: NOT RUN: toolchain `{toolchain}` has no clippy ({error:#})");
            return Ok(true);
        }
    }
    let mut command = environment.command("rustup");
    command.args(["run", &toolchain, "cargo", "clippy", "--quiet", "--no-deps", "-p", "canary-ebpf"]);
    command.args(["--target", "bpfel-unknown-none"]);
    command.args(["-Zbuild-std=core", "--target-dir"]).arg(setup::target_directory().join("clippy-ebpf"));
    command.args(["--", "-D", "warnings"]);
    let flags = ["--cfg=bpf_target_arch=\"x86_64\"", "-Ctarget-cpu=v3"].join("\x1f");
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags);
    // Set by the cargo that runs us, for its own toolchain.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    Ok(process::status(&mut command)?.success())
}

/// What ran and what failed.
#[derive(Debug, Default)]
struct Steps {
    failed: Vec<String>,
    count: usize,
}

impl Steps {
    fn cargo(&mut self, environment: &Environment, name: &str, arguments: &[&str]) {
        self.run(name, || Ok(process::status(&mut environment.cargo(arguments))?.success()));
    }

    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<bool>) {
        let started = Instant::now();
        self.count += 1;
        let result = match work() {
            Ok(true) => "ok".to_owned(),
            Ok(false) => "FAILED".to_owned(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        println!("ci: {name}: {result} ({:.1} s)", started.elapsed().as_secs_f32());
        if result != "ok" {
            self.failed.push(name.to_owned());
        }
    }

    fn report(&self) -> bool {
        if self.failed.is_empty() {
            println!("ci: all {} checks hold", self.count);
        } else {
            println!("ci: {} of {} checks failed: {}", self.failed.len(), self.count, self.failed.join(", "));
        }
        self.failed.is_empty()
    }
}
