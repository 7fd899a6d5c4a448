//! Replaces a file at once: a reader sees the old text or the new one, also after a crash.
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Mode of a file that did not exist.
const NEW_FILE_MODE: u32 = 0o644;
/// Links to follow before a path counts as a cycle; what Linux allows.
const LINKS_MAX: usize = 40;

/// Why a file was not replaced. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source} (the file is as it was)", path = path.display())]
pub struct WriteError {
    /// What failed.
    pub step: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Gives `path` the content `text`, in one step. A link stays a link: the file that it names is replaced. The mode is
/// kept, and so is the owner where we may.
///
/// # Errors
/// When the directory cannot be written to, or the disk is full.
pub fn replace(path: &Path, text: &str) -> Result<(), WriteError> {
    let target = follow(path)?;
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { step, path, source }
    };
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let before = match fs::metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &target)(error)),
    };
    // Hidden, so that a source which reads the directory meanwhile does not take it for configuration.
    let mut file = tempfile::Builder::new()
        .prefix(".canary-")
        .suffix(".tmp")
        .tempfile_in(directory)
        .map_err(failed("create a file in", directory))?;
    file.write_all(text.as_bytes()).map_err(failed("write to", directory))?;
    let mode = before.as_ref().map_or(NEW_FILE_MODE, |metadata| metadata.mode() & 0o7777);
    if let Some(before) = &before {
        let now = file.as_file().metadata().map_err(failed("read", file.path()))?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            // Only root may give files away. Whoever may write here gets the same effect by hand, so go on.
            let _ = fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
        }
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", &target))?;
    file.as_file().sync_all().map_err(failed("write to", directory))?;
    file.persist(&target).map_err(|error| failed("replace", &target)(error.error))?;
    // The rename is durable when the directory is.
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))
}

/// The file at the end of the links.
fn follow(path: &Path) -> Result<PathBuf, WriteError> {
    let failed = |source| WriteError { step: "follow the link", path: path.to_owned(), source };
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        if !fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(target);
        }
        let link = fs::read_link(&target).map_err(failed)?;
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    Err(failed(io::Error::other("too many links")))
}

#[cfg(test)]
mod tests;
