//! A cgroup of a test's own: processes in it are those that the programs of a cgroup see.
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};

use crate::{load::Protocol, netns::Namespace, story::program, tally::Tally};

/// How the cgroups are called: `canary-test-PID-N`.
const PREFIX: &str = "canary-test-";

/// A directory of cgroup v2; it goes with this, when its processes have ended.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A new one, below the root.
    ///
    /// # Errors
    /// When there is no cgroup v2 that this process may change.
    pub fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = fields.into_iter().find_map(|fields| match *fields {
            [_, place, "cgroup2", ..] => Some(PathBuf::from(place)),
            _ => None,
        });
        let root = root.context("cgroup v2 is not mounted")?;
        sweep(&root);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// One below it, at this path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn below(&self, path: &str) -> Result<Self> {
        let path = self.0.join(path);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// A program that will run in it, in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn command(&self, namespace: &Namespace, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = namespace.command("sh")?;
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0).arg(program);
        Ok(command)
    }

    /// Runs a program in it until it ends, and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(
        &self,
        namespace: &Namespace,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
    ) -> Result<Output> {
        Ok(self.command(namespace, program)?.args(arguments).stdin(Stdio::null()).output()?)
    }

    /// Opens connections from it, waits for their end, and counts.
    ///
    /// # Errors
    /// When the client cannot run.
    pub fn load(&self, from: &Namespace, target: SocketAddr, protocol: Protocol, connections: u32) -> Result<Tally> {
        let protocol = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let (target, connections) = (target.to_string(), connections.to_string());
        let output = self.output(from, program("load")?, &[&target, "-n", &connections, "--protocol", protocol])?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs a script of Python in it; what it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn python(&self, from: &Namespace, script: &str, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<&str> = ["-c", script].into_iter().chain(arguments.iter().copied()).collect();
        let output = self.output(from, "python3", &arguments)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a cgroup and those below it; not one that has processes.
fn remove(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove(&path));
    let _ = fs::remove_dir(path);
}

/// Removes what processes have left that were killed.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}
