//! The way to the proxy: the kernel hands it connections like any other endpoint's, and it knows whom they were meant for.
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use canary_tests::netns::Namespace;
use canary_user::{
    dataplane::{Attach, Capacity, Dataplane, Hook, IdleTimeouts, Origins, Settings, detach},
    state::{Choosing, DeadVersion, Family, Frontend, Protocol, Rule, Service, ServiceId, Split, State, Version},
};

/// A service at `frontend` whose only endpoint is `proxy`.
fn state(frontend: SocketAddr, proxy: SocketAddr) -> State {
    let family = if proxy.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 };
    let id = ServiceId { namespace: "a".into(), name: "a".into(), port: 80, protocol: Protocol::Tcp, family };
    let split = Split { choosing: Choosing::Exact, dead: DeadVersion::Fail, weights: vec![("proxy".into(), 1)] };
    let version = Version { endpoints: BTreeMap::from([(proxy, 1)]), drain_seconds: 300 };
    let rules = vec![Rule { name: "proxy".into(), sources: Vec::new(), split }];
    let service = Service { rules, versions: [("proxy".into(), version)].into(), http: None, tls: None };
    let frontend = Frontend { addr: frontend.ip(), port: frontend.port(), protocol: Protocol::Tcp };
    State { frontends: [(frontend, id.clone())].into(), services: [(id, service)].into(), ..State::default() }
}

#[test]
fn a_connection_to_the_proxy_knows_whom_it_was_meant_for() -> Result<()> {
    let (client, node) = (Namespace::new("client")?, Namespace::new("node")?);
    node.ip(&format!("link add front type veth peer name eth0 netns {}", client.path().display()))?;
    client.ip("address add 192.0.2.2/24 dev eth0\naddress add 2001:db8::2/64 dev eth0\nlink set eth0 up\n\
         route add default via 192.0.2.1\nroute add default via 2001:db8::1")?;
    node.ip("address add 192.0.2.1/24 dev front\naddress add 2001:db8::1/64 dev front\nlink set front up")?;
    let settings = Settings {
        pin: PathBuf::from(format!("/sys/fs/bpf/canary-test-{}-proxy", std::process::id())),
        capacity: Capacity { flows: 1_024, transient_flows: 1_024 },
        idle: IdleTimeouts::default(),
        direct: false,
        proxy: false,
        connections: false,
    };
    for hook in [Hook::Tc, Hook::Clsact] {
        for (vip, node_address) in
            [("203.0.113.1:80", "192.0.2.1:15001"), ("[2001:db8:1::1]:80", "[2001:db8::1]:15001")]
        {
            let (vip, proxy): (SocketAddr, SocketAddr) = (vip.parse()?, node_address.parse()?);
            let listener = node.run(|| TcpListener::bind(proxy))??;
            let _dataplane = node.run(|| -> Result<Dataplane> {
                let mut dataplane = Dataplane::open(&settings)?;
                dataplane.attach(&[Attach { hook, interface: "front".into() }]).remove(0)?;
                dataplane.apply(&state(vip, proxy))?;
                Ok(dataplane)
            })??;
            let origins = Origins::open(&settings.pin)?;
            let talk = std::thread::spawn({
                let mine = client.run(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5)));
                let mut mine = mine?.with_context(|| format!("{hook:?} {vip}"))?;
                move || -> Result<(SocketAddr, String)> {
                    mine.set_read_timeout(Some(Duration::from_secs(5)))?;
                    mine.write_all(b"hello")?;
                    let mut said = [0; 5];
                    mine.read_exact(&mut said)?;
                    Ok((mine.local_addr()?, String::from_utf8_lossy(&said).into_owned()))
                }
            });
            let (mut theirs, peer) = listener.accept()?;
            let mut said = [0; 5];
            theirs.read_exact(&mut said)?;
            let origin = origins.of(peer, theirs.local_addr()?);
            theirs.write_all(&said)?;
            let (from, said) = talk.join().expect("no panic")?;
            assert_eq!((peer, said.as_str()), (from, "hello"), "{hook:?}: the proxy sees the real client");
            assert_eq!(origin, Some(vip), "{hook:?}");
            let stranger = SocketAddr::new(IpAddr::from([198, 51, 100, 1]), 1);
            ensure!(origins.of(stranger, proxy).is_none(), "a connection by no service has no origin");
        }
    }
    node.run(|| detach(&settings.pin))??;
    Ok(())
}
