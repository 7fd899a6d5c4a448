//! What `canary kube check` shows of a report.
use super::*;
use crate::{
    cli::{args::Format, node::show},
    node::{Check, Outcome, Place, Report},
};

fn shown(works: bool, format: Format, colour: bool) -> String {
    let check = |check, outcome, found: &str, remedy: &str| Check {
        check,
        outcome,
        found: found.into(),
        remedy: remedy.into(),
    };
    let bpffs = if works { Outcome::Ok } else { Outcome::Missing };
    let report = Report {
        works,
        checks: vec![check("kernel", Outcome::Ok, "6.1.0", ""), check("bpffs", bpffs, "none", "mount one")],
        places: vec![Place { attach: "cgroup:/a".into(), traffic: "pods" }],
    };
    let mut out = Vec::new();
    show(&mut Screen { out: &mut out, err: &mut Vec::new(), colour }, &report, format).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_node_is_a_table_with_remedies_below() {
    let expected = "\
CHECK    OUTCOME   FOUND
kernel   ok        6.1.0
bpffs    missing   none

missing: bpffs: mount one

ARGUMENT             FOR
--attach=cgroup:/a   pods

canary does not work here as it is.
";
    assert_eq!(shown(false, Format::Table, false), expected);
    let coloured = shown(false, Format::Table, true);
    assert!(coloured.contains("\x1b[31mmissing\x1b[0m: bpffs"), "{coloured}");
    assert!(shown(true, Format::Table, false).ends_with("canary works here.\n"));
    assert_eq!(shown(true, Format::Name, true), "cgroup:/a\n");
    let yaml = shown(false, Format::Yaml, true);
    assert!(yaml.starts_with("works: false\n") && yaml.contains("outcome: missing"), "{yaml}");
}
