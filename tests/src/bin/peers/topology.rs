//! Namespaces, cables, and which CPU has what.
use std::{net::SocketAddr, thread};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    netns::Namespace,
    resources::PORT,
    story::{FRONT, Hook, Story},
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Clients and pods.
pub(crate) const LOAD_CPU: usize = 0;
/// What balances.
pub(crate) const NODE_CPU: usize = 1;

/// helloworld with one pod of each version, and a cable from the client to the first one.
pub(crate) struct Topology {
    pub(crate) story: Story,
}

impl Topology {
    pub(crate) fn new() -> Result<Self> {
        move_to(LOAD_CPU)?; // Servers of the pods inherit it, and so do clients.
        let story = Story::new(Hook::Tc, 1, 1)?;
        let pod = story.pods().first().context("a pod was asked for")?.namespace();
        let path = pod.path();
        story.client.ip(&format!(
            "link add direct type veth peer name direct netns {}\naddr add 10.9.0.1/24 dev direct\nlink set direct up\n",
            path.display()
        ))?;
        pod.ip("addr add 10.9.0.2/24 dev direct\nlink set direct up\n")?;
        for namespace in story.pods().iter().map(canary_tests::story::Pod::namespace).chain([&*story.client]) {
            steer(namespace, &["eth0", "direct"], LOAD_CPU)?;
            busy_ports(namespace)?;
        }
        steer(&story.node, &[FRONT, "pod-v1-1", "pod-v2-1"], NODE_CPU)?;
        busy_ports(&story.node)?;
        Ok(Self { story })
    }

    /// Where the pod of a version listens.
    pub(crate) fn pod(&self, version: &str) -> Result<SocketAddr> {
        let endpoints = self.story.endpoints_of(version);
        let endpoint = endpoints.first().with_context(|| format!("no pod of {version}"))?;
        Ok(SocketAddr::new(endpoint.v4.into(), PORT))
    }
}

/// The calling thread, and what it starts from now on, runs on this CPU.
pub(crate) fn move_to(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("run on CPU {cpu}"))
}

/// Runs `work` with its threads and programs on a CPU. Programs end with the thread that started them: this one.
pub(crate) fn on<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    move_to(cpu)?;
    let result = work();
    move_to(LOAD_CPU)?;
    result
}

/// Receive packet steering: what comes in at these interfaces is handled on this CPU. Those that are not there are
/// left out.
fn steer(namespace: &Namespace, interfaces: &[&str], cpu: usize) -> Result<()> {
    let mask = 1 << cpu;
    // /sys shows the interfaces of the namespace that it was mounted in.
    let script = format!(
        "mount -t sysfs sysfs /sys && for i in {}; do for q in /sys/class/net/$i/queues/rx-*/rps_cpus; do \
         test ! -e $q || echo {mask:x} > $q || exit 1; done; done",
        interfaces.join(" ")
    );
    namespace.call("unshare", &["--mount", "sh", "-c", &script]).map(drop)
}

/// Tens of thousands of connections a minute from one address.
fn busy_ports(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    namespace.sysctl("net/core/somaxconn", "4096")?;
    namespace.sysctl("net/ipv4/tcp_max_syn_backlog", "8192")
}

/// Keeps CPUs from going to sleep, at the lowest priority, as long as it lives: a virtual CPU that sleeps takes longer
/// to wake than a request takes.
pub(crate) struct Awake(Vec<canary_tests::cleanup::Running>);

impl Awake {
    pub(crate) fn new() -> Result<Self> {
        let spin = |cpu: usize| -> Result<_> {
            let mut command = std::process::Command::new("chrt");
            command.args(["--idle", "0", "taskset", "--cpu-list", &cpu.to_string(), "sh", "-c", "while :; do :; done"]);
            Ok(canary_tests::cleanup::Running::new(command.spawn().context("chrt (package util-linux)")?))
        };
        let mut spinning = Self([spin(LOAD_CPU)?, spin(NODE_CPU)?].into());
        thread::sleep(std::time::Duration::from_millis(100));
        for running in &mut spinning.0 {
            ensure!(running.child().try_wait()?.is_none(), "chrt --idle ended at once");
        }
        Ok(spinning)
    }
}
