//! Hosts such as `reviews.default`: they have a dot, so they are taken as they stand and no Service has that name.
use super::{
    context::{Context, Finding, Report, list, spec, text},
    destinations::destinations,
    hosts::CLUSTER_SUFFIX,
};
use crate::{diagnostic::Severity, source::Object};

/// Only a name without a dot is completed; this one has a dot, and completing it would give a Service.
pub(super) const CODE: &str = "CAN0201";

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    let mut check = |object: &Object, host: &str, field: String| {
        let Some(meant) = meant(context, host) else { return };
        report.add(Finding {
            object,
            severity: Severity::Warning,
            code: CODE,
            field,
            message: format!(
                "\"{host}\" has a dot, so it is taken as it stands and is not the Service that it looks like"
            ),
            remedy: format!("write \"{meant}\""),
        });
    };
    for object in context.networking("VirtualService") {
        for (index, host) in list(spec(object), "hosts").iter().enumerate() {
            check(object, host.as_str().unwrap_or_default(), format!("spec.hosts[{index}]"));
        }
        for destination in destinations(object) {
            check(object, destination.host(), format!("{}.host", destination.field));
        }
    }
    for object in context.networking("DestinationRule") {
        check(object, text(spec(object), "host"), "spec.host".to_owned());
    }
}

/// The full name of the Service that somebody who wrote `host` had in mind.
fn meant(context: &Context<'_>, host: &str) -> Option<String> {
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    let rest: Vec<&str> = labels.collect();
    let partial = matches!(rest.as_slice(), [] | ["svc"] | ["svc", "cluster"]);
    (partial && context.hosts.is_service(name, namespace)).then(|| format!("{name}.{namespace}.{CLUSTER_SUFFIX}"))
}
