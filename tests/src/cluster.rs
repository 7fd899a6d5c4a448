//! The story as a cluster has it: objects at an API server, and a controller that lists the Pods of each Service.
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, EndpointState},
    apiserver::{ApiServer, change::merge},
    load::{Load, Progress, run},
    resources::{Endpoint, PORT, VIP, VIP6},
    story::{Hook, Story, vip},
    tally::{Tally, Weights},
};

/// Namespaces, pods, an API server and an agent that follows it.
#[derive(Debug)]
pub struct Cluster {
    // In this order: the agent ends before its namespace is let go.
    /// The agent.
    pub agent: Agent,
    /// The API server, on loopback of the node.
    pub server: ApiServer,
    /// The namespaces.
    pub story: Story,
}

impl Cluster {
    /// helloworld with pods of v1 and v2 and these weights, and an agent that serves them.
    ///
    /// # Errors
    /// When something does not start; says what, with the agent's log.
    pub fn new(v1: u8, v2: u8, weights: Weights) -> Result<Self> {
        let mut cluster = Self::without_routes(v1, v2)?;
        cluster.server.put([subsets(), route(weights)])?;
        cluster.start()?;
        Ok(cluster)
    }

    /// The Service and its pods only; the agent does not run yet.
    ///
    /// # Errors
    /// When something does not start.
    pub fn without_routes(v1: u8, v2: u8) -> Result<Self> {
        let story = Story::new(Hook::Tc, v1, v2)?;
        let server = ApiServer::start(Some(&story.node))?;
        let mut agent = Agent::new(&story)?;
        agent.follow(&server)?;
        let addresses = [VIP.to_string(), VIP6.to_string()];
        server.put([service("helloworld", &json!({"app": "helloworld"}), &addresses)])?;
        server.put(story.endpoints().iter().map(pod))?;
        let cluster = Self { agent, server, story };
        cluster.control()?;
        Ok(cluster)
    }

    /// Starts the agent and waits until it serves every pod.
    ///
    /// # Errors
    /// When it does not; with its log.
    pub fn start(&mut self) -> Result<()> {
        self.agent.start(&self.story)?;
        self.agent.wait_for(&sockets(&self.story.endpoints()), &[EndpointState::Serving])
    }

    /// One more pod, ready, in its Service.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_pod(&mut self, version: &str) -> Result<Endpoint> {
        let endpoint = self.story.add_pod(version)?;
        self.server.put([pod(&endpoint)])?;
        self.control()?;
        Ok(endpoint)
    }

    /// Deletes a pod as Kubernetes does: it is terminating and leaves its Service, goes on running, and is gone later.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn terminate_pod(&self, name: &str) -> Result<()> {
        let when = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}});
        self.server.patch("pods", "default", name, &when)?;
        self.control()
    }

    /// What the controllers of the cluster do after each change: for each Service with a selector two slices, one a family.
    ///
    /// # Errors
    /// When an object is not what it should be.
    pub fn control(&self) -> Result<()> {
        let pods = self.server.list("pods");
        for service in self.server.list("services") {
            let Some(selector) = service.pointer("/spec/selector").and_then(Value::as_object) else { continue };
            let name = service.pointer("/metadata/name").and_then(Value::as_str).context("a Service without a name")?;
            let selected = |pod: &&Value| {
                let labels = pod.pointer("/metadata/labels");
                selector.iter().all(|(label, value)| labels.and_then(|it| it.get(label)) == Some(value))
            };
            let pods: Vec<&Value> = pods.iter().filter(selected).collect();
            self.server.put([slice(name, "IPv4", 0, &pods), slice(name, "IPv6", 1, &pods)])?;
        }
        Ok(())
    }

    /// Waits until helloworld has these rules in force, in both families: for each one versions and their weights, in any order.
    ///
    /// # Errors
    /// When it does not have them within a minute; with what it has, and the agent's log.
    pub fn wait_for_rules(&self, expected: &[&[(&str, u64)]]) -> Result<()> {
        let one = |(version, weight): &(&str, u64)| ((*version).to_owned(), *weight);
        let sorted = |mut rule: Vec<(String, u64)>| {
            rule.retain(|(_, weight)| *weight > 0);
            rule.sort();
            // One version alone has everything, whatever its weight.
            if let [(_, weight)] = rule.as_mut_slice() {
                *weight = 1;
            }
            rule
        };
        let expected: Vec<_> = expected.iter().map(|rule| sorted(rule.iter().map(one).collect())).collect();
        let version = |it: &Value| Some((it.get("version")?.as_str()?.to_owned(), it.get("weight")?.as_u64()?));
        let rule = |it: &Value| Some(sorted(it.get("versions")?.as_array()?.iter().filter_map(version).collect()));
        let rules = |it: &Value| Some(it.get("rules")?.as_array()?.iter().filter_map(rule).collect::<Vec<_>>());
        let is_apex = |it: &&Value| {
            it.get("service").and_then(Value::as_str).is_some_and(|name| name.starts_with("default/helloworld:"))
        };
        let started = Instant::now();
        loop {
            let said: Value = serde_json::from_str(&self.agent.call(&["get", "services", "-o", "json"])?)?;
            let items = said.pointer("/items").and_then(Value::as_array).context("no items")?;
            let found: Vec<_> = items.iter().filter(is_apex).map(rules).collect();
            if found.len() == 2 && found.iter().all(|it| it.as_ref() == Some(&expected)) {
                return Ok(());
            }
            ensure!(started.elapsed() < Duration::from_mins(1), "never {expected:?}: {said}\n{}", self.agent.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens connections to the Service, waits for their end, and counts.
    ///
    /// # Errors
    /// When the client cannot run.
    pub fn connect(&self, connections: u32) -> Result<Tally> {
        self.story.client.run(|| run(Load::tcp(vip(false), connections), &Progress::new()))?
    }
}

/// Addresses of pods.
#[must_use]
pub fn sockets(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    endpoints.iter().map(|endpoint| SocketAddr::new(endpoint.v4.into(), PORT)).collect()
}

/// A Service as the API server returns one, defaults included.
#[must_use]
pub fn service(name: &str, selector: &Value, addresses: &[String]) -> Value {
    service_of("default", name, selector, addresses)
}

/// The same in any namespace.
#[must_use]
pub fn service_of(namespace: &str, name: &str, selector: &Value, addresses: &[String]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": addresses.first(), "clusterIPs": addresses, "selector": selector,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "aFieldOfTheYear2030": true,
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http"}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// An object with these fields changed: a JSON merge patch.
#[must_use]
pub fn changed(mut object: Value, change: &Value) -> Value {
    merge(&mut object, change);
    object
}

/// A Pod that is ready, labelled as the story's: `app`, `version`.
#[must_use]
pub fn pod(endpoint: &Endpoint) -> Value {
    let Endpoint { pod, version, v4, v6 } = endpoint;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod, "namespace": "default", "labels": {"app": "helloworld", "version": version},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("helloworld-{version}-5d9f"), "controller": true}]},
        "spec": {
            "nodeName": "node", "serviceAccountName": "default",
            "containers": [{"name": "helloworld", "image": "docker.io/istio/examples-helloworld-v1",
                "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running", "hostIP": "192.0.2.1", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

fn slice(service: &str, family: &str, position: usize, pods: &[&Value]) -> Value {
    let endpoint = |pod: &&Value| {
        let at = |pointer: &str| pod.pointer(pointer).cloned();
        let ready = at("/status/conditions/0/status") == Some(json!("True"));
        let terminating = at("/metadata/deletionTimestamp").is_some();
        Some(json!({
            "addresses": [at(&format!("/status/podIPs/{position}/ip"))?],
            "conditions": {"ready": ready && !terminating, "serving": ready, "terminating": terminating},
            "nodeName": at("/spec/nodeName"),
            "targetRef": {"kind": "Pod", "name": at("/metadata/name"), "namespace": "default", "uid": at("/metadata/uid")},
        }))
    };
    let endpoints: Vec<Value> = pods.iter().filter_map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": format!("{service}-{}", family.to_lowercase()), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    })
}

/// The subsets of helloworld.
#[must_use]
pub fn subsets() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {"host": "helloworld", "subsets": [
            {"name": "v1", "labels": {"version": "v1"}},
            {"name": "v2", "labels": {"version": "v2"}},
        ]},
    })
}

/// The blog's VirtualService.
#[must_use]
pub fn route(Weights { v1, v2 }: Weights) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {"hosts": ["helloworld"], "http": [{"route": [
            {"destination": {"host": "helloworld", "subset": "v1"}, "weight": v1},
            {"destination": {"host": "helloworld", "subset": "v2"}, "weight": v2},
        ]}]},
    })
}
