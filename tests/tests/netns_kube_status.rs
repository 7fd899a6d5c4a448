//! What the agent writes at the API server: conditions of routes and Gateways, and Events; while it holds the Lease.
use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    cluster::{Cluster, service},
    resources::PORT,
};
use canary_user::source;
use serde_json::{Value, json};

const GROUP: &str = "gateway.networking.k8s.io";
const CONTROLLER: &str = "canary.io/gateway-controller";

fn eventually(cluster: &Cluster, what: &str, mut done: impl FnMut() -> Option<bool>) -> Result<()> {
    let started = Instant::now();
    while done() != Some(true) {
        ensure!(started.elapsed() < Duration::from_mins(2), "{what} never happens\n{}", cluster.agent.log());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn route(backends: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "helloworld"}, {"name": "of-somebody-else"}],
            "rules": [{"backendRefs": backends}],
        },
    })
}

/// A condition of the entry of canary's controller: status, reason and when it has changed.
fn condition(cluster: &Cluster, kind: &str) -> Option<(String, String, String)> {
    let object = cluster.server.get("httproutes", "default", "split")?;
    let parents = object.pointer("/status/parents")?.as_array()?.clone();
    let own = parents.iter().find(|it| it.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER))?;
    let conditions = own.get("conditions")?.as_array()?;
    let found = conditions.iter().find(|it| it.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |field: &str| Some(found.get(field)?.as_str()?.to_owned());
    Some((text("status")?, text("reason")?, text("lastTransitionTime")?))
}

/// helloworld with a Service for each version, and an agent that writes.
fn world(backends: &Value) -> Result<Cluster> {
    let mut cluster = Cluster::without_routes(1, 1)?;
    let address = |last: u8| [format!("10.96.2.{last}"), format!("fd00:96::2:{last}")];
    cluster.server.put([
        service("helloworld-v1", &json!({"version": "v1"}), &address(1)),
        service("helloworld-v2", &json!({"version": "v2"}), &address(2)),
        route(backends),
    ])?;
    let others = json!({"status": {"parents": [
        {"parentRef": {"name": "of-somebody-else"}, "controllerName": "x.io/other", "conditions": []}]}});
    cluster.server.patch("httproutes", "default", "split", &others)?;
    cluster.control()?;
    cluster.agent.with(&["--kube-status", "default"]);
    Ok(cluster)
}

/// What the roles of the manifests allow, as the server tells of requests: `patch httproutes/status`.
fn allowed() -> Result<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/rbac.yaml");
    let roles = source::parse(&std::fs::read_to_string(&path)?, &path).objects;
    let mut allowed = BTreeSet::new();
    for rule in roles.iter().filter_map(|role| role.body.get("rules")?.as_array()).flatten() {
        let texts =
            |field: &str| rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for verb in texts("verbs") {
            allowed.extend(texts("resources").map(|resource| format!("{verb} {resource}")));
        }
    }
    ensure!(!allowed.is_empty(), "no rules in {}", path.display());
    Ok(allowed)
}

#[test]
fn routes_and_gateways_say_how_they_are() -> Result<()> {
    let to = |name: &str| json!({"name": name, "port": PORT});
    let mut cluster = world(&json!([to("helloworld-v1"), to("helloworld-v2")]))?;
    cluster.server.put([
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "GatewayClass", "metadata": {"name": "canary"},
            "spec": {"controllerName": CONTROLLER}}),
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Gateway", "metadata": {"name": "public", "namespace": "default"},
            "spec": {"gatewayClassName": "canary", "addresses": [{"value": "10.96.9.9"}], "listeners": [
                {"name": "tcp", "port": 9000, "protocol": "TCP"}, {"name": "secure", "port": 443, "protocol": "HTTPS"}]}}),
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "HTTPRoute", "metadata": {"name": "left", "namespace": "default"},
            "spec": {"parentRefs": [{"name": "of-somebody-else"}]}}),
    ])?;
    let entry =
        |controller: &str| json!({"parentRef": {"name": controller}, "controllerName": controller, "conditions": []});
    let earlier = json!({"status": {"parents": [entry("x.io/other"), entry(CONTROLLER)]}});
    cluster.server.patch("httproutes", "default", "left", &earlier)?;
    cluster.start()?;
    let holds = |cluster: &Cluster, kind: &str, status: &str, reason: &str| {
        condition(cluster, kind).map(|(is, why, _)| (is.as_str(), why.as_str()) == (status, reason))
    };
    for (kind, reason) in [("Accepted", "Accepted"), ("ResolvedRefs", "ResolvedRefs"), ("Programmed", "Programmed")] {
        eventually(&cluster, kind, || holds(&cluster, kind, "True", reason))?;
    }
    let said = cluster.server.get("httproutes", "default", "split").context("it is gone")?;
    let parents = said.pointer("/status/parents").and_then(Value::as_array).context("no parents")?;
    let controllers: Vec<_> = parents.iter().filter_map(|it| it.get("controllerName")?.as_str()).collect();
    assert_eq!(controllers, ["x.io/other", CONTROLLER], "what others say stays");
    assert_eq!(said.pointer("/status/parents/1/conditions/0/observedGeneration"), said.pointer("/metadata/generation"));
    let holder = || {
        let lease = cluster.server.get("leases", "default", "canary-status")?;
        Some(lease.pointer("/spec/holderIdentity")?.as_str()?.to_owned())
    };
    assert!(holder().is_some());
    eventually(&cluster, "what an agent before it has said is taken back", || {
        let left = cluster.server.get("httproutes", "default", "left")?;
        Some(*left.pointer("/status/parents")? == json!([entry("x.io/other")]))
    })?;
    let gateway = |pointer: &str| cluster.server.get("gateways", "default", "public")?.pointer(pointer).cloned();
    eventually(&cluster, "the Gateway's status", || Some(gateway("/status/addresses/0/value")? == "10.96.9.9"))?;
    assert_eq!(gateway("/status/listeners/1/conditions/0/reason"), Some(json!("UnsupportedProtocol")));
    assert_eq!(gateway("/status/listeners/0/supportedKinds/0/kind"), Some(json!("TCPRoute")));
    let class = || cluster.server.get("gatewayclasses", "", "canary")?.pointer("/status/conditions/0/status").cloned();
    eventually(&cluster, "the class's status", || Some(class()? == "True"))?;

    // A backend of another namespace, without a grant: said in the status and by an Event; the rest of what is said stays.
    let (_, _, accepted) = condition(&cluster, "Accepted").context("no condition")?;
    thread::sleep(Duration::from_millis(1_100));
    cluster.server.put([route(&json!([to("helloworld-v1"), {"name": "x", "namespace": "other", "port": PORT}]))])?;
    let old = json!({"status": said.get("status")});
    cluster.server.patch("httproutes", "default", "split", &old)?;
    eventually(&cluster, "RefNotPermitted", || holds(&cluster, "ResolvedRefs", "False", "RefNotPermitted"))?;
    assert_eq!(condition(&cluster, "Accepted").context("no condition")?.2, accepted);
    eventually(&cluster, "the Event", || {
        let route = cluster.server.get("httproutes", "default", "split")?;
        let events = cluster.server.list("events.k8s.io");
        Some(events.iter().any(|it| {
            it.pointer("/regarding/name") == Some(&json!("split"))
                && it.pointer("/regarding/uid") == route.pointer("/metadata/uid")
                && it.pointer("/reason") == Some(&json!("CAN0317"))
        }))
    })?;

    // An object with an error is told of, and keeps nobody from being ready.
    ensure!(cluster.agent.call(&["status"]).is_err());
    cluster.agent.call(&["status", "--probe"])?;

    // No longer canary's: what it has said is taken back.
    let parents = json!({"spec": {"parentRefs": [{"name": "of-somebody-else"}]}});
    cluster.server.patch("httproutes", "default", "split", &parents)?;
    eventually(&cluster, "what was said is taken back", || {
        let object = cluster.server.get("httproutes", "default", "split")?;
        Some(object.pointer("/status/parents")?.as_array()?.len() == 1)
    })?;
    // Nothing was asked for that the roles of the manifests do not allow: statuses, Events and the Lease are all that is written.
    let (asked, allowed) = (cluster.server.requests().into_iter().collect::<BTreeSet<_>>(), allowed()?);
    assert!(asked.is_subset(&allowed), "{:?}", asked.difference(&allowed));
    for written in ["create leases", "update leases", "patch httproutes/status", "create events"] {
        assert!(asked.contains(written), "no `{written}` in {asked:?}");
    }
    Ok(())
}

/// Another agent holds the Lease: this one writes when the other has not renewed it for its time, and not before.
#[test]
fn one_agent_of_all_writes() -> Result<()> {
    let both = ["helloworld-v1", "helloworld-v2"].map(|name| json!({"name": name, "port": PORT}));
    let mut cluster = world(&json!(both))?;
    let lease = |renewed: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "canary-status", "namespace": "default"},
            "spec": {"holderIdentity": "another", "leaseDurationSeconds": 15, "renewTime": renewed, "leaseTransitions": 3}})
    };
    cluster.server.put([lease("2026-01-01T00:00:00.000000Z")])?;
    cluster.start()?;
    thread::sleep(Duration::from_secs(12));
    cluster.server.put([lease("2026-01-01T00:00:12.000000Z")])?;
    thread::sleep(Duration::from_secs(6));
    assert!(condition(&cluster, "Accepted").is_none(), "the other one has renewed it");
    eventually(&cluster, "the Lease changes hands", || Some(condition(&cluster, "Accepted")?.0 == "True"))?;
    let lease = cluster.server.get("leases", "default", "canary-status").context("no Lease")?;
    assert_eq!(lease.pointer("/spec/leaseTransitions"), Some(&json!(4)));
    Ok(())
}
