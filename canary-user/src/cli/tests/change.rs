//! Commands that change something, against a whole agent.
use std::fs;

use super::*;

#[test]
fn set_weight_history_undo_as_people_see_them() {
    let whole = Whole::start();
    assert_eq!(
        canary(&whole, "set-weight helloworld v1=50 v2=50"),
        (
            Exit::Done,
            "VirtualService default/helloworld configured\n\
             default/helloworld:5000/tcp http[0]: v1=90 v2=10 → v1=50 v2=50\n\
             in force (1 map write; `canary undo 1` takes it back)\n"
                .to_owned()
        )
    );
    let (exit, history) = canary(&whole, "history");
    assert_eq!(exit, Exit::Done);
    assert!(
        history.lines().nth(1).unwrap().ends_with("default/helloworld:5000/tcp http[0]: v1=90 v2=10 → v1=50 v2=50"),
        "{history}"
    );
    assert!(history.lines().nth(1).unwrap().contains("set-weight"), "{history}");
    let (_, undone) = canary(&whole, "undo");
    assert!(undone.contains("v1=50 v2=50 → v1=90 v2=10"), "{undone}");
    let (_, wide) = canary(&whole, "history -o wide");
    assert!(wide.lines().nth(1).unwrap().contains("undo 1"), "{wide}");
    assert_eq!(canary(&whole, "undo"), (Exit::Failed, "error: there is no change of weights to undo\n".to_owned()));
    let (exit, dry) = canary(&whole, "set-weight helloworld v1=1 v2=3 --dry-run");
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        dry,
        "VirtualService default/helloworld configured (dry run)\n\
         SERVICE                       RULE      VERSION   WEIGHT   SHARE\n\
         default/helloworld:5000/tcp   http[0]   v1        90 → 1   90% → 25%\n\
         default/helloworld:5000/tcp   http[0]   v2        10 → 3   10% → 75%\n"
    );
    let (_, wide) = canary(&whole, "set-weight helloworld v1=1 v2=3 --dry-run -o wide");
    assert!(wide.ends_with("1 map write:\n  put everything\n"), "{wide}");
    let (_, same) = canary(&whole, "set-weight helloworld v1=90 v2=10 --dry-run");
    assert!(same.ends_with("\nno share and no endpoint would change\n"), "{same}");
    let (_, gone) = canary(&whole, "delete pod helloworld-v1-1 --dry-run");
    assert!(gone.ends_with("\ndefault/helloworld:5000/tcp v1: 3 → 2 endpoints (+0 -1)\n"), "{gone}");
    let (_, route) = canary(&whole, "delete vs helloworld --dry-run");
    assert!(route.contains(" http[0]   v2        10 → 0   10% → -\n"), "{route}");
    assert!(route.contains(" default   default   0 → 1    - → 100%\n"), "{route}");
    assert!(fs::read_to_string(whole.config().join("route.yaml")).unwrap().contains("weight: 90 # stable"));
}

#[test]
fn errors_name_what_is_wrong_and_the_remedy() {
    let mut whole = Whole::start();
    assert_eq!(
        canary(&whole, "set-weight nobody v1=1"),
        (
            Exit::Failed,
            "error: there is no service `nobody`\n  known services: default/helloworld:5000/tcp\n".to_owned()
        )
    );
    let bad = whole.dir.path().join("bad.yaml");
    fs::write(&bad, route(0, 0)).unwrap();
    let (exit, text) = canary(&whole, &format!("apply -f {}", bad.display()));
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("errors in what was given\n  error ["), "{text}");
    assert!(text.ends_with("correct these errors; nothing was changed\n"), "{text}");
    assert!(text.contains(&format!("({}:", bad.display())), "the author's file and line: {text}");
    assert!(!text.contains("route.yaml"), "not the agent's copy: {text}");
    let (_, twice) = canary(&whole, &format!("apply -f {0} -f {0}", bad.display()));
    assert!(twice.contains("error [CAN0103] VirtualService default/helloworld"), "{twice}");
    whole.stop();
    let (exit, text) = canary(&whole, "status");
    assert_eq!(exit, Exit::NoAgent);
    assert!(text.starts_with(&format!("error: no agent answers at {}", whole.socket().display())), "{text}");
    assert!(text.contains("canary agent --config DIR --attach tc:IFACE"), "{text}");
}

#[test]
fn apply_and_delete_as_people_see_them() {
    let whole = Whole::start();
    let file = whole.dir.path().join("other.yaml");
    fs::write(&file, SERVICE.replace("helloworld", "other").replace("10.96.0.10", "10.96.0.11")).unwrap();
    let file = file.display();
    let (exit, text) = canary(&whole, &format!("apply -f {file} --dry-run"));
    assert_eq!(exit, Exit::Done);
    assert!(text.starts_with("Service default/other created (dry run)\n"), "{text}");
    let (_, text) = canary(&whole, &format!("apply -f {file}"));
    assert!(text.starts_with("Service default/other created\n") && text.contains("in force (1 map write)"), "{text}");
    assert_eq!(canary(&whole, &format!("apply -f {file} -o name")).1, "service/default/other\n");
    let (_, text) = canary(&whole, "delete service/default/other");
    assert!(text.starts_with("Service default/other deleted\n"), "{text}");
    assert_eq!(
        canary(&whole, "delete svc other"),
        (Exit::Failed, "error: there is no Service default/other\n".to_owned())
    );
}

#[test]
fn a_delete_of_what_cannot_be_read_or_is_not_there_changes_nothing() {
    let whole = Whole::start();
    let files = || fs::read_dir(whole.config()).unwrap().count();
    let before = files();
    let half = whole.dir.path().join("half.yaml");
    fs::write(&half, format!("{SERVICE}---\nkind: [\n")).unwrap();
    let line = format!("-f {}", half.display());
    let (exit, text) = canary(&whole, &format!("delete {line}"));
    assert_eq!((exit, files()), (Exit::Failed, before), "{text}");
    assert!(text.contains("1 error in what was given\n  error [CAN0101] "), "{text}");
    assert_eq!(text, canary(&whole, &format!("apply {line}")).1, "the two say the same");

    let (exit, text) = canary(&whole, "delete pod helloworld-v1-2 nobody");
    assert_eq!((exit, text.as_str()), (Exit::Failed, "error: there is no Pod default/nobody\n"));
    let pods = || canary(&whole, "get endpoints -o name").1.lines().count();
    assert_eq!(pods(), 4, "all or nothing");
    let (exit, text) = canary(&whole, "delete pod helloworld-v1-2 nobody helloworld-v1-2 --ignore-not-found");
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(text.starts_with("Pod default/helloworld-v1-2 deleted\nin force ("), "{text}");
    assert_eq!(pods(), 3);
    assert_eq!(canary(&whole, "delete pod nobody --ignore-not-found").0, Exit::Done);
}

#[test]
fn a_delete_of_what_others_refer_to_takes_force() {
    let whole = Whole::start();
    for line in ["delete dr helloworld", "delete dr helloworld --dry-run"] {
        let (exit, text) = canary(&whole, line);
        assert_eq!(exit, Exit::Failed, "{line}: {text}");
        assert!(text.starts_with("error: without what is to be deleted there would be "), "{line}: {text}");
        assert!(text.contains("  error [") && text.contains("--force"), "{line}: {text}");
    }
    let split = "v1 90% / v2 10%";
    assert!(canary(&whole, "get services").1.contains(split), "nothing was changed");
    let (exit, text) = canary(&whole, "delete dr helloworld --force --dry-run");
    assert_eq!(exit, Exit::Failed, "{text}");
    assert!(text.contains("DestinationRule default/helloworld deleted (dry run)\n"), "{text}");
    assert!(text.contains("error [IST0101] VirtualService default/helloworld"), "{text}");
    let (exit, text) = canary(&whole, "delete dr helloworld --force");
    assert_eq!(exit, Exit::Failed, "{text}");
    assert!(text.contains("DestinationRule default/helloworld deleted\n"), "{text}");
    assert_eq!(canary(&whole, "status").0, Exit::Failed);
    // All of it at once leaves nothing behind.
    let (exit, text) = canary(&whole, "delete vs helloworld");
    assert_eq!(exit, Exit::Done, "{text}");
}

#[test]
fn a_new_object_needs_a_name_that_kubernetes_takes() {
    let whole = Whole::start();
    let file = whole.dir.path().join("pod.yaml");
    fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: Web_1}\n").unwrap();
    let (exit, text) = canary(&whole, &format!("apply -f {}", file.display()));
    assert_eq!(exit, Exit::Failed);
    let expected = format!("({}:3) metadata.name: `Web_1` is not a name that Kubernetes takes\n", file.display());
    assert!(text.contains(&expected), "{text}");
    assert_eq!(canary(&whole, "delete pod Web_1").1, "error: there is no Pod default/Web_1\n");
}
