//! The node in the API: its ports, and who is on it.
use anyhow::{Context, Result};
use canary_tests::{
    agent::EndpointState,
    cgroup::Cgroup,
    cluster::{Cluster, changed, pod, route, service, sockets, subsets},
    load::{Load, Progress, Protocol, run},
    resources::{PORT, VIP, VIP6},
    story::vip,
    tally::{Tally, Weights},
};
use serde_json::{Value, json};

const START: Weights = Weights { v1: 50, v2: 50 };
const NODE_PORT: u16 = 30_080;

/// The story's cluster, two pods of v1 on this node and one of v2 on another; the agent at a cgroup and at the front.
struct World {
    // In this order: the agent ends before its cgroup is let go.
    cluster: Cluster,
    cgroup: Cgroup,
}

impl World {
    /// `policies`: fields of the Service.
    fn new(policies: &Value) -> Result<Self> {
        let (cgroup, mut cluster) = (Cgroup::new()?, Cluster::without_routes(2, 1)?);
        cluster.agent.attach_to(&[&format!("cgroup:{}", cgroup.path().display()), "tc:front"]);
        cluster.agent.with(&["--kube-node", "node"]);
        let web = service("helloworld", &json!({"app": "helloworld"}), &[VIP.to_string(), VIP6.to_string()]);
        let ports = json!([{"name": "http", "port": PORT, "targetPort": "http", "nodePort": NODE_PORT}]);
        let web = changed(web, &json!({"spec": {"type": "NodePort", "ports": ports}}));
        let web = changed(web, &json!({"spec": policies}));
        let other = cluster.story.endpoints_of("v2").first().map(pod).context("no v2")?;
        let elsewhere = changed(other, &json!({"spec": {"nodeName": "elsewhere"}}));
        cluster.server.put([
            web,
            subsets(),
            route(START),
            elsewhere,
            node("node", "10.0.0.1"),
            node("elsewhere", "192.0.2.9"),
        ])?;
        cluster.control()?;
        cluster.agent.start(&cluster.story)?;
        let world = Self { cluster, cgroup };
        world.cluster.agent.wait_for(&sockets(&world.cluster.story.endpoints_of("v1")), &[EndpointState::Serving])?;
        Ok(world)
    }

    /// Connections of a process in the cgroup.
    fn inside(&self, port: u16, connections: u32) -> Result<Tally> {
        let target = if port == NODE_PORT { ([10, 0, 0, 1], NODE_PORT).into() } else { vip(false) };
        self.cgroup.load(&self.cluster.story.client, target, Protocol::Tcp, connections)
    }

    /// Connections that come to the node's front.
    fn outside(&self, connections: u32) -> Result<Tally> {
        let load = Load::tcp(([10, 0, 0, 1], NODE_PORT).into(), connections);
        self.cluster.story.client.run(|| run(load, &Progress::new()))?
    }
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "here"}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
    })
}

/// From inside to any endpoint, whatever the policy for those outside; from outside to those on the node, and that only.
#[test]
fn a_node_port_is_answered_at_the_address_of_the_node() -> Result<()> {
    let world = World::new(&json!({"externalTrafficPolicy": "Local"}))?;
    START.hold_for(&world.inside(NODE_PORT, 40)?)?;
    START.hold_for(&world.inside(0, 40)?)?;
    let tally = world.outside(40)?;
    // v2 has nobody here: its share fails, as the policy says.
    assert_eq!((tally.of("v1"), tally.failed), (20, 20), "{tally:?}\n{}", world.cluster.agent.log());
    let services = world.cluster.agent.call(&["get", "services"])?;
    assert!(services.contains("helloworld@node:"), "{services}");
    let both = world.cluster.agent.call(&["get", "services", "helloworld", "-o", "name"])?;
    assert_eq!(both.lines().count(), 3, "two over IPv4, and one over IPv6: {both}");
    // The node goes on answering when its object is deleted, which is no matter of traffic.
    world.cluster.server.delete("nodes", "", "node")?;
    world.cluster.agent.wait_for_status("the Node of this agent is gone")?;
    let tally = world.outside(40)?;
    assert_eq!((tally.of("v1"), tally.failed), (20, 20), "{tally:?}\n{}", world.cluster.agent.log());
    Ok(())
}

/// Without that policy the answers of an endpoint elsewhere would not come back: kube-proxy's translation of the source is needed.
#[test]
fn packets_from_outside_to_any_endpoint_are_left_to_kube_proxy() -> Result<()> {
    let world = World::new(&json!({}))?;
    START.hold_for(&world.inside(NODE_PORT, 40)?)?;
    let tally = world.outside(1)?;
    assert_eq!(tally.failed, 1, "nobody else is there to answer: {tally:?}");
    Ok(())
}

#[test]
fn inside_the_cluster_a_local_policy_keeps_clients_on_their_node() -> Result<()> {
    let world = World::new(&json!({"internalTrafficPolicy": "Local"}))?;
    let tally = world.inside(0, 40)?;
    assert_eq!((tally.of("v1"), tally.failed), (20, 20), "{tally:?}\n{}", world.cluster.agent.log());
    // When v2 comes to the node, it has its share again.
    let moved = world.cluster.story.endpoints_of("v2").first().map(pod).context("no v2")?;
    world.cluster.server.put([moved])?;
    world.cluster.control()?;
    let v2 = sockets(&world.cluster.story.endpoints_of("v2"));
    world.cluster.agent.wait_for(&v2, &[EndpointState::Serving])?;
    let started = std::time::Instant::now();
    while world.inside(0, 2)?.failed != 0 {
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{}", world.cluster.agent.log());
    }
    Ok(())
}
