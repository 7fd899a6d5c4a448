//! What the analyzers look at and write to.
use serde_json::Value;

use super::{hosts::Hosts, mesh::MeshConfig};
use crate::{
    diagnostic::{Diagnostic, Severity},
    source::{Object, Snapshot},
};

/// Istio's API group for traffic.
const NETWORKING: &str = "networking.istio.io";

/// A snapshot, and what several analyzers need to know of it.
pub(super) struct Context<'s> {
    snapshot: &'s Snapshot,
    /// Hosts that exist, and who sees them.
    pub(super) hosts: Hosts,
    pub(super) mesh_config: MeshConfig,
}

impl<'s> Context<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, mesh_config: MeshConfig) -> Self {
        let mut context = Self { snapshot, hosts: Hosts::default(), mesh_config };
        context.hosts = Hosts::find(&context);
        context
    }

    /// Objects of a kind of Istio's traffic API, in whatever version.
    pub(super) fn networking(&self, kind: &'static str) -> impl Iterator<Item = &'s Object> + use<'s> {
        self.of(NETWORKING, kind)
    }

    /// Objects of a kind of the core API.
    pub(super) fn core(&self, kind: &'static str) -> impl Iterator<Item = &'s Object> + use<'s> {
        self.of("", kind)
    }

    pub(super) fn of(&self, group: &'static str, kind: &'static str) -> impl Iterator<Item = &'s Object> + use<'s> {
        self.snapshot
            .objects
            .iter()
            .map(|object| &**object)
            .filter(move |object| object.kind == kind && object.group() == group)
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding<'_>) {
        let Finding { object, severity, code, field, message, remedy } = finding;
        let origin = object.origin_of(&field);
        self.found.push(Diagnostic { severity, code, object: object.id(), field, origin, message, remedy });
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.found
    }
}

/// A [`Diagnostic`] that does not know its place yet.
pub(super) struct Finding<'o> {
    pub(super) object: &'o Object,
    pub(super) severity: Severity,
    pub(super) code: &'static str,
    pub(super) field: String,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// The text in `field`; empty when there is none.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The list in `field`; empty when there is none.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts in the list in `field`. Others in it are the model's to report.
pub(super) fn texts<'v>(value: &'v Value, field: &str) -> Vec<&'v str> {
    list(value, field).iter().filter_map(Value::as_str).collect()
}

/// The pairs of texts in `field`, such as labels.
pub(super) fn pairs<'v>(value: &'v Value, field: &str) -> Vec<(&'v str, &'v str)> {
    let pairs = value.get(field).and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// The specification of an object; nothing when it has none.
pub(super) fn spec(object: &Object) -> &Value {
    object.body.get("spec").unwrap_or(&Value::Null)
}

/// The metadata of an object.
pub(super) fn metadata(object: &Object) -> &Value {
    object.body.get("metadata").unwrap_or(&Value::Null)
}

/// The value of a label of the object itself.
pub(super) fn label<'o>(object: &'o Object, key: &str) -> Option<&'o str> {
    metadata(object).get("labels")?.get(key)?.as_str()
}
