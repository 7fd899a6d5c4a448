//! Deployments in the mesh: the Services that select one must agree about its ports.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::context::{Context, Finding, Report, label, list, pairs, spec, text};
use crate::{diagnostic::Severity, source::Object};

/// Says on a Pod whether it is in the mesh.
const INJECT: &str = "sidecar.istio.io/inject";

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.of("apps", "Deployment").filter(|object| is_in_mesh(context, object)) {
        let services: Vec<&Object> = context.core("Service").filter(|service| selects(service, object)).collect();
        let mut by_port: BTreeMap<u64, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
        let mut by_target: BTreeMap<String, (BTreeSet<u64>, BTreeSet<&str>)> = BTreeMap::new();
        for service in &services {
            for port in list(spec(service), "ports") {
                let number = port.get("port").and_then(Value::as_u64).unwrap_or_default();
                let protocol = match text(port, "protocol") {
                    "" => "TCP",
                    protocol => protocol,
                };
                let (protocols, names) = by_port.entry(number).or_default();
                protocols.insert(protocol);
                names.insert(&service.name);
                let target = match port.get("targetPort") {
                    Some(Value::String(name)) => name.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => number.to_string(),
                };
                let (numbers, names) = by_target.entry(target).or_default();
                numbers.insert(number);
                names.insert(&service.name);
            }
        }
        let mut warn = |code, message, remedy: &str| {
            let field = "spec.template.metadata.labels".to_owned();
            report.add(Finding {
                object,
                severity: Severity::Warning,
                code,
                field,
                message,
                remedy: remedy.to_owned(),
            });
        };
        for (port, (protocols, names)) in by_port.iter().filter(|(_, (protocols, _))| protocols.len() > 1) {
            let message =
                format!("the Services {} use port {port} with different protocols ({})", join(names), join(protocols));
            warn("IST0116", message, "let a port number have one protocol");
        }
        for (target, (numbers, names)) in
            by_target.iter().filter(|(_, (numbers, names))| numbers.len() > 1 && names.len() > 1)
        {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let message =
                format!("the Services {} reach port {target} by different ports ({})", join(names), numbers.join(", "));
            warn("IST0137", message, "give them the same port for the same target");
        }
    }
}

fn join(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// A Service without a selector selects nothing.
fn selects(service: &Object, deployment: &Object) -> bool {
    let selector = pairs(spec(service), "selector");
    let labels = spec(deployment).pointer("/template/metadata").map(|metadata| pairs(metadata, "labels"));
    let labels = labels.unwrap_or_default();
    service.namespace == deployment.namespace
        && !selector.is_empty()
        && selector.iter().all(|wanted| labels.contains(wanted))
}

/// By what stands on its Pods, else by what stands on its namespace.
fn is_in_mesh(context: &Context<'_>, object: &Object) -> bool {
    let template = spec(object).pointer("/template").unwrap_or(&Value::Null);
    let proxied = template
        .get("spec")
        .is_some_and(|spec| list(spec, "containers").iter().any(|container| text(container, "name") == "istio-proxy"));
    let said = |kind: &str| {
        let metadata = template.get("metadata").map(|metadata| pairs(metadata, kind)).unwrap_or_default();
        metadata.into_iter().find(|(key, _)| *key == INJECT).map(|(_, value)| value.eq_ignore_ascii_case("true"))
    };
    let of_namespace = || {
        let mut namespaces = context.core("Namespace").filter(|namespace| namespace.name == object.namespace);
        namespaces.any(|namespace| {
            label(namespace, "istio-injection") == Some("enabled") || label(namespace, "istio.io/rev").is_some()
        })
    };
    proxied || said("labels").or_else(|| said("annotations")).unwrap_or_else(of_namespace)
}
