//! TC without TCX (before Linux 6.6): filters of the clsact qdisc. A filter has no pin, but outlives the agent by itself;
//! a pin of its program under the directory of links marks it, so that `canary detach` finds it.
use std::{io, path::Path};

use aya::{
    maps::MapInfo,
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        links::Link,
        loaded_programs,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use super::{attach::pins, device, filters, survey::PREFIX};

/// Where canary's filter stands among others: early, and always at the same place, so that the next agent finds it.
const PRIORITY: u16 = 1;
const MINOR: u16 = 0xca;
const HANDLE: TcHandle = TcHandle::new(0, MINOR);

/// Whose filter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Its program uses maps that are pinned in our directory.
    Us,
    /// It has the name of a program of ours, and this process may not ask for its maps (`CAP_SYS_ADMIN`).
    Unknown,
    /// Another program, or another canary.
    Other,
}

/// The place of our filter is taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "the filter `{name}` of somebody else is where canary's goes: `canary detach --pin DIR` removes that of another \
     canary, `tc filter del dev {interface} {side} pref {PRIORITY}` any other"
)]
struct Taken {
    interface: String,
    side: &'static str,
    name: String,
}

/// Attaches, or replaces the filter that an earlier agent left, with `mark` or without. Returns whether there was one.
/// `pin` is the directory of all our pins.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
    mark: &Path,
    pin: &Path,
) -> Result<bool, ProgramError> {
    // Fails when it is there already; if it failed for another reason, attaching says so.
    let _ = qdisc_add_clsact(interface);
    let there = find(interface, side, pin).map_err(ProgramError::IOError)?;
    if let Some((name, Owner::Other)) = there {
        let side = if side == TcAttachType::Egress { "egress" } else { "ingress" };
        let taken = Taken { interface: interface.into(), side, name };
        return Err(ProgramError::IOError(io::Error::new(io::ErrorKind::AlreadyExists, taken)));
    }
    // Marked before it is there: who dies in between leaves a mark without a filter, and no filter without a mark.
    let _ = std::fs::remove_file(mark);
    program.pin(mark).map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    let id = if there.is_some() {
        let link = SchedClassifierLink::attached(interface, side, PRIORITY, HANDLE, None);
        program.attach_to_link(link.map_err(ProgramError::IOError)?)?
    } else {
        let place = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        program.attach_with_options(interface, side, TcAttachOptions::Netlink(place))?
    };
    std::mem::forget(program.take_link(id)?); // Dropping a link of this kind removes the filter.
    Ok(there.is_some())
}

/// Removes the filter that a mark in the directory `pin` stands for, unless somebody else's is there; one that is gone
/// is fine.
pub(super) fn detach(interface: &str, side: TcAttachType, pin: &Path) {
    if matches!(find(interface, side, pin), Ok(Some((_, Owner::Us | Owner::Unknown)))) {
        remove(interface, side);
    }
}

/// Removes the filter if its program uses the maps in the directory `pin`: nothing else than us then, marked or not.
/// Returns whether there was one.
pub(super) fn detach_ours(interface: &str, side: TcAttachType, pin: &Path) -> bool {
    matches!(find(interface, side, pin), Ok(Some((_, Owner::Us)))) && remove(interface, side)
}

fn remove(interface: &str, side: TcAttachType) -> bool {
    SchedClassifierLink::attached(interface, side, PRIORITY, HANDLE, None).is_ok_and(|link| link.detach().is_ok())
}

/// The filter at our place: its name, and whose it is.
fn find(interface: &str, side: TcAttachType, pin: &Path) -> io::Result<Option<(String, Owner)>> {
    let Some(index) = device::index(interface) else { return Ok(None) };
    let there = filters::at(index, side, PRIORITY, MINOR.into())?;
    Ok(there.map(|filter| {
        let owner = if filter.name.starts_with(PREFIX) { owner(filter.program, pin) } else { Owner::Other };
        (filter.name, owner)
    }))
}

fn owner(program: u32, pin: &Path) -> Owner {
    let info = loaded_programs().flatten().find(|info| info.id() == program);
    let Some(used) = info.and_then(|info| info.map_ids().ok().flatten()) else { return Owner::Unknown };
    // Of every layout: the agent of another one was ours as well.
    let maps = pins(pin).into_iter().flat_map(|(_, layout)| pins(&layout));
    let mut ids = maps.filter_map(|(_, path)| Some(MapInfo::from_pin(path).ok()?.id()));
    if ids.any(|id| used.contains(&id)) { Owner::Us } else { Owner::Other }
}
