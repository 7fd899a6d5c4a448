//! Interfaces that come and go.
use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::{Agent, EndpointState},
    load::{Load, Progress, run},
    resources::{Extras, PORT, write_endpoints, write_service},
    story::{Hook, Story, vip},
    tally::Weights,
};

/// Interfaces by a pattern: those that are there, and those that come and go while the agent runs.
#[test]
fn interfaces_are_followed_by_their_names() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 1)?;
    let mut agent = Agent::new(&story)?;
    agent.attach_to(&["tc:fr*", "tc:lxc*"]);
    write_service(&agent.config(), Weights { v1: 90, v2: 10 }, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.start(&story)?;
    let pods: Vec<_> = story.endpoints().iter().map(|it| std::net::SocketAddr::new(it.v4.into(), PORT)).collect();
    agent.wait_for(&pods, &[EndpointState::Serving])?;
    let tally = story.client.run(|| run(Load::tcp(vip(false), 50), &Progress::new()))??;
    assert_eq!((tally.of("v1"), tally.of("v2"), tally.failed), (45, 5, 0), "{tally:?}");
    let attached = || -> Result<Vec<String>> {
        let said: serde_json::Value = serde_json::from_str(&agent.call(&["status", "-o", "json"])?)?;
        let list = said.pointer("/attached").and_then(serde_json::Value::as_array).context("nothing is attached")?;
        Ok(list.iter().filter_map(|it| Some(it.get("interface")?.as_str()?.to_owned())).collect())
    };
    let becomes = |expected: &[&str]| -> Result<()> {
        let begin = std::time::Instant::now();
        while attached()? != expected {
            ensure!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}\n{}", attached()?, agent.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    };
    becomes(&["front"])?;
    for _ in 0..3 {
        story.node.ip("link add lxc0 type veth peer name peer0\nlink set dev lxc0 up")?;
        becomes(&["front", "lxc0"])?;
        story.node.ip("link del lxc0")?;
        becomes(&["front"])?;
    }
    let tally = story.client.run(|| run(Load::tcp(vip(false), 50), &Progress::new()))??;
    assert_eq!((tally.of("v1"), tally.of("v2"), tally.failed), (45, 5, 0), "{tally:?}");
    Ok(())
}
