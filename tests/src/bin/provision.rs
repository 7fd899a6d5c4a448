//! Loads the programs for the yardstick: VIP 10.200.1.1:80, TCP and UDP, ten endpoints behind 90/10. Attaches nothing;
//! the pins stay. Called by `cargo xtask bench`.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use canary_user::{
    dataplane::{Capacity, Dataplane, IdleTimeouts, Settings},
    state::{Choosing, DeadVersion, Family, Frontend, Protocol, Rule, Service, ServiceId, Split, State, Version},
};
use clap::Parser;

/// Loads canary's programs with the yardstick's service, and leaves them pinned.
#[derive(Parser)]
struct Arguments {
    /// Directory on a bpffs.
    pin: PathBuf,
    /// Established flows to have room for.
    #[arg(long, default_value_t = 2_000_000)]
    flows: u32,
    /// Choose by a hash of the flow instead of counting.
    #[arg(long)]
    keyed: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        pin: arguments.pin,
        capacity: Capacity { flows: arguments.flows, transient_flows: arguments.flows },
        idle: IdleTimeouts::default(),
        direct: false,
        proxy: false,
        connections: false,
    };
    let mut dataplane = Dataplane::open(&settings)?;
    let choosing = if arguments.keyed { Choosing::KeyedFlow } else { Choosing::Exact };
    let applied = dataplane.apply(&state(choosing))?;
    println!("{} writes in {} µs", applied.operations, applied.micros);
    Ok(())
}

fn state(choosing: Choosing) -> State {
    let mut state = State::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let id =
            ServiceId { namespace: "bench".into(), name: "yardstick".into(), port: 80, protocol, family: Family::Ipv4 };
        let version = |hosts: std::ops::RangeInclusive<u8>| Version {
            endpoints: hosts.map(|host| (SocketAddr::from(([10, 1, 0, host], 80)), 1)).collect(),
            drain_seconds: 300,
        };
        let split = Split { choosing, dead: DeadVersion::Fail, weights: vec![("v1".into(), 90), ("v2".into(), 10)] };
        let service = Service {
            rules: vec![Rule { name: "tcp[0]".into(), sources: Vec::new(), split }],
            versions: [("v1".into(), version(1..=9)), ("v2".into(), version(10..=10))].into(),
            http: None,
            tls: None,
        };
        let frontend = Frontend { addr: IpAddr::from([10, 200, 1, 1]), port: 80, protocol };
        state.frontends.insert(frontend, id.clone());
        state.services.insert(id, service);
    }
    state
}
