//! What is in the history, whatever the cause, and what undo says about it.
use super::*;

fn vs() -> Target {
    Target { kind: "VirtualService".into(), namespace: "default".into(), name: "helloworld".into() }
}

/// (action, rule, weights before, weights after) of the newest entry.
fn newest(world: &World) -> Vec<(Action, String, usize, usize)> {
    let view = world.view();
    let entry = view.history.entries.last().unwrap();
    entry.changes.iter().map(|one| (entry.action, one.rule.clone(), one.old.len(), one.new.len())).collect()
}

#[test]
fn a_deleted_route_is_in_the_history_and_undo_says_what_it_cannot() {
    let mut world = World::new(&route(90, 10));
    world.set(&[("v1", 50), ("v2", 50)]).unwrap();
    let edited = world.edit(delete(&vs())).unwrap();
    assert_eq!(edited.entry, Some(2));
    let expected = [(Action::Delete, "http[0]".to_owned(), 2, 0), (Action::Delete, "default".to_owned(), 0, 1)];
    assert_eq!(newest(&world), expected);
    let error = world.edit(What::Undo(None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry 2 cannot be taken back: it changed which rules default/helloworld:5000/tcp has, not only weights"
    );
    assert_eq!(error.remedy(), "apply the objects as they were; `canary history` shows the weights");
    let error = world.edit(What::Undo(Some(1))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry 1 cannot be taken back: default/helloworld:5000/tcp has no rule `http[0]` any more"
    );

    // Applied again it is as before, and the change of weights can be taken back.
    world.edit(What::Apply(vec![("<stdin>".into(), route(50, 50))])).unwrap();
    assert_eq!(newest(&world).len(), 2, "{:?}", newest(&world));
    let error = world.edit(What::Undo(None)).unwrap_err();
    assert!(error.remedy().contains("`canary undo 1`"), "{}", error.remedy());
    world.edit(What::Undo(Some(1))).unwrap();
    assert_eq!(world.weights(), pairs(&[("v1", 90), ("v2", 10)]));
}

#[test]
fn an_edit_of_files_that_changes_rules_is_in_the_history() {
    let mut world = World::new(&route(90, 10));
    fs::remove_file(world.path("route.yaml")).unwrap();
    world.pass();
    assert_eq!(newest(&world)[0].0, Action::Files);
    let entries = world.view().history.entries.len();
    world.write("pods.yaml", &pods(&[("v1", 2), ("v2", 1)]));
    world.pass();
    assert_eq!(world.view().history.entries.len(), entries, "endpoints are no shares");
}
