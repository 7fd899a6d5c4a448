//! Those that are measured: how each is started for the same work, and where clients find it.
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use canary_tests::{
    agent::{Agent, EndpointState},
    cleanup::{Directory, Running},
    focused::{FOCUSED, write_routes},
    resources::{Extras, write_endpoints, write_service},
    story::vip,
    tally::Weights,
};
use serde_json::{Value, json};

use crate::{
    measure::{Work, ask},
    topology::{NODE_CPU, Topology, on},
};

/// The node's address towards clients: peers listen here.
const NODE: &str = "10.0.0.1";
/// For whom the canary is, as the blog has it.
const COOKIE: &str = "^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$";
const PATIENCE: Duration = Duration::from_secs(20);

/// A system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Nobody between client and pod
    Direct,
    /// DNAT as kube-proxy's nftables mode does it
    Nftables,
    /// canary: weights in the kernel, cookies in its proxy
    Canary,
    /// HAProxy
    Haproxy,
    /// nginx
    Nginx,
    /// Envoy, Istio's proxy
    Envoy,
    /// canary, which puts clients' packets straight into the pods
    CanaryDirect,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Direct, Self::Nftables, Self::Canary, Self::CanaryDirect, Self::Haproxy, Self::Nginx, Self::Envoy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nftables => "nftables",
            Self::Canary => "canary",
            Self::CanaryDirect => "canary --direct",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        }
    }

    /// Nobody between, and packets only: no cookies. Proxied, canary is the same with and without shortcuts.
    pub(crate) fn can(self, work: Work) -> bool {
        !work.is_focused() || !matches!(self, Self::Direct | Self::Nftables | Self::CanaryDirect)
    }
}

/// One that runs.
pub(crate) struct System {
    kind: Kind,
    agent: Option<Agent>,
    peer: Option<Running>,
    direct: SocketAddr,
    /// Configuration of the peer; it may read it at any time.
    _files: Directory,
}

impl System {
    pub(crate) fn start(kind: Kind, topology: &Topology, envoy: Option<&Path>) -> Result<Self> {
        let files = Directory::temporary()?;
        let directory = files.path();
        let fill = |text: &str| -> Result<String> {
            Ok(text
                .replace("@NODE@", NODE)
                .replace("@COOKIE@", COOKIE)
                .replace("@DIR@", &directory.display().to_string())
                .replace("@V1@", &topology.pod("v1")?.to_string())
                .replace("@V2@", &topology.pod("v2")?.to_string()))
        };
        let write = |name: &str, text: String| -> Result<String> {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok(path.display().to_string())
        };
        let run = |program: &str, arguments: &[&str]| -> Result<Option<Running>> {
            on(NODE_CPU, || {
                let mut command = topology.story.node.command(program)?;
                command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
                Ok(Some(Running::new(command.spawn().with_context(|| format!("cannot start `{program}`"))?)))
            })
        };
        let mut agent = None;
        let peer = match kind {
            Kind::Direct => None,
            Kind::Canary | Kind::CanaryDirect => {
                agent = Some(on(NODE_CPU, || canary(topology, kind == Kind::CanaryDirect))?);
                None
            }
            Kind::Nftables => {
                let rules = write("rules.nft", fill(include_str!("conf/nftables.nft"))?)?;
                topology.story.node.call("nft", &["-f", &rules])?;
                None
            }
            Kind::Haproxy => {
                run("haproxy", &["-db", "-f", &write("haproxy.cfg", fill(include_str!("conf/haproxy.cfg"))?)?])?
            }
            Kind::Nginx => run("nginx", &["-c", &write("nginx.conf", fill(include_str!("conf/nginx.conf"))?)?])?,
            Kind::Envoy => {
                let envoy = envoy.context("Envoy's program is not known: `--envoy FILE`")?.display().to_string();
                let config = write("envoy.json", envoy_config(topology)?.to_string())?;
                run(&envoy, &["-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])?
            }
        };
        let direct = SocketAddr::from(([10, 9, 0, 2], canary_tests::resources::PORT));
        Ok(Self { kind, agent, peer, direct, _files: files })
    }

    /// Where a client asks for this work.
    pub(crate) fn target(&self, work: Work) -> SocketAddr {
        match self.kind {
            Kind::Direct => self.direct,
            Kind::Canary | Kind::CanaryDirect => vip(false),
            _ => SocketAddr::from(([10, 0, 0, 1], if work.is_focused() { 8081 } else { 8080 })),
        }
    }

    /// Waits for the first answer.
    pub(crate) fn wait(&mut self, topology: &Topology) -> Result<()> {
        let started = Instant::now();
        let target = self.target(Work::SplitKept);
        while let Err(error) = topology.story.client.run(|| ask(target, ""))? {
            if let Some(peer) = &mut self.peer {
                ensure!(peer.child().try_wait()?.is_none(), "it ended: {error:#}");
            }
            if started.elapsed() > PATIENCE {
                bail!("no answer: {error:#}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// canary has one service, whose routes change; the others have a port for each work.
    pub(crate) fn prepare(&self, work: Work, topology: &Topology) -> Result<()> {
        let Some(agent) = self.agent.as_ref().filter(|_| work == Work::FocusedKept) else { return Ok(()) };
        write_routes(agent, FOCUSED)?;
        let started = Instant::now();
        // Only versions that the proxy serves have requests.
        let proxied = || -> Result<bool> {
            let versions: serde_json::Value = serde_json::from_str(&agent.call(&["get", "versions", "-o", "json"])?)?;
            let items = versions.pointer("/items").and_then(serde_json::Value::as_array).context("no items")?;
            Ok(items.iter().any(|item| item.get("requests").is_some_and(serde_json::Value::is_u64)))
        };
        while !proxied()? {
            ensure!(started.elapsed() < PATIENCE, "the proxy does not get the service: {}", agent.log());
            thread::sleep(Duration::from_millis(20));
        }
        topology.story.client.run(|| ask(vip(false), ""))?.map(drop)
    }

    fn pids(&mut self) -> Vec<u32> {
        let main = match (&self.agent, &mut self.peer) {
            (Some(agent), _) => agent.pid(),
            (_, Some(peer)) => Some(peer.child().id()),
            _ => None,
        };
        let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        main.into_iter()
            .flat_map(|pid| {
                let children: Vec<u32> = children(pid).split_whitespace().filter_map(|it| it.parse().ok()).collect();
                [vec![pid], children].concat()
            })
            .collect()
    }

    /// CPU time of its processes so far, in seconds.
    pub(crate) fn cpu_seconds(&mut self) -> Result<f64> {
        let mut nanoseconds = 0.0;
        for pid in self.pids() {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
                nanoseconds += text.split(' ').next().and_then(|it| it.parse::<f64>().ok()).unwrap_or_default();
            }
        }
        Ok(nanoseconds / 1e9)
    }

    /// Memory of its processes in MB: what is theirs alone and their share of the rest, without tables of the kernel
    /// that they have mapped.
    pub(crate) fn memory(&mut self) -> Result<f64> {
        let mut kilobytes = 0.0;
        for pid in self.pids() {
            let mut of_kernel = false;
            for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
                let mut words = line.split_whitespace();
                match words.next() {
                    Some("Pss:") if !of_kernel => {
                        kilobytes += words.next().and_then(|it| it.parse::<f64>().ok()).unwrap_or_default();
                    }
                    Some(first) if !first.ends_with(':') => of_kernel = line.contains("bpf-map"),
                    _ => {}
                }
            }
        }
        Ok(kilobytes / 1024.0)
    }
}

fn canary(topology: &Topology, direct: bool) -> Result<Agent> {
    let mut agent = Agent::new(&topology.story)?;
    if direct {
        agent.with(&["--direct"]);
    }
    agent.listen_at(&["10.0.0.1:15001"]);
    write_service(&agent.config(), Weights { v1: 90, v2: 10 }, &Extras::default())?;
    write_endpoints(&agent.config(), &topology.story.endpoints())?;
    agent.start(&topology.story)?;
    agent.wait_for(&[topology.pod("v1")?, topology.pod("v2")?], &[EndpointState::Serving])?;
    Ok(agent)
}

fn envoy_config(topology: &Topology) -> Result<Value> {
    let weighted = |v1: u32, v2: u32| json!({"weighted_clusters": {"clusters": [{"name": "v1", "weight": v1}, {"name": "v2", "weight": v2}]}});
    let listener = |name: &str, port: u16, routes: Value| {
        let types = "type.googleapis.com/envoy.extensions.filters";
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}});
        let manager = json!({
            "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "route_config": {"name": name, "virtual_hosts": [{"name": "web", "domains": ["*"], "routes": routes}]},
            "http_filters": [router],
        });
        json!({
            "name": name,
            "address": {"socket_address": {"address": NODE, "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        })
    };
    let cluster = |name: &str, at: SocketAddr| {
        let address = json!({"socket_address": {"address": at.ip(), "port_value": at.port()}});
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "2s", "lb_policy": "ROUND_ROBIN",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        })
    };
    let any = json!({"prefix": "/"});
    let member =
        json!({"prefix": "/", "headers": [{"name": "cookie", "string_match": {"safe_regex": {"regex": COOKIE}}}]});
    let focused = json!([{"match": member, "route": weighted(50, 50)}, {"match": any, "route": {"cluster": "v1"}}]);
    Ok(json!({
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {
            "listeners": [
                listener("split", 8080, json!([{"match": any, "route": weighted(90, 10)}])),
                listener("focused", 8081, focused),
            ],
            "clusters": [cluster("v1", topology.pod("v1")?), cluster("v2", topology.pod("v2")?)],
        },
    }))
}
