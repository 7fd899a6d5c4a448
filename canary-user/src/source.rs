//! Where objects come from: a directory of YAML files now, the Kubernetes API later. Yields whole Snapshots.
use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Origin};

/// One YAML document that looks like a Kubernetes object, as written: nothing but its identity is interpreted.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `apiVersion`, such as `networking.istio.io/v1beta1`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`; `default` when absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The whole document.
    pub body: serde_json::Value,
    /// Where the document starts.
    pub origin: Origin,
    /// Line (1-based, in the file) of every field, by its path: `spec.http[0].route[1].weight`.
    pub lines: BTreeMap<String, u32>,
}

impl Object {
    /// `Kind namespace/name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Where `field` stands: its own line, else its nearest parent's, else the document's first.
    #[must_use]
    pub fn origin_of(&self, field: &str) -> Origin {
        let mut path = field;
        loop {
            if let Some(&line) = self.lines.get(path) {
                return Origin { file: self.origin.file.clone(), line };
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = path.get(..cut).unwrap_or_default(),
                None => return self.origin.clone(),
            }
        }
    }
}

/// Everything that a source holds at one moment, and what it could not read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Objects in the order of files (by name) and documents.
    pub objects: Vec<Object>,
    /// Documents that are not objects, and files that are not YAML.
    pub diagnostics: Vec<Diagnostic>,
}
