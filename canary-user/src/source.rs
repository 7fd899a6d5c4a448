//! Where objects come from: a directory of YAML files, the API server of a cluster. Yields whole Snapshots.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    sync::Arc,
};

pub use self::compact::Compact;
use self::yaml::{Node, Problem};
use crate::diagnostic::{Diagnostic, Origin, Severity};

pub mod cluster;
mod compact;
pub mod directory;
pub mod edit;

mod kinds;
mod object;
pub(crate) mod similar;
pub mod sources;
#[cfg(test)]
mod tests;
mod watch;
pub mod write;
mod yaml;

/// The group of the Gateway API.
pub(crate) const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Codes of what a source can say.
pub mod code {
    /// A document, or a file, cannot be read as YAML or JSON.
    pub const NOT_YAML: &str = "CAN0101";
    /// A document is not a Kubernetes object: apiVersion, kind or metadata is missing, or the name is none.
    pub const NOT_AN_OBJECT: &str = "CAN0102";
    /// Two objects have the same kind, namespace and name; the first is in force.
    pub const DUPLICATE: &str = "CAN0103";
    /// A file or directory cannot be read, or is larger than the limit.
    pub const UNREADABLE_FILE: &str = "CAN0104";
    /// There is more to say about a file than is said.
    pub const TRUNCATED: &str = "CAN0105";
    /// An API group that canary reads has no such kind, or no such version.
    pub const NO_SUCH_KIND: &str = "CAN0106";
    /// All of them.
    pub const ALL: [&str; 6] = [NOT_YAML, NOT_AN_OBJECT, DUPLICATE, UNREADABLE_FILE, TRUNCATED, NO_SUCH_KIND];
}

/// One YAML document that looks like a Kubernetes object, as written: nothing but its identity is interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The body of one of very many, and what was made of it.
    pub compact: Compact,
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
    pub objects: Vec<Arc<Object>>,
    /// Documents that are not objects, and files that are not YAML.
    pub diagnostics: Vec<Diagnostic>,
}

/// Files larger than this are not read.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// So many things are said about one file; the rest is counted.
const DIAGNOSTICS_MAX: usize = 100;

impl Object {
    /// Whether it is of Kubernetes' own kinds, which come in great number, rather than a rule that somebody wrote.
    #[must_use]
    pub fn is_native(&self) -> bool {
        matches!(self.group(), "" | "discovery.k8s.io")
    }

    /// The group in `apiVersion`; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

impl Snapshot {
    /// One snapshot of several, in their order. Of objects with the same group, kind, namespace and name the first
    /// is kept, and an error says where the others stand: which one is meant is not for us to guess.
    #[must_use]
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        let mut seen: BTreeMap<(String, String), Origin> = BTreeMap::new();
        for part in parts {
            whole.diagnostics.extend(part.diagnostics);
            for object in part.objects {
                // The version is no part of the identity, but the group is: two APIs have a `Gateway`.
                match seen.entry((object.group().to_owned(), object.id())) {
                    Entry::Vacant(entry) => {
                        entry.insert(object.origin.clone());
                        whole.objects.push(object);
                    }
                    Entry::Occupied(first) => whole.diagnostics.push(duplicate(&object, first.get())),
                }
            }
        }
        whole
    }
}

fn duplicate(object: &Object, first: &Origin) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code::DUPLICATE,
        object: object.id(),
        field: "metadata.name".to_owned(),
        origin: object.origin_of("metadata.name"),
        message: format!("{} is already defined at {first}, and that one is in force", object.id()),
        remedy: "remove one of the two, or give it another name or namespace".to_owned(),
    }
}

/// The objects in `text`, which is YAML with any number of documents, or JSON. Never fails: what cannot be read
/// becomes a diagnostic, and the other documents stay.
#[must_use]
pub fn parse(text: &str, file: &Path) -> Snapshot {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Snapshot { objects: Vec::new(), diagnostics: vec![too_large(file)] };
    }
    let mut found = Snapshot::default();
    for document in documents(text) {
        let whole = document.is_ok();
        let node = match document {
            Ok(node) => Some(node),
            Err(problem) => {
                found.diagnostics.push(object::unreadable(problem.line, &problem.kind, file));
                problem.rest.map(|rest| *rest)
            }
        };
        for object in node.iter().flat_map(|node| object::objects(node, file)) {
            match object {
                Ok(object) if whole => match kinds::unknown(&object) {
                    None => found.objects.push(Arc::new(object)),
                    Some(diagnostic) => found.diagnostics.push(diagnostic),
                },
                Ok(_) => {}
                Err(diagnostic) => found.diagnostics.push(*diagnostic),
            }
        }
    }
    let mut found = Snapshot::merge([found]);
    let more = found.diagnostics.len().saturating_sub(DIAGNOSTICS_MAX);
    if more > 0 {
        found.diagnostics.truncate(DIAGNOSTICS_MAX);
        let message = format!("{more} more errors in this file are not shown");
        found.diagnostics.push(about_file(file, code::TRUNCATED, message, "correct the first ones"));
    }
    found
}

/// The first document of `text`, whatever it is: for YAML that is not a Kubernetes object.
pub(crate) fn parse_value(text: &str) -> Option<serde_json::Value> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return None;
    }
    documents(text).into_iter().next()?.ok().map(|node| node.to_value())
}

/// The documents of `text`. JSON has a few escapes and blanks that YAML does not: then it is read as JSON, without lines.
fn documents(text: &str) -> Vec<Result<Node, Problem>> {
    let documents = yaml::documents(text);
    if documents.iter().any(Result::is_err)
        && text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return vec![Ok(Node::without_places(value))];
    }
    documents
}

fn too_large(file: &Path) -> Diagnostic {
    let message = format!("the file is larger than {} MiB and is not read", FILE_BYTES_MAX >> 20);
    about_file(file, code::UNREADABLE_FILE, message, "split it")
}

/// An error about a whole file.
fn about_file(file: &Path, code: &'static str, message: String, remedy: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        object: "file".to_owned(),
        field: String::new(),
        origin: Origin { file: file.to_owned(), line: 0 },
        message,
        remedy: remedy.to_owned(),
    }
}
