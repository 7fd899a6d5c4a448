//! Subsets: every one that a route names is defined, and every one that is defined has workloads.
use std::collections::BTreeMap;

use super::{
    context::{Context, Finding, Report, list, metadata, pairs, spec, text, texts},
    destinations::destinations,
    hosts::{full_name, overlap},
};
use crate::{diagnostic::Severity, source::similar::did_you_mean};

pub(super) fn undefined(context: &Context<'_>, report: &mut Report) {
    // Host as its DestinationRule means it → names of its subsets.
    let mut defined: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for rule in context.networking("DestinationRule") {
        let names = list(spec(rule), "subsets").iter().map(|subset| text(subset, "name"));
        defined.entry(full_name(text(spec(rule), "host"), &rule.namespace)).or_default().extend(names);
    }
    for object in context.networking("VirtualService") {
        for destination in destinations(object) {
            let (host, subset) = (destination.host(), destination.subset());
            let name = full_name(host, &object.namespace);
            let of_host = defined.iter().filter(|(known, _)| overlap(known, &name));
            let known: Vec<&str> = of_host.flat_map(|(_, subsets)| subsets).copied().collect();
            if subset.is_empty() || known.contains(&subset) {
                continue;
            }
            let role = if destination.mirror { "mirror" } else { "host" };
            let remedy = if known.is_empty() {
                format!("add a DestinationRule for \"{host}\" with this subset")
            } else {
                format!("{}it has {}", did_you_mean(subset, known.iter().copied()), known.join(", "))
            };
            report.add(Finding {
                object,
                severity: Severity::Error,
                code: "IST0101",
                field: format!("{}.subset", destination.field),
                message: format!("referenced {role}+subset in destinationrule not found: \"{host}+{subset}\""),
                remedy,
            });
        }
    }
}

pub(super) fn unselected(context: &Context<'_>, report: &mut Report) {
    let workloads = workloads(context);
    for object in context.networking("DestinationRule") {
        let host = text(spec(object), "host");
        let mut warn = |code, field: String, message: String, remedy: String| {
            report.add(Finding { object, severity: Severity::Warning, code, field, message, remedy });
        };
        let Some(known) = context.hosts.get(host, &object.namespace, &texts(spec(object), "exportTo")) else {
            let names = context.hosts.names(&object.namespace);
            let hint = did_you_mean(host, names.iter().map(String::as_str));
            let remedy = format!("{hint}add a Service or a ServiceEntry of this name");
            warn("IST0174", "spec.host".to_owned(), format!("there is no host \"{host}\""), remedy);
            continue;
        };
        // Without any workload in sight nothing can be said about them.
        let selector = known.selector.as_ref().filter(|_| !workloads.is_empty());
        let Some(selector) = selector else { continue };
        for (index, subset) in list(spec(object), "subsets").iter().enumerate() {
            let mut wanted: BTreeMap<&str, &str> =
                selector.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            wanted.extend(pairs(subset, "labels"));
            // Where a workload runs becomes labels of its endpoints, which nobody can see here.
            wanted.retain(|key, _| !key.starts_with("topology."));
            let selected = workloads
                .iter()
                .any(|labels| wanted.iter().all(|(key, value)| labels.get(key).is_some_and(|other| other == value)));
            if !selected {
                let name = text(subset, "name");
                let labels: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let message =
                    format!("subset \"{name}\" selects no workload: none has the labels {}", labels.join(", "));
                let remedy = "correct the labels, or start its workload".to_owned();
                warn("IST0173", format!("spec.subsets[{index}].labels"), message, remedy);
            }
        }
    }
}

/// Labels of everything that runs, or will: Pods, templates of Pods, `WorkloadEntries`.
fn workloads<'s>(context: &Context<'s>) -> Vec<BTreeMap<&'s str, &'s str>> {
    let own = context.core("Pod").map(|pod| pairs(metadata(pod), "labels"));
    let templates = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"];
    let templates = templates.into_iter().flat_map(|kind| context.of("apps", kind));
    let templates = templates.filter_map(|object| spec(object).pointer("/template/metadata"));
    let templates = templates.map(|metadata| pairs(metadata, "labels"));
    let entries = context.networking("WorkloadEntry").map(|entry| pairs(spec(entry), "labels"));
    own.chain(templates).chain(entries).map(|labels| labels.into_iter().collect()).collect()
}
