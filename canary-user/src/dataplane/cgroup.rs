//! Programs of a cgroup: they choose for processes, when these connect or send.
use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};

use super::attach::other;

/// All of them, after `canary_`. Those that choose come last: there is no moment at which a process gets an endpoint that
/// the others do not know.
const PROGRAMS: [&str; 8] =
    ["recvmsg4", "recvmsg6", "getpeername4", "getpeername6", "sendmsg4", "sendmsg6", "connect4", "connect6"];
/// What else is attached, for whose events every TCP socket of the cgroup pays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Also {
    /// Tell the proxy where connections were meant to go.
    pub(super) proxy: bool,
    /// Count what becomes of connections.
    pub(super) connections: bool,
}
/// Behind the name of a pin that is not in its place yet.
const NEW: &str = "%new";
/// `f_type` of cgroup v2: `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;

/// Number of a cgroup, which no other has after it; `None` when there is none at `path`.
pub(super) fn id(path: &str) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_dir().then_some(metadata.ino())
}

/// The programs, and the names of their pins. A bpffs takes neither dots nor slashes.
fn programs(path: &str, also: Also) -> impl Iterator<Item = (&'static str, String)> {
    let safe = path.replace('%', "%25").replace('.', "%2E").replace('/', "%2F");
    let also = [also.proxy.then_some("sockops"), also.connections.then_some("connections")];
    let all = also.into_iter().flatten().chain(PROGRAMS);
    all.map(move |name| (name, format!("{name}-{safe}")))
}

/// Names of the pins for a cgroup.
pub(super) fn pin_names(path: &str, also: Also) -> Vec<String> {
    programs(path, also).map(|(_, pin)| pin).collect()
}

/// Attaches to the cgroup at `path`; whether an earlier agent's programs were replaced. The old ones go when the new ones
/// are there: whom both see, the first has translated, and the second does not know the address any more.
pub(super) fn attach(ebpf: &mut Ebpf, links: &Path, path: &str, also: Also) -> Result<bool, ProgramError> {
    let cgroup = File::open(path)?;
    if !rustix::fs::fstatfs(&cgroup).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(CGROUP2)) {
        let what = format!("{path} is no directory of cgroup v2: `findmnt -t cgroup2` shows where they are");
        return Err(ProgramError::IOError(io::Error::other(what)));
    }
    let mut replaced = false;
    for (name, pin) in programs(path, also) {
        let link = link(ebpf, &format!("canary_{name}"), &cgroup)?;
        let (new, old) = (links.join(format!("{pin}{NEW}")), links.join(&pin));
        let _ = std::fs::remove_file(&new); // Of an agent that ended in the middle of this.
        link.pin(&new).map_err(other)?;
        replaced |= std::fs::remove_file(&old).is_ok();
        std::fs::rename(&new, &old)?;
    }
    Ok(replaced)
}

/// Attaches one program.
fn link(ebpf: &mut Ebpf, name: &str, cgroup: &File) -> Result<FdLink, ProgramError> {
    // Never `AllowMultiple`: links are that always, and refuse the flag.
    let mode = CgroupAttachMode::Single;
    match ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)? {
        Program::CgroupSockAddr(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            let link = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(link)?).map_err(other)
        }
        Program::SockOps(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            let link = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(link)?).map_err(other)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
