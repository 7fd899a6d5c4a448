//! The focused canary: the blog's second VirtualService, unchanged, on real servers. Who sees v2 is decided by a cookie.
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::{Agent, EndpointState},
    resources::{Extras, PORT, write_endpoints, write_service},
    server::Hello,
    story::{Hook, Story, vip},
    tally::{Tally, Weights},
};

const SUBSETS: &str = "---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: helloworld
spec:
  host: helloworld
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
";

/// As it is in the blog.
const FOCUSED: &str = r#"apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts:
    - helloworld
  http:
  - match:
    - headers:
        cookie:
          regex: "^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$"
    route:
    - destination:
        host: helloworld
        subset: v1
      weight: 50
    - destination:
        host: helloworld
        subset: v2
      weight: 50
  - route:
    - destination:
        host: helloworld
        subset: v1
"#;

/// One connection with `requests` requests, each with these headers; who answered.
fn ask(target: SocketAddr, headers: &str, requests: usize) -> Result<Vec<Hello>> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answers = Vec::new();
    for number in 0..requests {
        let last = number + 1 == requests;
        let ending = if last { "close" } else { "keep-alive" };
        let request =
            format!("GET /hello HTTP/1.1\r\nHost: helloworld:{PORT}\r\n{headers}Connection: {ending}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.windows(6).any(|it| it == b"Hello ") || !answer.ends_with(b"\n") {
            let mut buffer = [0; 1_024];
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "closed early: {}", String::from_utf8_lossy(&answer));
            answer.extend(buffer.iter().take(read));
        }
        let text = String::from_utf8(answer)?;
        answers.push(Hello::read(text.rsplit("\r\n").next().unwrap_or_default())?);
    }
    Ok(answers)
}

fn tally(story: &Story, target: SocketAddr, headers: &str, connections: usize, each: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..connections {
        for hello in story.client.run(|| ask(target, headers, each))?? {
            tally.answered(hello);
        }
    }
    Ok(tally)
}

/// Story and agent, with these routes in force.
fn stage(hook: Hook, routes: &str) -> Result<(Story, Agent)> {
    let story = Story::new(hook, 3, 1)?;
    let mut agent = Agent::new(&story)?;
    agent.listen_at(&["10.0.0.1:15001", "[fd00:1::1]:15001"]);
    write_service(&agent.config(), Weights { v1: 1, v2: 0 }, &Extras::default())?;
    std::fs::write(agent.config().join("routes.yaml"), format!("{routes}{SUBSETS}"))?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(&story)?;
    let sockets: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    agent.wait_for(&sockets, &[EndpointState::Serving])?;
    Ok((story, agent))
}

const MEMBER: &str = "cookie: email=ada@some-company-name.com; theme=dark\r\n";

#[test]
fn half_of_those_with_the_cookie_see_v2_and_nobody_else_does() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    for ipv6 in [false, true] {
        let with = tally(&story, vip(ipv6), MEMBER, 200, 1)?;
        assert!((99..=101).contains(&with.of("v1")) && with.answers() == 200, "{with:?}\n{}", agent.log());
        for headers in ["", "cookie: email=eve@elsewhere.com\r\n", "cookie: sid=1; email=ada@some-company-name.com\r\n"]
        {
            let without = tally(&story, vip(ipv6), headers, 50, 1)?;
            assert_eq!((without.of("v1"), without.answers()), (50, 50), "{headers}: {without:?}");
        }
    }
    Ok(())
}

#[test]
fn each_request_of_a_connection_is_decided_for_itself() -> Result<()> {
    let (story, _agent) = stage(Hook::Tc, FOCUSED)?;
    let with = tally(&story, vip(false), MEMBER, 1, 100)?;
    assert_eq!((with.of("v1"), with.of("v2")), (50, 50), "{with:?}");
    Ok(())
}

#[test]
fn without_rules_for_requests_new_connections_stay_in_the_kernel() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    assert_eq!(tally(&story, vip(false), MEMBER, 10, 1)?.answers(), 10);
    let proxied = || agent.call(&["get", "flows", "-o", "json"]).map(|text| text.matches("10.0.0.1:15001").count());
    assert!(proxied()? > 0, "they went by the proxy");
    write_service(&agent.config(), Weights { v1: 50, v2: 50 }, &Extras::default())?;
    let started = std::time::Instant::now();
    let mut seen = Tally::default();
    while seen.of("v2") == 0 {
        ensure!(started.elapsed() < Duration::from_secs(10), "the new rules do not come: {seen:?}");
        seen = tally(&story, vip(false), "", 2, 1)?;
    }
    let before = proxied()?;
    let plain = tally(&story, vip(false), "", 100, 1)?;
    assert!((49..=51).contains(&plain.of("v1")) && plain.answers() == 100, "{plain:?}");
    assert!(proxied()? <= before, "no new connection has come to the proxy");
    Ok(())
}
