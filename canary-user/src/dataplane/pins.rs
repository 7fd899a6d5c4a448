//! What is pinned: a directory for each layout of maps, with links and programs in directories of their own.
use std::path::{Path, PathBuf};

use canary_common::abi;

use super::{DataplaneError, attach};

/// Directory of this layout's pins: another layout is another directory.
pub(super) fn layout_directory(pin: &Path) -> PathBuf {
    pin.join(format!("v{}", abi::LAYOUT))
}

fn layouts(pin: &Path) -> impl Iterator<Item = PathBuf> {
    let all = attach::pins(pin).into_iter().filter(|(name, path)| name.starts_with('v') && path.is_dir());
    all.map(|(_, layout)| layout)
}

/// Removes programs, maps and links pinned under `pin`, links first; also a clsact filter whose mark is lost. Says what it
/// removed: pins, and where the mark of such a filter would be.
///
/// # Errors
/// When a pin cannot be removed.
pub fn detach(pin: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let mut removed = Vec::new();
    for layout in layouts(pin) {
        // First, because the maps tell which filters are ours.
        removed.extend(attach::remove_unmarked(pin, &layout.join("links")));
        remove(&layout, &mut removed, attach::unlink)?;
    }
    let _ = std::fs::remove_dir(pin);
    Ok(removed)
}

/// Ends what agents of other layouts have left, whose programs would go on to decide by tables that nobody writes any more.
/// `links` are those that are attached now. What cannot be removed is said.
pub(super) fn take_over(pin: &Path, links: &Path) {
    for layout in layouts(pin).filter(|layout| !links.starts_with(layout)) {
        // A filter that stands in the place of an old one has a mark of that name, too.
        let unlink = |name: &str, path: &Path| {
            if links.join(name).exists() { attach::unpin(path) } else { attach::unlink(name, path) }
        };
        match remove(&layout, &mut Vec::new(), unlink) {
            Ok(()) => tracing::info!("programs and maps of another layout are gone: {}", layout.display()),
            Err(error) => {
                tracing::warn!("another layout stays: {}; try `canary detach`", crate::diagnostic::chain(&error));
            }
        }
    }
}

fn remove(
    layout: &Path,
    removed: &mut Vec<PathBuf>,
    unlink: impl Fn(&str, &Path) -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    for directory in [&layout.join("links"), &layout.join("programs"), layout] {
        for (name, path) in attach::pins(directory).into_iter().filter(|(_, path)| !path.is_dir()) {
            unlink(&name, &path)?;
            removed.push(path);
        }
        // One that others put something into stays.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

/// Lets go of what was counted of connections: while nobody counts, their ends are missed, and what was open would be so
/// for ever.
pub(super) fn forget_connections(layout: &Path) {
    for map in ["CONNECTIONS", "CONNECTION_COUNTS", "OPEN_CONNECTIONS"] {
        let _ = std::fs::remove_file(layout.join(map)); // The programs of an earlier agent keep theirs.
    }
}
