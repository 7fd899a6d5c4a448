//! Asks files and the kernel. Whatever cannot be read counts as not there.
use std::{fs, path::Path};

use super::{Cgroup, Cni, Facts, KubeProxy, Options, kube_proxy, parse, process};
use crate::dataplane::{Dataplane, survey};

pub(super) fn look(options: &Options) -> Facts {
    let found = files(&options.host_root);
    let at_cgroup =
        found.cgroup().map(|it| survey::at_cgroup(&below(&options.host_root, &it.path), &options.pin)).transpose();
    let standing = at_cgroup.and_then(|at_cgroup| {
        let mut all = at_cgroup.unwrap_or_default();
        all.extend(survey::at_interfaces(&options.pin)?);
        Ok(all)
    });
    let uplinks = found.uplinks.into_iter().filter(|it| survey::is_ethernet(it)).collect();
    Facts {
        trial: survey::trial(),
        standing: standing.map_err(|error| error.to_string()),
        kube_proxy: kube_proxy::mode(options.kube_proxy).map_or(found.kube_proxy, KubeProxy::Says),
        interfaces: Dataplane::interfaces(),
        uplinks,
        ..found
    }
}

/// A path of the host.
fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// What files say; nothing else is asked.
pub(super) fn files(root: &Path) -> Facts {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let process = process(root);
    let mounts = read(&process.join("mounts"));
    let cgroup = |path: String| {
        // The root alone has neither events nor a type.
        let is_root = !below(root, &path).join("cgroup.events").exists();
        Cgroup { path, is_root }
    };
    let net = process.join("net");
    let lines = |name: &str| read(&net.join(name)).lines().count();
    Facts {
        kernel: read(&root.join("proc/sys/kernel/osrelease")).trim().to_owned(),
        // Of this process, wherever it runs.
        capabilities: parse::capabilities(&read(Path::new("/proc/thread-self/status"))),
        bpffs: parse::mounts(&mounts, "bpf").iter().any(|it| it == "/sys/fs/bpf"),
        btf: root.join("sys/kernel/btf/vmlinux").exists(),
        cgroups: parse::mounts(&mounts, "cgroup2").into_iter().map(cgroup).collect(),
        trial: Err("not tried".into()),
        interfaces: Vec::new(),
        uplinks: parse::uplinks(&read(&net.join("route")), &read(&net.join("ipv6_route"))),
        cni: cni(&root.join("etc/cni/net.d")),
        kube_proxy: match () {
            // Three lines of headings.
            () if lines("ip_vs") > 3 => KubeProxy::Ipvs,
            () if read(&net.join("ip_tables_names")).lines().any(|it| it == "nat") => KubeProxy::Iptables,
            () => KubeProxy::Silent,
        },
        standing: Ok(Vec::new()),
        has_kmesh: root.join("sys/fs/bpf/bpf_kmesh").exists(),
    }
}

/// The configuration that the container runtime takes: the first by name. `None` when there is none.
fn cni(directory: &Path) -> Option<Result<Cni, String>> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| [".conf", ".conflist", ".json"].iter().any(|it| name.ends_with(it)));
    names.sort();
    let first = names.first()?;
    let text = fs::read_to_string(directory.join(first)).map_err(|error| format!("{first}: {error}"));
    Some(text.and_then(|text| parse::cni(first, &text)))
}
