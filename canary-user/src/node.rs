//! What is on a node, and what canary would do there. `look` asks files and the kernel, `judge` decides from what was found.
mod judge;
mod kube_proxy;
mod look;
mod parse;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::dataplane::survey::{Standing, Trial};

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something of canary does not work, or not for everybody.
    Warning,
    /// canary does not work without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, in a word or two.
    pub check: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it, or what follows; empty when nothing does.
    pub remedy: String,
}

/// A place to attach to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// As `canary agent --attach` takes it.
    pub attach: String,
    /// Whose connections it is for.
    pub traffic: &'static str,
}

/// What is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is missing.
    pub works: bool,
    /// All that was looked at.
    pub checks: Vec<Check>,
    /// Where canary would be attached, the first one first.
    pub places: Vec<Place>,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory that the host's root is mounted at: `/` on the host itself.
    pub host_root: PathBuf,
    /// Where kube-proxy says how it works.
    pub kube_proxy: SocketAddr,
    /// Directory of our pins, which tell programs of ours.
    pub pin: PathBuf,
}

/// Looks, and judges.
#[must_use]
pub fn check(options: &Options) -> Report {
    judge::judge(&look::look(options))
}

/// A directory of cgroup v2.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cgroup {
    /// As the host sees it.
    path: String,
    /// All processes are below it: it is the root of all cgroups, not one of a container.
    is_root: bool,
}

/// A network of pods, by the configuration that the container runtime takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cni {
    /// Name of the file.
    file: String,
    /// Types of its plugins, in order.
    plugins: Vec<String>,
}

/// What is known about kube-proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KubeProxy {
    /// It says its mode.
    Says(String),
    /// It does not answer, and there are virtual servers in the kernel.
    Ipvs,
    /// It does not answer, and somebody uses iptables' table `nat`.
    Iptables,
    /// There is no sign of it.
    Silent,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// `uname -r`.
    kernel: String,
    /// Effective capabilities of this process.
    capabilities: u64,
    bpffs: bool,
    btf: bool,
    cgroups: Vec<Cgroup>,
    /// What the kernel says to our programs; `Err`: they could not be tried.
    trial: Result<Trial, String>,
    interfaces: Vec<String>,
    /// Interfaces with a default route that have Ethernet headers.
    uplinks: Vec<String>,
    /// `None`: there is no configuration; `Err`: it cannot be read.
    cni: Option<Result<Cni, String>>,
    kube_proxy: KubeProxy,
    /// Programs at our hooks, ours included; `Err`: the kernel does not say.
    standing: Result<Vec<Standing>, String>,
    /// Kmesh has its pins on the bpffs.
    has_kmesh: bool,
}

impl Facts {
    /// The cgroup to attach to: one that all processes are below, if there is one.
    fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroups.iter().find(|it| it.is_root).or(self.cgroups.first())
    }
}

/// The process whose view of mounts and networks is the host's: this one, or the first one of the host.
fn process(host_root: &Path) -> PathBuf {
    host_root.join(if host_root == Path::new("/") { "proc/thread-self" } else { "proc/1" })
}
