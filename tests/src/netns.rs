//! Network namespaces that vanish with the process: they have no name in the file system, only file descriptors.
//!
//! Whatever ends this process — a return, a panic, ctrl-C, kill -9 — the kernel closes the descriptors, ends the
//! programs that run inside, and destroys the namespaces with their interfaces. To look inside while it runs:
//! `nsenter --net=/proc/PID/fd/N`, see [`Namespace::path`].
use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

/// One network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with its loopback up. `name` is for messages only.
    ///
    /// # Errors
    /// When this process may not make one (`CAP_SYS_ADMIN`), or `ip` fails.
    pub fn new(name: &str) -> Result<Self> {
        let file = thread::scope(|scope| scope.spawn(own_namespace).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            .with_context(|| format!("cannot make network namespace `{name}` (that needs root)"))?;
        let namespace = Self { name: name.to_owned(), file };
        // Before any interface exists, so that all inherit it: an address is usable at once, without a second of
        // duplicate address detection, and packets may come back on another interface than routes say.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        namespace.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// Name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path to this namespace for `ip … netns PATH` and `nsenter --net=PATH`, valid while it lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` inside, on a thread of its own: this thread stays where it is. Sockets that `work` makes stay
    /// inside for ever.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `work` is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || enter(&self.file).map(|()| work());
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result.with_context(|| format!("cannot enter namespace `{}`", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that will run inside. It is killed when the thread that starts it ends, however it ends: start
    /// long-lived programs from a thread that lives as long as they should.
    ///
    /// # Errors
    /// When the descriptor of the namespace cannot be duplicated.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.file.try_clone()?;
        let mut command = Command::new(program);
        // SAFETY: the closure only makes two system calls on values that it owns; both are async-signal-safe.
        unsafe {
            command.pre_exec(move || enter(&file).and_then(|()| die_with_parent()));
        }
        Ok(command)
    }

    /// Runs a program inside until it ends.
    ///
    /// # Errors
    /// When it cannot be started or fails; with what it said.
    pub fn call(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program)?.args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start `{program}` in `{}`", self.name))?;
        ensure!(
            output.status.success(),
            "`{program} {}` in `{}` failed: {}",
            arguments.join(" "),
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs lines of `ip` commands inside; the first that fails ends it.
    ///
    /// # Errors
    /// When `ip` is missing or refuses a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip")?;
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start `ip` (package iproute2)")?;
        child.stdin.take().context("stdin was asked for")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`ip -batch` in `{}`: {}\n{lines}", self.name, said.trim());
        }
        Ok(())
    }

    /// Writes a sysctl of this namespace, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel does not have it or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.run(|| std::fs::write(format!("/proc/sys/{key}"), value))?
            .with_context(|| format!("sysctl {key}={value} in `{}`", self.name))
    }
}

/// Moves the current thread to a new namespace and returns a descriptor of it.
fn own_namespace() -> io::Result<File> {
    // SAFETY: no memory is involved; only this short-lived thread changes its namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    File::open("/proc/thread-self/ns/net")
}

/// Moves the current thread into a namespace.
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `namespace` is borrowed.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Asks the kernel to kill this process when the thread that started it is gone.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Kills a process that this one started and has not waited for.
pub(crate) fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: no memory is involved; `pid` is a child that is not reaped, so the number is not reused.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
