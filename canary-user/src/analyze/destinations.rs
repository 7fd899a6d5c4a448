//! Destinations of `VirtualServices`: do they exist, do they need a port?
use serde_json::Value;

use super::context::{Context, Finding, Report, list, spec, text, texts};
use crate::{
    diagnostic::Severity,
    source::{Object, similar::did_you_mean},
};

/// The lists of rules in a VirtualService.
const SECTIONS: [&str; 3] = ["http", "tls", "tcp"];

/// One `destination` in a VirtualService.
pub(super) struct Destination<'o> {
    pub(super) value: &'o Value,
    /// Its path in the object.
    pub(super) field: String,
    /// It gets copies only.
    pub(super) mirror: bool,
}

impl<'o> Destination<'o> {
    pub(super) fn host(&self) -> &'o str {
        text(self.value, "host")
    }

    pub(super) fn subset(&self) -> &'o str {
        text(self.value, "subset")
    }
}

/// Every destination of a VirtualService: of its routes and of its mirrors. A route entry without one counts as well.
pub(super) fn destinations(object: &Object) -> Vec<Destination<'_>> {
    let spec = spec(object);
    let mut found = Vec::new();
    for section in SECTIONS {
        for (index, rule) in list(spec, section).iter().enumerate() {
            let rule_field = format!("spec.{section}[{index}]");
            let mut each = |list_field: &str, mirror| {
                for (index, entry) in list(rule, list_field).iter().enumerate() {
                    let field = format!("{rule_field}.{list_field}[{index}].destination");
                    let value = entry.get("destination").unwrap_or(&Value::Null);
                    found.push(Destination { value, field, mirror });
                }
            };
            each("route", false);
            each("mirrors", true);
            if let Some(value) = rule.get("mirror").filter(|value| !value.is_null()) {
                found.push(Destination { value, field: format!("{rule_field}.mirror"), mirror: true });
            }
        }
    }
    found
}

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        for destination in destinations(object) {
            exists(context, object, &destination, report);
        }
        not_for_ingress(context, object, report);
    }
}

fn exists(context: &Context<'_>, object: &Object, destination: &Destination<'_>, report: &mut Report) {
    let name = destination.host();
    let role = if destination.mirror { "mirror host" } else { "host" };
    let mut error = |code, field: String, message, remedy| {
        report.add(Finding { object, severity: Severity::Error, code, field, message, remedy });
    };
    let field = |last: &str| format!("{}.{last}", destination.field);
    let Some(host) = context.hosts.get(name, &object.namespace, &texts(spec(object), "exportTo")) else {
        let message = if name.is_empty() {
            format!("referenced {role} not found: the entry names no destination")
        } else {
            format!("referenced {role} not found: \"{name}\"")
        };
        let names = context.hosts.names(&object.namespace);
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        let remedy = format!("{hint}add a Service or a ServiceEntry of this name that is exported to this namespace");
        return error("IST0101", field("host"), message, remedy);
    };
    match destination.value.get("port").filter(|port| !port.is_null()) {
        None if host.ports.len() > 1 => {
            let message =
                format!("\"{name}\" has the ports {}, and the destination does not say which", joined(&host.ports));
            error("IST0112", destination.field.clone(), message, "add `port: {number: …}`".to_owned());
        }
        None => {}
        Some(port) => {
            let number = port.get("number").and_then(Value::as_u64).unwrap_or_default();
            if !host.ports.contains(&number) {
                let message = format!("referenced {role}:port not found: \"{name}:{number}\"");
                let remedy = match host.ports.as_slice() {
                    [] => format!("\"{name}\" has no ports; give it one"),
                    ports => format!("use one that it has: {}", joined(ports)),
                };
                error("IST0101", field("port.number"), message, remedy);
            }
        }
    }
}

fn joined(ports: &[u64]) -> String {
    ports.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// A VirtualService for gateways routes to a host without a subset, while another one for the mesh splits that host:
/// what enters through the gateway is not split.
fn not_for_ingress(context: &Context<'_>, object: &Object, report: &mut Report) {
    if list(spec(object), "gateways").is_empty() {
        return;
    }
    for (index, rule) in list(spec(object), "http").iter().enumerate() {
        for (entry, route) in list(rule, "route").iter().enumerate() {
            let Some(destination) = route.get("destination") else { continue };
            if !text(destination, "subset").is_empty() {
                continue;
            }
            let host = text(destination, "host");
            for other in context.networking("VirtualService") {
                for _ in 0..splits_of(other, host) {
                    report.add(Finding {
                        object,
                        severity: Severity::Warning,
                        code: "IST0140",
                        field: format!("spec.http[{index}].route[{entry}].destination"),
                        message: format!(
                            "the subsets that {} gives \"{host}\" have no effect on requests from these gateways",
                            other.id()
                        ),
                        remedy: "name the subsets, with weights, here too".to_owned(),
                    });
                }
            }
        }
    }
}

/// How many destinations of `other` send to a subset of `host`, where that is one of its own hosts.
fn splits_of(other: &Object, host: &str) -> usize {
    if !texts(spec(other), "hosts").contains(&host) {
        return 0;
    }
    let routes = list(spec(other), "http").iter().flat_map(|rule| list(rule, "route"));
    let destinations = routes.filter_map(|route| route.get("destination"));
    destinations
        .filter(|destination| text(destination, "host") == host && !text(destination, "subset").is_empty())
        .count()
}
