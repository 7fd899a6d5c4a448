//! What is on a node of a cluster, and what canary would use of it: files, interfaces, the kernel's own answers. Changes nothing.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::dataplane::Features;

mod cni;
mod host;
mod kube_proxy;
#[cfg(test)]
mod tests;

pub use kube_proxy::{Mode, mode};

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

/// How something is for canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be, or of no concern.
    Fine,
    /// It works, but not everything, or not together with everything.
    Limited,
    /// canary does not work without it.
    Missing,
}

/// A place that canary could attach to, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// As `--attach` takes it.
    pub attach: String,
    /// Whose traffic.
    pub traffic: &'static str,
}

/// What a node is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One a thing, in order of need.
    pub checks: Vec<Check>,
    /// What would be used, the first one before the others.
    pub places: Vec<Place>,
}

impl Report {
    /// Whether canary can work here.
    #[must_use]
    pub fn works(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Missing)
    }
}

/// What is known about a node before anything is read.
#[derive(Debug)]
pub struct Node {
    /// Where the node's own files are seen: `/`, or where a container has them.
    pub root: PathBuf,
    /// Where processes are seen: `/proc`.
    pub proc: PathBuf,
    /// Release of the kernel.
    pub release: String,
    /// What the kernel says.
    pub features: Features,
    /// Names of interfaces.
    pub interfaces: Vec<String>,
    /// How kube-proxy works.
    pub kube_proxy: Mode,
}

impl Node {
    /// This one. `root`: where its files are seen.
    #[must_use]
    pub fn here(root: &Path, kube_proxy: Mode) -> Self {
        Self {
            root: root.to_owned(),
            proc: "/proc".into(),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            features: Features::of_this_kernel(),
            interfaces: crate::dataplane::Dataplane::interfaces(),
            kube_proxy,
        }
    }

    /// Looks at everything.
    #[must_use]
    pub fn report(&self) -> Report {
        let mounts = host::mounts(&self.proc);
        let cgroup = host::cgroup(&mounts);
        let network = cni::network(&self.root, &self.interfaces);
        let checks = vec![
            host::kernel(&self.release),
            host::interfaces(&self.features),
            host::sockets(&self.features, &self.release),
            host::btf(&self.root),
            host::bpffs(&mounts),
            host::cgroup_check(cgroup.as_deref()),
            host::rights(&self.proc),
            network.check(),
            self.kube_proxy.check(&self.proc),
            self.others(),
        ];
        let mut places = Vec::new();
        if let Some(cgroup) = cgroup.filter(|_| self.features.sockets == Ok(true)) {
            let attach = format!("cgroup:{}", cgroup.display());
            places.push(Place { attach, traffic: "processes and pods of the node, when they connect or send" });
        }
        if let Some(pattern) = network.pods() {
            let traffic = "what sockets cannot see: virtual machines, other network stacks, clients without a pod";
            places.push(Place { attach: format!("tc:{pattern}"), traffic });
        }
        if let Some(interface) = host::uplink(&self.proc) {
            places.push(Place { attach: format!("tc:{interface}"), traffic: "from outside the node" });
        }
        Report { checks, places }
    }

    /// Programs of others at the hooks that canary uses.
    fn others(&self) -> Check {
        let name = "other programs";
        let others = match &self.features.others {
            Ok(others) => others,
            Err(why) => {
                let remedy = "ask as root, on the node itself".into();
                return Check { name, verdict: Verdict::Fine, found: format!("not told: {why}"), remedy };
            }
        };
        let list: Vec<String> = others.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        let found = if list.is_empty() { "none at our hooks".to_owned() } else { list.join(", ") };
        // Cilium's programs at connect() are its replacement of kube-proxy.
        let translates = others.keys().any(|name| name.starts_with("cil_sock"));
        if translates {
            let remedy = "Cilium translates when processes connect, too, and whichever was attached first decides: do not use both for one Service";
            return Check { name, verdict: Verdict::Limited, found, remedy: remedy.into() };
        }
        Check { name, verdict: Verdict::Fine, found, remedy: String::new() }
    }
}
