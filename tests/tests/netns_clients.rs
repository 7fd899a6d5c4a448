//! Clients and servers that others have written, through the proxy: Istio's own sample, gRPC, WebSocket, HTTP/2.
use std::net::Ipv4Addr;

use anyhow::Result;
use canary_tests::{
    agent::Agent,
    clients::{Further, ada_sees_v2},
    focused::{FOCUSED, MEMBER, stage, tally},
    story::{Hook, Story, vip},
};

const JASON: &str = include_str!("../../canary-user/tests/conformance/samples/virtual-service-reviews-test-v2.yaml");
const JASON_V3: &str =
    include_str!("../../canary-user/tests/conformance/samples/virtual-service-reviews-jason-v2-v3.yaml");

fn further(number: u8, name: &'static str, port_name: &'static str, target: u16) -> Further {
    Further { name, address: Ipv4Addr::new(10, 96, 0, number), port_name, port: 9080, target }
}

/// The answer, and behind it the status.
fn curl(story: &Story, at: &Further, header: &str) -> Result<String> {
    let url = format!("http://{}/reviews/0", at.target());
    story
        .client
        .call("curl", &["--silent", "--max-time", "10", "--write-out", "%{http_code}", "--header", header, &url])
}

#[test]
fn istios_sample_shows_v2_of_reviews_to_jason_only() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    let reviews = further(30, "reviews", "http", 5000);
    reviews.publish(&agent, &story, JASON)?;
    for (header, version) in [("end-user: jason", "v2"), ("end-user: Jason", "v1"), ("x: y", "v1")] {
        for _ in 0..20 {
            let said = curl(&story, &reviews, header)?;
            assert!(said.contains(&format!("version: {version}")) && said.ends_with("200"), "{header}: {said}");
        }
    }
    // The next step of the tutorial: everybody else sees v3, which has no pods here.
    reviews.publish(&agent, &story, JASON_V3)?;
    let said = curl(&story, &reviews, "x: y")?;
    assert!(said.ends_with("503"), "v3 has no endpoints: {said}");
    assert!(curl(&story, &reviews, "end-user: jason")?.contains("version: v2"));
    Ok(())
}

/// Story, agent, and a service of that kind with servers in all pods.
fn with(service: Further, kind: &str) -> Result<(Vec<canary_tests::cleanup::Running>, Agent, Story)> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    let servers = service.serve(kind, &story)?;
    service.publish(&agent, &story, &ada_sees_v2(service.name))?;
    Ok((servers, agent, story))
}

#[test]
fn grpc_calls_of_one_channel_are_decided_one_by_one() -> Result<()> {
    let service = further(31, "greeter", "grpc", 50_051);
    let (_servers, agent, story) = with(service, "grpc")?;
    service.ask(&story, "ask_grpc.py").map_err(|error| error.context(agent.log())).map(drop)
}

#[test]
fn websockets_go_where_their_handshake_goes() -> Result<()> {
    let service = further(32, "chat", "http", 8_001);
    let (_servers, agent, story) = with(service, "websocket")?;
    service.ask(&story, "ask_websocket.py").map_err(|error| error.context(agent.log())).map(drop)
}

#[test]
fn http2_clients_are_served() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    let service = further(33, "pages", "http2", 8_002);
    let _servers = service.serve_http2(&story)?;
    service.publish(&agent, &story, &ada_sees_v2(service.name))?;
    service.ask(&story, "ask_httpx.py").map_err(|error| error.context(agent.log()))?;
    let url = format!("http://{}/index.html", service.target());
    for arguments in [&["-n2000", "-c4", "-m32"][..], &["-n500", "-c100", "-m1"]] {
        let said = story.client.call("h2load", &[arguments, &["--header=end-user: ada", &url]].concat())?;
        let total = arguments[0].trim_start_matches("-n");
        assert!(said.contains(&format!("{total} succeeded, 0 failed, 0 errored, 0 timeout")), "{said}");
    }
    Ok(())
}

/// XDP hands the connection to the node's own stack, which knows nothing of the service's address.
#[test]
fn an_xdp_program_hands_over_to_the_proxy_too() -> Result<()> {
    let (story, agent) = stage(Hook::Xdp, FOCUSED)?;
    for ipv6 in [false, true] {
        let with = tally(&story, vip(ipv6), MEMBER, 50, 2)?;
        assert!((49..=51).contains(&with.of("v1")) && with.answers() == 100, "{with:?}\n{}", agent.log());
    }
    Ok(())
}
