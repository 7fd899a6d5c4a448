//! Who gets a TLS connection is decided by the name in its first message, end to end. The servers behind do not mind what
//! comes before the request that they wait for: that they get it shows that every byte is passed on.
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use canary_tests::{
    focused::stage_for,
    server::Hello,
    story::{Hook, Story, vip},
    tally::Tally,
};

const ROUTES: &str = r#"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts: [helloworld, a.example.com, "*.example.org"]
  tls:
  - match:
    - sniHosts: [a.example.com]
    route:
    - destination: {host: helloworld, subset: v1}
      weight: 3
    - destination: {host: helloworld, subset: v2}
      weight: 1
  - match:
    - sniHosts: ["*.example.org"]
    route:
    - destination: {host: helloworld, subset: v2}
"#;

fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len().to_be_bytes();
    [len.get(len.len() - width..).unwrap_or_default(), bytes].concat()
}

/// The first message of a TLS client (RFC 8446 §4.1.2) that asks for this name, in one record.
fn client_hello(name: &str) -> Vec<u8> {
    let names = vector(2, &[&[0], vector(2, name.as_bytes()).as_slice()].concat());
    let extensions = vector(2, &[&[0, 0], vector(2, &names).as_slice()].concat());
    let body = [&[3, 3], [7; 32].as_slice(), &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    [&[22, 3, 1], vector(2, &[&[1], vector(3, &body).as_slice()].concat()).as_slice()].concat()
}

/// What comes back from a connection that begins like this and then asks who is there.
fn ask(target: SocketAddr, beginning: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[beginning, b"\r\nConnection: close\r\n\r\n"].concat())?;
    let mut answer = Vec::new();
    // To be reset is to hear nothing, too.
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8(answer)?),
    }
}

fn tally(story: &Story, target: SocketAddr, name: &str, connections: u32) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..connections {
        let answer = story.client.run(|| ask(target, &client_hello(name)))??;
        tally.answered(Hello::read(answer.rsplit("\r\n").next().unwrap_or_default())?);
    }
    Ok(tally)
}

#[test]
fn the_name_decides_and_the_split_is_exact() -> Result<()> {
    let (story, agent) = stage_for(Hook::Tc, "tls", ROUTES)?;
    for ipv6 in [false, true] {
        let target = vip(ipv6);
        let split = tally(&story, target, "a.example.com", 40)?;
        assert!((29..=31).contains(&split.of("v1")) && split.answers() == 40, "{split:?}\n{}", agent.log());
        let all = tally(&story, target, "b.example.org", 10)?;
        assert_eq!((all.of("v2"), all.answers()), (10, 10), "{all:?}");
        for beginning in [client_hello("example.com"), b"GET / HTTP/1.1".to_vec()] {
            assert_eq!(story.client.run(|| ask(target, &beginning))??, "", "nobody is there for {beginning:?}");
        }
    }
    let versions: serde_json::Value = serde_json::from_str(&agent.call(&["get", "versions", "-o", "json"])?)?;
    let of = |rule: &str, version: &str| {
        let items = versions["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mine = items.iter().filter(|it| it["rule"] == rule && it["version"] == version);
        mine.filter_map(|it| it["flows"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!((of("tls[0]", "v1").len(), of("tls[1]", "v2")), (2, vec![10, 10]), "{versions}");
    assert!(of("tls[0]", "v1").iter().all(|flows| (29..=31).contains(flows)), "{versions}");
    agent.call(&["verify"])?;
    Ok(())
}
