//! Flagger and Argo Rollouts drive a release, step by step as they write objects, while clients connect: no connection fails,
//! and every step has its share exactly.
use std::{thread, time::Duration};

use anyhow::Result;
use canary_tests::{
    agent::EndpointState,
    background::Background,
    cluster::{Cluster, service, sockets, subsets},
    load::Load,
    resources::PORT,
    story::vip,
};
use serde_json::{Value, json};

/// Waits until the only rule of the service has these weights.
fn in_force(cluster: &Cluster, weights: &[(&str, u64)]) -> Result<()> {
    cluster.wait_for_rules(&[weights])
}

/// Connections that all are answered, so many of a hundred by v2.
fn assert_canaries(cluster: &Cluster, expected: u64) -> Result<()> {
    let tally = cluster.connect(100)?;
    assert_eq!((tally.of("v2"), tally.answers(), tally.failed), (expected, 100, 0), "{tally:?}");
    Ok(())
}

/// Clients that connect all the while. They share the numbers of the split, so shares are asserted while they pause.
fn busy(cluster: &Cluster) -> Background {
    Background::load(&cluster.story.client, Load { concurrency: 2, ..Load::tcp(vip(true), u32::MAX) })
}

/// As Flagger writes it: one rule without a name, two Services, no subsets.
fn flagger(primary: u64, canary: u64) -> Value {
    let to = |name: &str, weight: u64| json!({"destination": {"host": format!("helloworld-{name}")}, "weight": weight});
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "helloworld", "namespace": "default", "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled"}},
        "spec": {"gateways": ["mesh"], "hosts": ["helloworld"], "http": [
            {"route": [to("primary", primary), to("canary", canary)]}]},
    })
}

fn flagger_rule(name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule",
        "metadata": {"name": format!("helloworld-{name}"), "namespace": "default"},
        "spec": {"host": format!("helloworld-{name}")},
    })
}

/// As Flagger writes it for a mesh that speaks the Gateway API: one rule with two backends, for every path.
fn flagger_by_the_gateway_api(primary: u64, canary: u64) -> Value {
    let to = |name: &str, weight: u64| json!({"group": "", "kind": "Service", "name": format!("helloworld-{name}"), "port": PORT, "weight": weight});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "helloworld", "port": PORT}],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [to("primary", primary), to("canary", canary)],
            }],
        },
    })
}

#[test]
fn flagger_promotes_and_rolls_back() -> Result<()> {
    flagger_drives(flagger)
}

#[test]
fn flagger_does_so_by_the_gateway_api() -> Result<()> {
    flagger_drives(flagger_by_the_gateway_api)
}

fn flagger_drives(flagger: fn(u64, u64) -> Value) -> Result<()> {
    let mut cluster = Cluster::without_routes(2, 0)?;
    let own = |last: u8| [format!("10.96.1.{last}"), format!("fd00:96::1:{last}")];
    cluster.server.put([
        service("helloworld-primary", &json!({"version": "v1"}), &own(1)),
        service("helloworld-canary", &json!({"version": "v2"}), &own(2)),
        flagger_rule("primary"),
        flagger_rule("canary"),
        flagger(100, 0),
    ])?;
    cluster.control()?;
    cluster.start()?;
    let weights = |primary, canary| [("helloworld-primary", primary), ("helloworld-canary", canary)];
    in_force(&cluster, &weights(100, 0))?;
    let clients = busy(&cluster);

    for promoted in [false, true] {
        // The canary is scaled up, and is ready, before it gets anything.
        let added = cluster.add_pod("v2")?;
        cluster.agent.wait_for(&sockets(std::slice::from_ref(&added)), &[EndpointState::Serving])?;
        for canary in if promoted { [10, 30, 50] } else { [10, 20, 30] } {
            cluster.server.put([flagger(100 - canary, canary)])?;
            in_force(&cluster, &weights(100 - canary, canary))?;
            assert_canaries(&cluster, canary)?;
        }
        // Failed: back at once. Promoted: the primary is rolled by its Deployment, then everybody goes there.
        if promoted {
            for old in cluster.story.endpoints_of("v1") {
                let new = cluster.add_pod("v1")?;
                cluster.agent.wait_for(&sockets(&[new]), &[EndpointState::Serving])?;
                cluster.terminate_pod(&old.pod)?;
                cluster.agent.wait_for(&sockets(&[old]), &[EndpointState::Draining])?;
            }
        }
        cluster.server.put([flagger(100, 0)])?;
        in_force(&cluster, &weights(100, 0))?;
        assert_canaries(&cluster, 0)?;
        cluster.terminate_pod(&added.pod)?;
        // The last one of its Service serves as long as it answers, should anybody come.
        cluster.agent.wait_for(&sockets(std::slice::from_ref(&added)), &[EndpointState::Serving])?;
        thread::sleep(Duration::from_millis(300));
        cluster.server.delete("pods", "default", &added.pod)?;
        cluster.control()?;
        cluster.story.remove_pod(&added.pod)?;
    }
    let tally = clients.stop()?;
    assert_eq!(tally.failed, 0, "{tally:?}\n{}", cluster.agent.log());
    Ok(())
}

/// As Argo Rollouts writes weights: floats, by patches of a VirtualService that somebody else has made.
fn argo(canary: u64) -> Value {
    let to = |subset: &str, weight: u64| json!({"destination": {"host": "helloworld", "subset": subset}, "weight": f64::from(u32::try_from(weight).unwrap_or(0))});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {"hosts": ["helloworld"], "http": [{"name": "primary", "route": [
            to("stable", 100 - canary), to("canary", canary)]}]},
    })
}

/// Its subsets, by the hashes of its sets of pods. The labels are those of the story.
fn hashes(stable: &str, canary: &str) -> Value {
    let mut rule = subsets();
    let subset = |name: &str, hash: &str| json!({"name": name, "labels": {"app": "helloworld", "version": hash}});
    if let Some(spec) = rule.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("subsets".into(), json!([subset("stable", stable), subset("canary", canary)]));
    }
    rule
}

#[test]
fn argo_steps_aborts_and_switches_hashes() -> Result<()> {
    let mut cluster = Cluster::without_routes(2, 0)?;
    cluster.server.put([hashes("v1", "v1"), argo(0)])?;
    cluster.start()?;
    let weights = |canary: u64| [("stable", 100 - canary), ("canary", canary)];
    in_force(&cluster, &weights(0))?;
    let clients = busy(&cluster);

    // A new ReplicaSet: its hash is the canary's, its pods come, then the weights.
    cluster.server.put([hashes("v1", "v2")])?;
    let added = cluster.add_pod("v2")?;
    cluster.agent.wait_for(&sockets(std::slice::from_ref(&added)), &[EndpointState::Serving])?;
    for canary in [5, 20, 40] {
        cluster.server.put([argo(canary)])?;
        in_force(&cluster, &weights(canary))?;
        assert_canaries(&cluster, canary)?;
    }
    // Aborted: everybody is back at once.
    cluster.server.put([argo(0)])?;
    in_force(&cluster, &weights(0))?;
    assert_canaries(&cluster, 0)?;

    // Tried again, and promoted: the stable hash becomes the new one while the canary has everything, then the weights go back.
    for canary in [50, 100] {
        cluster.server.put([argo(canary)])?;
        in_force(&cluster, &weights(canary))?;
        assert_canaries(&cluster, canary)?;
    }
    cluster.server.put([hashes("v2", "v2")])?;
    cluster.server.put([argo(0)])?;
    in_force(&cluster, &weights(0))?;
    assert_canaries(&cluster, 100)?;
    for old in cluster.story.endpoints_of("v1") {
        cluster.terminate_pod(&old.pod)?;
        cluster.agent.wait_for(&sockets(&[old]), &[EndpointState::Draining, EndpointState::Absent])?;
    }
    assert_canaries(&cluster, 100)?;
    let tally = clients.stop()?;
    assert_eq!(tally.failed, 0, "{tally:?}\n{}", cluster.agent.log());
    Ok(())
}
