//! Pods as clients: whose processes connect is told by their cgroups, before their sockets have an address.
use anyhow::{Context, Result};
use canary_tests::{
    cgroup::Cgroup,
    cluster::{Cluster, changed, pod, route, service, subsets},
    load::Protocol,
    resources::{Endpoint, VIP, VIP6},
    story::vip,
    tally::{Tally, Weights},
};
use serde_json::{Value, json};

const START: Weights = Weights { v1: 90, v2: 10 };

/// The story's cluster, whose agent is at a cgroup with those of two pods below it: of one as systemd calls it, of the other
/// as the kubelet itself does.
struct World {
    // In this order: the agent ends before its cgroups are let go.
    cluster: Cluster,
    ada: Cgroup,
    bob: Cgroup,
    root: Cgroup,
}

impl World {
    fn new(objects: impl IntoIterator<Item = Value>) -> Result<Self> {
        let (root, mut cluster) = (Cgroup::new()?, Cluster::without_routes(2, 1)?);
        cluster.agent.attach_to(&[&format!("cgroup:{}", root.path().display())]);
        cluster.server.put([subsets(), client("ada", 1), client("bob", 2)])?;
        cluster.server.put(objects)?;
        let pods = cluster.server.list("pods");
        let uid = |name| {
            let at = |pod: &Value, field| pod.pointer(field).and_then(Value::as_str).map(str::to_owned);
            let pod = pods.iter().find(|pod| at(pod, "/metadata/name").as_deref() == Some(name));
            pod.and_then(|pod| at(pod, "/metadata/uid")).context("a Pod without a UID")
        };
        let slice = uid("ada")?.replace('-', "_");
        let slice = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice");
        let (ada, bob) =
            (root.below(&format!("{slice}/cri-1.scope"))?, root.below(&format!("kubepods/pod{}/2", uid("bob")?))?);
        cluster.start()?;
        Ok(Self { cluster, ada, bob, root })
    }

    /// Connections of a process in this cgroup.
    fn connect(&self, from: &Cgroup, ipv6: bool) -> Result<Tally> {
        let tally = from.load(&self.cluster.story.client, vip(ipv6), Protocol::Tcp, 20)?;
        assert_eq!((tally.answers(), tally.failed), (20, 0), "{tally:?}\n{}", self.cluster.agent.log());
        Ok(tally)
    }
}

/// A client's pod, as the API server has it.
fn client(name: &str, host: u16) -> Value {
    let v4 = [192, 0, 2, u8::try_from(host).unwrap_or_default()].into();
    let v6 = [0xfd00, 9, 0, 0, 0, 0, 0, host].into();
    let pod = pod(&Endpoint { pod: name.into(), version: "none".into(), v4, v6 });
    changed(pod, &json!({"metadata": {"labels": {"app": null, "version": null, "user": name}}}))
}

/// Only some users see the canary: those of a workload.
#[test]
fn a_rule_for_a_workload_holds_for_its_processes() -> Result<()> {
    let to = |subset: &str| json!([{"destination": {"host": "helloworld", "subset": subset}}]);
    let rules = json!([{"match": [{"sourceLabels": {"user": "ada"}}], "route": to("v2")}, {"route": to("v1")}]);
    let focused = changed(route(START), &json!({"spec": {"http": rules}}));
    let world = World::new([focused])?;
    for ipv6 in [false, true] {
        assert_eq!(world.connect(&world.ada, ipv6)?.of("v2"), 20, "IPv6: {ipv6}");
        assert_eq!(world.connect(&world.bob, ipv6)?.of("v1"), 20, "IPv6: {ipv6}");
    }
    // Whoever belongs to no pod has no address yet: his packets would decide, and no interface is attached to.
    let nobody = world.root.load(&world.cluster.story.client, vip(false), Protocol::Tcp, 1)?;
    assert_eq!(nobody.failed, 1, "{nobody:?}");
    let leaves = world.cluster.agent.call(&["get", "leaves"])?;
    assert!(leaves.contains("unknown-client"), "{leaves}");
    // A pod that has other labels now is another client.
    let other = changed(client("bob", 2), &json!({"metadata": {"labels": {"user": "ada"}}}));
    world.cluster.server.put([other])?;
    let started = std::time::Instant::now();
    while world.connect(&world.bob, false)?.of("v2") != 20 {
        assert!(started.elapsed() < std::time::Duration::from_mins(1), "{}", world.cluster.agent.log());
    }
    Ok(())
}

/// `sessionAffinity: ClientIP`: all connections of a pod go to one endpoint of one version.
#[test]
fn a_client_of_a_service_with_affinity_stays_with_its_endpoint() -> Result<()> {
    let plain = service("helloworld", &json!({"app": "helloworld"}), &[VIP.to_string(), VIP6.to_string()]);
    let affinity =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}}});
    let sticky = changed(plain, &json!({"spec": affinity}));
    let world = World::new([sticky, route(Weights { v1: 50, v2: 50 })])?;
    for pod in [&world.ada, &world.bob] {
        let tally = world.connect(pod, false)?;
        let instances = tally.versions.values().flatten().count();
        assert_eq!((instances, &tally), (1, &world.connect(pod, false)?));
    }
    Ok(())
}
