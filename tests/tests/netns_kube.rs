//! The agent in a cluster: it follows an API server, whatever becomes of that, and traffic never notices.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::EndpointState,
    apiserver::Faults,
    background::Background,
    cluster::{Cluster, pod, route, service, sockets, subsets},
    load::Load,
    resources::PORT,
    story::vip,
    tally::Weights,
};
use serde_json::{Value, json};

const START: Weights = Weights { v1: 90, v2: 10 };
const HALF: Weights = Weights { v1: 50, v2: 50 };

/// Waits until `done` holds.
fn eventually(cluster: &Cluster, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(started.elapsed() < Duration::from_mins(1), "{what} never happens\n{}", cluster.agent.log());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The services that the agent has in force.
fn services(cluster: &Cluster) -> Result<Vec<Value>> {
    let said: Value = serde_json::from_str(&cluster.agent.call(&["get", "services", "-o", "json"])?)?;
    Ok(said.pointer("/items").and_then(Value::as_array).context("no items")?.clone())
}

/// Waits until the agent has these weights in force, in both families.
fn in_force(cluster: &Cluster, Weights { v1, v2 }: Weights) -> Result<()> {
    cluster.wait_for_rules(&[&[("v1", v1.into()), ("v2", v2.into())]])
}

/// Connections, which all are answered, in the shares of these weights.
fn assert_split(cluster: &Cluster, weights: Weights, connections: u32) -> Result<()> {
    let tally = cluster.connect(connections)?;
    assert_eq!((tally.answers(), tally.failed), (connections.into(), 0), "{tally:?}\n{}", cluster.agent.log());
    weights.hold_for(&tally)
}

#[test]
fn weights_of_a_virtual_service_hold_exactly_and_follow_the_api() -> Result<()> {
    let cluster = Cluster::new(3, 1, START)?;
    assert_split(&cluster, START, 200)?;
    for weights in [HALF, Weights { v1: 1, v2: 99 }, START] {
        cluster.server.put([route(weights)])?;
        in_force(&cluster, weights)?;
        assert_split(&cluster, weights, 100)?;
    }
    Ok(())
}

/// The API server goes away and comes back, breaks watches off in the middle of a line, forgets what it said, answers slowly and
/// with errors. What changes meanwhile is in force some time later; connections never notice.
#[test]
fn whatever_the_api_server_does_connections_go_on() -> Result<()> {
    let mut cluster = Cluster::new(2, 1, START)?;
    let held = Background::hold(&cluster.story.client, vip(false), 20)?;
    let busy = Background::load(&cluster.story.client, Load { concurrency: 2, ..Load::tcp(vip(false), u32::MAX) });

    cluster.server.cut();
    cluster.server.put([route(HALF)])?;
    in_force(&cluster, HALF)?;

    cluster.server.compact();
    cluster.server.put([route(START)])?;
    in_force(&cluster, START)?;

    cluster.server.stop();
    let (code, status) = cluster.agent.wait_for_status("the API server does not tell")?;
    assert_ne!(code, Some(0), "{status}");
    // It comes back with another memory: what happened meanwhile is in no watch.
    cluster.server.put([route(HALF)])?;
    cluster.server.compact();
    let Cluster { server, story, .. } = &mut cluster;
    server.resume(Some(&story.node))?;
    in_force(&cluster, HALF)?;

    cluster.server.misbehave(Faults { failing: 20, delay: Duration::from_millis(100), ..Faults::default() });
    cluster.server.put([route(START)])?;
    in_force(&cluster, START)?;

    let tally = busy.stop()?;
    assert_eq!(tally.failed, 0, "{tally:?}\n{}", cluster.agent.log());
    let tally = held.stop()?;
    assert_eq!((tally.answers(), tally.failed), (20, 0), "{tally:?}");
    Ok(())
}

/// Without an API server an agent starts with what was in force before, and says what it waits for.
#[test]
fn an_agent_that_finds_no_api_server_keeps_what_was_in_force() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    cluster.server.stop();
    cluster.agent.kill()?;
    assert_split(&cluster, START, 50)?;
    cluster.agent.spawn(&cluster.story)?;
    let (code, status) = cluster.agent.wait_for_status("the API server has not been read")?;
    assert!(code != Some(0) && status.contains("virtualservices.networking.istio.io"), "{status}");
    assert_split(&cluster, START, 50)?;
    cluster.server.put([route(HALF)])?;
    let Cluster { server, story, .. } = &mut cluster;
    server.resume(Some(&story.node))?;
    in_force(&cluster, HALF)?;
    assert_split(&cluster, HALF, 50)
}

/// As in the `DaemonSet`: the API server is found by the account of the pod, over HTTPS with the cluster's own certificate. One
/// that cannot prove to be it is told nothing.
#[test]
fn a_pod_finds_its_api_server_by_its_account() -> Result<()> {
    let mut cluster = Cluster::without_routes(1, 1)?;
    cluster.server.put([subsets(), route(START)])?;
    let Cluster { agent, server, .. } = &mut cluster;
    agent.run_as_a_pod(server)?;
    cluster.start()?;
    assert_split(&cluster, START, 50)?;
    cluster.server.stop();
    let Cluster { agent, server, story } = &mut cluster;
    server.become_another()?;
    server.put([route(HALF)])?;
    server.resume(Some(&story.node))?;
    let (code, status) = agent.wait_for_status("invalid peer certificate")?;
    assert_ne!(code, Some(0), "{status}");
    assert_split(&cluster, START, 50)
}

/// What this account may not read is named, and nothing is taken for empty because of it.
#[test]
fn what_may_not_be_read_is_not_taken_for_empty() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    cluster.agent.kill()?;
    cluster.server.misbehave(Faults { forbidden: vec!["pods"], ..Faults::default() });
    cluster.agent.spawn(&cluster.story)?;
    let (code, status) = cluster.agent.wait_for_status("pods is forbidden")?;
    assert!(code != Some(0) && status.contains("may list and watch"), "{status}");
    assert_split(&cluster, START, 50)?;
    cluster.server.misbehave(Faults::default());
    cluster.server.put([route(HALF)])?;
    in_force(&cluster, HALF)
}

/// Services without rules are left to kube-proxy; one that had some stays, for its connections are known here only.
#[test]
fn plain_services_are_left_to_others_until_there_are_rules() -> Result<()> {
    let mut cluster = Cluster::without_routes(1, 1)?;
    cluster.server.serve_resource("virtualservices", false);
    cluster.server.serve_resource("destinationrules", false);
    cluster.agent.start(&cluster.story)?;
    assert_eq!(services(&cluster)?, [] as [Value; 0]);

    // Istio's kinds are installed later.
    cluster.server.serve_resource("virtualservices", true);
    cluster.server.serve_resource("destinationrules", true);
    cluster.server.put([subsets(), route(START)])?;
    in_force(&cluster, START)?;
    cluster.agent.wait_for(&sockets(&cluster.story.endpoints()), &[EndpointState::Serving])?;
    assert_split(&cluster, START, 50)?;

    let held = Background::hold(&cluster.story.client, vip(false), 10)?;
    cluster.server.delete("virtualservices", "default", "helloworld")?;
    eventually(&cluster, "a plain service", || {
        Ok(services(&cluster)?.iter().all(|service| service.pointer("/rules/0/name") == Some(&json!("default"))))
    })?;
    let before = held.progress().exchanges();
    held.wait_for_exchanges(before + 50)?;
    assert_eq!(held.stop()?.failed, 0);
    let tally = cluster.connect(100)?;
    assert_eq!((tally.of("v1"), tally.of("v2")), (50, 50), "{tally:?}");
    Ok(())
}

/// Ready, not ready, terminating, labelled anew: each is followed, and what is open goes on.
#[test]
fn endpoints_live_and_end_as_kubernetes_says() -> Result<()> {
    let mut cluster = Cluster::new(2, 1, START)?;
    let held = Background::hold(&cluster.story.client, vip(false), 30)?;
    let [first, second] = <[_; 2]>::try_from(cluster.story.endpoints_of("v1")).ok().context("two pods of v1")?;

    // Not ready: out of the service, its connections go on.
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.server.patch("pods", "default", &first.pod, &not_ready)?;
    cluster.control()?;
    cluster.agent.wait_for(&sockets(std::slice::from_ref(&first)), &[EndpointState::Draining])?;
    assert_split(&cluster, START, 100)?;
    cluster.server.put([pod(&first)])?;
    cluster.control()?;
    cluster.agent.wait_for(&sockets(std::slice::from_ref(&first)), &[EndpointState::Serving])?;

    // Terminating: the same.
    cluster.terminate_pod(&second.pod)?;
    cluster.agent.wait_for(&sockets(std::slice::from_ref(&second)), &[EndpointState::Draining])?;
    assert_split(&cluster, START, 100)?;

    // Labelled anew: the other version's from now on.
    let third = cluster.add_pod("v1")?;
    cluster.agent.wait_for(&sockets(std::slice::from_ref(&third)), &[EndpointState::Serving])?;
    cluster.server.patch("pods", "default", &third.pod, &json!({"metadata": {"labels": {"version": "v2"}}}))?;
    eventually(&cluster, "another version", || {
        let tally = cluster.connect(100)?;
        assert_eq!(tally.failed, 0, "{tally:?}");
        // Its server still says v1; of the ten connections for v2 it has five.
        Ok(tally.of_instance(&third.pod) == 5)
    })?;
    let before = held.progress().exchanges();
    held.wait_for_exchanges(before + 100)?;
    let tally = held.stop()?;
    assert_eq!((tally.answers(), tally.failed), (30, 0), "{tally:?}");
    Ok(())
}

/// The story: autoscalers work undisturbed, in random order, and the canary has its share at every moment.
#[test]
fn autoscalers_do_not_change_the_share() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    let busy = Background::load(&cluster.story.client, Load { concurrency: 2, ..Load::tcp(vip(false), u32::MAX) });
    for (version, count) in [("v1", 4), ("v2", 3), ("v1", 2), ("v2", 5), ("v1", 6), ("v2", 1), ("v1", 1)] {
        while cluster.story.endpoints_of(version).len() < count {
            let added = cluster.add_pod(version)?;
            cluster.agent.wait_for(&sockets(&[added]), &[EndpointState::Serving])?;
        }
        for surplus in cluster.story.endpoints_of(version).split_off(count) {
            cluster.terminate_pod(&surplus.pod)?;
            cluster.agent.wait_for(&sockets(std::slice::from_ref(&surplus)), &[EndpointState::Draining])?;
            // Connections are short; the rest of the grace period.
            thread::sleep(Duration::from_millis(300));
            cluster.server.delete("pods", "default", &surplus.pod)?;
            cluster.control()?;
            cluster.story.remove_pod(&surplus.pod)?;
        }
        thread::sleep(Duration::from_millis(300));
    }
    let tally = busy.stop()?;
    assert_eq!(tally.failed, 0, "{tally:?}");
    START.hold_for(&tally)
}

/// An object that cannot be used takes nothing with it: what was good stays, and the status names field and object.
#[test]
fn a_bad_object_leaves_what_was_good() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    cluster.server.put([route(Weights { v1: 0, v2: 0 })])?;
    eventually(&cluster, "an error", || {
        let reason = |service: &Value| service.get("reason").and_then(Value::as_str).map(str::to_owned);
        Ok(services(&cluster)?.iter().all(|it| reason(it).is_some_and(|reason| reason.contains("last good"))))
    })?;
    assert_split(&cluster, START, 50)?;
    // Not even a restart loses it.
    cluster.agent.kill()?;
    cluster.agent.spawn(&cluster.story)?;
    cluster.agent.wait_for_status("its last good version")?;
    assert_split(&cluster, START, 50)
}

/// Weights are set at the API server by whoever may do so; the agent follows, and itself changes nothing there.
#[test]
fn the_command_line_sets_weights_at_the_api_server() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    let kubeconfig = cluster.agent.follow(&cluster.server)?.display().to_string();
    let set = |arguments: &[&str]| {
        let canary = cluster.agent.program().to_string_lossy().into_owned();
        let all = [&["set-weight", "helloworld", "--kubeconfig", &kubeconfig], arguments].concat();
        let output = cluster.story.node.command(&canary)?.args(all).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok::<_, anyhow::Error>((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let (code, said, error) = set(&["v1=50", "v2=50", "--dry-run"])?;
    assert!(code == Some(0) && said.contains("configured (dry run)") && said.contains("10% → 50%"), "{said}{error}");
    let (code, said, error) = set(&["v1=50", "v2=50"])?;
    assert!(code == Some(0) && said.contains("VirtualService default/helloworld configured"), "{said}{error}");
    in_force(&cluster, HALF)?;
    assert_split(&cluster, HALF, 50)?;
    let stored = cluster.server.get("virtualservices", "default", "helloworld").context("it is gone")?;
    assert_eq!(stored.pointer("/metadata/managedFields/0/manager"), Some(&json!("canary")));

    // Somebody else is faster: nothing is changed, and that is said.
    cluster.server.misbehave(Faults { overtaken: 1, ..Faults::default() });
    let (code, said, error) = set(&["v1=1", "v2=0"])?;
    assert!(code == Some(1) && said.is_empty() && error.contains("changed by somebody else"), "{said}{error}");
    let (code, _, error) = set(&["v1=1", "v3=0"])?;
    assert!(code == Some(1) && error.contains("has no version `v3`"), "{error}");
    let (code, _, error) = set(&["v1=1", "v2=0", "-n", "shop"])?;
    assert!(code == Some(1) && error.contains("no VirtualService of namespace shop"), "{error}");
    assert_split(&cluster, HALF, 50)?;

    // Through the agent it cannot be done, which is said, too.
    let refused = cluster.agent.call(&["set-weight", "helloworld", "v1=1", "v2=1"]).unwrap_err().to_string();
    assert!(refused.contains("comes from the API server") && refused.contains("--kube"), "{refused}");
    let patches = cluster.server.requests().iter().filter(|request| request.starts_with("patch")).count();
    assert_eq!(patches, 3);
    Ok(())
}

/// The same for a route of the Gateway API, which is the only one that is for the Service.
#[test]
fn the_command_line_sets_weights_of_a_route() -> Result<()> {
    let mut cluster = Cluster::without_routes(1, 1)?;
    let address = |last: u8| [format!("10.96.2.{last}"), format!("fd00:96::2:{last}")];
    let to = |version: &str| json!({"name": format!("helloworld-{version}"), "port": PORT});
    cluster.server.put([
        service("helloworld-v1", &json!({"version": "v1"}), &address(1)),
        service("helloworld-v2", &json!({"version": "v2"}), &address(2)),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "split", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "helloworld"}],
                "rules": [{"backendRefs": [to("v1"), to("v2")]}],
            },
        }),
    ])?;
    cluster.control()?;
    cluster.start()?;
    // Without weights each has 1.
    let tally = cluster.connect(100)?;
    assert_eq!((tally.of("v1"), tally.of("v2"), tally.failed), (50, 50, 0), "{tally:?}");
    let kubeconfig = cluster.agent.follow(&cluster.server)?.display().to_string();
    let canary = cluster.agent.program().to_string_lossy().into_owned();
    let set = ["set-weight", "helloworld", "helloworld-v1=90", "helloworld-v2=10", "--kubeconfig", &kubeconfig];
    let output = cluster.story.node.command(&canary)?.args(set).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("HTTPRoute default/split configured"), "{output:?}");
    eventually(&cluster, "weights in force", || {
        let weight = |it: &Value| it.pointer("/rules/0/versions/0/weight").and_then(Value::as_u64);
        Ok(services(&cluster)?.iter().all(|it| weight(it) == Some(90)))
    })?;
    let tally = cluster.connect(100)?;
    assert_eq!((tally.of("v1"), tally.of("v2"), tally.failed), (90, 10, 0), "{tally:?}");
    let written = cluster.server.get("httproutes", "default", "split").context("it is gone")?;
    assert_eq!(written.pointer("/spec/rules/0/backendRefs/1/weight"), Some(&json!(10)));
    Ok(())
}

/// kubectl speaks to the same server, and finds the plugin.
#[test]
fn kubectl_finds_its_plugin() -> Result<()> {
    let mut cluster = Cluster::new(1, 1, START)?;
    let kubeconfig = cluster.agent.follow(&cluster.server)?;
    let plugins = kubeconfig.parent().context("no directory")?.join("plugins");
    std::fs::create_dir(&plugins)?;
    std::os::unix::fs::symlink(cluster.agent.program(), plugins.join("kubectl-canary"))?;
    let path = format!("{}:{}", plugins.display(), std::env::var("PATH")?);
    let kubectl = |arguments: &[&str]| {
        let mut command = cluster.story.node.command("kubectl")?;
        command.env("KUBECONFIG", &kubeconfig).env("PATH", &path).env("HOME", &plugins).args(arguments);
        let output = command.output()?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = kubectl(&["canary", "set-weight", "helloworld", "v1=50", "v2=50"])?;
    assert!(said.contains("configured"), "{said}");
    in_force(&cluster, HALF)?;
    let weight = "jsonpath={.spec.http[0].route[1].weight}";
    assert_eq!(kubectl(&["get", "virtualservice", "helloworld", "-o", weight])?, "50");
    let by_hand = r#"{"spec":{"http":[{"route":[{"destination":{"host":"helloworld","subset":"v1"},"weight":90},
        {"destination":{"host":"helloworld","subset":"v2"},"weight":10}]}]}}"#;
    kubectl(&["patch", "virtualservice", "helloworld", "--type=merge", "-p", by_hand])?;
    in_force(&cluster, START)
}

/// More than one page of everything.
#[test]
fn long_lists_come_in_pages() -> Result<()> {
    let mut cluster = Cluster::without_routes(1, 1)?;
    let others = (0..1_300).map(|n| {
        let address = format!("10.97.{}.{}", n / 250, n % 250 + 1);
        service(&format!("other-{n:04}"), &json!({"app": format!("other-{n}")}), &[address])
    });
    cluster.server.put(others)?;
    let last = json!({"metadata": {"name": "other-1299"}, "spec": {"hosts": ["other-1299"], "http": [
        {"route": [{"destination": {"host": "other-1299"}}]}]},
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService"});
    cluster.server.put([subsets(), route(START), last])?;
    cluster.start()?;
    let names: Vec<Value> = services(&cluster)?.iter().filter_map(|it| it.get("service").cloned()).collect();
    assert!(names.contains(&json!("default/other-1299:5000/tcp")), "{names:?}");
    assert_eq!(names.len(), 3, "{names:?}");
    let pages = cluster.server.requests().iter().filter(|request| *request == "list services").count();
    assert_eq!(pages, 3);
    Ok(())
}
