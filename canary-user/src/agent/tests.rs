//! The loop with a kernel in memory and a real directory.
use std::{fs, path::PathBuf, sync::mpsc, time::Duration};

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::{
    agent::{
        edit::{Edit, Edited, Outcome, Target, What},
        fake::{FakeKernel, SERVICE, helloworld, pods, route},
        settings::parse_attach,
    },
    compile::ProxyAddresses,
    diagnostic::chain,
    source::directory::Directory,
    state::State,
};

mod history;
mod refused;

struct World {
    dir: TempDir,
    kernel: FakeKernel,
    agent: Agent<FakeKernel>,
    view: watch::Receiver<Arc<View>>,
}

impl World {
    /// helloworld with this route, and one pod a version; the first pass is done.
    fn new(route: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        let kernel = FakeKernel::default();
        let (agent, view) = open(&dir, kernel.clone());
        let mut world = Self { dir, kernel, agent, view };
        world.write("service.yaml", SERVICE);
        world.write("pods.yaml", &pods(&[("v1", 1), ("v2", 1)]));
        world.write("route.yaml", route);
        assert_eq!(world.agent.turn([Wake::Resync]), Turn::Passed);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("objects").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn pass(&mut self) {
        self.agent.turn([Wake::Source]);
    }

    fn edit(&mut self, what: What) -> Result<Edited, EditError> {
        self.edit_as(Edit { dry_run: false, what })
    }

    fn edit_as(&mut self, edit: Edit) -> Result<Edited, EditError> {
        let (reply, mut answer) = oneshot::channel();
        self.agent.turn([Wake::Edit(edit, Author { uid: Some(1000), name: "ada".into() }, reply)]);
        answer.try_recv().unwrap()
    }

    fn set(&mut self, weights: &[(&str, u32)]) -> Result<Edited, EditError> {
        self.edit(set(weights))
    }

    /// Weights in force.
    fn weights(&self) -> Vec<(String, u32)> {
        self.kernel.inside().state.services[&helloworld()].rules[0].split.weights.clone()
    }

    fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }
}

fn open(dir: &TempDir, kernel: FakeKernel) -> (Agent<FakeKernel>, watch::Receiver<Arc<View>>) {
    let place = Place {
        source: Directory::open(dir.path().join("objects")).unwrap().into(),
        attach: vec![parse_attach("tc:eth0").unwrap()],
        store: Store::open(&dir.path().join("state")).unwrap(),
        clock: || 1_785_585_600,
        proxy: ProxyAddresses::default(),
        ahead: Ahead(Box::new(|_| ())),
    };
    Agent::new(kernel, place).unwrap()
}

fn set(weights: &[(&str, u32)]) -> What {
    What::SetWeights { service: "helloworld".into(), rule: None, weights: pairs(weights) }
}

fn delete(target: &Target) -> What {
    What::Delete { targets: vec![target.clone()], ignore_missing: false, force: false }
}

fn pairs(weights: &[(&str, u32)]) -> Vec<(String, u32)> {
    weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect()
}

#[test]
fn the_first_pass_brings_the_directory_into_force() {
    let world = World::new(&route(90, 10));
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    let view = world.view();
    assert_eq!((view.phase, view.passes, view.failures), (Phase::Ready, 1, 0));
    assert!(view.reports[&helloworld()].enforced);
    assert_eq!(world.kernel.inside().attaches, 1);
}

#[test]
fn ten_changes_are_one_pass() {
    let mut world = World::new(&route(90, 10));
    let before = world.kernel.inside().applies;
    let mut wakes: Vec<Wake> = (0..10).map(|_| Wake::Source).collect();
    wakes.push(Wake::Resync);
    assert_eq!(world.agent.turn(wakes), Turn::Passed);
    assert_eq!(world.kernel.inside().applies, before + 1);
}

#[test]
fn bad_input_keeps_the_last_good_state_and_says_so() {
    for (what, bad) in [
        ("broken YAML", "apiVersion: [networking\n  kind: nothing: at all".to_owned()),
        ("negative weight", route(90, 10).replace("weight: 10", "weight: -10")),
        ("all weights 0", route(0, 0)),
        ("needs the request", route(50, 50).replace("- route:", "- match: [{uri: {prefix: /beta}}]\n    route:")),
        ("empty file", String::new()),
    ] {
        let mut world = World::new(&route(90, 10));
        world.write("route.yaml", &bad);
        world.pass();
        let view = world.view();
        if what == "empty file" {
            // Not an error: the route was deleted, and everything goes to the plain service.
            assert_eq!(world.weights(), pairs(&[("default", 1)]), "{what}");
            continue;
        }
        assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]), "{what}");
        assert!(pass::errors(&view.diagnostics).count() > 0, "{what}");
        assert!(!view.reports[&helloworld()].enforced, "{what}: {:?}", view.diagnostics);
        assert_eq!(view.phase, Phase::Ready, "{what}: a bad object does not stop the others");

        world.write("route.yaml", &route(70, 30));
        world.pass();
        assert_eq!(world.weights(), pairs(&[("v1", 70), ("v2", 30)]), "{what}: healed");
        assert!(world.view().reports[&helloworld()].enforced, "{what}: healed");
    }
}

#[test]
fn endpoints_follow_while_the_route_is_broken() {
    let mut world = World::new(&route(90, 10));
    world.write("route.yaml", "kind: [");
    world.write("pods.yaml", &pods(&[("v1", 3), ("v2", 1)]));
    world.pass();
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(world.kernel.inside().state.services[&helloworld()].versions["v1"].endpoints.len(), 3);
}

#[test]
fn the_last_good_state_survives_a_restart() {
    let mut world = World::new(&route(90, 10));
    world.write("route.yaml", "kind: [");
    world.pass();
    let kernel = FakeKernel::default();
    let (mut agent, _view) = open(&world.dir, kernel.clone());
    agent.turn([Wake::Resync]);
    let state: State = kernel.inside().state.clone();
    assert_eq!(state.services[&helloworld()].rules[0].split.weights, pairs(&[("v1", 90), ("v2", 10)]));
}

#[test]
fn a_kernel_that_refuses_degrades_and_is_tried_again() {
    let mut world = World::new(&route(90, 10));
    world.kernel.inside().broken = Some("no space in map SPLITS");
    world.write("route.yaml", &route(50, 50));
    world.pass();
    let view = world.view();
    assert_eq!((view.phase, view.failures, view.was_ready), (Phase::Degraded, 1, true));
    let trouble = view.trouble.clone().unwrap();
    assert_eq!(trouble.message, "the data plane refused: no space in map SPLITS");
    assert_ne!(view.intended, view.in_force);
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(world.agent.delay(), RETRY);
    for expected in [2, 4, 8] {
        world.pass();
        assert_eq!(world.agent.delay(), RETRY * expected);
    }
    for _ in 0..40 {
        world.pass();
    }
    assert_eq!(world.agent.delay(), RESYNC, "backoff has an end");
    world.kernel.inside().broken = None;
    world.pass();
    assert_eq!((world.view().phase, world.agent.delay()), (Phase::Ready, RESYNC));
    assert_eq!(world.weights(), pairs(&[("v1", 50), ("v2", 50)]));
}

#[test]
fn a_directory_that_vanishes_changes_nothing() {
    let mut world = World::new(&route(90, 10));
    fs::rename(world.path(""), world.dir.path().join("away")).unwrap();
    world.pass();
    assert_eq!(world.view().phase, Phase::Degraded);
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    fs::rename(world.dir.path().join("away"), world.path("")).unwrap();
    world.pass();
    assert_eq!(world.view().phase, Phase::Ready);
}

#[test]
fn set_weight_then_history_then_undo() {
    let mut world = World::new(&route(90, 10));
    let edited = world.set(&[("v1", 50), ("v2", 50)]).unwrap();
    assert_eq!(edited.objects, [("VirtualService default/helloworld".to_owned(), Outcome::Configured)]);
    assert_eq!(edited.entry, Some(1));
    assert_eq!(edited.changes[0].old, pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(edited.changes[0].new, pairs(&[("v1", 50), ("v2", 50)]));
    assert_eq!(world.weights(), pairs(&[("v1", 50), ("v2", 50)]));
    let text = fs::read_to_string(world.path("route.yaml")).unwrap();
    assert_eq!(text, route(50, 50), "only the weights changed, comments stay");

    // To nothing and back: the state forgets versions of weight 0, the undo must not.
    world.set(&[("v1", 100), ("v2", 0)]).unwrap();
    assert_eq!(world.weights(), pairs(&[("v1", 100)]));
    let history = world.view().history.clone();
    assert_eq!(history.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(history.entries[0].author, Author { uid: Some(1000), name: "ada".into() });
    assert_eq!(history.entries[0].at, 1_785_585_600);

    assert_eq!(world.edit(What::Undo(None)).unwrap().entry, Some(3));
    assert_eq!(world.weights(), pairs(&[("v1", 50), ("v2", 50)]));
    world.edit(What::Undo(None)).unwrap();
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(fs::read_to_string(world.path("route.yaml")).unwrap(), route(90, 10));
    assert!(matches!(world.edit(What::Undo(None)), Err(EditError::Undo(_))));
    assert_eq!(world.agent.store.history().unwrap(), *world.view().history, "it is stored");
    world.edit(What::Undo(Some(3))).unwrap_err();
}

#[test]
fn edits_of_files_are_in_the_history_too() {
    let mut world = World::new(&route(90, 10));
    world.write("route.yaml", &route(80, 20));
    world.pass();
    let history = world.view().history.clone();
    assert_eq!((history.entries[0].action, history.entries[0].author.uid), (Action::Files, None));
    world.edit(What::Undo(None)).unwrap();
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
}

#[test]
fn refused_edits_change_nothing_and_say_why() {
    let mut world = World::new(&route(90, 10));
    let cases: [(What, &str, &str); 7] = [
        (set(&[("v1", 1), ("v3", 1)]), "weights", "v3"),
        (set(&[("v1", 1)]), "weights", "v2"),
        (set(&[("v1", 0), ("v2", 0)]), "weights", "0"),
        (
            What::SetWeights { service: "nobody".into(), rule: None, weights: pairs(&[("v1", 1)]) },
            "no-such-service",
            "there is no service `nobody`",
        ),
        (What::Apply(vec![("x.yaml".into(), "a: [".into())]), "invalid", "in what was given"),
        (What::Apply(vec![("x.yaml".into(), "# nothing\n".into())]), "nothing", "no object"),
        (What::Apply(vec![("x.yaml".into(), route(0, 0))]), "invalid", "errors in what was given"),
    ];
    for (what, code, part) in cases {
        let error = world.edit(what).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(chain(&error).contains(part), "{error}");
    }
    assert_eq!(fs::read_to_string(world.path("route.yaml")).unwrap(), route(90, 10));
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 3);
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let mut world = World::new(&route(90, 10));
    let edited = world.edit_as(Edit { dry_run: true, what: set(&[("v1", 1), ("v2", 1)]) }).unwrap();
    assert_eq!(edited.plan, Some(vec!["put everything".into()]));
    assert_eq!(edited.changes[0].new, pairs(&[("v1", 1), ("v2", 1)]));
    assert_eq!((edited.applied, edited.entry), (None, None));
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
    assert_eq!(fs::read_to_string(world.path("route.yaml")).unwrap(), route(90, 10));
}

#[test]
fn apply_and_delete_objects() {
    let mut world = World::new(&route(90, 10));
    let other = SERVICE.replace("helloworld", "other").replace("10.96.0.10", "10.96.0.11");
    let edited = world.edit(What::Apply(vec![("new.yaml".into(), format!("{SERVICE}---\n{other}"))])).unwrap();
    let outcomes: Vec<_> = edited.objects.iter().map(|(object, outcome)| (object.as_str(), *outcome)).collect();
    assert_eq!(
        outcomes,
        [("Service default/helloworld", Outcome::Unchanged), ("Service default/other", Outcome::Created)]
    );
    assert_eq!(edited.files, [world.path("service-default-other.yaml")]);
    assert_eq!(world.kernel.inside().state.services.len(), 2);

    let edited = world.edit(What::Apply(vec![("-".into(), route(1, 1))])).unwrap();
    assert_eq!(edited.objects.first().unwrap().1, Outcome::Configured);
    assert_eq!(world.weights(), pairs(&[("v1", 1), ("v2", 1)]));

    let target = Target { kind: "service".into(), namespace: "default".into(), name: "other".into() };
    world.edit(delete(&target)).unwrap();
    assert!(!world.path("service-default-other.yaml").exists());
    assert_eq!(world.kernel.inside().state.services.len(), 1);
    assert_eq!(world.edit(delete(&target)).unwrap_err().code(), "not-found");
}

#[test]
fn findings_are_at_the_place_in_the_file_that_was_given() {
    let mut world = World::new(&route(90, 10));
    // Further down than in the agent's file.
    let given = format!("# a\n# b\n---\n{}", route(90, 10).replace("weight: 10", "weight: -10"));
    let Err(EditError::Invalid { diagnostics }) = world.edit(What::Apply(vec![("<stdin>".into(), given)])) else {
        panic!("a negative weight is refused");
    };
    let at: Vec<_> = diagnostics.iter().map(|found| found.origin.to_string()).collect();
    assert_eq!(at, ["<stdin>:4", "<stdin>:15"], "{diagnostics:?}");
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let mut world = World::new(&route(90, 10));
    let evil = "apiVersion: v1\nkind: Secret\nmetadata: {name: ../../../evil, namespace: ../x}\n";
    let error = world.edit(What::Apply(vec![("-".into(), evil.into())])).unwrap_err();
    assert_eq!(error.code(), "invalid", "{error}");
    assert!(!world.dir.path().join("evil.yaml").exists());
}

#[test]
fn an_edit_that_cannot_be_applied_says_so_and_is_tried_again() {
    let mut world = World::new(&route(90, 10));
    world.kernel.inside().broken = Some("busy");
    let error = world.set(&[("v1", 1), ("v2", 1)]).unwrap_err();
    assert_eq!(error.code(), "not-in-force");
    assert_eq!(chain(&error), "the change is written but not in force yet: the data plane refused: busy");
    world.kernel.inside().broken = None;
    world.pass();
    assert_eq!(world.weights(), pairs(&[("v1", 1), ("v2", 1)]));
}

#[test]
fn the_loop_runs_until_it_is_stopped() {
    let world = World::new(&route(90, 10));
    let (wakes, causes) = mpsc::channel();
    let handle = wake::Handle::new(wakes, world.view.clone());
    let (kernel, agent) = (world.kernel.clone(), world.agent);
    let thread = std::thread::spawn(move || agent.run(&causes, Duration::from_millis(10), |_| {}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let author = Author { uid: Some(0), name: "root".into() };
    let edit = Edit { dry_run: false, what: set(&[("v1", 3), ("v2", 7)]) };
    runtime.block_on(handle.edit(edit, author)).unwrap().unwrap();
    let (counters, view) = runtime.block_on(handle.ask(Ask::Counters)).unwrap().unwrap();
    assert_eq!(counters.splits[0].versions[1].1, 7);
    assert_eq!(*view.in_force, kernel.inside().state);
    handle.wake(Wake::Stop).unwrap();
    thread.join().unwrap();
    assert_eq!(handle.wake(Wake::Resync), Err(wake::Stopped));
    assert_eq!(runtime.block_on(handle.ask(Ask::Counters)).unwrap_err(), wake::Stopped);
    assert_eq!(kernel.inside().state.services.len(), 1, "the data plane stays");
}

#[test]
fn weights_that_are_written_but_not_enforced_are_not_called_done() {
    let beta = |v1, v2| route(v1, v2).replace("- route:", "- match: [{uri: {prefix: /beta}}]\n    route:");
    let mut world = World::new(&route(90, 10));
    world.write("route.yaml", &beta(90, 10));
    world.pass();
    let edited = world.set(&[("v1", 1), ("v2", 1)]).unwrap();
    assert_eq!(edited.not_enforced.len(), 1, "{edited:?}");
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]), "the last good state");
    assert_eq!(fs::read_to_string(world.path("route.yaml")).unwrap(), beta(1, 1));
}

#[test]
fn a_pass_is_due_when_a_drain_ends() {
    let mut world = World::new(&route(90, 10).replace(
        "  name: helloworld\nspec:\n  hosts",
        "  name: helloworld\n  annotations: {canary.io/drain: 5s}\nspec:\n  hosts",
    ));
    assert_eq!(world.agent.delay(), RESYNC);
    world.write("pods.yaml", &pods(&[("v1", 1)]));
    world.pass();
    let delay = world.agent.delay();
    assert!(delay > Duration::from_secs(4) && delay <= Duration::from_secs(6), "{delay:?}");
}
