//! The steps of the long way, as global functions.
//!
//! A global function is verified once, by itself: inlined into every way that leads to it, the life of flows and the
//! choice of a new one would exceed a million verified instructions. Called one after the other, not one by the other,
//! for the stacks of a chain of calls must not exceed 512 bytes. Scalars only, so that LLVM keeps the signature.
use canary_common::{
    packet::Headers,
    pipeline::{Steps, choose_endpoint, choose_version, find_flow},
    verdict::Leave,
};

use crate::tables::{DRY, LIVE, Maps};

/// What the global functions below return: done; no flow is known; or 2 + the reason why the packet is left alone.
const DONE: u32 = 0;
const UNKNOWN: u32 = 1;

/// What a step has come to: is it done?
#[inline(always)]
fn stepped(step: u32) -> Result<bool, Leave> {
    if step > UNKNOWN { Err(Leave::from_number(step - 2)) } else { Ok(step == DONE) }
}

/// Runs a step of the pipeline on the headers in the scratch.
#[inline(always)]
fn step<const MODE: u8>(run: impl FnOnce(Maps<MODE>) -> Result<bool, Leave>) -> u32 {
    let Some(maps) = Maps::<MODE>::new() else { return UNKNOWN };
    match run(maps) {
        Ok(true) => DONE,
        Ok(false) => UNKNOWN,
        Err(leave) => 2 + leave as u32,
    }
}

#[inline(always)]
fn find<const MODE: u8>(now: u32) -> u32 {
    step::<MODE>(|maps| find_flow(&maps, maps.headers(), now))
}

#[inline(always)]
fn version<const MODE: u8>(now: u32) -> u32 {
    step::<MODE>(|maps| {
        maps.keep_choice(choose_version(&maps, maps.headers(), now)?);
        Ok(true)
    })
}

#[inline(always)]
fn endpoint<const MODE: u8>(now: u32) -> u32 {
    step::<MODE>(|maps| choose_endpoint(&maps, maps.headers(), maps.choice(), now).map(|()| true))
}

/// [`find_flow`] for traffic.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_live(now: u32) -> u32 {
    find::<LIVE>(now)
}

/// [`find_flow`] for dry runs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_dry(now: u32) -> u32 {
    find::<DRY>(now)
}

/// [`choose_version`] for traffic.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn version_live(now: u32) -> u32 {
    version::<LIVE>(now)
}

/// [`choose_version`] for dry runs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn version_dry(now: u32) -> u32 {
    version::<DRY>(now)
}

/// [`choose_endpoint`] for traffic.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn endpoint_live(now: u32) -> u32 {
    endpoint::<LIVE>(now)
}

/// [`choose_endpoint`] for dry runs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn endpoint_dry(now: u32) -> u32 {
    endpoint::<DRY>(now)
}

impl<const MODE: u8> Steps for Maps<MODE> {
    #[inline(always)]
    fn find_flow(&self, _: &Headers, now: u32) -> Result<bool, Leave> {
        stepped(if MODE == LIVE { find_live(now) } else { find_dry(now) })
    }
    #[inline(always)]
    fn admit(&self, _: &Headers, now: u32) -> Result<(), Leave> {
        stepped(if MODE == LIVE { version_live(now) } else { version_dry(now) })?;
        stepped(if MODE == LIVE { endpoint_live(now) } else { endpoint_dry(now) })?;
        Ok(())
    }
}
