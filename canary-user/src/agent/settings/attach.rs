//! Places to attach to, as they are written: `tc:eth0`, `cgroup:/sys/fs/cgroup`.
use serde::{Deserialize as _, Deserializer};

use crate::dataplane::{Attach, Hook};

/// Reads `xdp:eth0`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_attach(text: &str) -> Result<Attach, String> {
    let expected = || format!("`{text}` is not HOOK:IFACE such as `xdp:eth0` or `tc:eth0`, or `cgroup:/sys/fs/cgroup`");
    let (hook, interface) = text.split_once(':').ok_or_else(expected)?;
    let hook = match hook {
        "xdp" => Hook::Xdp,
        "tc" => Hook::Tc,
        "clsact" => Hook::Clsact,
        "cgroup" if interface.starts_with('/') => {
            return Ok(Attach { hook: Hook::Cgroup, interface: interface.into() });
        }
        "cgroup" => return Err(format!("`{interface}` is not the path of a cgroup, such as /sys/fs/cgroup")),
        _ => return Err(expected()),
    };
    // 15 characters is what the kernel stores (IFNAMSIZ minus the final zero).
    if interface.is_empty() || interface.len() > 15 || interface.contains(['/', ' ']) {
        return Err(format!("`{interface}` is not the name of an interface"));
    }
    if interface.matches('*').count() > 1 {
        return Err(format!("`{interface}` has more than one `*`"));
    }
    Ok(Attach { hook, interface: interface.into() })
}

/// A list of them.
pub(super) fn attach_list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Attach>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| parse_attach(text).map_err(serde::de::Error::custom)).collect()
}
