//! What the data plane refuses for itself: interfaces, and services for which there is no room.
use super::*;

#[test]
fn an_interface_made_anew_is_attached_to_again() {
    let mut world = World::new(&route(90, 10));
    world.pass();
    assert_eq!(world.kernel.inside().attaches, 1);
    world.kernel.inside().interface = 7;
    world.pass();
    assert_eq!(world.kernel.inside().attaches, 2);
}

#[test]
fn an_interface_that_goes_and_comes_holds_nothing_back() {
    let mut world = World::new(&route(90, 10));
    world.agent.attach.push(parse_attach("xdp:eth1").unwrap());
    world.kernel.inside().missing.insert("eth1".into());
    let edited = world.set(&[("v1", 50), ("v2", 50)]).unwrap();
    assert!(edited.applied.is_some(), "in force, whatever else is missing");
    let view = world.view();
    assert_eq!((view.phase, view.failures, view.attached.len()), (Phase::Degraded, 0, 1));
    assert_eq!(view.trouble.clone().unwrap().message, "not attached: interface eth1 is not there");
    assert_eq!(world.agent.delay(), RESYNC, "a look is no pass");
    assert!(!world.agent.has_come());
    world.kernel.inside().broken = Some("no space");
    world.pass();
    let message = world.view().trouble.clone().unwrap().message;
    assert_eq!(message, "the data plane refused: no space; not attached: interface eth1 is not there");
    world.kernel.inside().broken = None;
    world.pass();
    let tries = world.kernel.inside().attaches;
    world.pass();
    assert_eq!(world.kernel.inside().attaches, tries, "what is not there is not tried");
    world.kernel.inside().missing.clear();
    assert!(world.agent.has_come());
    world.pass();
    assert!(!world.agent.has_come());
    let view = world.view();
    assert_eq!((view.phase, view.attached.len(), world.agent.delay()), (Phase::Ready, 2, RESYNC));
}

#[test]
fn an_agent_has_been_ready_once_all_that_is_wanted_was_attached() {
    let world = World::new(&route(90, 10));
    let kernel = FakeKernel::default();
    kernel.inside().missing.insert("eth1".into());
    let (mut agent, view) = open(&world.dir, kernel.clone());
    agent.attach.push(parse_attach("tc:eth1").unwrap());
    agent.turn([Wake::Resync]);
    assert_eq!((view.borrow().phase, view.borrow().was_ready, view.borrow().passes), (Phase::Degraded, false, 1));
    kernel.inside().missing.clear();
    agent.turn([Wake::Resync]);
    assert_eq!((view.borrow().phase, view.borrow().was_ready), (Phase::Ready, true));
    kernel.inside().broken = Some("no space");
    agent.turn([Wake::Resync]);
    assert_eq!((view.borrow().phase, view.borrow().was_ready), (Phase::Degraded, true));
}

#[test]
fn a_failure_does_not_put_off_the_end_of_a_drain() {
    let mut world = World::new(&route(90, 10));
    world.kernel.inside().broken = Some("no space");
    for _ in 0..20 {
        world.pass();
    }
    assert_eq!(world.agent.delay(), RESYNC, "backoff has an end");
    world.agent.drains.insert(Instant::now() + Duration::from_secs(2));
    assert!(world.agent.delay() <= Duration::from_secs(2));
}

#[test]
fn an_agent_starts_unless_no_interface_is_there() {
    let world = World::new(&route(90, 10));
    for (missing, starts) in [(&[][..], true), (&["eth0"][..], true), (&["eth0", "eth1"][..], false)] {
        let kernel = FakeKernel::default();
        kernel.inside().missing.extend(missing.iter().map(|&it| it.to_owned()));
        let (mut agent, _view) = open(&world.dir, kernel);
        agent.attach.push(parse_attach("tc:eth1").unwrap());
        let started = agent.attach();
        assert_eq!(started.is_ok(), starts, "{missing:?}");
        if let Err(error) = started {
            let text = "not attached: interface eth0 is not there; interface eth1 is not there";
            assert_eq!(error.to_string(), text);
        }
    }
}

#[test]
fn a_service_without_room_is_what_it_was_and_says_so() {
    let mut world = World::new(&route(90, 10));
    world.kernel.inside().full.insert(helloworld(), 0);
    world.write("route.yaml", &route(50, 50));
    world.pass();
    let view = world.view();
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(view.in_force.services[&helloworld()].rules[0].split.weights, world.weights());
    assert_ne!(view.intended, view.in_force);
    assert!(!view.reports[&helloworld()].enforced);
    let found: Vec<_> = view.diagnostics.iter().map(|found| (found.code, found.object.as_str())).collect();
    assert_eq!(found, [("CAN0303", "Service default/helloworld")]);
    assert!(view.diagnostics[0].message.ends_with("taken; what was in force stays"), "{}", view.diagnostics[0]);
    assert!(view.diagnostics[0].origin.file.ends_with("service.yaml"));
    assert_eq!(world.agent.delay(), RESYNC, "nothing has changed that would make room");
    assert_eq!(view.history.entries.len(), 0);

    // Others have moved: there may be room now.
    world.kernel.inside().full.insert(helloworld(), 3);
    world.pass();
    assert_eq!(world.agent.delay(), RETRY);
    world.kernel.inside().full.clear();
    world.pass();
    assert_eq!(world.weights(), pairs(&[("v1", 50), ("v2", 50)]));
    assert_eq!((world.view().diagnostics.len(), world.agent.delay()), (0, RESYNC));
    assert_eq!(world.view().history.entries.len(), 1);
}

#[test]
fn a_new_service_without_room_is_nowhere() {
    let world = World::new(&route(90, 10));
    let kernel = FakeKernel::default();
    kernel.inside().full.insert(helloworld(), 0);
    let state = world.dir.path().join("state");
    fs::remove_dir_all(&state).unwrap();
    let (mut agent, view) = open(&world.dir, kernel.clone());
    agent.turn([Wake::Resync]);
    let view = view.borrow().clone();
    assert_eq!((kernel.inside().state.services.len(), view.in_force.frontends.len()), (0, 0));
    assert!(view.diagnostics[0].message.ends_with("nothing is in force for it"), "{}", view.diagnostics[0]);
}

/// A second service, for which there is no room.
fn with_another(world: &World) -> crate::state::ServiceId {
    let other = SERVICE.replace("helloworld", "other").replace("10.96.0.10", "10.96.0.77");
    world.write("other.yaml", &other);
    let id = crate::state::ServiceId { name: "other".into(), ..helloworld() };
    world.kernel.inside().full.insert(id.clone(), 0);
    id
}

#[test]
fn an_edit_beside_a_service_without_room_is_in_force() {
    let mut world = World::new(&route(90, 10));
    with_another(&world);
    world.pass();
    for (v1, v2) in [(50, 50), (40, 60)] {
        let edited = world.set(&[("v1", v1), ("v2", v2)]).unwrap();
        assert_eq!(edited.not_enforced, [], "the other one was not in force before either");
        assert_eq!(world.weights(), pairs(&[("v1", v1), ("v2", v2)]));
    }
}

#[test]
fn an_edit_without_room_says_so_also_when_it_is_tried() {
    let mut world = World::new(&route(90, 10));
    world.kernel.inside().full.insert(helloworld(), 0);
    for dry_run in [true, false] {
        let edited = world.edit_as(Edit { dry_run, what: set(&[("v1", 50), ("v2", 50)]) }).unwrap();
        assert_eq!(edited.not_enforced.len(), 1, "dry run: {dry_run}");
        assert_eq!(edited.changes, [], "no weight changes");
    }
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
}

#[test]
fn what_is_in_force_is_what_the_kernel_has() {
    // The host was booted anew: the agent remembers, the maps are empty.
    let world = World::new(&route(90, 10));
    let kernel = FakeKernel::default();
    kernel.inside().full.insert(helloworld(), 0);
    let World { dir, agent, kernel: old, .. } = world;
    drop(agent);
    let (mut agent, view) = open(&dir, kernel);
    agent.turn([Wake::Resync]);
    let seen = view.borrow().clone();
    assert_eq!(seen.in_force.services.len(), 0);
    assert!(seen.diagnostics[0].message.ends_with("nothing is in force for it"), "{}", seen.diagnostics[0]);
    drop(agent);
    // The other way round: the maps are as they were, the agent remembers nothing.
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    old.inside().full.insert(helloworld(), 0);
    let (mut agent, view) = open(&dir, old);
    agent.turn([Wake::Resync]);
    let seen = view.borrow().clone();
    assert!(seen.diagnostics[0].message.ends_with("what was in force stays"), "{}", seen.diagnostics[0]);
}

#[test]
fn a_pattern_is_all_interfaces_of_such_a_name_as_they_come_and_go() {
    let world = World::new(&route(90, 10));
    let kernel = FakeKernel::default();
    kernel.inside().interfaces = ["lo", "lxcb", "eth0", "lxca"].map(str::to_owned).to_vec();
    let (mut agent, _view) = open(&world.dir, kernel.clone());
    agent.attach = ["clsact:lxcb", "tc:lxc*", "xdp:eth*"].map(|text| parse_attach(text).unwrap()).to_vec();
    let attached = || -> Vec<String> {
        kernel.attached().iter().map(|it| format!("{:?}:{}", it.attach.hook, it.attach.interface)).collect()
    };
    agent.attach().unwrap();
    assert_eq!(attached(), ["Clsact:lxcb", "Xdp:eth0", "Tc:lxca"], "a name wins over a pattern");
    assert!(!agent.has_come() && agent.waits_for_interfaces());
    kernel.inside().interfaces.push("lxcnew".into());
    assert!(agent.has_come());
    agent.attach().unwrap();
    assert!(attached().contains(&"Tc:lxcnew".to_owned()));
    kernel.inside().interfaces.retain(|name| !name.starts_with("lxc"));
    agent.attach().unwrap();
    assert_eq!(attached(), ["Clsact:lxcb", "Xdp:eth0"]);
    // There may be none at all.
    agent.attach.retain(Attach::is_pattern);
    kernel.inside().interfaces.clear();
    agent.attach().unwrap();
    assert_eq!(attached(), [""; 0]);
}
