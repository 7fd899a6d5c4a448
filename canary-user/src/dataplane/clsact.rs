//! TC without TCX (before Linux 6.6): filters of the clsact qdisc. A filter has no pin, but outlives the agent by itself;
//! a pin of its program under the directory of links marks it, so that `canary detach` finds it.
use std::path::Path;

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::Link,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

/// Where canary's filter stands among others: early, and always at the same place, so that the next agent finds it.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0xca);

/// Attaches, or replaces the filter that an earlier agent left. Returns whether there was one.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
    mark: &Path,
) -> Result<bool, ProgramError> {
    // Fails when it is there already; if it failed for another reason, attaching says so.
    let _ = qdisc_add_clsact(interface);
    let found = mark.exists();
    // Before the filter: whoever dies in between leaves a mark without a filter, which the next one replaces, and not a
    // filter that nobody knows.
    let _ = std::fs::remove_file(mark);
    program.pin(mark).map_err(|error| ProgramError::IOError(std::io::Error::other(error)))?;
    let replaced = found
        && SchedClassifierLink::attached(interface, side, PRIORITY, HANDLE, None)
            .map_err(ProgramError::IOError)
            .and_then(|link| program.attach_to_link(link))
            .and_then(|id| program.take_link(id))
            .map(std::mem::forget) // Dropping a link of this kind removes the filter.
            .is_ok();
    if !replaced {
        let place = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        let id = program.attach_with_options(interface, side, TcAttachOptions::Netlink(place))?;
        std::mem::forget(program.take_link(id)?);
    }
    Ok(replaced)
}

/// Removes the filter; one that is gone is fine.
pub(super) fn detach(interface: &str, side: TcAttachType) {
    if let Ok(link) = SchedClassifierLink::attached(interface, side, PRIORITY, HANDLE, None) {
        let _ = link.detach();
    }
}
