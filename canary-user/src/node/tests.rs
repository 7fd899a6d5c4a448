//! Nodes of all kinds, as files and as facts.
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
};

use super::*;

fn trial(sockets: Option<&str>, tc: Option<&str>) -> Trial {
    Trial { sockets: sockets.map(Into::into), tc: tc.map(Into::into), xdp: None }
}

/// A node where everything is as it should be.
fn well() -> Facts {
    Facts {
        kernel: "6.1.0-18-amd64".into(),
        capabilities: 1 << 12 | 1 << 38 | 1 << 39,
        bpffs: true,
        btf: true,
        cgroups: vec![Cgroup { path: "/sys/fs/cgroup".into(), is_root: true }],
        trial: Ok(trial(None, None)),
        interfaces: ["lo", "eth0", "cali12345", "veth7"].map(str::to_owned).to_vec(),
        uplinks: vec!["eth0".into()],
        cni: Some(Ok(Cni { file: "10-calico.conflist".into(), plugins: vec!["calico".into(), "portmap".into()] })),
        kube_proxy: KubeProxy::Says("iptables".into()),
        standing: Ok(Vec::new()),
        has_kmesh: false,
    }
}

fn places(report: &Report) -> Vec<&str> {
    report.places.iter().map(|it| it.attach.as_str()).collect()
}

fn of<'a>(report: &'a Report, check: &str) -> &'a Check {
    report.checks.iter().find(|it| it.check == check).unwrap()
}

#[test]
fn a_node_that_has_everything() {
    let report = judge::judge(&well());
    assert!(report.works);
    assert!(report.checks.iter().all(|it| it.outcome == Outcome::Ok && it.remedy.is_empty()), "{:#?}", report.checks);
    assert_eq!(places(&report), ["cgroup:/sys/fs/cgroup", "tc:eth0"]);
    assert_eq!(of(&report, "pod network").found, "Calico, pods at cali* (calico, portmap in 10-calico.conflist)");
}

/// A check, how a good node is changed, then the check's outcome and what it finds, and the places to attach to.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Facts), Outcome, &'a str, &'a [&'a str]);

#[test]
fn what_is_missing_is_said_with_a_remedy() {
    let without = |change: &dyn Fn(&mut Facts)| {
        let mut facts = well();
        change(&mut facts);
        judge::judge(&facts)
    };
    let cases: [Case<'_>; 13] = [
        (
            "capabilities",
            &|it| it.capabilities = 1 << 12,
            Outcome::Missing,
            "without CAP_PERFMON, CAP_BPF",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
        (
            "bpffs",
            &|it| it.bpffs = false,
            Outcome::Missing,
            "none at /sys/fs/bpf",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
        ("cgroup v2", &|it| it.cgroups.clear(), Outcome::Warning, "not mounted", &["tc:cali*", "tc:eth0"]),
        (
            "cgroup v2",
            &|it| it.cgroups = vec![Cgroup { path: "/sys/fs/cgroup/unified".into(), is_root: true }],
            Outcome::Note,
            "at /sys/fs/cgroup/unified",
            &["cgroup:/sys/fs/cgroup/unified", "tc:eth0"],
        ),
        (
            "cgroup v2",
            &|it| it.cgroups = vec![Cgroup { path: "/sys/fs/cgroup".into(), is_root: false }],
            Outcome::Warning,
            "at /sys/fs/cgroup",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
        (
            "programs",
            &|it| it.trial = Ok(trial(Some("canary_connect4: no"), None)),
            Outcome::Warning,
            "taken: tc, xdp; sockets refused (canary_connect4: no)",
            &["tc:cali*", "tc:eth0"],
        ),
        (
            "programs",
            &|it| it.trial = Ok(trial(None, Some("no"))),
            Outcome::Warning,
            "taken: sockets, xdp; tc refused (no)",
            &["cgroup:/sys/fs/cgroup"],
        ),
        (
            "attach",
            &|it| it.trial = Ok(trial(Some("a"), Some("b"))),
            Outcome::Missing,
            "there is nothing to attach to",
            &[],
        ),
        (
            "programs",
            &|it| it.trial = Err("EPERM".into()),
            Outcome::Missing,
            "not loaded: EPERM",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
        (
            "kernel",
            &|it| (it.kernel, it.trial) = ("5.15.0".into(), Err("x".into())),
            Outcome::Warning,
            "5.15.0",
            &["tc:cali*", "tc:eth0"],
        ),
        ("kernel", &|it| (it.kernel, it.trial) = ("5.10.9".into(), Err("x".into())), Outcome::Missing, "5.10.9", &[]),
        (
            "pod network",
            &|it| it.cni = Some(Err("x.conf: broken".into())),
            Outcome::Note,
            "x.conf: broken",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
        (
            "kube-proxy",
            &|it| it.kube_proxy = KubeProxy::Silent,
            Outcome::Note,
            "it does not answer, and left no trace",
            &["cgroup:/sys/fs/cgroup", "tc:eth0"],
        ),
    ];
    for (check, change, outcome, found, expected) in cases {
        let report = without(change);
        let it = of(&report, check);
        assert_eq!((it.outcome, it.found.as_str()), (outcome, found));
        assert!(!it.remedy.is_empty(), "{check}");
        assert_eq!(report.works, report.checks.iter().all(|it| it.outcome != Outcome::Missing));
        assert_eq!(places(&report), expected, "{check}: {found}");
    }
}

/// `CAP_SYS_ADMIN` is more than those of BPF, and no substitute for that of networks.
#[test]
fn one_capability_stands_for_others() {
    let with = |bits: &[u32]| {
        let capabilities = bits.iter().map(|bit| 1 << bit).sum();
        of(&judge::judge(&Facts { capabilities, ..well() }), "capabilities").found.clone()
    };
    assert_eq!(with(&[12, 21]), "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF");
    assert_eq!(with(&[21]), "without CAP_NET_ADMIN");
}

#[test]
fn networks_are_known_by_plugins_and_by_interfaces() {
    let by_plugin = |plugins: &[&str]| {
        let cni = Cni { file: "a".into(), plugins: plugins.iter().map(|&it| it.to_owned()).collect() };
        let facts = Facts { cni: Some(Ok(cni)), interfaces: vec![], cgroups: vec![], ..well() };
        places(&judge::judge(&facts)).join(" ")
    };
    assert_eq!(by_plugin(&["cilium-cni"]), "tc:lxc* tc:eth0");
    assert_eq!(by_plugin(&["flannel", "portmap"]), "tc:veth* tc:eth0");
    assert_eq!(by_plugin(&["something"]), "tc:eth0");
    let by_interface = |interfaces: &[&str]| {
        let interfaces = interfaces.iter().map(|&it| it.to_owned()).collect();
        let facts = Facts { cni: None, interfaces, ..well() };
        of(&judge::judge(&facts), "pod network").found.clone()
    };
    assert_eq!(by_interface(&["eth0", "cilium_host"]), "Cilium, pods at lxc*, by its interfaces");
    assert_eq!(by_interface(&["cali1"]), "Calico, pods at cali*, by its interfaces");
    assert!(by_interface(&["cali", "californium0", "eth0"]).starts_with("Calico"), "a name that begins so");
    assert!(by_interface(&["cali", "eth0"]).starts_with("no configuration"));
}

#[test]
fn programs_of_others_are_grouped_and_ours_are_not_among_them() {
    let standing =
        |hook, place: &str, name: Option<&str>| Standing { hook, place: place.into(), name: name.map(Into::into) };
    let found = |all: Vec<Standing>| {
        let report = judge::judge(&Facts { standing: Ok(all), ..well() });
        let it = of(&report, "others' programs").clone();
        (it.outcome, it.found)
    };
    let ours = standing("connect4", "/sys/fs/cgroup", Some("canary_connect4"));
    assert_eq!(found(vec![ours.clone()]), (Outcome::Ok, "none but canary's own (1)".into()));
    let lxc = |n: u32| standing("tcx-ingress", &format!("lxc{n}"), Some("cil_from_container"));
    assert_eq!(
        found(vec![ours, lxc(1), lxc(2), lxc(3), standing("xdp", "eth0", None)]),
        (Outcome::Note, "cil_from_container (tcx-ingress) at lxc1 and 2 more; nameless (xdp) at eth0".into())
    );
    let (outcome, text) = found(vec![standing("connect4", "/sys/fs/cgroup", Some("cil_sock4_connect"))]);
    assert_eq!(outcome, Outcome::Warning, "{text}");
}

#[test]
fn meshes_are_told_by_plugins_and_pins() {
    let plugins = ["calico", "istio-cni"].map(str::to_owned).to_vec();
    let cni = Some(Ok(Cni { file: "a".into(), plugins }));
    let report = judge::judge(&Facts { cni, has_kmesh: true, ..well() });
    assert_eq!(of(&report, "meshes").found, "Istio, Kmesh");
    assert!(report.works);
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A root of a host, as a container has it mounted.
#[test]
fn files_of_a_host_are_read() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| write(root.path(), name, text);
    assert_eq!(look::files(root.path()).cni, None);
    at("proc/sys/kernel/osrelease", "6.6.0\n");
    at(
        "proc/1/mounts",
        "bpf /sys/fs/bpf bpf rw 0 0\ncgroup2 /run/c\\040g cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    );
    at("run/c g/cgroup.events", "populated 1\n");
    at("sys/kernel/btf/vmlinux", "");
    at("sys/fs/bpf/bpf_kmesh/a", "");
    at(
        "proc/1/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
         eth1\t00000000\t010200C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
         eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
         eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
         eth9\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n",
    );
    let none = "0".repeat(32);
    at(
        "proc/1/net/ipv6_route",
        &format!(
            "{none} 00 {none} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth2\n\
             {none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200 lo\n"
        ),
    );
    at("proc/1/net/ip_tables_names", "filter\nnat\n");
    at("etc/cni/net.d/20-later.conf", "{\"type\": \"bridge\"}");
    at("etc/cni/net.d/10-first.conflist", "{\"plugins\": [{\"type\": \"cilium-cni\"}, {\"type\": \"istio-cni\"}]}");
    at("etc/cni/net.d/00-notes.txt", "");
    let found = look::files(root.path());
    assert_eq!(found.kernel, "6.6.0");
    assert!(found.bpffs && found.btf && found.has_kmesh);
    let cgroup = |path: &str, is_root| Cgroup { path: path.into(), is_root };
    assert_eq!(found.cgroups, [cgroup("/run/c g", false), cgroup("/sys/fs/cgroup", true)]);
    assert_eq!(found.uplinks, ["eth0", "eth1", "eth2"]);
    let plugins = vec!["cilium-cni".into(), "istio-cni".into()];
    assert_eq!(found.cni, Some(Ok(Cni { file: "10-first.conflist".into(), plugins })));
    assert_eq!(found.kube_proxy, KubeProxy::Iptables);
    at("proc/1/net/ip_vs", "IP Virtual Server\nProt\n  ->\nTCP  0A600001:01BB rr\n");
    assert_eq!(look::files(root.path()).kube_proxy, KubeProxy::Ipvs);
    at("etc/cni/net.d/10-first.conflist", "{\"plugins\": [");
    let broken = look::files(root.path()).cni.unwrap().unwrap_err();
    assert!(broken.starts_with("10-first.conflist: EOF"), "{broken}");
    at("etc/cni/net.d/10-first.conflist", "{}");
    assert_eq!(look::files(root.path()).cni, Some(Err("10-first.conflist: it names no plugin".into())));
}

#[test]
fn an_empty_root_is_no_node() {
    let root = tempfile::tempdir().unwrap();
    let report = judge::judge(&look::files(root.path()));
    assert!(!report.works);
    assert_eq!(of(&report, "bpffs").outcome, Outcome::Missing);
}

#[test]
fn kube_proxy_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = ["200 OK\r\n\r\nnftables\n", "200 OK\r\n\r\n<html>\n", "404 Not Found\r\n\r\nnone"];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /proxyMode HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {answer}").unwrap();
        }
    });
    let modes = answers.map(|_| kube_proxy::mode(address));
    server.join().unwrap();
    assert_eq!(modes, [Some("nftables".into()), None, None]);
    assert_eq!(kube_proxy::mode(address), None, "nobody listens any more");
}

#[test]
fn numbers_of_kernels() {
    let cases = [
        ("6.1.0-18-amd64", Some((6, 1))),
        ("5.15", Some((5, 15))),
        ("6.18.44+", Some((6, 18))),
        ("", None),
        ("x", None),
    ];
    for (release, expected) in cases {
        assert_eq!(parse::version(release), expected, "{release}");
    }
}
