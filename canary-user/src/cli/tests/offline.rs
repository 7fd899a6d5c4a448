//! Commands on files, and what they take the agent to be.
use std::fs;

use super::*;

#[test]
fn files_are_for_an_agent_with_a_proxy_unless_it_is_said_otherwise() {
    let mut whole = Whole::start();
    whole.stop();
    let rules = route(90, 10).replace("  - route:", "  - match:\n    - uri:\n        prefix: /a\n    route:");
    let file = whole.dir.path().join("one.yaml");
    fs::write(&file, format!("{SERVICE}---\n{rules}---\n{}", pods(&[("v1", 1), ("v2", 1)]))).unwrap();
    let run = |command: &str| canary(&whole, &format!("{command} -f {}", file.display()));
    let (exit, text) = run("analyze");
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(text.contains("info [CAN0316] VirtualService default/helloworld"), "{text}");
    assert!(text.contains("rules of service default/helloworld:5000/tcp need the request"), "{text}");
    let (exit, text) = run("compile");
    assert!(exit == Exit::Done && text.contains("CAN0316") && text.contains("v1 90% / v2 10%"), "{text}");
    for command in ["analyze", "compile"] {
        let (exit, text) = run(&format!("{command} --proxy 192.0.2.1:15001"));
        assert!(exit == Exit::Done && !text.contains("CAN03"), "{text}");
        let (exit, text) = run(&format!("{command} --proxy [2001:db8::1]:15001"));
        assert!(exit == Exit::Failed && text.contains("CAN0301"), "of the other family: {text}");
        let (exit, text) = run(&format!("{command} --without-proxy"));
        assert!(exit == Exit::Failed && text.contains("CAN0301"), "{text}");
        let (exit, text) = run(&format!("{command} --proxy 0.0.0.0:15001"));
        assert!(exit == Exit::Failed && text.contains("give an address of an interface"), "{text}");
    }
    let (_, text) = run("compile --proxy 192.0.2.1:15001 -o json");
    assert!(text.contains("192.0.2.1:15001"), "{text}");
}
