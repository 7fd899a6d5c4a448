//! One agent per pin directory, state directory and socket: locks that the kernel drops when their holder dies.
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why the place is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another canary agent{} is running on {what} {path}", holder.as_deref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// What is locked: `socket`, `state directory`, `pin directory`.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Process id of the holder, when it wrote one.
        holder: Option<String>,
    },
    /// The place cannot be used.
    #[error("cannot use {what} {path}")]
    Io {
        /// What it is.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that is not a socket is where ours should be.
    #[error("{path} exists and is not a socket: move it away, or give another --socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
}

/// A lock, held while this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Locks a file beside (or in) `what`; the file stays, only the lock goes.
///
/// # Errors
/// When another process holds it or the file cannot be made.
pub fn file(what: &'static str, subject: &Path, lock: &Path) -> Result<Lock, LockError> {
    let io = |source| LockError::Io { what, path: lock.into(), source };
    if let Some(parent) = lock.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(lock).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message: the lock is what counts.
            let holder =
                file.read_to_string(&mut pid).ok().map(|_| pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(LockError::Held { what, path: subject.into(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(Lock { _file: file })
}

/// Locks a directory itself: a bpffs holds no ordinary files.
///
/// # Errors
/// When another process holds it or the directory cannot be made.
pub fn directory(what: &'static str, path: &Path) -> Result<Lock, LockError> {
    let io = |source| LockError::Io { what, path: path.into(), source };
    fs::create_dir_all(path).map_err(io)?;
    let file = File::open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LockError::Held { what, path: path.into(), holder: None }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// The lock file of a socket.
#[must_use]
pub fn beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Removes a socket that a dead agent left. Call it with the socket's lock held: then nobody listens there.
///
/// # Errors
/// When something else is there, or it cannot be removed.
pub fn remove_stale(socket: &Path) -> Result<(), LockError> {
    let io = |source| LockError::Io { what: "socket", path: socket.into(), source };
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(socket).map_err(io),
        Ok(_) => Err(LockError::NotASocket { path: socket.into() }),
    }
}

/// A socket that is removed when this is dropped. Drop it before its lock.
#[derive(Debug)]
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next agent removes what stays.
        let _ = remove_stale(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let first = file("socket", &socket, &beside(&socket)).unwrap();
        let second = file("socket", &socket, &beside(&socket)).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(second, format!("another canary agent (pid {pid}) is running on socket {}", socket.display()));
        drop(first);
        file("socket", &socket, &beside(&socket)).unwrap();
    }

    #[test]
    fn a_directory_is_locked_without_a_file_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = directory("pin directory", dir.path()).unwrap();
        assert!(matches!(directory("pin directory", dir.path()), Err(LockError::Held { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(first);
        directory("pin directory", dir.path()).unwrap();
    }

    #[test]
    fn only_a_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        remove_stale(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(remove_stale(&path), Err(LockError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        remove_stale(&path).unwrap();
        assert!(!path.exists());
    }
}
