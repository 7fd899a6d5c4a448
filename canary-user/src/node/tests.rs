//! Nodes of directories.
use std::{collections::BTreeMap, fs, path::Path};

use super::*;

struct Made(tempfile::TempDir);

impl Made {
    /// A node on which everything is as it should be.
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.write("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n");
        made.write("proc/self/status", "Name:\tcanary\nCapEff:\t000001ffffffffff\n");
        made.write("proc/net/route", "Iface\tDestination\tGateway\neth1\t0000000A\t0\neth0\t00000000\t0100000A\n");
        made
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn node(&self) -> Node {
        let features = Features { interfaces: Ok(true), sockets: Ok(true), others: Ok(BTreeMap::new()) };
        Node {
            root: self.0.path().to_owned(),
            proc: self.0.path().join("proc"),
            release: "6.12.48+deb13-amd64".into(),
            features,
            interfaces: vec!["lo".into(), "eth0".into()],
            kube_proxy: Mode::Said("nftables".into()),
        }
    }
}

/// What is not fine.
fn remarks(node: &Node) -> Vec<(&'static str, Verdict)> {
    let report = node.report();
    let remarks: Vec<_> = report.checks.iter().filter(|it| it.verdict != Verdict::Fine).collect();
    assert!(remarks.iter().all(|it| !it.remedy.is_empty()), "{remarks:?}");
    remarks.iter().map(|it| (it.name, it.verdict)).collect()
}

fn places(node: &Node) -> Vec<String> {
    node.report().places.into_iter().map(|place| place.attach).collect()
}

#[test]
fn on_a_good_node_sockets_come_first() {
    let made = Made::new();
    made.write("etc/cni/net.d/10-calico.conflist", r#"{"plugins": [{"type": "calico"}, {"type": "portmap"}]}"#);
    made.write("etc/cni/net.d/99-other.conf", r#"{"type": "bridge"}"#);
    let node = made.node();
    assert_eq!(remarks(&node), []);
    assert!(node.report().works());
    assert_eq!(places(&node), ["cgroup:/sys/fs/cgroup", "tc:cali*", "tc:eth0"]);
}

#[test]
fn what_is_missing_is_named_and_what_is_left_is_used() {
    let made = Made::new();
    let with = |change: fn(&mut Node)| {
        let mut node = made.node();
        change(&mut node);
        node
    };
    let old = with(|node| {
        node.release = "5.15.0-91-generic".into();
        node.features.sockets = Ok(false);
    });
    assert_eq!(remarks(&old), [("kernel", Verdict::Limited), ("programs at sockets", Verdict::Limited)]);
    assert!(old.report().works());
    assert_eq!(places(&old), ["tc:eth0"]);
    let ancient = with(|node| node.release = "4.18.0-553.el8".into());
    assert_eq!(remarks(&ancient), [("kernel", Verdict::Missing)]);
    assert!(!ancient.report().works());
    let cilium = with(|node| {
        node.features.others = Ok([("cil_sock4_connect".to_owned(), 1)].into());
        node.interfaces.push("cilium_host".into());
    });
    assert_eq!(remarks(&cilium), [("other programs", Verdict::Limited)]);
    assert_eq!(places(&cilium), ["cgroup:/sys/fs/cgroup", "tc:lxc*", "tc:eth0"]);
    assert_eq!(remarks(&with(|node| node.kube_proxy = Mode::Silent)), [("kube-proxy", Verdict::Limited)]);
}

#[test]
fn file_systems_and_rights_are_looked_at() {
    let made = Made::new();
    made.write("proc/self/mounts", "tmpfs /sys/fs/bpf tmpfs rw 0 0\n");
    made.write("proc/self/status", "CapEff:\t0000000000001000\n");
    let expected = [("bpffs", Verdict::Missing), ("cgroup v2", Verdict::Limited), ("rights", Verdict::Missing)];
    assert_eq!(remarks(&made.node()), expected);
    let rights = made.node().report().checks.into_iter().find(|it| it.name == "rights").unwrap();
    assert_eq!(rights.found, "not PERFMON, BPF");
    assert_eq!(places(&made.node()), ["tc:eth0"]);
}

#[test]
fn a_mesh_is_told_of_and_a_plugin_without_names_of_its_own_has_veths() {
    let made = Made::new();
    let list = r#"{"plugins": [{"type": "ptp"}, {"type": "istio-cni"}]}"#;
    made.write("etc/cni/net.d/10-containerd-net.conflist", list);
    assert_eq!(remarks(&made.node()), [("CNI", Verdict::Limited)]);
    assert_eq!(places(&made.node()), ["cgroup:/sys/fs/cgroup", "tc:veth*", "tc:eth0"]);
    made.write("etc/cni/net.d/05-broken.conflist", "{");
    assert_eq!(places(&made.node()).len(), 3, "what cannot be read is passed over");
    assert_eq!(cni::network(Path::new("/nowhere"), &[]).pods(), None);
}
