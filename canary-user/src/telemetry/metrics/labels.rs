//! Istio's labels, with what this host knows. What it does not know is `unknown`, as in Istio.
use crate::state::ServiceId;

/// Where traffic went.
pub(super) struct Destination<'a> {
    /// The service and its host, if they are known.
    pub(super) service: Option<(&'a ServiceId, &'a str)>,
    /// The version.
    pub(super) version: &'a str,
}

const UNKNOWN: &str = "unknown";

/// Names of workloads are not known here: a version has endpoints, and those have no owners.
const NOT_KNOWN: [&str; 13] = [
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_principal",
    "destination_app",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "connection_security_policy",
];

/// The labels that all of Istio's metrics have.
pub(super) fn istio<'a>(to: &Destination<'a>, protocol: &'a str, flags: &'a str) -> Vec<(&'static str, &'a str)> {
    let (namespace, name, host) =
        to.service.map_or((UNKNOWN, UNKNOWN, UNKNOWN), |(id, host)| (&id.namespace, id.plain_name(), host));
    let known = [
        ("reporter", "source"),
        ("source_workload", UNKNOWN),
        ("destination_workload", UNKNOWN),
        ("destination_workload_namespace", namespace),
        ("destination_version", if to.version.is_empty() { UNKNOWN } else { to.version }),
        ("destination_service", host),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("request_protocol", protocol),
        ("response_flags", flags),
    ];
    known.into_iter().chain(NOT_KNOWN.map(|label| (label, UNKNOWN))).collect()
}
