//! Attaching, taking over and letting go, in a namespace of its own.
use std::path::PathBuf;

use anyhow::Result;
use canary_tests::netns::Namespace;
use canary_user::dataplane::{Attach, Capacity, Dataplane, Hook, IdleTimeouts, Settings, detach};

const HOOKS: [(Hook, &str); 3] = [(Hook::Xdp, "native"), (Hook::Tc, "tcx"), (Hook::Clsact, "clsact")];

fn settings(test: &str) -> Settings {
    Settings {
        pin: PathBuf::from(format!("/sys/fs/bpf/canary-test-{}-{test}", std::process::id())),
        capacity: Capacity { flows: 1_024, transient_flows: 1_024 },
        idle: IdleTimeouts::default(),
    }
}

fn wanted(hook: Hook) -> [Attach; 1] {
    [Attach { hook, interface: "a.100".into() }]
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
    node.ip("link add a.100 type veth peer name b\ntuntap add name tun0 mode tun\nlink set dev tun0 up")?;
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

#[test]
fn a_clsact_filter_is_marked_before_it_is_there() -> Result<()> {
    let node = Namespace::new("mark")?;
    node.ip("link add a.100 type veth peer name b\nlink set dev a.100 up\nlink set dev b up")?;
    let settings = settings("mark");
    node.run(|| -> Result<()> {
        Dataplane::open(&settings)?.attach(&wanted(Hook::Clsact)).remove(0)?;
        Ok(())
    })??;
    // As if the agent had died between mark and filter: the next one attaches.
    node.call("tc", &["qdisc", "del", "dev", "a.100", "clsact"])?;
    node.run(|| -> Result<()> {
        let attached = Dataplane::open(&settings)?.attach(&wanted(Hook::Clsact)).remove(0)?;
        assert!(!attached.adopted);
        Ok(())
    })??;
    assert!(programs(&node)?.contains("canary_in"), "{}", programs(&node)?);
    node.run(|| detach(&settings.pin))??;
    assert_eq!(programs(&node)?, "");
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
