//! The agent's half of the data plane against the real kernel: load, write, read back, take over, trace, detach.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use canary_user::{
    dataplane::{Capacity, Dataplane, IdleTimeouts, Plan, Probe, Settings, detach},
    state::{Choosing, DeadVersion, Family, Frontend, Protocol, Rule, Service, ServiceId, Split, State, Version},
};

/// A pin directory of its own for each test, removed at the end.
struct Pins(PathBuf);

impl Pins {
    fn new(test: &str) -> Self {
        let path = PathBuf::from(format!("/sys/fs/bpf/canary-test-{}-{test}", std::process::id()));
        Self(path)
    }

    fn open(&self) -> Dataplane {
        let settings = Settings {
            pin: self.0.clone(),
            capacity: Capacity { flows: 1_024, transient_flows: 1_024 },
            idle: IdleTimeouts::default(),
            direct: false,
            proxy: false,
            connections: false,
        };
        Dataplane::open(&settings).expect("needs CAP_BPF, CAP_NET_ADMIN and a bpffs on /sys/fs/bpf")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = detach(&self.0);
    }
}

fn id() -> ServiceId {
    ServiceId {
        namespace: "default".into(),
        name: "helloworld".into(),
        port: 5000,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
    }
}

fn state(weights: &[(&str, u32)], v2: &[u8], choosing: Choosing) -> State {
    let version = |hosts: &[u8], net: u8| Version {
        endpoints: hosts.iter().map(|&host| (SocketAddr::from(([10, 244, net, host], 5000)), 1)).collect(),
        drain_seconds: 300,
    };
    let versions: BTreeMap<String, Version> =
        [("v1".into(), version(&[1, 2, 3], 1)), ("v2".into(), version(v2, 2))].into();
    let split = Split {
        choosing,
        dead: DeadVersion::Fail,
        weights: weights.iter().map(|&(name, weight)| (name.into(), weight)).collect(),
    };
    let rules = vec![Rule { name: "http[0]".into(), sources: Vec::new(), split }];
    let frontend = Frontend { addr: IpAddr::from([10, 96, 0, 10]), port: 5000, protocol: Protocol::Tcp };
    State {
        frontends: [(frontend, id())].into(),
        services: [(id(), Service { rules, versions, http: None, tls: None })].into(),
        ..State::default()
    }
}

fn probe(ahead: u32) -> Probe {
    Probe {
        from: SocketAddr::from(([192, 0, 2, 7], 40_000)),
        to: SocketAddr::from(([10, 96, 0, 10], 5000)),
        protocol: Protocol::Tcp,
        ahead,
    }
}

fn traced(dataplane: &mut Dataplane, flows: u32) -> BTreeMap<String, u32> {
    let mut versions = BTreeMap::new();
    for ahead in 0..flows {
        let trace = dataplane.trace(probe(ahead)).expect("a dry run");
        assert_eq!((trace.leave, trace.known, trace.draw), (None, false, Some(u64::from(ahead))), "{trace:?}");
        *versions.entry(trace.version.expect("a version")).or_default() += 1;
    }
    versions
}

#[test]
fn what_is_written_is_read_back_and_split_exactly() {
    let pins = Pins::new("exact");
    let mut dataplane = pins.open();
    let wanted = state(&[("v1", 90), ("v2", 10)], &[1], Choosing::Exact);
    assert!(!dataplane.plan(&wanted).unwrap().operations.is_empty());
    dataplane.apply(&wanted).unwrap();
    assert_eq!(dataplane.plan(&wanted).unwrap(), Plan::default());
    assert_eq!(dataplane.verify(&wanted).unwrap(), Vec::<String>::new());
    assert_eq!(traced(&mut dataplane, 100), [("v1".into(), 90), ("v2".into(), 10)].into());
    let counters = dataplane.counters().unwrap();
    assert_eq!(counters.splits.len(), 1);
    assert_eq!(counters.splits[0].draws, 0, "a trace draws nothing");
    assert_eq!(counters.versions.len(), 2, "zero-valued from the start");
    assert_eq!(dataplane.flows(10).unwrap(), []);
}

#[test]
fn new_weights_start_a_new_split_and_old_ones_are_given_up() {
    let pins = Pins::new("weights");
    let mut dataplane = pins.open();
    for (v1, v2) in [(90, 10), (50, 50), (1, 99), (100, 0), (90, 10)] {
        let wanted = state(&[("v1", v1), ("v2", v2)], &[1, 2], Choosing::Exact);
        dataplane.apply(&wanted).unwrap();
        let expected: BTreeMap<String, u32> =
            [("v1".to_owned(), v1), ("v2".to_owned(), v2)].into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(traced(&mut dataplane, 100), expected);
        assert_eq!(dataplane.apply(&wanted).unwrap().operations, 0);
    }
}

#[test]
fn a_client_keeps_its_version_whatever_happens_to_the_endpoints() {
    let pins = Pins::new("keyed");
    let mut dataplane = pins.open();
    let mut seen: Vec<Vec<String>> = Vec::new();
    for v2 in [&[1_u8][..], &[1, 2, 3], &[9]] {
        dataplane.apply(&state(&[("v1", 3), ("v2", 1)], v2, Choosing::KeyedClient)).unwrap();
        let versions = (0..100_u8).map(|host| {
            let from = SocketAddr::from(([192, 0, 2, host], 1_000));
            dataplane.trace(Probe { from, ..probe(0) }).unwrap().version.unwrap()
        });
        seen.push(versions.collect());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert!(seen[0].contains(&"v1".into()) && seen[0].contains(&"v2".into()));
}

#[test]
fn a_new_agent_adopts_what_the_last_one_left() {
    let pins = Pins::new("adopt");
    let wanted = state(&[("v1", 90), ("v2", 10)], &[1], Choosing::Exact);
    let mut first = pins.open();
    first.apply(&wanted).unwrap();
    drop(first);
    let mut second = pins.open();
    assert_eq!(second.plan(&wanted).unwrap(), Plan::default(), "nothing to write");
    assert_eq!(second.apply(&wanted).unwrap().operations, 0);
    assert_eq!(traced(&mut second, 10), [("v1".into(), 9), ("v2".into(), 1)].into());
}

#[test]
fn nobodys_address_is_left_alone_and_a_version_without_endpoints_says_so() {
    let pins = Pins::new("leave");
    let mut dataplane = pins.open();
    dataplane.apply(&state(&[("v1", 1), ("v2", 1)], &[], Choosing::Exact)).unwrap();
    let elsewhere = Probe { to: SocketAddr::from(([10, 96, 0, 11], 5000)), ..probe(0) };
    assert_eq!(dataplane.trace(elsewhere).unwrap().leave, Some("no-service"));
    let dead = (0..2).map(|ahead| dataplane.trace(probe(ahead)).unwrap()).find(|it| it.leave.is_some()).unwrap();
    assert_eq!((dead.leave, dead.version.as_deref()), (Some("no-endpoint"), Some("v2")));
    let other_family = Probe { from: "[fd00::1]:1".parse().unwrap(), ..probe(0) };
    let error = dataplane.trace(other_family).unwrap_err().to_string();
    assert_eq!(error, "[fd00::1]:1 and 10.96.0.10:5000 are not of one address family");
}

#[test]
fn detach_removes_every_pin() {
    let pins = Pins::new("detach");
    let mut dataplane = pins.open();
    dataplane.apply(&state(&[("v1", 1)], &[1], Choosing::Exact)).unwrap();
    drop(dataplane);
    assert!(pins.0.join("v1/ENDPOINTS").exists());
    let removed = detach(&pins.0).unwrap();
    assert!(removed.len() >= 18, "{removed:?}");
    assert!(!pins.0.exists());
}

#[test]
fn the_kernel_says_what_the_maps_cost() {
    let pins = Pins::new("memory");
    let memory = pins.open().memory().unwrap();
    let flows = memory.iter().find(|it| it.name == "FLOWS").unwrap();
    assert_eq!(flows.entries, 2_048, "an entry for each direction");
    assert!(flows.bytes > 2_048 * 72, "{flows:?}");
    let total: u64 = memory.iter().map(|it| it.bytes).sum();
    println!("all maps but the flows: {} MiB", (total - flows.bytes) >> 20);
}
