//! What the agent asks about network interfaces.
use std::{ffi::CString, mem::size_of};

/// Index of an interface in this network namespace; `None` when there is none of that name.
pub(crate) fn index(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: a NUL-terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Name of the interface with an index in this network namespace.
pub(crate) fn name(index: u32) -> Option<String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::index_to_name(socket, index).ok()
}

/// Names of the interfaces in this network namespace; none when /proc is not there.
pub(crate) fn names() -> Vec<String> {
    // Of this thread, whose namespace need not be that of the process; two lines of headings.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table.lines().skip(2).filter_map(|line| Some(line.rsplit_once(':')?.0.trim().to_owned())).collect()
}

/// `struct ethtool_drvinfo` (linux/ethtool.h), as far as it is looked at.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196, "the kernel writes as much");

/// Name of an interface's driver, such as `veth`; `None` when the kernel does not say. (sysfs would show the interfaces
/// of the namespace that mounted it.)
pub(crate) fn driver(interface: &str) -> Option<String> {
    const GET_DRIVER_INFO: u32 = 3;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the buffer has the size that the command writes, and outlives the call.
    unsafe { ask(interface, SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = (&raw mut info).cast()) }?;
    let end = info.driver.iter().position(|&byte| byte == 0)?;
    String::from_utf8(info.driver.get(..end)?.to_vec()).ok()
}

/// Hardware types with Ethernet headers: `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of `linux/if_arp.h`.
pub(crate) const ETHERNET: [u16; 2] = [1, 772];

/// Hardware type of an interface: `ARPHRD_*`; `None` when there is no such interface.
pub(crate) fn hardware(interface: &str) -> Option<u16> {
    const SIOCGIFHWADDR: libc::Ioctl = 0x8927;
    // SAFETY: the command writes into the request itself.
    let request = unsafe { ask(interface, SIOCGIFHWADDR, |_| ()) }?;
    // SAFETY: the command has written an address there.
    Some(unsafe { request.ifr_ifru.ifru_hwaddr }.sa_family)
}

/// An ioctl about an interface.
///
/// # Safety
/// What `fill` points to has the size that `command` reads and writes, and outlives the call.
unsafe fn ask(interface: &str, command: libc::Ioctl, fill: impl FnOnce(&mut libc::ifreq)) -> Option<libc::ifreq> {
    // Not bound: a loopback may have no address for that.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    let room = request.ifr_name.get_mut(..name.len()).filter(|_| name.len() < libc::IFNAMSIZ)?;
    for (to, from) in room.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    fill(&mut request);
    // SAFETY: `request` names an interface; the rest is promised by the caller.
    let done = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), command, &raw mut request) };
    (done == 0).then_some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_an_index_and_nothing_else_does() {
        assert_eq!(index("lo"), Some(1));
        assert_eq!(index("no-such-thing"), None);
        assert_eq!(driver("no-such-thing"), None);
        assert_eq!((hardware("lo"), hardware("no-such-thing")), (Some(772), None));
        assert!(names().contains(&"lo".to_owned()), "{:?}", names());
    }
}
