//! Gateways that `VirtualServices` name: do they exist, do they serve the hosts?
use super::{
    context::{Context, Finding, Report, list, spec, texts},
    hosts::overlap,
};
use crate::{
    diagnostic::Severity,
    source::{Object, similar::did_you_mean},
};

/// All sidecars, in a list of gateways.
pub(super) const MESH: &str = "mesh";

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    let gateways: Vec<&Object> = context.networking("Gateway").collect();
    for object in context.networking("VirtualService") {
        let hosts = texts(spec(object), "hosts");
        for (index, gateway) in list(spec(object), "gateways").iter().enumerate() {
            let Some(written) = gateway.as_str().filter(|&name| name != MESH) else { continue };
            let (namespace, name) = match written.split_once('/') {
                None => (object.namespace.as_str(), written),
                Some((".", name)) => (object.namespace.as_str(), name),
                Some(pair) => pair,
            };
            let field = format!("spec.gateways[{index}]");
            let gateway = gateways.iter().find(|gateway| gateway.namespace == namespace && gateway.name == name);
            if gateway.is_none() {
                let known = gateways.iter().map(|gateway| gateway.name.as_str());
                report.add(Finding {
                    object,
                    severity: Severity::Error,
                    code: "IST0101",
                    field: field.clone(),
                    message: format!("referenced gateway not found: \"{written}\""),
                    remedy: format!(
                        "{}one in another namespace is written `namespace/name`",
                        did_you_mean(name, known)
                    ),
                });
            }
            if !gateway.is_some_and(|gateway| serves(gateway, &hosts, &object.namespace)) {
                report.add(Finding {
                    object,
                    severity: Severity::Warning,
                    code: "IST0132",
                    field,
                    message: format!("none of the hosts [{}] is served by gateway {namespace}/{name}", hosts.join(" ")),
                    remedy: "add one of them to `spec.servers[].hosts` of the Gateway".to_owned(),
                });
            }
        }
    }
}

/// The gateway has a server for one of the hosts, open to `namespace`.
fn serves(gateway: &Object, hosts: &[&str], namespace: &str) -> bool {
    let servers = list(spec(gateway), "servers").iter();
    servers.flat_map(|server| texts(server, "hosts")).any(|served| {
        let (scope, served) = served.split_once('/').unwrap_or(("*", served));
        let open = match scope {
            "*" => true,
            "." => gateway.namespace == namespace,
            scope => scope == namespace,
        };
        open && hosts.iter().any(|host| overlap(served, host))
    })
}
