//! What a thread of the proxy gives up before it reads the first byte of a client: all capabilities, for good.
//!
//! Its sockets are open, and what it still asks of the kernel needs none: accepting, connecting, and looking up flows in
//! maps that are open (`BPF_MAP_LOOKUP_ELEM` asks for access to the map, not for `CAP_BPF`).
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Takes all capabilities from the calling thread, and from those that it starts; nothing gives them back.
pub(super) fn give_up() -> io::Result<()> {
    let none = CapabilitySet::empty();
    // Without it a program of root's would have them again.
    set_no_new_privs(true)?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
