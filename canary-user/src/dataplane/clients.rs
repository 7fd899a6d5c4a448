//! Which cgroup of this host is which pod's: so that rules on clients' addresses hold for processes, whose sockets have no
//! address yet when they connect.
//!
//! The kubelet gives each pod a cgroup whose name ends with the pod's UID: `kubepods-burstable-podUID.slice`, with `_` for `-`
//! (systemd), or `podUID` (cgroupfs). It is there before the pod has an address.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use canary_common::{abi::Client, limits};

use super::{address, cgroup, maps::Maps};

/// How deep below a root pods' cgroups are looked for: the kubelet's own may be below those of a node in a container.
const DEPTH: usize = 8;

/// Where pods' cgroups were found.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// By UID.
    found: BTreeMap<String, PathBuf>,
}

impl Clients {
    /// Tells the programs the addresses of the pods (by UID) that have a cgroup below one of `roots`. What cannot be told is
    /// said, and harms nobody: such a process is told by its packets, or not at all.
    pub(super) fn refresh<'a>(
        &mut self,
        maps: &mut Maps,
        roots: impl Iterator<Item = &'a Path>,
        pods: &BTreeMap<String, Vec<IpAddr>>,
    ) {
        self.found.retain(|uid, path| pods.contains_key(uid) && path.is_dir());
        if self.found.len() < pods.len() {
            roots.for_each(|root| look(root, DEPTH, pods, &mut self.found));
        }
        let wanted: BTreeMap<u64, Client> = self
            .found
            .iter()
            .filter_map(|(uid, path)| Some((cgroup::id(path.to_str()?)?, client(pods.get(uid)?))))
            .take(limits::CLIENTS as usize)
            .collect();
        if self.found.len() > limits::CLIENTS as usize {
            let room = limits::CLIENTS;
            tracing::warn!("of {} pods only {room} can be told by their cgroups", self.found.len());
        }
        if let Err(error) = write(maps, &wanted) {
            tracing::warn!("rules on clients' addresses do not hold for sockets: {error}");
        }
    }
}

/// Writes the difference.
fn write(maps: &mut Maps, wanted: &BTreeMap<u64, Client>) -> Result<(), aya::maps::MapError> {
    let known: BTreeSet<u64> = maps.clients.keys().collect::<Result<_, _>>()?;
    for id in known.iter().filter(|id| !wanted.contains_key(id)) {
        maps.clients.remove(id)?;
    }
    for (id, client) in wanted {
        if !known.contains(id) || maps.clients.get(id, 0)? != *client {
            maps.clients.insert(id, client, 0)?;
        }
    }
    Ok(())
}

/// One address of each family.
fn client(addresses: &[IpAddr]) -> Client {
    let of = |v6: bool| addresses.iter().find(|it| it.is_ipv6() == v6).copied().map(address::words).unwrap_or_default();
    Client { v4_be: of(false), v6_be: of(true) }
}

/// The UID that a cgroup's name ends with, if it is a pod's.
fn uid(name: &str) -> Option<String> {
    let (_, uid) = name.strip_suffix(".slice").unwrap_or(name).rsplit_once("pod")?;
    Some(uid.replace('_', "-"))
}

/// Finds the cgroups of these pods.
fn look(directory: &Path, depth: usize, pods: &BTreeMap<String, Vec<IpAddr>>, found: &mut BTreeMap<String, PathBuf>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
        let (name, path) = (entry.file_name(), entry.path());
        match name.to_str().and_then(uid).filter(|uid| pods.contains_key(uid)) {
            Some(uid) => {
                found.insert(uid, path);
            }
            None if depth > 1 => look(&path, depth - 1, pods, found),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_pods_are_found_by_the_names_that_kubelets_give_them() {
        let root = tempfile::tempdir().unwrap();
        let pods = ["2f3c8f04-0001-4c8e-9d2c-5f7c1c3b0a01", "2f3c8f04-0002-4c8e-9d2c-5f7c1c3b0a02", "elsewhere"];
        let systemd =
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2f3c8f04_0001_4c8e_9d2c_5f7c1c3b0a01.slice";
        let cgroupfs = "kubelet/kubepods/besteffort/pod2f3c8f04-0002-4c8e-9d2c-5f7c1c3b0a02";
        for path in [systemd, cgroupfs, "system.slice/podman.service", "kubepods.slice/kubepods-podunknown.slice"] {
            std::fs::create_dir_all(root.path().join(path).join("cri-containerd-1.scope")).unwrap();
        }
        let pods = pods.map(|uid| (uid.to_owned(), vec![])).into();
        let mut found = BTreeMap::new();
        look(root.path(), DEPTH, &pods, &mut found);
        let found: Vec<_> =
            found.values().map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(found, [systemd, cgroupfs]);
    }

    #[test]
    fn a_pod_has_one_address_of_each_family() {
        let all = ["10.0.0.7", "10.0.0.8", "fd00::7"].map(|text| text.parse().unwrap());
        let Client { v4_be, v6_be } = client(&all);
        assert_eq!([address::addr(v4_be), address::addr(v6_be)], [all[0], all[2]]);
        assert_eq!(client(&all[..1]).v6_be, [0; 4]);
    }
}
