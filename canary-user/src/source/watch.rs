//! Tells when a directory of objects may have changed: inotify for speed, a slow comparison in case it misses something.
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use futures::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::directory::{Directory, is_ignored};

/// A burst ends when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is told about after so long.
const BURST_MAX: Duration = Duration::from_millis(500);
/// How often the files are compared with what was seen last.
const POLL: Duration = Duration::from_secs(30);

/// Room for some dozen events; they are read in order, so more only means more reads.
const BUFFER_BYTES: usize = 4096;

type Events = EventStream<[u8; BUFFER_BYTES]>;

/// What one kernel watch is there for.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// A directory that holds objects: everything counts but what [`is_ignored`].
    Inside,
    /// A directory above: only this name in it counts.
    Only(OsString),
    /// The file at the end of a link.
    Target,
}

/// Identity of a file's content as far as its metadata tell: path, device, inode, size, time of change.
type Seen = Vec<(PathBuf, u64, u64, u64, i64, i64)>;

/// Tells about changes of one [`Directory`].
pub struct Watch {
    directory: Directory,
    events: Events,
    scopes: HashMap<WatchDescriptor, Scope>,
    seen: Seen,
    next_poll: Instant,
    /// Something happened that nobody has been told. Kept here, so that a cancelled `changed` loses nothing.
    pending: bool,
}

impl Watch {
    pub(super) fn new(directory: Directory) -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream([0; BUFFER_BYTES])?;
        let (scopes, failed) = subscribe(&events, &directory);
        if let Some((_, error)) = failed {
            return Err(error);
        }
        let seen = look(&directory);
        Ok(Self { directory, events, scopes, seen, next_poll: Instant::now() + POLL, pending: false })
    }

    /// Waits until something may have changed: files, their content, the directory itself. A burst counts once.
    /// Cancel-safe. Once it returns, [`Directory::read`] sees at least what it tells about.
    ///
    /// # Errors
    /// When the kernel's event queue cannot be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        while !self.pending {
            tokio::select! {
                counts = next(&mut self.events, &self.scopes) => self.pending = counts?,
                () = sleep_until(self.next_poll) => {
                    self.next_poll = Instant::now() + POLL;
                    self.pending = look(&self.directory) != self.seen;
                }
            }
        }
        let end = Instant::now() + BURST_MAX;
        while Instant::now() < end {
            tokio::select! {
                counts = next(&mut self.events, &self.scopes) => { counts?; }
                () = sleep(QUIET) => break,
            }
        }
        self.resubscribe();
        self.seen = look(&self.directory);
        self.pending = false;
        Ok(())
    }

    /// Directories come and go: watch those that are there now.
    fn resubscribe(&mut self) {
        let (scopes, failed) = subscribe(&self.events, &self.directory);
        if let Some((path, error)) = failed {
            warn!(path = %path.display(), %error, "changes here are seen only every {} s", POLL.as_secs());
        }
        for gone in self.scopes.keys().filter(|watch| !scopes.contains_key(watch)) {
            // The kernel has removed it by itself when the directory is gone.
            let _ = self.events.watches().remove(gone.clone());
        }
        self.scopes = scopes;
    }
}

/// Waits for the next event; says whether it counts. Cancel-safe.
async fn next(events: &mut Events, scopes: &HashMap<WatchDescriptor, Scope>) -> io::Result<bool> {
    let event = events.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return Ok(true); // The kernel forgot some: anything may have happened.
    }
    Ok(match (scopes.get(&event.wd), event.name) {
        (Some(Scope::Inside), Some(name)) => matters(&name),
        (Some(Scope::Only(wanted)), Some(name)) => *wanted == name,
        // About the watched thing itself: it changed, or went away with all that is below it.
        (Some(_), None) => true,
        (Some(Scope::Target), Some(_)) | (None, _) => false,
    })
}

/// Hidden names do not matter, but `..data`: exchanging that link is how a mounted `ConfigMap` changes.
fn matters(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == "..data" || !is_ignored(&name)
}

/// Watches all that is there now. Adding a watch again changes nothing. Yields the first failure, but goes on.
fn subscribe(
    events: &Events,
    directory: &Directory,
) -> (HashMap<WatchDescriptor, Scope>, Option<(PathBuf, io::Error)>) {
    let changes = WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    let mut scopes = HashMap::new();
    let mut failed = None;
    let mut add = |path: &Path, scope: Scope| match events.watches().add(path, changes) {
        Ok(watch) => {
            scopes.insert(watch, scope);
        }
        // Gone since it was listed: its parent's watch tells.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => failed = failed.take().or_else(|| Some((path.to_owned(), error))),
    };
    // The nearest directory above that exists tells when the path appears, goes away or is replaced.
    if let Ok(path) = absolute(directory.path())
        && let Some(child) = path.ancestors().find(|child| child.parent().is_some_and(Path::is_dir))
        && let (Some(parent), Some(name)) = (child.parent(), child.file_name())
    {
        add(parent, Scope::Only(name.to_owned()));
    }
    for inside in directory.directories() {
        add(&inside, Scope::Inside);
    }
    let files = directory.files().unwrap_or_default(); // `read` reports why they cannot be listed.
    for link in files.iter().filter(|file| file.is_symlink()) {
        add(link, Scope::Target);
    }
    (scopes, failed)
}

/// What the files look like from outside.
fn look(directory: &Directory) -> Seen {
    let files = directory.files().unwrap_or_default(); // An unreadable directory looks empty; `read` says why.
    let seen = files.into_iter().filter_map(|file| {
        let metadata = fs::metadata(&file).ok()?;
        Some((file, metadata.dev(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec()))
    });
    seen.collect()
}
