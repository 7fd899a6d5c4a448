//! `ServiceEntries`: TCP needs addresses, and one host and port has one protocol.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    context::{Context, Finding, Report, list, spec, text, texts},
    hosts::{is_everywhere, scopes},
};
use crate::{diagnostic::Severity, source::Object};

/// Two `ServiceEntries` give one host and port different protocols.
pub(super) const CONFLICT: &str = "IST0177";

pub(super) fn addresses(context: &Context<'_>, report: &mut Report) {
    if context.mesh_config.allocates_addresses {
        return;
    }
    for object in context.networking("ServiceEntry").filter(|object| list(spec(object), "addresses").is_empty()) {
        for (index, port) in list(spec(object), "ports").iter().enumerate() {
            let protocol = text(port, "protocol");
            if !protocol.is_empty() && !protocol.eq_ignore_ascii_case("tcp") {
                continue;
            }
            report.add(Finding {
                object,
                severity: Severity::Warning,
                code: "IST0134",
                field: format!("spec.ports[{index}].protocol"),
                message: "a TCP port needs addresses: without them its traffic cannot be told from that of other hosts"
                    .to_owned(),
                remedy: "add `spec.addresses`, or say another protocol if it is one".to_owned(),
            });
        }
    }
}

/// Scope, host, port.
type Key = (String, String, u64);

pub(super) fn conflicts(context: &Context<'_>, report: &mut Report) {
    let mut index: BTreeMap<Key, Vec<(String, &Object)>> = BTreeMap::new();
    for object in context.networking("ServiceEntry") {
        for scope in scopes(&texts(spec(object), "exportTo"), &object.namespace) {
            for host in texts(spec(object), "hosts") {
                for port in list(spec(object), "ports") {
                    let number = port.get("number").and_then(Value::as_u64).unwrap_or_default();
                    let protocol = text(port, "protocol").to_uppercase();
                    index.entry((scope.clone(), host.to_owned(), number)).or_default().push((protocol, object));
                }
            }
        }
    }
    let mut reported = BTreeSet::new();
    for ((scope, host, port), own) in &index {
        let for_all = if is_everywhere(scope) { None } else { index.get(&("*".to_owned(), host.clone(), *port)) };
        let all: Vec<&(String, &Object)> = own.iter().chain(for_all.into_iter().flatten()).collect();
        let protocols: BTreeSet<&str> = all.iter().map(|(protocol, _)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let owners: BTreeMap<String, &Object> = all.iter().map(|(_, object)| (object.id(), *object)).collect();
        for (id, &object) in &owners {
            if !reported.insert(id.clone()) {
                continue;
            }
            let others: Vec<&str> = owners.keys().filter(|other| *other != id).map(String::as_str).collect();
            let protocols: Vec<&str> = protocols.iter().copied().collect();
            let with = if others.is_empty() { "itself".to_owned() } else { others.join(", ") };
            report.add(Finding {
                object,
                severity: Severity::Warning,
                code: CONFLICT,
                field: "spec.ports".to_owned(),
                message: format!(
                    "{host}:{port} has different protocols ({}) together with {with}",
                    protocols.join(", ")
                ),
                remedy: "say the same protocol in all of them, or limit them with `exportTo`".to_owned(),
            });
        }
    }
}
