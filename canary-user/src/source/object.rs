//! Turns documents into [`Object`]s: identity, lists, field lines; says what a document lacks to be one.
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde_json::Value;

use super::{
    Compact, Object, code,
    yaml::{Content, Node, ProblemKind},
};
use crate::diagnostic::{Diagnostic, Origin, Severity};

/// Field paths longer than this have no line of their own: many long ones would take the square of the file's size.
const PATH_MAX: usize = 512;
/// What a document is called as long as it has no name.
const NAMELESS: &str = "document";

/// The objects in one document; the items of a list count one by one.
pub(super) fn objects(document: &Node, file: &Path) -> Vec<Result<Object, Box<Diagnostic>>> {
    object_nodes(document).into_iter().map(|(node, inherited)| object(node, inherited, file)).collect()
}

/// apiVersion and kind that the items of a typed list (`PodList`) leave out.
type Inherited<'n> = Option<(&'n str, &'n str)>;

/// The nodes of the objects in one document, lists taken apart.
pub(super) fn object_nodes(document: &Node) -> Vec<(&Node, Inherited<'_>)> {
    let kind = document.get("kind").and_then(Node::text);
    let (Some(kind), Some(items)) = (kind.and_then(|kind| kind.strip_suffix("List")), document.get("items")) else {
        return vec![(document, None)];
    };
    if !matches!(items.content, Content::Sequence(_)) {
        return vec![(document, None)];
    }
    let version = document.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let nested = items.items().iter().flat_map(|item| match item.get("kind") {
        None if !kind.is_empty() => vec![(item, Some((version, kind)))],
        _ => object_nodes(item),
    });
    nested.collect()
}

fn object(node: &Node, inherited: Inherited<'_>, file: &Path) -> Result<Object, Box<Diagnostic>> {
    let at = |line| Origin { file: file.to_owned(), line };
    let broken = |field: &str, line, message: String, remedy: String| {
        Box::new(Diagnostic {
            severity: Severity::Error,
            code: code::NOT_AN_OBJECT,
            object: nearly(node),
            field: field.to_owned(),
            origin: at(line),
            message,
            remedy,
        })
    };
    if !matches!(node.content, Content::Mapping(_)) {
        let message = "the document is not a Kubernetes object but a single value or a list".to_owned();
        return Err(broken("", node.line, message, "start it with `apiVersion:` and `kind:`".to_owned()));
    }
    let text_of = |field: &str, example: &str| {
        let Some(value) = node.get(field) else {
            let remedy = format!("add a line like `{field}: {example}`");
            return Err(broken(
                field,
                node.line,
                format!("`{field}` is missing, so this is not a Kubernetes object"),
                remedy,
            ));
        };
        value.text().filter(|text| !text.is_empty()).ok_or_else(|| {
            broken(field, value.line, format!("`{field}` is not a text"), format!("write it like `{field}: {example}`"))
        })
    };
    let (api_version, kind) = match inherited {
        Some(inherited) => inherited,
        None => (text_of("apiVersion", "networking.istio.io/v1")?, text_of("kind", "VirtualService")?),
    };
    let metadata = node.get("metadata").filter(|value| matches!(value.content, Content::Mapping(_)));
    let Some(metadata) = metadata else {
        let line = node.entry("metadata").map_or(node.line, |entry| entry.line);
        return Err(misplaced_metadata(node, line, broken));
    };
    let name = metadata.get("name").and_then(Node::text).filter(|name| !name.is_empty());
    let Some(name) = name else {
        let line = metadata.get("name").map_or(metadata.line, |value| value.line);
        let found = if metadata.get("name").is_some() { "is not a text" } else { "is missing" };
        let remedy = "every object needs a name, as `name: helloworld`; put a number in quotes".to_owned();
        return Err(broken("metadata.name", line, format!("`metadata.name` {found}"), remedy));
    };
    let namespace = match metadata.get("namespace") {
        None => "default",
        Some(value) if value.content == Content::Scalar(Value::Null) => "default",
        Some(value) => value.text().filter(|text| !text.is_empty()).ok_or_else(|| {
            let remedy = "write it like `namespace: default`; put a number in quotes".to_owned();
            broken("metadata.namespace", value.line, "`metadata.namespace` is not a text".to_owned(), remedy)
        })?,
    };
    let mut lines = BTreeMap::new();
    record_lines(node, &mut String::new(), &mut lines);
    Ok(Object {
        compact: Compact::default(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body: node.to_value(),
        origin: at(node.line),
        lines,
    })
}

/// `metadata` is missing or holds nothing: are its fields at the top level, as in a badly indented file?
fn misplaced_metadata(
    node: &Node,
    line: u32,
    broken: impl Fn(&str, u32, String, String) -> Box<Diagnostic>,
) -> Box<Diagnostic> {
    let strays = ["name", "namespace", "labels", "annotations"].into_iter().filter_map(|key| node.entry(key));
    let strays: Vec<_> = strays.map(|entry| (entry.key.as_str(), entry.line)).collect();
    if strays.is_empty() {
        let remedy = "add `metadata:` and, indented under it, `name:`".to_owned();
        return broken("metadata", line, "`metadata` is missing or empty".to_owned(), remedy);
    }
    let mut list = String::new();
    for (index, (key, line)) in strays.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(list, "{comma}`{key}` (line {line})"); // Writing to a String cannot fail.
    }
    let message = format!("`metadata` is empty, and {list} at the top level belongs to it");
    broken("metadata", line, message, "indent these lines by two spaces, so that they are under `metadata:`".to_owned())
}

/// What to call a document that is not an object (yet).
fn nearly(node: &Node) -> String {
    let text = |node: Option<&Node>| node.and_then(Node::text).map(str::to_owned);
    let metadata = node.get("metadata");
    let name = text(metadata.and_then(|metadata| metadata.get("name"))).or_else(|| text(node.get("name")));
    let namespace = text(metadata.and_then(|metadata| metadata.get("namespace")));
    match (text(node.get("kind")), name) {
        (Some(kind), Some(name)) => format!("{kind} {}/{name}", namespace.as_deref().unwrap_or("default")),
        (Some(kind), None) => kind,
        (None, _) => NAMELESS.to_owned(),
    }
}

/// Notes the line of every field below `node`, whose own path is in `path`.
fn record_lines(node: &Node, path: &mut String, lines: &mut BTreeMap<String, u32>) {
    let kept = path.len();
    let mut child = |path: &mut String, line: u32, value: &Node| {
        if path.len() <= PATH_MAX {
            lines.insert(path.clone(), line);
            record_lines(value, path, lines);
        }
        path.truncate(kept);
    };
    match &node.content {
        Content::Scalar(_) => {}
        Content::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]"); // Writing to a String cannot fail.
                child(path, item.line, item);
            }
        }
        Content::Mapping(entries) => {
            for entry in entries {
                let dot = if kept == 0 { "" } else { "." };
                let _ = write!(path, "{dot}{}", entry.key);
                child(path, entry.line, &entry.value);
            }
        }
    }
}

/// What to say about a document that cannot be read.
pub(super) fn unreadable(line: u32, kind: &ProblemKind, file: &Path) -> Diagnostic {
    let remedy = match kind {
        ProblemKind::Syntax(_) => {
            "correct this line or the one before it: indent with spaces, close quotes and brackets, put texts with `: ` or \
             ` #` in quotes"
        }
        ProblemKind::Elided => "write out what belongs there, or remove the line",
        ProblemKind::Depth | ProblemKind::Values | ProblemKind::Aliases => "split the document",
        ProblemKind::Cycle => "write the value out in place of the alias",
        ProblemKind::DuplicateKey(_) => "remove one of them",
        ProblemKind::ComplexKey => "use a text as the key; a value that starts with `{` or `[` may need quotes",
        ProblemKind::Merge => "let it name a mapping: `<<: *defaults`",
        ProblemKind::Tag(_) => "remove the tag",
    };
    Diagnostic {
        severity: Severity::Error,
        code: code::NOT_YAML,
        object: NAMELESS.to_owned(),
        field: String::new(),
        origin: Origin { file: file.to_owned(), line },
        message: kind.to_string(),
        remedy: remedy.to_owned(),
    }
}
