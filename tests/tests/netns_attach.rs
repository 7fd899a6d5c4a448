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
            let attached = first.attach(&wanted(hook))?;
            assert_eq!((attached[0].mode.as_str(), attached[0].adopted), (mode, false));
            assert_eq!(attached[0].warning.is_some(), hook == Hook::Xdp, "a veth: {:?}", attached[0].warning);
            drop(first);
            let mut second = Dataplane::open(&settings)?;
            let attached = second.attach(&wanted(hook))?;
            assert_eq!(
                (attached[0].mode.as_str(), attached[0].adopted),
                (mode, true),
                "the agent died, the link did not"
            );
        }
        Ok(())
    })??;
    assert!(programs(&node)?.contains("canary_in"), "the clsact filter: {}", programs(&node)?);
    node.run(|| -> Result<()> {
        Dataplane::open(&settings)?.attach(&wanted(Hook::Xdp))?;
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
        let error = dataplane.attach(&wanted(Hook::Tc)).unwrap_err().to_string();
        assert_eq!(error, "interface a.100 is not there: `ip link` lists those that are");
        for _ in 0..2 {
            node.ip("link add a.100 type veth peer name b")?;
            let attached = dataplane.attach(&wanted(Hook::Tc))?;
            assert!(!attached[0].adopted, "the link of the old interface is dead");
            node.ip("link del a.100")?;
        }
        Ok(())
    })??;
    detach(&settings.pin)?;
    Ok(())
}

#[test]
fn another_canary_at_the_same_interface_is_told_of() -> Result<()> {
    let node = Namespace::new("another")?;
    node.ip("link add a.100 type veth peer name b")?;
    let (one, two) = (settings("one"), settings("two"));
    node.run(|| -> Result<()> {
        let attached = Dataplane::open(&one)?.attach(&wanted(Hook::Tc))?;
        assert_eq!(attached[0].warning, None);
        let attached = Dataplane::open(&two)?.attach(&wanted(Hook::Tc))?;
        let warning = attached[0].warning.clone().unwrap_or_default();
        assert!(warning.starts_with("another canary is attached to a.100"), "{warning}");
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
