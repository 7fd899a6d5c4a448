//! The host itself: kernel, file systems, rights, interfaces.
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Check, Verdict};
use crate::dataplane::Features;

/// Linux from which sockets work: `bpf_set_retval`.
const SOCKETS: (u32, u32) = (6, 1);
/// Linux from which interfaces work: what the programs need of the verifier.
const INTERFACES: (u32, u32) = (5, 15);
/// What the agent needs of root's powers: (bit of linux/capability.h, name).
const POWERS: [(u32, &str); 3] = [(12, "NET_ADMIN"), (38, "PERFMON"), (39, "BPF")];

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, verdict, found: found.into(), remedy: remedy.into() }
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn kernel(release: &str) -> Check {
    let name = "kernel";
    match version(release) {
        Some(it) if it >= SOCKETS => check(name, Verdict::Fine, release, ""),
        Some(it) if it >= INTERFACES => check(
            name,
            Verdict::Limited,
            release,
            "sockets need Linux 6.1: attach to interfaces, or use a newer kernel",
        ),
        Some(_) => check(name, Verdict::Missing, release, "use Linux 6.1, or 5.15 for interfaces only"),
        None => check(name, Verdict::Limited, release, "this is no release of Linux: what it can do is said below"),
    }
}

/// What the kernel said of one kind of programs.
fn supported(name: &'static str, said: &Result<bool, String>, without: Verdict, remedy: String) -> Check {
    match said {
        Ok(true) => check(name, Verdict::Fine, "the kernel takes them", ""),
        Ok(false) => check(name, without, "the kernel does not take them", remedy),
        Err(why) => check(name, Verdict::Limited, format!("not told: {why}"), "ask as root, or with CAP_BPF"),
    }
}

pub(super) fn interfaces(features: &Features) -> Check {
    let remedy = "a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_XDP_SOCKETS or newer";
    supported("programs at interfaces", &features.interfaces, Verdict::Missing, remedy.into())
}

pub(super) fn sockets(features: &Features, release: &str) -> Check {
    let remedy = format!("attach to interfaces; sockets need Linux 6.1 with CONFIG_CGROUP_BPF (this is {release})");
    supported("programs at sockets", &features.sockets, Verdict::Limited, remedy)
}

pub(super) fn btf(root: &Path) -> Check {
    let found = if root.join("sys/kernel/btf/vmlinux").exists() { "there" } else { "not there" };
    check("BTF", Verdict::Fine, format!("{found} (canary does not need it)"), "")
}

/// A mount: its place and its type.
#[derive(Debug)]
pub(super) struct Mount {
    place: PathBuf,
    kind: String,
}

/// The mounts that this process sees.
pub(super) fn mounts(proc: &Path) -> Vec<Mount> {
    let text = fs::read_to_string(proc.join("self/mounts")).unwrap_or_default();
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        Some(Mount { place: fields.next()?.into(), kind: fields.next()?.to_owned() })
    };
    text.lines().filter_map(mount).collect()
}

pub(super) fn bpffs(mounts: &[Mount]) -> Check {
    let (name, place) = ("bpffs", Path::new("/sys/fs/bpf"));
    match mounts.iter().find(|it| it.kind == "bpf" && it.place == place) {
        Some(_) => check(name, Verdict::Fine, place.display().to_string(), ""),
        None => check(name, Verdict::Missing, format!("none at {}", place.display()), "mount -t bpf bpf /sys/fs/bpf"),
    }
}

/// The root of cgroup v2.
pub(super) fn cgroup(mounts: &[Mount]) -> Option<PathBuf> {
    mounts.iter().find(|it| it.kind == "cgroup2").map(|it| it.place.clone())
}

pub(super) fn cgroup_check(root: Option<&Path>) -> Check {
    let name = "cgroup v2";
    match root {
        Some(root) => check(name, Verdict::Fine, root.display().to_string(), ""),
        None => check(
            name,
            Verdict::Limited,
            "none",
            "attach to interfaces, or mount it: systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

/// Whether this process has what an agent needs; `kubectl exec` in the agent's pod has what the agent has.
pub(super) fn rights(proc: &Path) -> Check {
    let status = fs::read_to_string(proc.join("self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let powers = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or_default();
    let lacking: Vec<&str> = POWERS.iter().filter(|(bit, _)| powers & 1 << bit == 0).map(|(_, name)| *name).collect();
    let name = "rights";
    if lacking.is_empty() {
        let all: Vec<&str> = POWERS.iter().map(|(_, name)| *name).collect();
        return check(name, Verdict::Fine, all.join(", "), "");
    }
    check(name, Verdict::Missing, format!("not {}", lacking.join(", ")), "run as root, or with these capabilities")
}

/// The interface of the default route of IPv4.
pub(super) fn uplink(proc: &Path) -> Option<String> {
    let routes = fs::read_to_string(proc.join("net/route")).ok()?;
    let mut fields = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.find_map(|fields| match *fields {
        [interface, "00000000", ..] => Some(interface.to_owned()),
        _ => None,
    })
}
