//! Who sees the canary is decided by the request: the blog's focused canary, end to end.
use std::time::Duration;

use anyhow::{Result, ensure};
use canary_tests::{
    focused::{FOCUSED, MEMBER, MEMBER_WITH_ANOTHER, STRANGER, by_cookie, stage, tally},
    resources::{Extras, write_service},
    story::{Hook, vip},
    tally::{Tally, Weights},
};

#[test]
fn half_of_those_with_the_cookie_see_v2_and_nobody_else_does() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    for ipv6 in [false, true] {
        let with = tally(&story, vip(ipv6), MEMBER, 200, 1)?;
        assert!((99..=101).contains(&with.of("v1")) && with.answers() == 200, "{with:?}\n{}", agent.log());
        for headers in ["", STRANGER, MEMBER_WITH_ANOTHER] {
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

#[test]
fn a_parsed_cookie_is_found_wherever_it_stands() -> Result<()> {
    let (story, _agent) = stage(Hook::Tc, &by_cookie())?;
    let with = tally(&story, vip(false), MEMBER_WITH_ANOTHER, 100, 1)?;
    assert!((49..=51).contains(&with.of("v1")) && with.answers() == 100, "{with:?}");
    let without = tally(&story, vip(false), STRANGER, 50, 1)?;
    assert_eq!((without.of("v1"), without.answers()), (50, 50), "{without:?}");
    Ok(())
}

#[test]
fn requests_are_told_of_as_flows_are() -> Result<()> {
    let (story, agent) = stage(Hook::Tc, FOCUSED)?;
    tally(&story, vip(false), MEMBER, 1, 100)?;
    let versions = agent.call(&["get", "versions"])?;
    for row in [
        "http[0]   v1        50       50%     -       50         50%        0",
        "http[0]   v2        50       50%     -       50",
    ] {
        ensure!(versions.contains(row), "{row} is missing in\n{versions}");
    }
    agent.call(&["verify"])?;
    let target = vip(false).to_string();
    let header = MEMBER.trim_end();
    let traced = agent.call(&["trace", "--to", &target, "--http", "GET /hello", "-H", header, "-o", "name"])?;
    let met: Vec<&str> =
        traced.lines().filter_map(|line| line.rsplit_once("http[0]/")).map(|(_, version)| version).collect();
    assert_eq!(met, ["v1", "v2"], "{traced}");
    let traced = agent.call(&["trace", "--to", &target, "--http", "GET /hello", "-H", STRANGER.trim_end()])?;
    ensure!(traced.contains("header `cookie` is `email=eve@elsewhere.com`, not all of `^(.*?;)?(email="), "{traced}");
    ensure!(traced.contains("rule      http[1] (index 1; VirtualService default/helloworld, "), "{traced}");
    Ok(())
}
