//! What `-o` makes of every command.
use super::*;

/// What was printed while the agent made no pass: it makes them when it likes, and `status` counts them.
fn within_a_pass<T>(whole: &Whole, print: impl Fn() -> T) -> T {
    let passes = || {
        let status: serde_json::Value = serde_json::from_str(&canary(whole, "status -o json").1).unwrap();
        status["passes"].as_u64().unwrap()
    };
    for _ in 0..20 {
        let before = passes();
        let printed = print();
        if passes() == before {
            return printed;
        }
    }
    panic!("the agent makes one pass after the other");
}

#[test]
fn every_command_that_lists_has_every_form() {
    let whole = with_flows(900, 100);
    canary(&whole, "set-weight helloworld v1=50 v2=50");
    let objects = whole.config().display().to_string();
    for command in [
        "get services",
        "get versions",
        "get endpoints",
        "get flows",
        "get leaves",
        "status",
        "history",
        "verify",
        "trace --from 192.0.2.7 --to 10.96.0.10:5000 --count 2",
        "version",
        &format!("analyze -f {objects}"),
        &format!("compile -f {objects}"),
        &format!("apply -f {objects} --dry-run"),
        "delete vs helloworld --dry-run",
        "set-weight helloworld v1=1 v2=1 --dry-run",
        "undo --dry-run",
        "detach --pin /nowhere/canary",
    ] {
        let print = |format: &str| canary(&whole, &format!("{command} -o {format}")).1;
        let [plain, table, json, yaml] =
            within_a_pass(&whole, || [canary(&whole, command).1, print("table"), print("json"), print("yaml")]);
        assert_eq!(table, plain, "{command}");
        assert!(!print("wide").is_empty(), "{command}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml: serde_json::Value = serde_norway::from_str(&yaml).unwrap();
        assert_eq!(json, yaml, "{command}");
        for line in print("name").lines().filter(|_| !matches!(command, "status" | "version")) {
            assert!(line.contains('/') && !line.contains(' '), "{command}: {line} is kind/name");
        }
    }
}
