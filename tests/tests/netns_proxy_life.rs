//! The proxy's life: rules, endpoints and agents change under it, and not one request fails.
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::Agent,
    focused::{FOCUSED, stage, stage_with, write_routes},
    manager::Manager,
    requests::Requests,
    resources::write_endpoints,
    story::{Hook, Story, vip},
};

/// The focused canary with these weights for members.
fn weighted(v1: u32, v2: u32) -> String {
    FOCUSED.replacen("weight: 50", &format!("weight: {v1}"), 1).replacen("weight: 50", &format!("weight: {v2}"), 1)
}

/// Requests for as long as `work` takes, on connections of one request, and on those of many; none may fail.
fn under_load(story: &Story, agent: &mut Agent, work: impl FnOnce(&mut Agent) -> Result<()>) -> Result<()> {
    let single = Requests::start(&story.client, vip(false), 4, 1);
    let kept = Requests::start(&story.client, vip(true), 4, 200);
    work(agent)?;
    let before = single.answered();
    let start = Instant::now();
    while single.answered() < before + 50 {
        ensure!(start.elapsed() < Duration::from_secs(20), "no answers any more\n{}", agent.log());
        thread::sleep(Duration::from_millis(20));
    }
    for (kind, requests) in [("single", single), ("kept", kept)] {
        let answered = requests.stop().with_context(|| format!("{kind}\n{}", agent.log()))?;
        ensure!(answered > 100, "{kind}: {answered} answers");
    }
    Ok(())
}

#[test]
fn weights_change_four_times_a_second() -> Result<()> {
    let (story, mut agent) = stage(Hook::Tc, FOCUSED)?;
    under_load(&story, &mut agent, |agent| {
        for step in 0..120 {
            write_routes(agent, &weighted(step % 41, 40 - step % 41))?;
            thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    })
}

#[test]
fn endpoints_come_and_go() -> Result<()> {
    let (story, mut agent) = stage(Hook::Tc, FOCUSED)?;
    let all = story.endpoints();
    under_load(&story, &mut agent, |agent| {
        for step in 0..16 {
            let mut some = all.clone();
            some.remove(step % 3); // One of v1's.
            write_endpoints(&agent.config(), &some)?;
            thread::sleep(Duration::from_millis(250));
            write_endpoints(&agent.config(), &all)?;
            thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    })
}

#[test]
fn an_agent_takes_over_from_another() -> Result<()> {
    let (story, mut agent) = stage(Hook::Tc, FOCUSED)?;
    under_load(&story, &mut agent, |agent| {
        for _ in 0..3 {
            let before = agent.pid();
            agent.replace(&story)?;
            ensure!(agent.pid() != before);
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    })
}

#[test]
fn an_agent_is_restarted_by_a_manager_that_keeps_its_sockets() -> Result<()> {
    let (story, mut agent) = stage_with(Hook::Tc, FOCUSED, Manager::new()?)?;
    ensure!(agent.manager()?.listen()? >= 2, "one socket for each address at least");
    under_load(&story, &mut agent, |agent| {
        for _ in 0..3 {
            agent.terminate()?;
            thread::sleep(Duration::from_millis(300)); // As a manager may take.
            agent.start(&story)?;
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    })
}

/// What is open breaks off; but nobody who comes is refused.
#[test]
fn connections_wait_for_the_agent_after_a_killed_one() -> Result<()> {
    let (story, mut agent) = stage_with(Hook::Tc, FOCUSED, Manager::new()?)?;
    agent.kill()?;
    let requests = Requests::start(&story.client, vip(false), 4, 1);
    thread::sleep(Duration::from_millis(500));
    ensure!(requests.answered() == 0, "nobody is there to answer");
    agent.start(&story)?;
    thread::sleep(Duration::from_secs(1));
    let answered = requests.stop().with_context(|| agent.log())?;
    ensure!(answered > 100, "{answered} answers");
    Ok(())
}

#[test]
fn the_proxys_threads_have_no_capabilities() -> Result<()> {
    let (_story, agent) = stage(Hook::Tc, FOCUSED)?;
    let pid = agent.pid().context("it runs")?;
    let mut seen = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let proxy = field("Name:").is_some_and(|name| name.starts_with("canary-proxy"));
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            let none = field(capabilities).is_some_and(|set| set.chars().all(|digit| digit == '0'));
            ensure!(!proxy || none, "{status}");
        }
        ensure!(!proxy || field("NoNewPrivs:") == Some("1"), "{status}");
        seen += usize::from(proxy);
    }
    ensure!(seen > 0, "no thread of the proxy");
    Ok(())
}
