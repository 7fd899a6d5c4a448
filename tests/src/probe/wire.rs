//! Single frames on a cable: put there and taken from there byte by byte, VLAN tags included.
use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::Namespace;

/// The end of a cable.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

/// What the kernel took out of a frame before it showed it: `struct tpacket_auxdata`.
const TAG_IS_VALID: u32 = 1 << 4;
const TAG_KIND_IS_VALID: u32 = 1 << 6;

impl Wire {
    /// Opens an interface of a namespace. From now on frames that arrive there are kept for [`Wire::next`].
    ///
    /// # Errors
    /// When there is no such interface, or this process may not.
    pub fn new(namespace: &Namespace, interface: &str) -> Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        let socket = namespace.run(|| open(&name))?.with_context(|| format!("packet socket on {interface}"))?;
        Ok(Self { socket })
    }

    /// Puts a frame on the cable.
    ///
    /// # Errors
    /// When the interface refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the buffer is `frame`, for the time of the call.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        ensure!(usize::try_from(sent) == Ok(frame.len()), "send: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The next frame from the other end that `wanted` says yes to, as it was on the cable; `None` after a second.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn next(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            if let Some(frame) = self.receive()?
                && wanted(&frame)
            {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0_u8; 65_536];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut control = [0_u64; 16];
        // SAFETY: all zeros are valid for these plain structures.
        let (mut from, mut message) = unsafe { (zeroed::<libc::sockaddr_ll>(), zeroed::<libc::msghdr>()) };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = u32::try_from(size_of::<libc::sockaddr_ll>())?;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` points to buffers that outlive the call, with their sizes.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            ensure!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted), "recvmsg: {error}");
            return Ok(None);
        };
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            return Ok(None);
        }
        frame.truncate(length);
        if let Some((kind, tag)) = tag(&message) {
            let bytes = [kind.to_be_bytes(), tag.to_be_bytes()].concat();
            frame.splice(12..12, bytes);
        }
        Ok(Some(frame))
    }
}

/// The VLAN tag that the kernel took out, if it did.
fn tag(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `message` was filled by recvmsg; the macro checks its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: not null: the kernel wrote a header there.
    if header.is_null() || unsafe { (*header).cmsg_type } != libc::PACKET_AUXDATA {
        return None;
    }
    // SAFETY: a message of this type holds this structure, possibly unaligned.
    let aux = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    let kind = if aux.tp_status & TAG_KIND_IS_VALID == 0 { 0x8100 } else { aux.tp_vlan_tpid };
    (aux.tp_status & TAG_IS_VALID != 0).then_some((kind, aux.tp_vlan_tci))
}

fn open(interface: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    let check = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros are a valid address; `interface` is a C string.
    let (mut address, index) = unsafe { (zeroed::<libc::sockaddr_ll>(), libc::if_nametoindex(interface.as_ptr())) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = all;
    address.sll_ifindex = index.cast_signed();
    let on: i32 = 1;
    let wait = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or_default();
    // SAFETY: pointers to values of the sizes given, which live through the calls.
    unsafe {
        let aux = (&raw const on).cast();
        check(libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, aux, size(size_of::<i32>())))?;
        let wait: *const libc::c_void = (&raw const wait).cast();
        check(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, wait, size(size_of::<libc::timeval>())))?;
        check(libc::bind(fd, (&raw const address).cast(), size(size_of::<libc::sockaddr_ll>())))?;
    }
    Ok(socket)
}

/// The address of an interface.
///
/// # Errors
/// When there is no such interface.
pub fn mac(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = namespace.call("ip", &["-json", "link", "show", interface])?;
    let value: Value = serde_json::from_str(&text)?;
    let address = value.pointer("/0/address").and_then(Value::as_str).context("no address")?;
    let bytes: Vec<u8> = address.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("address `{address}`"))
}

/// A frame as [`canary_common::host::frame`] makes it, between these two interfaces.
#[must_use]
pub fn between(mut frame: Vec<u8>, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    frame.splice(..12, to.into_iter().chain(from));
    frame
}
