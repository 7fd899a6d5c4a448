//! Pools that are full: a service that does not fit keeps what it has, and keeps nobody else from theirs.
use super::*;

/// `count` services of one version; each split names `sources` client networks, so that pools of rules fill soon.
fn services(count: u32, sources: u32, weight: u32) -> State {
    let service = |at: u32| {
        let split = split(&[("v1", weight), ("v2", 1)]);
        let net = |n: u32| format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
        let only = StateRule { name: "some".into(), sources: (0..sources).map(net).collect(), split: split.clone() };
        let all = StateRule { name: "all".into(), sources: Vec::new(), split };
        let pod = |host: u32| {
            let addr = SocketAddr::from((std::net::Ipv4Addr::from(0x0a80_0000 + 2 * at + host), 8080));
            Version { endpoints: [(addr, 1)].into(), drain_seconds: 30 }
        };
        let versions = [("v1".into(), pod(0)), ("v2".into(), pod(1))].into();
        (id(&format!("s{at:05}")), Service { rules: vec![only, all], versions, http: None, tls: None })
    };
    let services: BTreeMap<_, _> = (0..count).map(service).collect();
    let frontend = |(at, id): (u32, &ServiceId)| {
        let addr = std::net::Ipv4Addr::from(0x0a60_0000 + at).into();
        (Frontend { addr, port: 80, protocol: Protocol::Tcp }, id.clone())
    };
    State { frontends: (0..).zip(services.keys()).map(frontend).collect(), services, ..State::default() }
}

fn refused(lowered: &Lowered) -> Vec<String> {
    lowered.refused.iter().map(|rejected| rejected.service.name.clone()).collect()
}

/// What an agent does in one pass; also who got no place.
fn pass(from: &Tables, state: &State, now: u32, names: &mut Names) -> (Tables, Vec<String>) {
    let lowered = lower(from, state, now, names).unwrap();
    let refused = refused(&lowered);
    let mut tables = from.clone();
    for op in diff(from, &lowered.tables) {
        tables.apply(&op);
    }
    assert_eq!(tables.dangling(), None);
    *names = lowered.names;
    (observed(&tables), refused)
}

#[test]
fn one_service_too_many_is_refused_alone() {
    let fits = limits::RULE_SLOTS / 64;
    let mut names = Names::default();
    let (before, none) = pass(&Tables::default(), &services(fits - 3, 63, 90), 10, &mut names);
    assert_eq!(none, Vec::<String>::new());
    // Three more fit, two do not; and an endpoint of another service has died.
    let mut state = services(fits + 2, 63, 90);
    let dead = state.services.get_mut(&id("s00000")).unwrap();
    dead.versions.get_mut("v2").unwrap().endpoints.clear();
    let (after, refused) = pass(&before, &state, 11, &mut names);
    assert_eq!(refused, [format!("s{fits:05}"), format!("s{:05}", fits + 1)]);
    assert_eq!(after.services.len(), fits as usize);
    assert_eq!(
        after.frontends.len(),
        2 * fits as usize,
        "for packets and sockets; nobody sends to a service that has no place"
    );
    let empty = after.versions.values().filter(|version| version.group == 0).count();
    assert_eq!(empty, 1, "the dead endpoint is taken out");
    let error = &lower(&before, &state, 11, &names).unwrap().refused[0].error;
    let said = format!("default/s{fits:05}:80/tcp: no room for rules, all {} are taken", limits::RULE_SLOTS);
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_giant_is_refused_and_takes_nothing_from_those_after_it() {
    let mut state = services(3, 1, 90);
    let split = split(&[("v1", 1)]);
    let rule = |n: u32| {
        let sources = (0..63).map(|at| format!("10.{n}.{at}.0/24").parse().unwrap()).collect();
        StateRule { name: "many".into(), sources, split: split.clone() }
    };
    let giant = state.services.get_mut(&id("s00000")).unwrap();
    giant.rules = (0..3).map(rule).collect();
    let lowered = lower(&Tables::default(), &state, 10, &Names::default()).unwrap();
    assert_eq!(refused(&lowered), ["s00000"]);
    assert!(!lowered.refused[0].kept);
    let others = State {
        frontends: state
            .frontends
            .iter()
            .filter(|(_, it)| it.name != "s00000")
            .map(|(&at, it)| (at, it.clone()))
            .collect(),
        services: state
            .services
            .iter()
            .filter(|(it, _)| it.name != "s00000")
            .map(|(it, at)| (it.clone(), at.clone()))
            .collect(),
        ..State::default()
    };
    assert_eq!(lowered.tables, lowered_alone(&others));
}

fn lowered_alone(state: &State) -> Tables {
    lowered(&Tables::default(), state, 10)
}

#[test]
fn a_change_of_all_that_needs_twice_the_room_comes_in_turns() {
    let fits = limits::RULE_SLOTS / 64;
    let count = fits * 2 / 3;
    let mut names = Names::default();
    let (mut tables, _) = pass(&Tables::default(), &services(count, 63, 90), 10, &mut names);
    let wanted = services(count, 63, 10);
    let mut waiting = Vec::new();
    for turn in 0..9 {
        let before = tables.clone();
        let (after, refused) = pass(&before, &wanted, 11 + turn, &mut names);
        for name in &refused {
            let slot = names.services.iter().find(|(_, id)| id.name == *name).map(|(slot, _)| *slot).unwrap();
            assert_eq!(after.services[&slot], before.services[&slot], "{name} keeps its rules");
        }
        waiting.push(refused.len());
        tables = after;
        if refused.is_empty() {
            break;
        }
    }
    assert_eq!(waiting, [(2 * count - fits) as usize, 0], "as many as there is room for, then the rest");
    assert_eq!(names.versions.len(), 2 * count as usize, "all are known by their names");
    assert_eq!(diff(&tables, &lower(&tables, &wanted, 30, &names).unwrap().tables), []);
}

#[test]
fn who_waits_keeps_the_names_of_versions_that_are_to_go() {
    let fits = limits::RULE_SLOTS / 64;
    let mut names = Names::default();
    let (tables, _) = pass(&Tables::default(), &services(fits, 63, 90), 10, &mut names);
    let mut wanted = services(fits, 63, 90);
    let service = wanted.services.get_mut(&id("s00001")).unwrap();
    let v3 = service.versions.remove("v2").unwrap();
    service.versions.insert("v3".into(), v3);
    service.rules.iter_mut().for_each(|rule| rule.split.weights[1].0 = "v3".into());
    let (after, refused) = pass(&tables, &wanted, 11, &mut names);
    assert_eq!(refused, ["s00001"]);
    let held: Vec<_> =
        names.versions.values().filter(|(it, _)| it.name == "s00001").map(|(_, name)| name.as_str()).collect();
    assert_eq!(held, ["v1", "v2"]);
    assert_eq!(after, tables, "nothing of it is touched, and v3 has taken nothing");
}

#[test]
fn who_waits_keeps_its_addresses() {
    let fits = limits::RULE_SLOTS / 64;
    let mut names = Names::default();
    let (tables, _) = pass(&Tables::default(), &services(fits, 63, 90), 10, &mut names);
    let mut wanted = services(fits, 63, 90);
    let service = wanted.services.get_mut(&id("s00001")).unwrap();
    service.rules.iter_mut().for_each(|rule| rule.split.weights[0].1 = 5);
    let (&old, owner) = wanted.frontends.iter().find(|(_, it)| it.name == "s00001").unwrap();
    let owner = owner.clone();
    wanted.frontends.remove(&old);
    wanted.frontends.insert(Frontend { port: 81, ..old }, owner);
    let (after, refused) = pass(&tables, &wanted, 11, &mut names);
    assert_eq!(refused, ["s00001"]);
    assert_eq!(after.frontends, tables.frontends);
}
