//! The focused canary: the blog's second VirtualService, unchanged, on real servers. Who sees v2 is decided by a cookie.
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    agent::{Agent, EndpointState},
    manager::Manager,
    resources::{Extras, PORT, SUBSETS, replace, write_endpoints, write_service},
    server::Hello,
    story::{Hook, Story},
    tally::{Tally, Weights},
};

/// The focused canary's routes, as they are in the blog.
pub const FOCUSED: &str = r#"apiVersion: networking.istio.io/v1alpha3
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

/// The same by a parsed cookie, wherever it stands among others.
#[must_use]
pub fn by_cookie() -> String {
    let test = r#"[{"rule": "http[0]", "match": {"email": {"regex": ".*@some-company-name.com"}}}]"#;
    let named = format!("  name: helloworld\n  annotations:\n    canary.io/cookies: '{test}'\nspec:");
    let (before, after) = FOCUSED.split_once("  - match:").unwrap_or_default();
    let (_, route) = after.split_once("    route:").unwrap_or_default();
    format!("{before}  - route:{route}").replace("  name: helloworld\nspec:", &named)
}

/// Headers of somebody for whom the canary is.
pub const MEMBER: &str = "cookie: email=ada@some-company-name.com; theme=dark\r\n";
/// The same, as a browser sends it that has another cookie, too.
pub const MEMBER_WITH_ANOTHER: &str = "cookie: sid=1; email=ada@some-company-name.com\r\n";
/// Headers of somebody else.
pub const STRANGER: &str = "cookie: email=eve@elsewhere.com\r\n";

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
        answers.push(Hello::receive(&mut stream)?);
    }
    Ok(answers)
}

/// Opens connections one after the other, each with so many requests, and counts who answers.
///
/// # Errors
/// When one fails.
pub fn tally(story: &Story, target: SocketAddr, headers: &str, connections: u32, each: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..connections {
        for hello in story.client.run(|| ask(target, headers, each))?? {
            tally.answered(hello);
        }
    }
    Ok(tally)
}

/// Makes these the routes of helloworld.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_routes(agent: &Agent, routes: &str) -> Result<()> {
    replace(&agent.config().join("routes.yaml"), &format!("{routes}{SUBSETS}"))
}

/// Story and agent with a proxy, with these routes in force.
///
/// # Errors
/// When something does not start.
pub fn stage(hook: Hook, routes: &str) -> Result<(Story, Agent)> {
    stage_for(hook, "http", routes)
}

/// The same with another protocol of the service's port.
///
/// # Errors
/// When something does not start.
pub fn stage_for(hook: Hook, protocol: &str, routes: &str) -> Result<(Story, Agent)> {
    stage_by(hook, protocol, routes, None)
}

/// The same, started by `manager`.
///
/// # Errors
/// When something does not start.
pub fn stage_with(hook: Hook, routes: &str, manager: Manager) -> Result<(Story, Agent)> {
    stage_by(hook, "http", routes, Some(manager))
}

fn stage_by(hook: Hook, protocol: &str, routes: &str, manager: Option<Manager>) -> Result<(Story, Agent)> {
    let story = Story::new(hook, 3, 1)?;
    let mut agent = Agent::new(&story)?;
    if let Some(manager) = manager {
        agent.managed_by(manager);
    }
    agent.listen_at(&["10.0.0.1:15001", "[fd00:1::1]:15001"]);
    write_service(&agent.config(), Weights { v1: 1, v2: 0 }, &Extras::default())?;
    let service = agent.config().join("service.yaml");
    let declared = format!("    name: http\n    appProtocol: {protocol}\n");
    std::fs::write(&service, std::fs::read_to_string(&service)?.replace("    name: http\n", &declared))?;
    write_routes(&agent, routes)?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(&story)?;
    let sockets: Vec<_> = story.endpoints().iter().map(|it| SocketAddr::new(it.v4.into(), PORT)).collect();
    agent.wait_for(&sockets, &[EndpointState::Serving])?;
    Ok((story, agent))
}
