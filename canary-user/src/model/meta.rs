//! What every object of the model carries: identity, age, labels and the place in the source.
use std::{collections::BTreeMap, sync::Arc};

use super::raw;
use crate::{
    diagnostic::{Diagnostic, Origin, Severity},
    source::{Compact, Object, cluster},
};

/// Labels of an object, or a selector.
pub(crate) type Labels = BTreeMap<String, String>;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Identity and provenance of an object.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) key: Key,
    pub(crate) labels: Labels,
    /// `creationTimestamp`; RFC 3339 in UTC orders as text. Objects from files have none and count as oldest.
    pub(crate) created: Option<String>,
    /// The object without its body: for lines of fields.
    place: Arc<Object>,
}

impl Meta {
    pub(super) fn new(object: &Object, metadata: &raw::Metadata) -> Self {
        // The body is large and has been read; only identity and lines are needed from here on.
        let place = Arc::new(Object {
            compact: Compact::default(),
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            body: serde_json::Value::Null,
            origin: object.origin.clone(),
            lines: object.lines.clone(),
        });
        Self {
            key: Key::new(&object.namespace, &object.name),
            labels: metadata.labels.clone(),
            created: metadata.creation_timestamp.clone(),
            place,
        }
    }

    /// `Kind namespace/name`.
    pub(crate) fn id(&self) -> String {
        self.place.id()
    }

    /// Whether it is of this kind.
    pub(crate) fn is_kind(&self, kind: &str) -> bool {
        self.place.kind == kind
    }

    /// Whether it comes from the API server of a cluster.
    pub(crate) fn in_cluster(&self) -> bool {
        cluster::is_origin(&self.place.origin.file)
    }

    /// Where the object stands.
    pub(crate) fn origin(&self) -> Origin {
        self.place.origin.clone()
    }

    /// Where one of its fields stands.
    pub(crate) fn origin_of(&self, field: &str) -> Origin {
        self.place.origin_of(field)
    }

    /// Istio's order among rivals: the oldest first, then by name, then by namespace.
    pub(crate) fn age(&self) -> (Option<&str>, &str, &str) {
        (self.created.as_deref(), &self.key.name, &self.key.namespace)
    }

    /// A finding about a field of this object.
    pub(crate) fn diagnostic(
        &self,
        severity: Severity,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnostic {
        let field = field.into();
        Diagnostic {
            severity,
            code,
            object: self.id(),
            origin: self.place.origin_of(&field),
            field,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Whether `labels` has every pair of `selector`. An empty selector selects everything.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
