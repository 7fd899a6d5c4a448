//! Decides what the facts come to. Pure.
use crate::dataplane::survey::PREFIX;

use super::{Check, Facts, KubeProxy, Outcome, Place, Report, Standing, parse};

/// Capabilities that the agent needs, by their number in linux/capability.h. `CAP_SYS_ADMIN` stands for those of BPF.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
const SYS_ADMIN: u32 = 21;
const NET_ADMIN: u32 = 12;
/// The oldest kernels for interfaces and for sockets.
const INTERFACES_SINCE: (u32, u32) = (5, 15);
const SOCKETS_SINCE: (u32, u32) = (6, 1);

/// Networks of pods: a plugin of the container runtime, the name that people know, the interfaces of its pods, and an interface
/// that tells of it where the configuration cannot be seen.
const NETWORKS: [(&str, &str, &str, &str); 8] = [
    ("cilium-cni", "Cilium", "lxc*", "cilium_host"),
    ("calico", "Calico", "cali*", "cali*"),
    ("flannel", "flannel", "veth*", "flannel.1"),
    ("aws-cni", "Amazon VPC CNI", "eni*", ""),
    ("azure-vnet", "Azure CNI", "azv*", "azv*"),
    ("weave-net", "Weave Net", "vethwe*", "weave"),
    ("bridge", "bridge", "veth*", "cni0"),
    ("ptp", "ptp", "veth*", ""),
];
/// Plugins that lead the connections of pods to a mesh.
const MESHES: [(&str, &str); 3] = [("istio-cni", "Istio"), ("linkerd-cni", "Linkerd"), ("kuma-cni", "Kuma")];
/// How the names of Cilium's begin that translate the addresses of Services when processes connect.
const CILIUM_SOCKETS: &str = "cil_sock";

/// What the facts come to.
pub(super) fn judge(facts: &Facts) -> Report {
    let network = network(facts);
    let sockets = facts.cgroup().is_some() && can_sockets(facts);
    let places = places(facts, sockets, network.map(|it| it.2));
    let mut checks = vec![kernel(facts), capabilities(facts), bpffs(facts), programs(facts)];
    checks.extend([cgroups(facts), btf(facts), cni(facts, network), kube_proxy(facts, network.map(|it| it.1))]);
    checks.extend([standing(facts), meshes(facts)]);
    if places.is_empty() {
        checks.push(Check {
            check: "attach",
            outcome: Outcome::Missing,
            found: "there is nothing to attach to".into(),
            remedy: "name an interface by which packets for Services come: --attach tc:IFACE".into(),
        });
    }
    let works = checks.iter().all(|it| it.outcome != Outcome::Missing);
    Report { works, checks, places }
}

fn fine(check: &'static str, found: impl Into<String>) -> Check {
    Check { check, outcome: Outcome::Ok, found: found.into(), remedy: String::new() }
}

fn kernel(facts: &Facts) -> Check {
    let (outcome, remedy) = match parse::version(&facts.kernel) {
        // What the kernel says to the programs themselves counts more than its number.
        _ if facts.trial.is_ok() => (Outcome::Ok, ""),
        None => (Outcome::Warning, "its number cannot be read: canary needs Linux 5.15, and 6.1 for sockets"),
        Some(version) if version < INTERFACES_SINCE => {
            (Outcome::Missing, "canary needs Linux 5.15, and 6.1 for sockets")
        }
        Some(version) if version < SOCKETS_SINCE => (Outcome::Warning, "sockets need Linux 6.1: interfaces only"),
        Some(_) => (Outcome::Ok, ""),
    };
    Check { check: "kernel", outcome, found: facts.kernel.clone(), remedy: remedy.into() }
}

fn capabilities(facts: &Facts) -> Check {
    let has = |bit: u32| facts.capabilities & (1 << bit) != 0;
    let holds = |bit: u32| has(bit) || (bit != NET_ADMIN && has(SYS_ADMIN));
    let lacking: Vec<&str> = NEEDED.iter().filter(|(_, bit)| !holds(*bit)).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return fine("capabilities", NEEDED.map(|(name, _)| name).join(", "));
    }
    Check {
        check: "capabilities",
        outcome: Outcome::Missing,
        found: format!("without {}", lacking.join(", ")),
        remedy: "run as root, or where the agent will run: in the container of its DaemonSet".into(),
    }
}

fn bpffs(facts: &Facts) -> Check {
    if facts.bpffs {
        return fine("bpffs", "at /sys/fs/bpf");
    }
    Check {
        check: "bpffs",
        outcome: Outcome::Missing,
        found: "none at /sys/fs/bpf".into(),
        remedy: "as root, on the node: `mount -t bpf bpf /sys/fs/bpf`".into(),
    }
}

fn can_sockets(facts: &Facts) -> bool {
    match &facts.trial {
        Ok(trial) => trial.sockets.is_none(),
        Err(_) => parse::version(&facts.kernel).is_some_and(|version| version >= SOCKETS_SINCE),
    }
}

fn can_tc(facts: &Facts) -> bool {
    match &facts.trial {
        Ok(trial) => trial.tc.is_none(),
        Err(_) => parse::version(&facts.kernel).is_some_and(|version| version >= INTERFACES_SINCE),
    }
}

/// What the kernel says to the programs themselves.
fn programs(facts: &Facts) -> Check {
    let check = "programs";
    let trial = match &facts.trial {
        Ok(trial) => trial,
        Err(why) => {
            return Check {
                check,
                outcome: Outcome::Missing,
                found: format!("not loaded: {why}"),
                remedy: "the kernel refuses canary's maps: the capabilities above, or CONFIG_BPF_SYSCALL".into(),
            };
        }
    };
    let all = [("sockets", &trial.sockets), ("tc", &trial.tc), ("xdp", &trial.xdp)];
    let taken: Vec<&str> = all.iter().filter(|(_, why)| why.is_none()).map(|(name, _)| *name).collect();
    let refused: Vec<String> =
        all.iter().filter_map(|(name, why)| Some(format!("{name} refused ({})", why.as_ref()?))).collect();
    if refused.is_empty() {
        return fine(check, format!("the kernel takes all: {}", taken.join(", ")));
    }
    let outcome = if trial.sockets.is_some() && trial.tc.is_some() { Outcome::Missing } else { Outcome::Warning };
    let taken = if taken.is_empty() { "none".to_owned() } else { taken.join(", ") };
    let remedy = match (&trial.sockets, &trial.tc) {
        (Some(_), _) => "sockets need Linux 6.1, interfaces 5.15",
        (None, Some(_)) => "sockets alone see no traffic from outside the node",
        (None, None) => "attach with tc",
    };
    Check { check, outcome, found: format!("taken: {taken}; {}", refused.join("; ")), remedy: remedy.into() }
}

fn cgroups(facts: &Facts) -> Check {
    let check = "cgroup v2";
    let Some(cgroup) = facts.cgroup() else {
        return Check {
            check,
            outcome: Outcome::Warning,
            found: "not mounted".into(),
            remedy:
                "sockets need it: boot with `systemd.unified_cgroup_hierarchy=1`, or attach to the interfaces of pods"
                    .into(),
        };
    };
    let (outcome, remedy) = if !cgroup.is_root {
        let remedy = "it is the cgroup of a container, and only processes below it are seen: look with --host-root, or mount the host's";
        (Outcome::Warning, remedy.to_owned())
    } else if ["/sys/fs/cgroup", "/host/cgroup"].contains(&cgroup.path.as_str()) {
        (Outcome::Ok, String::new())
    } else {
        (Outcome::Note, format!("tell the DaemonSet: hostPaths.cgroup={} of the chart", cgroup.path))
    };
    Check { check, outcome, found: format!("at {}", cgroup.path), remedy }
}

fn btf(facts: &Facts) -> Check {
    let found = if facts.btf { "there" } else { "not there; canary needs none" };
    Check { check: "kernel BTF", outcome: Outcome::Ok, found: found.into(), remedy: String::new() }
}

/// Whether an interface is of this name: `cali*`.
fn is_named(interface: &str, name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => interface.strip_prefix(start).is_some_and(|rest| !rest.is_empty()),
        None => !name.is_empty() && interface == name,
    }
}

/// The network of pods that is known: by its plugin, or by its interfaces.
fn network(facts: &Facts) -> Option<(&'static str, &'static str, &'static str)> {
    let mut plugins = facts.cni.iter().flatten().flat_map(|it| &it.plugins);
    let by_plugin = plugins.find_map(|plugin| NETWORKS.iter().find(|network| network.0 == plugin));
    let there = |name: &str| facts.interfaces.iter().any(|it| is_named(it, name));
    let found = by_plugin.or_else(|| NETWORKS.iter().find(|network| there(network.3)))?;
    Some((found.0, found.1, found.2))
}

fn cni(facts: &Facts, network: Option<(&str, &str, &str)>) -> Check {
    let check = "pod network";
    let note = |found: String, remedy: &str| Check { check, outcome: Outcome::Note, found, remedy: remedy.into() };
    let unknown = "the interfaces of pods are not known by their names; sockets need none";
    match (&facts.cni, network) {
        (Some(Err(why)), _) => note(why.clone(), unknown),
        (Some(Ok(cni)), Some((_, name, pattern))) => {
            fine(check, format!("{name}, pods at {pattern} ({} in {})", cni.plugins.join(", "), cni.file))
        }
        (Some(Ok(cni)), None) => note(format!("{} in {}", cni.plugins.join(", "), cni.file), unknown),
        (None, Some((_, name, pattern))) => fine(check, format!("{name}, pods at {pattern}, by its interfaces")),
        (None, None) => note("no configuration in /etc/cni/net.d, and no interface of a known one".into(), unknown),
    }
}

fn kube_proxy(facts: &Facts, network: Option<&str>) -> Check {
    let check = "kube-proxy";
    let found = match &facts.kube_proxy {
        KubeProxy::Says(mode) => return fine(check, mode.as_str()),
        KubeProxy::Ipvs => return fine(check, "ipvs, by the servers in the kernel; it does not answer"),
        KubeProxy::Iptables => "it does not answer; somebody uses iptables' table nat",
        KubeProxy::Silent => "it does not answer, and left no trace",
    };
    let remedy = if network == Some("Cilium") {
        "Cilium may have taken its place: its programs would be at the sockets, below"
    } else {
        "Services without routes of their own are left to it: without it, or what stands for it, they have nobody"
    };
    Check { check, outcome: Outcome::Note, found: found.into(), remedy: remedy.into() }
}

fn standing(facts: &Facts) -> Check {
    let check = "others' programs";
    let all = match &facts.standing {
        Ok(all) => all,
        Err(why) => {
            let found = format!("the kernel does not say: {why}");
            let remedy = "CAP_NET_ADMIN may ask".into();
            return Check { check, outcome: Outcome::Note, found, remedy };
        }
    };
    let name = |it: &Standing| it.name.clone().unwrap_or_else(|| "nameless".into());
    let others = || all.iter().filter(|it| !name(it).starts_with(PREFIX));
    let mut groups: Vec<(String, &str, usize)> = Vec::new();
    for it in others() {
        let what = format!("{} ({})", name(it), it.hook);
        match groups.iter_mut().find(|group| group.0 == what) {
            Some(group) => group.2 += 1,
            None => groups.push((what, &it.place, 1)),
        }
    }
    if groups.is_empty() && !all.is_empty() {
        return fine(check, format!("none but canary's own ({})", all.len()));
    }
    if groups.is_empty() {
        return fine(check, "none at the hooks that canary uses");
    }
    let shown = groups.iter().map(|(what, place, count)| match count {
        1 => format!("{what} at {place}"),
        _ => format!("{what} at {place} and {} more", count - 1),
    });
    let found = shown.collect::<Vec<_>>().join("; ");
    if others().any(|it| name(it).starts_with(CILIUM_SOCKETS)) {
        let remedy = "Cilium translates at connect(), too: whichever was attached first decides, so use one of them for a Service";
        return Check { check, outcome: Outcome::Warning, found, remedy: remedy.into() };
    }
    Check { check, outcome: Outcome::Note, found, remedy: "they run beside canary's".into() }
}

fn meshes(facts: &Facts) -> Check {
    let plugins = || facts.cni.iter().flatten().flat_map(|it| &it.plugins);
    let mut found: Vec<&str> =
        MESHES.iter().filter(|mesh| plugins().any(|it| it == mesh.0)).map(|mesh| mesh.1).collect();
    found.extend(facts.has_kmesh.then_some("Kmesh"));
    if found.is_empty() {
        return fine("meshes", "none that a node tells of");
    }
    Check {
        check: "meshes",
        outcome: Outcome::Warning,
        found: found.join(", "),
        remedy: "connections of meshed pods go to their mesh: leave Services with meshed clients to it".into(),
    }
}

/// Where to attach: sockets, else the interfaces of pods; and where traffic comes in from outside.
fn places(facts: &Facts, sockets: bool, pattern: Option<&str>) -> Vec<Place> {
    let mut places = Vec::new();
    if let Some(cgroup) = facts.cgroup().filter(|_| sockets) {
        let traffic = "pods and processes of the node, when they connect or send";
        places.push(Place { attach: format!("cgroup:{}", cgroup.path), traffic });
    }
    if !can_tc(facts) {
        return places;
    }
    if let Some(pattern) = pattern.filter(|_| !sockets) {
        places.push(Place { attach: format!("tc:{pattern}"), traffic: "pods of the node, by their packets" });
    }
    let traffic = "from outside the node, to addresses that it answers";
    places.extend(facts.uplinks.iter().map(|it| Place { attach: format!("tc:{it}"), traffic }));
    places
}
