//! `clusters`: what a large cluster costs an agent: memory, the time until everything is in force, and each change.
//!
//! An API server of the tests holds the objects, with what real ones have around what is read; a tenth of the services has
//! routes. The agent is the real one.
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{cluster::Cluster, resources::PORT};
use clap::Parser;
use serde_json::{Value, json};

/// Measures an agent that follows a large cluster.
#[derive(Debug, Parser)]
struct Options {
    /// Services
    #[arg(long, default_value_t = 5_000)]
    services: usize,
    /// Pods; each is an endpoint of several services
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Endpoints of each service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Changes of each kind, of which the median is shown
    #[arg(long, default_value_t = 15)]
    changes: usize,
}

/// How long one change may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A changed object: of a service, in a turn, with so many endpoints of so many pods.
type Change = fn(usize, usize, usize, usize) -> Value;

fn main() -> Result<()> {
    let options = Options::parse();
    let mut cluster = Cluster::without_routes(1, 1)?;
    let Options { services, pods, endpoints, changes } = options;
    cluster.server.put((0..pods).map(pod))?;
    cluster.server.put((0..services).flat_map(|n| [service(n), slice(n, endpoints, pods, false)]))?;
    cluster.server.put((0..services).step_by(10).flat_map(|n| [rule(n), route(n, 10)]))?;
    let begin = Instant::now();
    cluster.agent.start(&cluster.story)?;
    await_passes(&cluster, 1)?;
    let started = begin.elapsed();
    let pid = cluster.agent.pid().context("the agent does not run")?;
    // What follows a start is over when the agent has nothing to do any more.
    let mut before = busy(pid)?;
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = busy(pid)?;
        if now < before + Duration::from_millis(50) {
            break;
        }
        before = now;
    }
    println!("{services} services, {} endpoints, {pods} pods, {} routes", services * endpoints, services.div_ceil(10));
    println!(
        "in force after {:.1} s of which the agent computed {:.1}",
        started.as_secs_f64(),
        busy(pid)?.as_secs_f64()
    );
    println!("memory of the agent: {} MB, without the maps that it shares with the kernel", memory(pid, "RssAnon:")?);
    println!("{:<42} {:>14} {:>12} {:>12}", "a change", "until in force", "CPU", "map writes");
    let cases: [(&str, Change); 3] = [
        ("of weights", |n, turn, _, _| route(n, 10 + turn % 50)),
        ("of a routed service's endpoints", |n, turn, endpoints, pods| {
            slice(n, endpoints, pods, turn.is_multiple_of(2))
        }),
        ("of another service's endpoints", |n, turn, endpoints, pods| {
            slice(n + 1, endpoints, pods, turn.is_multiple_of(2))
        }),
    ];
    for (what, change) in cases {
        let (mut latency, mut cost, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 1..=changes {
            let (passes, spent) = (said(&cluster, "/passes")?, busy(pid)?);
            let begin = Instant::now();
            cluster.server.put([change(20, turn, endpoints, pods)])?;
            await_passes(&cluster, passes + 1)?;
            latency.push(begin.elapsed());
            writes.push(said(&cluster, "/operations")?);
            thread::sleep(Duration::from_millis(300));
            cost.push(busy(pid)?.saturating_sub(spent));
        }
        let median = |mut all: Vec<Duration>| {
            all.sort();
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{what:<42} {:>11.0} ms {:>9.0} ms {:>12}",
            median(latency).as_secs_f64() * 1e3,
            median(cost).as_secs_f64() * 1e3,
            writes.iter().max().copied().unwrap_or_default()
        );
    }
    Ok(())
}

/// A number in the agent's status.
fn said(cluster: &Cluster, what: &str) -> Result<u64> {
    let said: Value = serde_json::from_str(&cluster.agent.call(&["status", "-o", "json"])?)?;
    said.pointer(what).and_then(Value::as_u64).with_context(|| format!("a status without {what}"))
}

fn await_passes(cluster: &Cluster, wanted: u64) -> Result<()> {
    let begin = Instant::now();
    while said(cluster, "/passes")? < wanted {
        ensure!(begin.elapsed() < PATIENCE, "nothing happens\n{}", cluster.agent.log());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Time that a process has computed, in steps of 10 ms.
fn busy(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').context("no name")?.1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Megabytes of a process.
fn memory(pid: u32, what: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with(what)).context("no such figure")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1_024)
}

fn address(n: usize) -> String {
    format!("10.200.{}.{}", n / 250, n % 250 + 1)
}

/// With about as much around it as a real one has.
fn pod(n: usize) -> Value {
    let labels = json!({"app": format!("app-{}", n / 2), "version": if n.is_multiple_of(2) { "v1" } else { "v2" },
        "pod-template-hash": "5d9f8c7b6d", "app.kubernetes.io/name": format!("app-{}", n / 2)});
    let fields: Vec<Value> = (0..6)
        .map(|_| {
            json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "kubelet",
        "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:status": {"f:conditions": {
            "k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:status": {}, "f:type": {}}}}}})
        })
        .collect();
    let env: Vec<Value> =
        (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "some value of it"})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{n}"), "namespace": "shop", "labels": labels, "managedFields": fields,
            "annotations": {"kubernetes.io/config.source": "api", "checksum/config": "0f343b0931126a20f133d67c2b018a3b"}},
        "spec": {"nodeName": format!("node-{}", n % 100), "containers": [{"name": "app", "image": "registry.example/app:1",
            "env": env, "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
        "status": {"phase": "Running", "podIP": address(n), "podIPs": [{"ip": address(n)}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "True"}, {"type": "PodScheduled", "status": "True"}]},
    })
}

fn service(n: usize) -> Value {
    canary_tests::cluster::service_of(
        "shop",
        &format!("app-{n}"),
        &json!({"app": format!("app-{n}")}),
        &[format!("10.96.{}.{}", 10 + n / 250, n % 250 + 1)],
    )
}

fn slice(n: usize, endpoints: usize, pods: usize, one_less: bool) -> Value {
    let endpoint = |at: usize| {
        let pod = (n * 2 + at) % pods;
        json!({"addresses": [address(pod)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", pod % 100), "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("pod-{pod}"), "uid": "0a1b2c3d-0000-4000-8000-000000000000"}})
    };
    let endpoints: Vec<Value> = (usize::from(one_less)..endpoints).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("app-{n}-x7k2p"), "namespace": "shop", "labels": {"kubernetes.io/service-name": format!("app-{n}"),
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    })
}

fn rule(n: usize) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": format!("app-{n}"), "namespace": "shop"},
        "spec": {"host": format!("app-{n}"), "subsets": [
            {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]},
    })
}

fn route(n: usize, canary: usize) -> Value {
    let to = |subset: &str, weight: usize| json!({"destination": {"host": format!("app-{n}"), "subset": subset}, "weight": weight});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": format!("app-{n}"), "namespace": "shop"},
        "spec": {"hosts": [format!("app-{n}")], "http": [{"route": [to("v1", 100 - canary), to("v2", canary)]}]},
    })
}
