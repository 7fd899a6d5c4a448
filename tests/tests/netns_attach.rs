//! Attaching, taking over and letting go, in a namespace of its own.
use std::path::PathBuf;

use anyhow::Result;
use canary_tests::{
    agent::Agent,
    load::{self, Load, Progress},
    netns::Namespace,
    resources::{Extras, write_endpoints, write_service},
    story::{Story, vip},
    tally::Weights,
};
use canary_user::dataplane::{Attach, Attached, Capacity, Dataplane, Hook, IdleTimeouts, Settings, detach};

const HOOKS: [(Hook, &str); 3] = [(Hook::Xdp, "native"), (Hook::Tc, "tcx"), (Hook::Clsact, "clsact")];

fn settings(test: &str) -> Settings {
    Settings {
        pin: PathBuf::from(format!("/sys/fs/bpf/canary-test-{}-{test}", std::process::id())),
        capacity: Capacity { flows: 1_024, transient_flows: 1_024 },
        idle: IdleTimeouts::default(),
        direct: false,
        proxy: false,
        connections: false,
    }
}

fn wanted(hook: Hook) -> [Attach; 1] {
    [Attach { hook, interface: "a.100".into() }]
}

/// Attaches, which works for all.
fn attach(dataplane: &mut Dataplane, wanted: &[Attach]) -> Vec<Attached> {
    assert_eq!(failures(dataplane, wanted), [""; 0]);
    dataplane.attached()
}

/// Attaches, and says what failed.
fn failures(dataplane: &mut Dataplane, wanted: &[Attach]) -> Vec<String> {
    dataplane.attach(wanted).into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
}

/// What `tc` and `ip` show of programs on the interface.
fn programs(node: &Namespace) -> Result<String> {
    let link = node.call("ip", &["-details", "link", "show", "dev", "a.100"])?;
    let filters = node.call("tc", &["filter", "show", "dev", "a.100", "ingress"])?;
    Ok(link.lines().filter(|line| line.contains("xdp")).collect::<String>() + &filters)
}

#[test]
fn every_hook_attaches_is_taken_over_replaced_and_let_go() -> Result<()> {
    let node = Namespace::new("attach")?;
    node.ip("link add a.100 type veth peer name b\nlink set dev a.100 up\nlink set dev b up")?;
    let settings = settings("hooks");
    node.run(|| -> Result<()> {
        for (hook, mode) in HOOKS {
            let mut first = Dataplane::open(&settings)?;
            let attached = first.attach(&wanted(hook)).remove(0)?;
            assert_eq!((attached.mode.as_str(), attached.adopted), (mode, false));
            assert_eq!(attached.warning.is_some(), hook == Hook::Xdp, "a veth: {:?}", attached.warning);
            drop(first);
            let mut second = Dataplane::open(&settings)?;
            let attached = second.attach(&wanted(hook)).remove(0)?;
            assert_eq!((attached.mode.as_str(), attached.adopted), (mode, true), "the agent died, the link did not");
        }
        Ok(())
    })??;
    assert!(programs(&node)?.contains("canary_in"), "the clsact filter: {}", programs(&node)?);
    node.run(|| -> Result<()> {
        Dataplane::open(&settings)?.attach(&wanted(Hook::Xdp)).remove(0)?;
        Ok(())
    })??;
    let shown = programs(&node)?;
    assert!(shown.contains("xdp") && !shown.contains("canary_in"), "the filter went with the switch: {shown}");
    node.run(|| detach(&settings.pin))??;
    assert_eq!(programs(&node)?, "");
    Ok(())
}

#[test]
fn a_missing_interface_is_named_and_one_made_anew_is_attached_anew() -> Result<()> {
    let node = Namespace::new("anew")?;
    let settings = settings("anew");
    node.run(|| -> Result<()> {
        let mut dataplane = Dataplane::open(&settings)?;
        let error = dataplane.attach(&wanted(Hook::Tc)).remove(0).unwrap_err().to_string();
        assert_eq!(error, "interface a.100 is not there: `ip link` lists those that are");
        for _ in 0..2 {
            node.ip("link add a.100 type veth peer name b")?;
            let attached = dataplane.attach(&wanted(Hook::Tc)).remove(0)?;
            assert!(!attached.adopted, "the link of the old interface is dead");
            node.ip("link del a.100")?;
        }
        Ok(())
    })??;
    detach(&settings.pin)?;
    Ok(())
}

#[test]
fn an_interface_that_cannot_be_attached_keeps_no_other_from_it() -> Result<()> {
    let node = Namespace::new("others")?;
    // A loopback without an address: what asks for the hardware type must not need one.
    node.ip("addr flush dev lo\nlink set lo down\nlink add a.100 type veth peer name b")?;
    node.ip("tuntap add name tun0 mode tun\nlink set dev tun0 up")?;
    let settings = settings("others");
    let wanted: Vec<Attach> =
        ["gone", "tun0", "a.100"].map(|interface| Attach { interface: interface.into(), hook: Hook::Tc }).into();
    node.run(|| -> Result<()> {
        let mut dataplane = Dataplane::open(&settings)?;
        let became: Vec<Result<String, String>> = dataplane
            .attach(&wanted)
            .into_iter()
            .map(|one| one.map(|one| one.mode).map_err(|error| error.to_string()))
            .collect();
        assert_eq!(became[0], Err("interface gone is not there: `ip link` lists those that are".into()));
        let tunnel = "interface tun0 carries no Ethernet frames (hardware type 65534): attach to the one that its \
                      packets come by, or go on by";
        assert_eq!(became[1], Err(tunnel.into()));
        assert_eq!(became[2], Ok("tcx".into()));
        assert_eq!(dataplane.attached().len(), 1);
        Ok(())
    })??;
    node.run(|| detach(&settings.pin))??;
    Ok(())
}

/// What `tc` shows of filters, both sides.
fn filters(node: &Namespace) -> Result<String> {
    let out = node.call("tc", &["filter", "show", "dev", "a.100", "egress"])?;
    Ok(node.call("tc", &["filter", "show", "dev", "a.100", "ingress"])? + &out)
}

#[test]
fn a_clsact_filter_whose_mark_is_lost_is_adopted_and_removed() -> Result<()> {
    let node = Namespace::new("unmarked")?;
    node.ip("link add a.100 type veth peer name b")?;
    let settings = settings("unmarked");
    let lose_marks = || -> Result<()> {
        for place in ["clsact-in", "clsact-out"] {
            std::fs::remove_file(settings.pin.join("v1/links").join(format!("{place}-a%2E100")))?;
        }
        Ok(())
    };
    node.run(|| -> Result<()> {
        attach(&mut Dataplane::open(&settings)?, &wanted(Hook::Clsact));
        lose_marks()?;
        let attached = attach(&mut Dataplane::open(&settings)?, &wanted(Hook::Clsact));
        assert!(attached[0].adopted);
        lose_marks()?;
        let removed = detach(&settings.pin)?;
        let links = removed.iter().filter(|path| path.to_string_lossy().contains("links/clsact-")).count();
        assert_eq!(links, 2, "they are told of: {removed:?}");
        Ok(())
    })??;
    assert_eq!(filters(&node)?, "");
    assert!(!settings.pin.exists());
    Ok(())
}

#[test]
fn a_clsact_filter_that_was_marked_and_never_came_is_attached() -> Result<()> {
    let node = Namespace::new("marked")?;
    node.ip("link add a.100 type veth peer name b")?;
    let settings = settings("marked");
    node.run(|| -> Result<()> {
        attach(&mut Dataplane::open(&settings)?, &wanted(Hook::Clsact));
        node.call("tc", &["qdisc", "del", "dev", "a.100", "clsact"])?;
        let attached = attach(&mut Dataplane::open(&settings)?, &wanted(Hook::Clsact));
        assert!(!attached[0].adopted);
        Ok(())
    })??;
    assert_eq!(filters(&node)?.matches("handle 0xca canary_").count(), 2, "{}", filters(&node)?);
    node.run(|| detach(&settings.pin))??;
    assert_eq!(filters(&node)?, "");
    Ok(())
}

/// Nobody else's filter is replaced or removed: no other program's, and no other canary's.
#[test]
fn the_filter_of_somebody_else_stays() -> Result<()> {
    let node = Namespace::new("taken")?;
    node.ip("link add a.100 type veth peer name b")?;
    let (one, two) = (settings("taken-one"), settings("taken-two"));
    node.run(|| -> Result<()> {
        attach(&mut Dataplane::open(&one)?, &wanted(Hook::Clsact));
        let before = filters(&node)?;
        let mut other = Dataplane::open(&two)?;
        // Twice: what the first attempt leaves must not let the second one in.
        for _ in 0..2 {
            let said = failures(&mut other, &wanted(Hook::Clsact)).concat();
            assert!(said.contains("the filter `canary_out` of somebody else is where canary's goes"), "{said}");
        }
        detach(&two.pin)?;
        assert_eq!(filters(&node)?, before);

        // A program of another name, at our place, and our marks: the place was taken while no agent ran.
        let pinned = one.pin.join("v1/programs/other");
        std::fs::rename(one.pin.join("v1/programs/canary_in"), &pinned)?;
        let pinned = pinned.to_string_lossy();
        for side in ["ingress", "egress"] {
            node.call("tc", &["filter", "del", "dev", "a.100", side, "pref", "1"])?;
            let place = ["filter", "add", "dev", "a.100", side, "pref", "1", "handle", "0xca"];
            node.call("tc", &[&place[..], &["bpf", "direct-action", "object-pinned", &pinned]].concat())?;
        }
        Ok(())
    })??;
    let before = filters(&node)?;
    assert!(before.matches("handle 0xca other:").count() == 2, "{before}");
    node.run(|| -> Result<()> {
        let said = failures(&mut Dataplane::open(&one)?, &wanted(Hook::Clsact)).concat();
        assert!(said.contains("of somebody else"), "{said}");
        detach(&one.pin)?;
        Ok(())
    })??;
    assert_eq!(filters(&node)?, before);
    Ok(())
}

/// The exit code says it, the text names it, traffic goes on, and it heals.
#[test]
fn an_agent_works_with_the_interfaces_that_are_there() -> Result<()> {
    let story = Story::new(canary_tests::story::Hook::Tc, 1, 1)?;
    let mut agent = Agent::new(&story)?;
    write_service(&agent.config(), Weights { v1: 1, v2: 1 }, &Extras::default())?;
    write_endpoints(&agent.config(), &story.endpoints())?;
    agent.attach_to(&["tc:late", "tc:front"]);
    agent.spawn(&story)?;
    let (exit, text) = agent.wait_for_status("is not there")?;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("degraded") && text.contains("not attached: interface late is not there"), "{text}");
    assert!(text.contains("tc:front (tcx)"), "{text}");
    let served = story.client.run(|| load::run(Load::tcp(vip(false), 20), &Progress::new()))??;
    assert_eq!(served.answers(), 20, "{served:?}");

    let begin = std::time::Instant::now();
    story.node.ip("link add late type veth peer name later")?;
    let (exit, text) = agent.wait_for_status("tc:late (tcx)")?;
    assert!(begin.elapsed().as_secs() < 15, "seen by a look, not by the pass of every half a minute: {}", agent.log());
    // The interface that works is not touched, whatever happens to others.
    assert_eq!(agent.log().matches("attached interface=\"front\"").count(), 1, "{}", agent.log());
    assert_eq!(exit, Some(0), "{text}");

    agent.kill()?;
    agent.attach_to(&["tc:never", "tc:nowhere"]);
    agent.spawn(&story)?;
    let log = agent.wait_for_end()?;
    let none = "not attached: interface never is not there: `ip link` lists those that are; interface nowhere is not";
    assert!(log.contains(none), "{log}");
    agent.detach(&story)?;
    Ok(())
}

/// A retry for one interface must not make a state out of nothing for another.
#[test]
fn what_is_attached_is_left_alone_while_another_fails() -> Result<()> {
    let node = Namespace::new("alone")?;
    node.ip("link add a.100 type veth peer name b\ntuntap add dev tun0 mode tun")?;
    let settings = settings("alone");
    for hook in [Hook::Xdp, Hook::Tc, Hook::Clsact] {
        let both = [wanted(hook)[0].clone(), Attach { hook, interface: "tun0".into() }];
        node.run(|| -> Result<()> {
            let mut dataplane = Dataplane::open(&settings)?;
            for _ in 0..2 {
                assert_eq!(failures(&mut dataplane, &both).len(), 1);
                assert!(!dataplane.attached()[0].adopted, "attached by this agent: {:?}", dataplane.attached());
            }
            node.ip("link del a.100\nlink add a.100 type veth peer name b")?;
            failures(&mut dataplane, &both);
            assert_eq!(dataplane.attached().len(), 1, "made anew, attached anew");
            Ok(())
        })??;
        node.run(|| detach(&settings.pin))??;
    }
    Ok(())
}

#[test]
fn another_canary_at_the_same_interface_is_told_of() -> Result<()> {
    let node = Namespace::new("another")?;
    node.ip("link add told0 type veth peer name b")?;
    let (one, two) = (settings("one"), settings("two"));
    let told = [Attach { hook: Hook::Tc, interface: "told0".into() }];
    node.run(|| -> Result<()> {
        let attached = Dataplane::open(&one)?.attach(&told).remove(0)?;
        assert_eq!(attached.warning, None);
        let attached = Dataplane::open(&two)?.attach(&told).remove(0)?;
        let warning = attached.warning.clone().unwrap_or_default();
        assert!(warning.starts_with("another canary is attached to told0"), "{warning}");
        assert!(warning.contains(&one.pin.display().to_string()), "{warning}");
        Ok(())
    })??;
    detach(&one.pin)?;
    detach(&two.pin)?;
    Ok(())
}

#[test]
fn pins_must_be_on_a_bpffs() {
    let directory = tempfile::tempdir().unwrap();
    let error = Dataplane::open(&Settings { pin: directory.path().into(), ..settings("elsewhere") }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("not on a bpffs; is a bpffs mounted there (`mount -t bpf bpf /sys/fs/bpf`)?"), "{text}");
}
