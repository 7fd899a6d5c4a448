//! What a node's kernel would do with our programs, and which programs of others are at the same hooks. Changes nothing.
use std::{collections::BTreeMap, fs::File, io, os::fd::AsRawFd as _, path::Path};

use aya::{
    EbpfLoader,
    programs::{
        Program, ProgramError,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{OBJECT, attach, device, direct};
use crate::diagnostic::chain;

/// What the kernel says to our programs, by what they are for: nothing, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Programs of cgroups.
    pub sockets: Option<String>,
    /// Programs of interfaces, hook tc.
    pub tc: Option<String>,
    /// Those of hook xdp.
    pub xdp: Option<String>,
}

/// A program that is attached to something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Such as `connect4`, `tcx-ingress`, `xdp`.
    pub hook: &'static str,
    /// Interface, or path of the cgroup.
    pub place: String,
    /// Its name, which begins with [`PREFIX`] if it is ours; `None` when it has none, or this process may not ask (`CAP_SYS_ADMIN`).
    pub name: Option<String>,
}

/// How the names of our programs begin, and of nobody else's.
pub const PREFIX: &str = "canary_";
/// `BPF_PROG_QUERY` of linux/bpf.h.
const PROG_QUERY: libc::c_long = 16;
/// Of `enum bpf_attach_type`, those where we attach.
const CGROUP: [(&str, u32); 9] = [
    ("sockops", 3),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
];
const TCX: [(&str, u32); 2] = [("tcx-ingress", 46), ("tcx-egress", 47)];
/// More programs than the kernel takes at one place.
const PROGRAMS_MAX: usize = 64;

/// Maps that take megabytes each: here they hold nothing.
const LARGE: [&str; 11] = [
    "FLOWS",
    "TRANSIENT",
    "MEMBERS",
    "ENDPOINT_COUNTS",
    "NODES",
    "SOCKETS",
    "ORIGINS",
    "ENDPOINTS",
    "VERSION_COUNTS",
    "CONNECTION_COUNTS",
    "OPEN_CONNECTIONS",
];

/// The part of `union bpf_attr` (linux/bpf.h) for a query that every kernel knows.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
}

/// Loads our programs, with small maps, and lets go of them again. Nothing is attached or pinned.
///
/// # Errors
/// When not even the maps can be had; says why.
pub fn trial() -> Result<Trial, String> {
    let mut loader = EbpfLoader::new();
    for map in LARGE {
        loader.map_max_entries(map, 2);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| chain(&error))?;
    let mut trial = Trial { sockets: None, tc: None, xdp: None };
    for (name, program) in ebpf.programs_mut() {
        let (answer, field) = match program {
            Program::CgroupSockAddr(it) => (it.load(), &mut trial.sockets),
            Program::SockOps(it) => (it.load(), &mut trial.sockets),
            Program::SchedClassifier(it) => (it.load(), &mut trial.tc),
            Program::Xdp(it) => (it.load(), &mut trial.xdp),
            _ => continue,
        };
        if let (Err(error), None) = (answer, &field) {
            let why = match error {
                // Without the verifier's log, which has thousands of lines.
                ProgramError::LoadError { io_error, .. } => io_error.to_string(),
                error => chain(&error),
            };
            *field = Some(format!("{name}: {why}"));
        }
    }
    Ok(trial)
}

/// Programs at a cgroup, at the hooks where ours go. `pin` is the directory of our pins.
///
/// # Errors
/// When there is no such cgroup, or the kernel does not say.
pub fn at_cgroup(path: &Path, pin: &Path) -> io::Result<Vec<Standing>> {
    let cgroup = File::open(path)?;
    let names = names(pin);
    let mut found = Vec::new();
    for (hook, attach_type) in CGROUP {
        for id in query(cgroup.as_raw_fd().cast_unsigned(), attach_type)? {
            found.push(Standing { hook, place: path.display().to_string(), name: names.get(&id).cloned() });
        }
    }
    Ok(found)
}

/// Programs at the interfaces of this network namespace: XDP, and TCX where the kernel has it. (Filters of clsact are not listed.)
/// `pin` is the directory of our pins.
///
/// # Errors
/// When the kernel does not say.
pub fn at_interfaces(pin: &Path) -> io::Result<Vec<Standing>> {
    let names = names(pin);
    let standing = |hook, place: &str, id| Standing { hook, place: place.to_owned(), name: names.get(&id).cloned() };
    let mut found = Vec::new();
    for (interface, id) in xdp()? {
        found.push(standing("xdp", &interface, id));
    }
    for interface in device::names() {
        let Some(index) = device::index(&interface) else { continue };
        for (hook, attach_type) in TCX {
            match query(index, attach_type) {
                Ok(ids) => found.extend(ids.into_iter().map(|id| standing(hook, &interface, id))),
                // A kernel without TCX, or an interface that is gone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Whether an interface has Ethernet headers, which our programs begin with.
#[must_use]
pub fn is_ethernet(interface: &str) -> bool {
    device::hardware(interface).is_some_and(|kind| device::ETHERNET.contains(&kind))
}

/// Ids of the programs attached to a cgroup (a descriptor) or an interface (an index).
fn query(target: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attr = Query {
        target,
        attach_type,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or_default(),
        pad: 0,
    };
    // SAFETY: `attr` has the size that is given, and `ids` has room for as many as it says; both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut attr, size_of::<Query>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.iter().take(attr.count as usize).copied().collect())
}

/// Names of programs by id: of all that this process may list, and of ours by their pins, which need no more than those.
fn names(pin: &Path) -> BTreeMap<u32, String> {
    let layouts = attach::pins(pin).into_iter().map(|(_, layout)| layout.join("links"));
    let ours = layouts.flat_map(|links| attach::pins(&links)).filter_map(|(name, path)| {
        let link = FdLink::from(PinnedLink::from_pin(path).ok()?);
        Some((link.info().ok()?.program_id(), format!("{PREFIX}{name}")))
    });
    let known = loaded_programs().map_while(Result::ok);
    let known = known.filter_map(|it| Some((it.id(), it.name_as_str().filter(|name| !name.is_empty())?.to_owned())));
    ours.chain(known).collect()
}

/// Interfaces with an XDP program: name, and id of the program.
fn xdp() -> io::Result<Vec<(String, u32)>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut answers = Vec::new();
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    direct::ask(&socket, all, NLM_F_REQUEST | NLM_F_DUMP, &mut answers)?;
    let of = |link: LinkMessage| {
        let id = link.attributes.iter().find_map(|it| match it {
            LinkAttribute::Xdp(all) => all.iter().find_map(|it| match it {
                LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                _ => None,
            }),
            _ => None,
        })?;
        let name = link.attributes.iter().find_map(|it| match it {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        Some((name, id))
    };
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => of(link),
        _ => None,
    });
    Ok(links.collect())
}
