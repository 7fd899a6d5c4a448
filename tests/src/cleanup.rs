//! Leaves nothing behind: what a test or the demo puts on disk and in bpffs goes on every exit, ctrl-C included.
//!
//! Namespaces and programs vanish with the process (see [`crate::netns`]). Pins do not: they are named after the
//! process, removed by their guard or by the signal, and after kill -9 by the next process that starts.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, Once, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Where pins are made.
pub const BPFFS: &str = "/sys/fs/bpf";
/// How our pin directories are called: `canary-test-PID-N`.
const PREFIX: &str = "canary-test-";

/// What is to be removed when a signal ends the process.
static KEPT: Mutex<Kept> = Mutex::new(Kept { directories: Vec::new(), children: Vec::new(), made: 0 });

#[derive(Debug)]
struct Kept {
    directories: Vec<PathBuf>,
    children: Vec<u32>,
    made: u32,
}

/// A directory that goes when the guard does.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A directory for files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("canary-").tempdir().context("temporary directory")?.keep();
        Ok(Self::keep(path))
    }

    /// A name for pins in bpffs; the agent makes the directory.
    #[must_use]
    pub fn pins() -> Self {
        sweep(Path::new(BPFFS));
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.made += 1;
        let path = Path::new(BPFFS).join(format!("{PREFIX}{}-{}", std::process::id(), kept.made));
        drop(kept);
        Self::keep(path)
    }

    fn keep(path: PathBuf) -> Self {
        on_signals();
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).directories.push(path.clone());
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).directories.retain(|path| *path != self.0);
        remove(&self.0);
    }
}

/// A program that is killed and waited for when the guard goes.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Takes charge of `child`.
    #[must_use]
    pub fn new(child: Child) -> Self {
        on_signals();
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).children.push(child.id());
        Self(child)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The program.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).children.retain(|pid| *pid != self.0.id());
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

/// Removes pins of processes that were killed before they could.
fn sweep(bpffs: &Path) {
    let Ok(entries) = fs::read_dir(bpffs) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&entry.path());
        }
    }
}

/// From now on ctrl-C, SIGTERM and SIGHUP clean up before they end the process.
fn on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            if let Err(error) = wait_and_clean() {
                eprintln!("ctrl-C will not clean up: {error}");
            }
        });
    });
}

fn wait_and_clean() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let code = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // By the shell's custom: 128 and the number of the signal.
        std::io::Result::Ok(tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        })
    })?;
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    eprintln!("\ninterrupted: cleaning up");
    // The agent first: it would otherwise pin again what is being removed.
    for pid in &kept.children {
        crate::netns::kill(*pid);
    }
    for path in &kept.directories {
        remove(path);
    }
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Directory, PREFIX, sweep};

    #[test]
    fn a_directory_goes_with_its_guard() {
        let directory = Directory::temporary().unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("file"), "content").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn only_pins_of_the_dead_are_swept() {
        let directory = Directory::temporary().unwrap();
        let make = |name: &str| {
            fs::create_dir(directory.path().join(name)).unwrap();
            directory.path().join(name)
        };
        let mine = make(&format!("{PREFIX}{}-1", std::process::id()));
        let dead = make(&format!("{PREFIX}{}-1", u32::MAX)); // no process has that number
        let other = make("canary");
        sweep(directory.path());
        let there = |path: &Path| path.exists();
        assert_eq!([there(&mine), there(&dead), there(&other)], [true, false, true]);
    }
}
