//! A directory of YAML and JSON files (or one such file) as a source of Snapshots.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use super::watch::Watch;
use super::{FILE_BYTES_MAX, Snapshot, about_file, code, parse, too_large};

/// Subdirectories are read this deep.
pub const DEPTH_MAX: usize = 4;
/// So many files are read.
pub const FILES_MAX: usize = 10_000;
/// So many bytes are read in all.
const BYTES_MAX: u64 = 64 << 20;

/// Why a source yields nothing at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Changes cannot be watched.
    #[error("cannot watch {path} for changes: {source}", path = path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// More files than canary reads.
    #[error("{path} holds more than {FILES_MAX} files — is it the right directory?", path = path.display())]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
    },
    /// More bytes than canary reads.
    #[error("the files in {path} have more than {} MiB — is it the right directory?", BYTES_MAX >> 20, path = path.display())]
    TooManyBytes {
        /// The directory.
        path: PathBuf,
    },
}

/// A directory, or a single file, that holds objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory or file at `path`.
    ///
    /// # Errors
    /// When there is nothing at `path`, or it may not be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let directory = Self { path: path.into() };
        directory.files()?;
        Ok(directory)
    }

    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that it holds now, files in the order of their names. A file that cannot be read, or is half
    /// written, is a diagnostic: keeping what was in force is the caller's part.
    ///
    /// # Errors
    /// When the directory itself cannot be read, or holds far more than configuration.
    pub fn read(&self) -> Result<Snapshot, SourceError> {
        let mut bytes_read = 0;
        let mut parts = Vec::new();
        for file in self.files()? {
            let part = match fs::metadata(&file).and_then(|metadata| read_file(&file, metadata.len())) {
                Ok(Some(text)) => {
                    bytes_read += text.len() as u64;
                    parse_bytes(&text, &file)
                }
                Ok(None) => Snapshot { objects: Vec::new(), diagnostics: vec![too_large(&file)] },
                // It went away between the listing and now, as with any removal: the next event tells.
                Err(_) if file != self.path && fs::symlink_metadata(&file).is_err() => continue,
                Err(error) => {
                    let message = format!("the file cannot be read: {error}");
                    let remedy = "let canary read it, or remove it";
                    let diagnostic = about_file(&file, code::UNREADABLE_FILE, message, remedy);
                    Snapshot { objects: Vec::new(), diagnostics: vec![diagnostic] }
                }
            };
            parts.push(part);
            if bytes_read > BYTES_MAX {
                return Err(SourceError::TooManyBytes { path: self.path.clone() });
            }
        }
        Ok(Snapshot::merge(parts))
    }

    /// Tells about changes from now on. Call it before the first [`read`](Self::read), so that none falls between.
    ///
    /// # Errors
    /// When the kernel has no watch to give. Needs a tokio runtime with I/O and time.
    pub fn watch(&self) -> Result<Watch, SourceError> {
        Watch::new(self.clone()).map_err(|source| SourceError::Watch { path: self.path.clone(), source })
    }

    /// The files that hold objects, sorted: `*.yaml`, `*.yml` and `*.json`, also in subdirectories, [`DEPTH_MAX`] deep;
    /// neither hidden ones nor what editors leave. Of a single file the file, whatever its name.
    ///
    /// # Errors
    /// When the directory cannot be read, or holds far more than configuration.
    pub fn files(&self) -> Result<Vec<PathBuf>, SourceError> {
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        if !fs::metadata(&self.path).map_err(failed)?.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let mut files = Vec::new();
        let mut directories = Vec::new();
        walk(&self.path, 0, &mut files, &mut directories).map_err(failed)?;
        if files.len() > FILES_MAX {
            return Err(SourceError::TooManyFiles { path: self.path.clone() });
        }
        files.sort();
        Ok(files)
    }

    /// The directories that hold them, outermost first; none for a single file, or while nothing is there.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let mut directories = Vec::new();
        if self.path.is_dir() {
            // What cannot be listed is reported by `read`; there is nothing to watch in it.
            let _ = walk(&self.path, 0, &mut Vec::new(), &mut directories);
        }
        directories
    }
}

/// Collects files and directories below `directory`, itself included. The root must be readable; a subdirectory that
/// goes away or may not be read counts as empty only when it is gone.
fn walk(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, directories: &mut Vec<PathBuf>) -> io::Result<()> {
    directories.push(directory.to_owned());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if is_ignored(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // Follows links: in a mounted ConfigMap every file is one, through `..data`.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            if depth < DEPTH_MAX && files.len() <= FILES_MAX {
                match walk(&path, depth + 1, files, directories) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            continue;
        }
        let named =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|&known| extension == known));
        // No pipes or devices: reading one may never end. What is no file for other reasons, `read` reports.
        if named && fs::metadata(&path).map_or(true, |metadata| metadata.is_file()) {
            files.push(path);
        }
    }
    Ok(())
}

/// Hidden files (those of `vi` and of `canary` among them), and what other editors leave beside what they write.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with(['~', '#'])
}

/// The bytes of a file; `None` when they are too many.
fn read_file(file: &Path, len: u64) -> io::Result<Option<Vec<u8>>> {
    use io::Read as _;
    if len > FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    // It may grow while it is read, and `/proc`-like files say that they are empty.
    fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= FILE_BYTES_MAX))
}

fn parse_bytes(bytes: &[u8], file: &Path) -> Snapshot {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, file),
        Err(error) => {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|&&byte| byte == b'\n').count();
            let mut diagnostic =
                about_file(file, code::NOT_YAML, "the file is not UTF-8 text".to_owned(), "save it as UTF-8");
            diagnostic.origin.line = u32::try_from(line).unwrap_or(u32::MAX);
            Snapshot { objects: Vec::new(), diagnostics: vec![diagnostic] }
        }
    }
}

#[cfg(test)]
mod tests;
