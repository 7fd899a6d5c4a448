//! The story's second half: half of those who have a cookie see v2, nobody else does.
use std::time::Instant;

use anyhow::Result;
use canary_tests::{
    focused::{FOCUSED, MEMBER, MEMBER_WITH_ANOTHER, STRANGER, by_cookie, stage, tally, write_routes},
    story::{Hook, vip},
    tally::Weights,
};

use super::show::{Show, Step};

const HALF: Weights = Weights { v1: 50, v2: 50 };
const NONE: Weights = Weights { v1: 1, v2: 0 };

/// Asks as different people, and checks who answers them.
pub(super) fn walk(hook: Hook, ipv6: bool, connections: u32, show: &mut Show) -> Result<()> {
    show.say("making network namespaces for a client, a node, and pods of v1 (three) and v2 (one); starting the agent with a proxy");
    let (story, agent) = stage(hook, FOCUSED)?;
    let mut step = |title: &str, done: &str, headers: &str, weights: Weights| -> Result<()> {
        let started = Instant::now();
        let tally = tally(&story, vip(ipv6), headers, connections, 1)?;
        let verdict = weights.hold_for(&tally);
        show.step(Step::new(title, done, weights, tally, started.elapsed(), verdict));
        Ok(())
    };
    let member = "cookie: email=ada@some-company-name.com; theme=dark";
    let another = "cookie: sid=1; email=ada@some-company-name.com";
    step("people of some-company-name.com", member, MEMBER, HALF)?;
    step("people without a cookie", "no header", "", NONE)?;
    step("people of somewhere else", "cookie: email=eve@elsewhere.com", STRANGER, NONE)?;
    step("the regular expression misses a cookie behind another one", another, MEMBER_WITH_ANOTHER, NONE)?;
    write_routes(&agent, &by_cookie())?;
    agent.call(&["status"])?;
    let started = Instant::now();
    while tally(&story, vip(ipv6), MEMBER_WITH_ANOTHER, 2, 1)?.of("v2") == 0 {
        anyhow::ensure!(started.elapsed().as_secs() < 10, "the new routes do not come:\n{}", agent.log());
    }
    step("canary.io/cookies finds it", another, MEMBER_WITH_ANOTHER, HALF)?;
    step("and nobody else", "no header", "", NONE)
}
