//! What the kernel says about the filters of an interface, by netlink: aya attaches filters, and does not list them.
use std::io;

use aya::programs::TcAttachType;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

/// A filter that runs a BPF program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// Name that it was given, such as `canary_in`.
    pub(super) name: String,
    /// Id of its program.
    pub(super) program: u32,
}

const HEADER: usize = 16; // struct nlmsghdr of linux/netlink.h
const TC: usize = 20; // struct tcmsg of linux/rtnetlink.h
const ATTRIBUTE: usize = 4; // struct nlattr of linux/netlink.h
/// Attributes of linux/rtnetlink.h and `linux/pkt_cls.h`.
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// The BPF filter at one place of the clsact qdisc; `None` where there is none, or one of another kind.
///
/// # Errors
/// When the kernel refuses to say, or says what cannot be read.
pub(super) fn at(index: u32, side: TcAttachType, priority: u16, handle: u32) -> io::Result<Option<Filter>> {
    // The default protocol is NETLINK_ROUTE.
    let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&kernel, &request(index, side), SendFlags::empty())?;
    // As large as the kernel makes its answers; there are as many as it takes.
    let mut buffer = vec![0; 32 << 10];
    let mut found = None;
    loop {
        let (length, _) = recv(&kernel, &mut *buffer, RecvFlags::empty())?;
        let mut rest = buffer.get(..length).filter(|all| !all.is_empty()).ok_or_else(unreadable)?;
        while !rest.is_empty() {
            let kind = u16_at(rest, 4).ok_or_else(unreadable)?;
            let (message, next) = block(rest, u32_at(rest, 0).map(|it| it as usize), HEADER)?;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => {
                    let error = u32_at(message, 0).ok_or_else(unreadable)?.cast_signed();
                    return Err(io::Error::from_raw_os_error(-error));
                }
                _ if kind == libc::RTM_NEWTFILTER && place(message) == Some((priority, handle)) => {
                    found = found.or(filter(message.get(TC..).ok_or_else(unreadable)?)?);
                }
                _ => {}
            }
            rest = next;
        }
    }
}

/// Asks for all filters of one side.
fn request(index: u32, side: TcAttachType) -> Vec<u8> {
    // TC_H_CLSACT and TC_H_MIN_INGRESS or TC_H_MIN_EGRESS of linux/pkt_sched.h.
    let parent: u32 = if side == TcAttachType::Egress { 0xffff_fff3 } else { 0xffff_fff2 };
    #[expect(clippy::cast_possible_truncation, reason = "flags of 16 bits")]
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let length = u32::try_from(HEADER + TC).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER + TC);
    request.extend(length.to_ne_bytes());
    request.extend(libc::RTM_GETTFILTER.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and port, which matter to those who ask twice; then family, padding, interface, handle.
    for word in [0, 0, 0, index, 0, parent, 0] {
        request.extend(word.to_ne_bytes());
    }
    request
}

/// Priority and handle of a filter.
fn place(message: &[u8]) -> Option<(u16, u32)> {
    // The upper half is the priority, the lower one the protocol.
    let priority = u16::try_from(u32_at(message, 16)? >> 16).ok()?;
    Some((priority, u32_at(message, 8)?))
}

/// The filter that attributes describe; `None` for one without a BPF program.
fn filter(attributes: &[u8]) -> io::Result<Option<Filter>> {
    let Some(options) = attribute(attributes, TCA_OPTIONS)? else { return Ok(None) };
    let Some(program) = attribute(options, TCA_BPF_ID)?.and_then(|id| u32_at(id, 0)) else { return Ok(None) };
    let name = attribute(options, TCA_BPF_NAME)?.unwrap_or_default();
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(Some(Filter { name: String::from_utf8_lossy(name).into_owned(), program }))
}

/// Content of the first attribute of a kind.
fn attribute(mut rest: &[u8], wanted: u16) -> io::Result<Option<&[u8]>> {
    // The upper two bits are flags.
    const KIND: u16 = 0x3fff;
    while !rest.is_empty() {
        let kind = u16_at(rest, 2).ok_or_else(unreadable)? & KIND;
        let (content, next) = block(rest, u16_at(rest, 0).map(usize::from), ATTRIBUTE)?;
        if kind == wanted {
            return Ok(Some(content));
        }
        rest = next;
    }
    Ok(None)
}

/// Cuts the first block of `length` off, without its header; blocks begin at multiples of four bytes.
fn block(all: &[u8], length: Option<usize>, header: usize) -> io::Result<(&[u8], &[u8])> {
    let length = length.ok_or_else(unreadable)?;
    let content = all.get(header..length).ok_or_else(unreadable)?;
    Ok((content, all.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about filters cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute with its header, padded.
    fn attribute_of(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE + content.len()).unwrap();
        let mut all = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        all.extend(content);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    #[test]
    fn a_filter_is_read_and_a_cut_one_is_an_error_or_none() {
        let name = attribute_of(TCA_BPF_NAME, b"canary_in\0");
        let id = attribute_of(TCA_BPF_ID, &7_u32.to_ne_bytes());
        // NLA_F_NESTED, as newer kernels set it.
        let options = attribute_of(TCA_OPTIONS | 0x8000, &[name, id].concat());
        let all = [attribute_of(1, b"bpf\0"), options].concat();
        let expected = Filter { name: "canary_in".into(), program: 7 };
        assert_eq!(filter(&all).unwrap(), Some(expected));
        for cut in 0..all.len() {
            let read = filter(&all[..cut]);
            assert!(matches!(read, Ok(None) | Err(_)), "cut at {cut}: {read:?}");
        }
        assert!(filter(&[0; 8]).is_err(), "a block of no length would be read for ever");
    }
}
