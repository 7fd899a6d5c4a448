//! `canary kube check` on nodes that are real as far as they go: the kernel, its programs, namespaces, cgroups.
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::symlink,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::Agent,
    cgroup::Cgroup,
    resources::{Extras, write_endpoints, write_service},
    story::{Hook, Story, program},
    tally::Weights,
};
use canary_user::agent::settings::parse_attach;
use serde_json::Value;

/// The report, and what was found by one check.
struct Report(Value);

impl Report {
    fn of(output: &Output) -> Result<Self> {
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("{output:?}"))?))
    }

    fn check(&self, name: &str) -> Result<(&str, &str)> {
        let checks = self.0.get("checks").and_then(Value::as_array).context("no checks")?;
        let found = checks.iter().find(|it| it.get("check") == Some(&name.into())).context("no such check")?;
        let text = |field: &str| found.get(field).and_then(Value::as_str).context("no text");
        Ok((text("outcome")?, text("found")?))
    }

    fn places(&self) -> Vec<&str> {
        let places = self.0.get("places").and_then(Value::as_array).into_iter().flatten();
        places.filter_map(|it| it.get("attach")?.as_str()).collect()
    }
}

/// This machine as it is: the kernel takes the programs, and the agent takes the places.
#[test]
fn this_machine_is_a_node() -> Result<()> {
    let canary = program("canary")?;
    let output = Command::new(&canary).args(["kube", "check", "-o", "json"]).output()?;
    let report = Report::of(&output)?;
    assert_eq!(output.status.code(), Some(0), "{:#}", report.0);
    assert_eq!(report.check("programs")?, ("ok", "the kernel takes all: sockets, tc, xdp"));
    assert_eq!(report.check("bpffs")?.0, "ok");
    assert!(report.places().iter().any(|it| it.starts_with("cgroup:/")), "{:#}", report.0);
    for place in report.places() {
        ensure!(parse_attach(place).is_ok(), "{place}");
    }
    let names = Command::new(&canary).args(["kube", "check", "-o", "name"]).output()?;
    assert_eq!(String::from_utf8(names.stdout)?.lines().collect::<Vec<_>>(), report.places());
    // The same without any power over the kernel.
    let powerless = ["--inh-caps=-all", "--bounding-set=-all"];
    let output = Command::new("setpriv").args(powerless).arg(&canary).args(["kube", "check", "-o", "json"]).output()?;
    let report = Report::of(&output)?;
    assert_eq!(output.status.code(), Some(1), "{:#}", report.0);
    assert_eq!(report.check("capabilities")?, ("missing", "without CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF"));
    assert_eq!(report.check("programs")?.0, "missing");
    Ok(())
}

/// A node that an agent is on already, looked at from a container that has the root of the host mounted.
#[test]
fn programs_routes_and_kube_proxy_are_found() -> Result<()> {
    [Hook::Tc, Hook::Xdp].into_iter().try_for_each(node_with_an_agent)
}

fn node_with_an_agent(hook: Hook) -> Result<()> {
    let (story, cgroup) = (Story::new(hook, 1, 1)?, Cgroup::new()?);
    let mut agent = Agent::new(&story)?;
    agent.attach_to(&[&format!("cgroup:{}", cgroup.path().display()), &story.attach()]);
    write_service(&agent.config(), Weights { v1: 90, v2: 10 }, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    for directory in ["proc/1", "proc/sys/kernel", "etc/cni/net.d"] {
        fs::create_dir_all(at(directory))?;
    }
    symlink(cgroup.path(), at("group"))?;
    symlink("/proc/self/net", at("proc/1/net"))?;
    fs::write(at("proc/sys/kernel/osrelease"), "6.1.0\n")?;
    fs::write(at("proc/1/mounts"), "bpf /sys/fs/bpf bpf rw 0 0\ncgroup2 /group cgroup2 rw 0 0\n")?;
    fs::write(at("etc/cni/net.d/10-calico.conflist"), r#"{"plugins": [{"type": "calico"}]}"#)?;
    let interface = story.attach().split_once(':').context("no interface")?.1.to_owned();
    story.node.ip(&format!("route add default dev {interface}"))?;
    // With the powers of the agent's container, and no others.
    let powers = ["--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin,+perfmon"];
    let pins = agent.pins().to_owned();
    let look = || -> Result<Report> {
        let mut command = story.node.command("setpriv")?;
        command.args(powers).arg(program("canary")?).args(["kube", "check", "-o", "json", "--host-root"]);
        Report::of(&command.arg(root.path()).arg("--pin").arg(&pins).output()?)
    };
    let report = look()?;
    assert_eq!(report.check("others' programs")?, ("ok", "none at the hooks that canary uses"));
    assert_eq!(report.check("programs")?, ("ok", "the kernel takes all: sockets, tc, xdp"));
    agent.start(&story)?;
    let listener = story.node.run(|| TcpListener::bind("127.0.0.1:10249"))??;
    let kube_proxy = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        ensure!(stream.read(&mut [0; 512])? > 0);
        Ok(stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nnftables")?)
    });
    let report = look()?;
    kube_proxy.join().ok().context("kube-proxy panicked")??;
    assert_eq!(report.check("kube-proxy")?, ("ok", "nftables"));
    // Eight of the cgroup, and one for each direction of the interface.
    assert_eq!(report.check("others' programs")?, ("ok", "none but canary's own (10)"), "{:#}", report.0);
    assert_eq!(report.check("pod network")?, ("ok", "Calico, pods at cali* (calico in 10-calico.conflist)"));
    // A cgroup below the root has events.
    assert_eq!(report.check("cgroup v2")?, ("warning", "at /group"));
    assert_eq!(report.places(), ["cgroup:/group".to_owned(), format!("tc:{interface}")]);
    Ok(())
}
