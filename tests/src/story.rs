//! helloworld in namespaces: client — node — pods, every one with a real server, and nothing that leads outside.
//!
//! ```text
//! client                node                          pods
//! eth0 ─────────────── front
//! 10.0.0.2             10.0.0.1      pod-v1-1 ─────── eth0 10.244.1.1 (v1)
//! fd00:1::2            fd00:1::1     pod-v1-2 ─────── eth0 10.244.1.2 (v1)
//!                                    pod-v2-1 ─────── eth0 10.244.2.1 (v2)
//! ```
//!
//! The client sends everything to the node, the service's address included; the node has no route to that address, so
//! a packet that canary does not translate goes nowhere. Pods are routed one by one, as on a Kubernetes node.
use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cleanup::Running,
    netns::Namespace,
    resources::{Endpoint, PORT, VIP, VIP6},
};

/// Where the agent attaches its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Hook {
    /// XDP on `front`, with TC for the way back.
    Xdp,
    /// TC on `front`, both ways: TCX where the kernel has it.
    Tc,
    /// The same by clsact filters, as before Linux 6.6.
    Clsact,
}

impl Hook {
    /// As `--attach` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Clsact => "clsact",
        }
    }
}

/// The interface of the node towards the client.
pub const FRONT: &str = "front";

/// The namespaces and what runs in them.
#[derive(Debug)]
pub struct Story {
    // First, so that the servers end before their namespaces are let go.
    pods: Vec<Pod>,
    /// Where clients are.
    pub client: Arc<Namespace>,
    /// Where the agent runs.
    pub node: Namespace,
    hook: Hook,
}

/// One pod.
#[derive(Debug)]
pub struct Pod {
    server: Running,
    namespace: Namespace,
    /// Its interface on the node.
    port: String,
    endpoint: Endpoint,
}

impl Pod {
    /// What its resources say.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where its server runs.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Ends the server at once; the address stays.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn crash(&mut self) -> Result<()> {
        self.server.child().kill().context("kill the server")?;
        self.server.child().wait().context("wait for the server")?;
        Ok(())
    }
}

impl Story {
    /// A client and a node, ready for a program at `hook`, and pods: so many of v1, so many of v2.
    ///
    /// # Errors
    /// When namespaces cannot be made, or a program that this calls is missing.
    pub fn new(hook: Hook, v1: u8, v2: u8) -> Result<Self> {
        let (client, node) = (Namespace::new("client")?, Namespace::new("node")?);
        node.sysctl("net/ipv4/ip_forward", "1")?;
        node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // Tens of thousands of connections from one address need as many ports.
        client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        connect(&node, FRONT, &client)?;
        node.ip(&format!("addr add 10.0.0.1/24 dev {FRONT}\naddr add fd00:1::1/64 dev {FRONT} nodad\n"))?;
        client.ip("addr add 10.0.0.2/24 dev eth0\naddr add fd00:1::2/64 dev eth0 nodad\n")?;
        client.ip("route add default via 10.0.0.1\nroute add default via fd00:1::1\n")?;
        prepare_end(&client, hook)?;
        let mut story = Self { pods: Vec::new(), client: Arc::new(client), node, hook };
        for (version, count) in [("v1", v1), ("v2", v2)] {
            for _ in 0..count {
                story.add_pod(version)?;
            }
        }
        Ok(story)
    }

    /// Where the agent is to attach: `tc:front`.
    #[must_use]
    pub fn attach(&self) -> String {
        format!("{}:{FRONT}", self.hook.name())
    }

    /// All pods that run.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The resources of all pods.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.pods.iter().map(|pod| pod.endpoint.clone()).collect()
    }

    /// The resources of the pods of a version, oldest first.
    #[must_use]
    pub fn endpoints_of(&self, version: &str) -> Vec<Endpoint> {
        self.endpoints().into_iter().filter(|endpoint| endpoint.version == version).collect()
    }

    /// Starts one more pod of `v1` or `v2`. Whoever wants it to get connections publishes its endpoint.
    ///
    /// # Errors
    /// When its namespace or server cannot be made.
    pub fn add_pod(&mut self, version: &str) -> Result<Endpoint> {
        let number = (1..=200)
            .find(|number| self.pods.iter().all(|pod| pod.endpoint.pod != pod_name(version, *number)))
            .context("two hundred pods are enough")?;
        let group: u8 = version.trim_start_matches('v').parse().with_context(|| format!("version `{version}`"))?;
        let endpoint = Endpoint {
            pod: pod_name(version, number),
            version: version.to_owned(),
            v4: Ipv4Addr::new(10, 244, group, number),
            v6: Ipv6Addr::new(0xfd00, 0x244, group.into(), 0, 0, 0, 0, number.into()),
        };
        let Endpoint { pod, v4, v6, .. } = &endpoint;
        let namespace = Namespace::new(pod)?;
        let port = format!("pod-{version}-{number}");
        connect(&self.node, &port, &namespace)?;
        // The same gateway for all pods, and a route to each.
        self.node.ip(&format!(
            "addr add 10.244.0.1/32 dev {port}\naddr add fd00:244::1/128 dev {port} nodad\n\
             route add {v4}/32 dev {port}\nroute add {v6}/128 dev {port}\n"
        ))?;
        namespace.ip(&format!(
            "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
             route add 10.244.0.1/32 dev eth0\nroute add default via 10.244.0.1\n\
             route add fd00:244::1/128 dev eth0\nroute add default via fd00:244::1\n"
        ))?;
        prepare_end(&namespace, self.hook)?;
        let server = start_server(&namespace, &endpoint)?;
        self.pods.push(Pod { server, namespace, port, endpoint: endpoint.clone() });
        Ok(endpoint)
    }

    /// A pod by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&mut self, name: &str) -> Result<&mut Pod> {
        self.pods.iter_mut().find(|pod| pod.endpoint.pod == name).with_context(|| format!("no pod `{name}`"))
    }

    /// Takes a pod away, with its address.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let position = self.pods.iter().position(|pod| pod.endpoint.pod == name);
        let pod = self.pods.remove(position.with_context(|| format!("no pod `{name}`"))?);
        // A namespace takes its interfaces with it, but some time later; the name of this one may be wanted now.
        self.node.ip(&format!("link del {}\n", pod.port))
    }
}

fn pod_name(version: &str, number: u8) -> String {
    format!("helloworld-{version}-{number}")
}

/// The service's address in a family.
#[must_use]
pub fn vip(ipv6: bool) -> SocketAddr {
    let address: IpAddr = if ipv6 { VIP6.into() } else { VIP.into() };
    SocketAddr::new(address, PORT)
}

/// A cable: `port` here, `eth0` there, both up.
fn connect(here: &Namespace, port: &str, there: &Namespace) -> Result<()> {
    let path = there.path();
    here.ip(&format!("link add {port} type veth peer name eth0 netns {}\nlink set {port} up\n", path.display()))?;
    there.ip("link set eth0 up\n")
}

/// A veth hands packets over as they are: a frame whose checksum "the card will fill in" meets an XDP program
/// unfinished, and a frame that XDP redirects is only taken by an end that polls (NAPI, which GRO brings). Real cards
/// do both. TC sees the kernel's own packets and needs neither.
fn prepare_end(end: &Namespace, hook: Hook) -> Result<()> {
    if hook == Hook::Xdp {
        end.call("ethtool", &["-K", "eth0", "tx", "off", "gro", "on"])?;
    }
    Ok(())
}

fn start_server(namespace: &Namespace, endpoint: &Endpoint) -> Result<Running> {
    let mut command = namespace.command(program("helloworld")?)?;
    command.args(["--version-name", &endpoint.version, "--instance", &endpoint.pod]);
    command.args(["--port", &PORT.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Running::new(command.spawn().with_context(|| format!("cannot start {command:?}"))?);
    let stdout = server.child().stdout.take().context("stdout was asked for")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "ready\n", "the server of {} does not start", endpoint.pod);
    Ok(server)
}

/// A program of this package, which cargo puts beside the demo and one above the tests.
///
/// # Errors
/// When it is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("`{name}` is not built; `cargo build -p canary-tests -p canary-user --bins` does it"))
}
