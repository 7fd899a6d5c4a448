//! For tests: a kernel in memory that keeps the wanted state, counts what it is told to and fails on request.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};

use crate::{
    agent::kernel::{Kernel, KernelError},
    dataplane::{
        Applied, Attach, Attached, Counters, Counts, EndpointCounts, FlowRecord, MapMemory, Plan, Probe, Refused,
        SplitCounts, Trace,
    },
    diagnostic::Origin,
    source::{Compact, Object},
    state::{Choosing, DeadVersion, Frontend, Protocol, Rule, Service, ServiceId, Split, State, Version},
};

/// What a test may look at and change while the agent has the kernel.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    /// What is in force.
    pub(crate) state: State,
    /// How often `apply` was called.
    pub(crate) applies: usize,
    /// How often `attach` was called.
    pub(crate) attaches: usize,
    /// `apply` fails with this.
    pub(crate) broken: Option<&'static str>,
    /// Flows that each version got, by name.
    pub(crate) flows: BTreeMap<String, u64>,
    /// Weights that the kernel pretends to have, by version.
    pub(crate) lies: BTreeMap<String, u32>,
    /// Interfaces that do not exist.
    pub(crate) missing: BTreeSet<String>,
    /// Services for which there is no room, and the writes that a pass makes all the same.
    pub(crate) full: BTreeMap<ServiceId, usize>,
    /// Index of every interface.
    pub(crate) interface: u64,
    attached: Vec<Attached>,
    /// Names of interfaces, for patterns.
    pub(crate) interfaces: Vec<String>,
}

/// The kernel; clones share their inside.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<Inside>>);

impl Inside {
    /// What it takes of a state, what it refuses, and the writes that this makes all the same.
    fn take(&self, wanted: &State) -> (State, Vec<Refused>, usize) {
        let mut taken = wanted.clone();
        let mut refused = Vec::new();
        let mut operations = 0;
        for (id, writes) in self.full.iter().filter(|(id, _)| wanted.services.contains_key(id)) {
            let had = self.state.services.get(id);
            match had {
                Some(had) => drop(taken.services.insert(id.clone(), had.clone())),
                None => taken.without(id),
            }
            operations += writes;
            let why = "no room for rules, all 65536 are taken".into();
            refused.push(Refused { service: id.clone(), why, kept: had.is_some() });
        }
        (taken, refused, operations)
    }
}

impl FakeKernel {
    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }
}

impl Kernel for FakeKernel {
    fn attach(&mut self, wanted: &[Attach]) -> Vec<Result<Attached, KernelError>> {
        let mut inside = self.inside();
        inside.attaches += 1;
        let became = |attach: &Attach| {
            if inside.missing.contains(&attach.interface) {
                return Err(KernelError::new(io::Error::other(format!("interface {} is not there", attach.interface))));
            }
            Ok(Attached { attach: attach.clone(), mode: "fake".into(), adopted: false, warning: None })
        };
        let became: Vec<_> = wanted.iter().map(became).collect();
        inside.attached = became.iter().flatten().cloned().collect();
        became
    }
    fn apply(&mut self, wanted: &State) -> Result<Applied, KernelError> {
        let mut inside = self.inside();
        inside.applies += 1;
        if let Some(why) = inside.broken {
            return Err(KernelError::new(io::Error::other(why)));
        }
        let (taken, refused, mut operations) = inside.take(wanted);
        operations += usize::from(inside.state != taken);
        inside.state = taken;
        Ok(Applied { operations, micros: 1, refused })
    }
    fn look_around(&mut self) {}
    fn plan(&self, wanted: &State) -> Result<Plan, KernelError> {
        let inside = self.inside();
        let (taken, refused, _) = inside.take(wanted);
        let operations = if inside.state == taken { vec![] } else { vec!["put everything".into()] };
        Ok(Plan { operations, refused })
    }
    fn verify(&self, wanted: &State) -> Result<Vec<String>, KernelError> {
        let same = self.inside().state == *wanted;
        Ok(if same { vec![] } else { vec!["maps differ".into()] })
    }
    fn counters(&self) -> Result<Counters, KernelError> {
        let inside = self.inside();
        let mut counters = Counters { leaves: [("not-ip", 3), ("no-service", 0)].into(), ..Counters::default() };
        for (id, service) in &inside.state.services {
            for (name, version) in &service.versions {
                let flows = inside.flows.get(name).copied().unwrap_or(0);
                let counts = Counts {
                    flows,
                    packets_in: flows * 5,
                    bytes_in: flows * 500,
                    packets_out: flows * 4,
                    bytes_out: flows * 4_000,
                };
                counters.versions.insert((id.clone(), name.clone()), counts);
                for (index, &endpoint) in version.endpoints.keys().enumerate() {
                    let counts = if index == 0 { counts } else { Counts::default() };
                    counters.endpoints.insert(
                        (id.clone(), name.clone(), endpoint),
                        EndpointCounts { counts, drains_for_seconds: None, direct: None },
                    );
                }
            }
            for (rule, written) in service.rules.iter().enumerate() {
                let versions: Vec<_> = written
                    .split
                    .weights
                    .iter()
                    .map(|(name, weight)| {
                        let weight = inside.lies.get(name).copied().unwrap_or(*weight);
                        (name.clone(), weight, inside.flows.get(name).copied().unwrap_or(0))
                    })
                    .collect();
                let draws = versions.iter().map(|(_, _, flows)| flows).sum();
                counters.splits.push(SplitCounts { service: id.clone(), rule, draws, versions });
            }
        }
        Ok(counters)
    }
    fn flows(&self, limit: usize) -> Result<Vec<FlowRecord>, KernelError> {
        let inside = self.inside();
        Ok(inside
            .state
            .frontends
            .iter()
            .take(limit)
            .map(|(&frontend, id)| FlowRecord {
                client: "192.0.2.1:40000".parse().unwrap(),
                frontend,
                endpoint: "10.244.0.1:5000".parse().unwrap(),
                service: Some(id.clone()),
                version: Some("v1".into()),
                state: "established",
                idle_seconds: 2,
            })
            .collect())
    }
    fn trace(&mut self, probe: Probe) -> Result<Trace, KernelError> {
        let inside = self.inside();
        let frontend = Frontend { addr: probe.to.ip(), port: probe.to.port(), protocol: probe.protocol };
        let nothing =
            Trace { service: None, rule: None, version: None, endpoint: None, draw: None, known: false, leave: None };
        let Some(id) = inside.state.frontends.get(&frontend) else {
            return Ok(Trace { leave: Some("no-service"), ..nothing });
        };
        Ok(Trace {
            service: Some(id.clone()),
            rule: Some(0),
            version: Some(if probe.ahead % 10 == 9 { "v2" } else { "v1" }.into()),
            endpoint: Some("10.244.0.1:5000".parse().unwrap()),
            draw: Some(u64::from(probe.ahead)),
            ..nothing
        })
    }
    fn memory(&self) -> Result<Vec<MapMemory>, KernelError> {
        Ok(vec![MapMemory { name: "FLOWS".into(), entries: 1024, bytes: 65_536 }])
    }
    fn attached(&self) -> Vec<Attached> {
        self.inside().attached.clone()
    }
    fn interface(&self, name: &str) -> Option<u64> {
        let inside = self.inside();
        (!inside.missing.contains(name)).then_some(inside.interface)
    }
    fn interfaces(&self) -> Vec<String> {
        self.inside().interfaces.clone()
    }
}

/// `default/helloworld:5000/tcp`.
pub(crate) fn helloworld() -> ServiceId {
    ServiceId::tcp("helloworld", 5000)
}

/// helloworld at 10.96.0.10 with one rule, `http[0]`, and one endpoint a version.
pub(crate) fn split_state(weights: &[(&str, u32)]) -> State {
    let frontend = Frontend { addr: "10.96.0.10".parse().unwrap(), port: 5000, protocol: Protocol::Tcp };
    let versions = weights
        .iter()
        .enumerate()
        .map(|(index, (name, _))| {
            let endpoint = format!("10.244.0.{}:5000", index + 1).parse().unwrap();
            ((*name).to_owned(), Version { endpoints: [(endpoint, 1)].into(), drain_seconds: 300 })
        })
        .collect();
    let split = Split {
        choosing: Choosing::Exact,
        dead: DeadVersion::Fail,
        weights: weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect(),
    };
    let rules = vec![Rule { name: "http[0]".into(), sources: vec![], split }];
    State {
        frontends: [(frontend, helloworld())].into(),
        services: [(helloworld(), Service { rules, versions, http: None, tls: None })].into(),
        ..State::default()
    }
}

/// An object with this body and an identity.
pub(crate) fn object(kind: &str, name: &str, mut body: Value) -> Object {
    body["kind"] = json!(kind);
    body["metadata"] = json!({"name": name});
    Object {
        compact: Compact::default(),
        api_version: "v1".into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
        body,
        origin: Origin { file: "test.yaml".into(), line: 1 },
        lines: BTreeMap::new(),
    }
}

/// Service helloworld.
pub(crate) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: helloworld
spec:
  clusterIP: 10.96.0.10
  selector: {app: helloworld}
  ports:
  - {name: http, port: 5000}
";

/// A VirtualService with these weights, and its DestinationRule.
pub(crate) fn route(v1: u32, v2: u32) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts: [helloworld]
  http:
  - route:
    - destination: {{host: helloworld, subset: v1}}
      weight: {v1} # stable
    - destination: {{host: helloworld, subset: v2}}
      weight: {v2}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: helloworld
spec:
  host: helloworld
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"
    )
}

/// Pods of helloworld: so many of each version.
pub(crate) fn pods(versions: &[(&str, usize)]) -> String {
    let pod = |version: &str, net: usize, index: usize| {
        format!(
            "\
apiVersion: v1
kind: Pod
metadata:
  name: helloworld-{version}-{index}
  labels: {{app: helloworld, version: {version}}}
status:
  podIP: 10.244.{net}.{}
  conditions: [{{type: Ready, status: 'True'}}]
",
            index + 1
        )
    };
    let all = versions
        .iter()
        .enumerate()
        .flat_map(|(net, &(version, count))| (0..count).map(move |index| pod(version, net + 1, index)));
    all.collect::<Vec<_>>().join("---\n")
}
