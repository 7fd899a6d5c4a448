//! Connections that go on while something else happens.
use std::{
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    load::{self, Load, Progress},
    netns::Namespace,
    tally::Tally,
};

/// How often a held connection exchanges a line.
const EVERY: Duration = Duration::from_millis(100);
/// How long connections may take to get anywhere.
const PATIENCE: Duration = Duration::from_secs(30);

/// A load on a thread of its own, in a client's namespace.
#[derive(Debug)]
pub struct Background {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<Tally>>>,
}

impl Background {
    /// Opens connections as `load` says.
    #[must_use]
    pub fn load(client: &Arc<Namespace>, load: Load) -> Self {
        Self::start(client, move |progress| load::run(load, progress))
    }

    /// Opens `connections` at once and keeps them open, with a request on each every 100 ms. Returns when all have
    /// had their first answer.
    ///
    /// # Errors
    /// When one fails, or they take too long.
    pub fn hold(client: &Arc<Namespace>, target: SocketAddr, connections: u32) -> Result<Self> {
        let held = Self::start(client, move |progress| load::hold(target, connections, EVERY, progress));
        held.wait("held connections to open", |progress| {
            let tally = progress.tally();
            tally.none_failed()?;
            Ok(tally.answers() == u64::from(connections))
        })?;
        Ok(held)
    }

    fn start(client: &Arc<Namespace>, work: impl FnOnce(&Arc<Progress>) -> Result<Tally> + Send + 'static) -> Self {
        let progress = Progress::new();
        let (inside, shared) = (Arc::clone(client), Arc::clone(&progress));
        let thread = Some(thread::spawn(move || inside.run(|| work(&shared))?));
        Self { progress, thread }
    }

    /// What it has done so far.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until `reached` says so.
    ///
    /// # Errors
    /// When `reached` fails, when the load ends before, or after half a minute.
    pub fn wait(&self, what: &str, reached: impl Fn(&Progress) -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !reached(&self.progress)? {
            ensure!(!self.is_finished(), "the load ended while waiting for {what}: {:?}", self.progress.tally());
            if started.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}: {:?}", self.progress.tally());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until `count` more lines went over the held connections: proof that they are alive now.
    ///
    /// # Errors
    /// As [`Background::wait`].
    pub fn wait_for_exchanges(&self, count: u64) -> Result<()> {
        let goal = self.progress.exchanges() + count;
        self.wait("exchanges on held connections", |progress| Ok(progress.exchanges() >= goal))
    }

    /// Lets it end by itself and returns what it counted.
    ///
    /// # Errors
    /// When the load could not run.
    pub fn join(mut self) -> Result<Tally> {
        let thread = self.thread.take().context("joined once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Ends it and returns what it counted.
    ///
    /// # Errors
    /// When the load could not run.
    pub fn stop(self) -> Result<Tally> {
        self.progress.stop();
        self.join()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.progress.stop();
    }
}
