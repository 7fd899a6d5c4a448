//! The stage itself, without canary: packets go where the kernel routes them, and the virtual address is nobody's.
use std::net::SocketAddr;

use anyhow::Result;
use canary_tests::{
    load::{Load, Progress, Protocol, run},
    resources::PORT,
    story::{Hook, Story, vip},
};

#[test]
fn client_and_pods_reach_each_other_directly() -> Result<()> {
    for hook in [Hook::Tc, Hook::Xdp] {
        let story = Story::new(hook, 2, 1)?;
        for endpoint in story.endpoints() {
            for address in [endpoint.v4.into(), endpoint.v6.into()] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let target = SocketAddr::new(address, PORT);
                    let load = Load { protocol, ..Load::tcp(target, 20) };
                    let tally = story.client.run(|| run(load, &Progress::new()))??;
                    assert_eq!(tally.of_instance(&endpoint.pod), 20, "{hook:?} {target} {protocol:?}: {tally:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn without_canary_the_virtual_address_is_nobody() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 1)?;
    for ipv6 in [false, true] {
        let tally = story.client.run(|| run(Load::tcp(vip(ipv6), 2), &Progress::new()))??;
        assert_eq!((tally.answers(), tally.failed), (0, 2), "{tally:?}");
    }
    Ok(())
}

#[test]
fn pods_come_and_go() -> Result<()> {
    let mut story = Story::new(Hook::Tc, 1, 1)?;
    let second = story.add_pod("v2")?;
    assert_eq!(second.pod, "helloworld-v2-2");
    let target = SocketAddr::new(second.v4.into(), PORT);
    let reach = |story: &Story| story.client.run(|| run(Load::tcp(target, 1), &Progress::new()))?;
    assert_eq!(reach(&story)?.answers(), 1);
    story.pod("helloworld-v2-2")?.crash()?;
    assert!(reach(&story)?.failures[0].contains("refused"), "the address is there, the server is not");
    story.remove_pod("helloworld-v2-2")?;
    assert_eq!(reach(&story)?.answers(), 0);
    assert!(story.remove_pod("helloworld-v2-2").is_err());
    assert_eq!(story.add_pod("v2")?, second, "a free number is used again");
    Ok(())
}

#[test]
fn curl_is_served_too() -> Result<()> {
    let story = Story::new(Hook::Tc, 1, 0)?;
    let said = story.client.call("curl", &["-sS", "--max-time", "5", "http://10.244.1.1:5000/hello"])?;
    assert_eq!(said, "Hello version: v1, instance: helloworld-v1-1\n");
    Ok(())
}
