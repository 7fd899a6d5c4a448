//! Reads YAML (and JSON, which is a subset) into trees that know where every value stands in the text.
//!
//! Works on the parser's events, because its own loader recurses as deep as hostile input likes. Depth, values, and
//! what anchors and aliases may multiply are limited. Each `---` part is parsed on its own, so a syntax error costs
//! one document and not the file.
use std::ops::Range;

use serde_json::{Map, Value};

use self::reader::Reader;

mod reader;
#[cfg(test)]
mod tests;

/// Collections may nest this deep.
pub(super) const DEPTH_MAX: usize = 64;
/// Values in one document; a long text counts as several.
pub(super) const VALUES_MAX: usize = 500_000;
/// Values that anchors may name, and that aliases may add, in one document.
pub(super) const ALIASED_MAX: usize = 100_000;
/// Bytes of a text that count as one value.
const VALUE_BYTES: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Line in the whole text, 1-based.
    pub(super) line: u32,
    /// Bytes in the whole text. A block collection starts at its first key or dash; where it ends is not said.
    pub(super) span: Range<usize>,
    /// It stands elsewhere (alias or merge key): a change there changes more than this.
    pub(super) borrowed: bool,
    /// Number of values in it, itself included.
    size: usize,
    /// Levels of collections in it, itself included.
    depth: usize,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) line: u32,
    /// A merge key brings it in.
    pub(super) merged: bool,
    pub(super) value: Node,
}

impl Node {
    /// The value of `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The items, if this is a sequence; none otherwise.
    pub(super) fn items(&self) -> &[Self] {
        match &self.content {
            Content::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text, if this is a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A value of which nobody knows where it stands.
    pub(super) fn without_places(value: Value) -> Self {
        let content = match value {
            Value::Array(items) => Content::Sequence(items.into_iter().map(Self::without_places).collect()),
            Value::Object(pairs) => {
                let entries = pairs.into_iter().map(|(key, value)| Entry {
                    key,
                    key_span: 0..0,
                    line: 0,
                    merged: false,
                    value: Self::without_places(value),
                });
                Content::Mapping(entries.collect())
            }
            scalar => Content::Scalar(scalar),
        };
        Self { content, line: 0, span: 0..0, borrowed: true, size: 1, depth: 0 }
    }

    /// The value without the places.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => items.iter().map(Self::to_value).collect(),
            Content::Mapping(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub(super) struct Problem {
    pub(super) line: u32,
    pub(super) kind: ProblemKind,
    /// What could be read nevertheless: to say more about it, not to use it.
    pub(super) rest: Option<Box<Node>>,
}

impl Problem {
    fn at(line: u32, kind: ProblemKind) -> Self {
        Self { line, kind, rest: None }
    }
}

/// The kinds of [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProblemKind {
    #[error("this is not YAML: {0}")]
    Syntax(String),
    #[error("`...` stands for something that was left out")]
    Elided,
    #[error("values nest deeper than {DEPTH_MAX}")]
    Depth,
    #[error("the document has more than {VALUES_MAX} values")]
    Values,
    #[error("anchors and aliases multiply more than {ALIASED_MAX} values")]
    Aliases,
    #[error("an alias stands inside the value that it names")]
    Cycle,
    #[error("the key `{0}` appears twice")]
    DuplicateKey(String),
    #[error("a mapping or a list stands where a key should")]
    ComplexKey,
    #[error("the merge key `<<` needs a mapping, or a list of them")]
    Merge,
    #[error("the value does not fit its tag `{0}`")]
    Tag(String),
}

/// Every document of `text`, in order; empty ones are left out.
pub(super) fn documents(text: &str) -> Vec<Result<Node, Problem>> {
    parts(text).iter().flat_map(|part| read(text.get(part.bytes.clone()).unwrap_or_default(), part)).collect()
}

/// The documents of one part. Where indented `...` lines make it unreadable (as in articles, for brevity), it is
/// read without them, so that what else is wrong comes to light too.
fn read(text: &str, part: &Part) -> Vec<Result<Node, Problem>> {
    let found = Reader::new(text, part).read();
    let broken = found.iter().any(|found| matches!(found, Err(Problem { kind: ProblemKind::Syntax(_), .. })));
    if !broken {
        return found;
    }
    let mut filled = String::with_capacity(text.len());
    let mut elided = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim() == "..." && line.starts_with([' ', '\t']) {
            elided.push(part.lines_before + u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1));
            filled.push_str(&line.replace("...", "   "));
        } else {
            filled.push_str(line);
        }
    }
    let Some(&line) = elided.first() else { return found };
    let rest = Reader::new(&filled, part).read().into_iter();
    let nodes = rest.map(|found| match found {
        Ok(node) => Err(Problem { rest: Some(Box::new(node)), ..Problem::at(line, ProblemKind::Elided) }),
        Err(problem) => Err(problem),
    });
    nodes.collect()
}

/// A run of lines that holds one document (or several, separated by `...`).
#[derive(Debug, Clone)]
struct Part {
    bytes: Range<usize>,
    /// Lines before it.
    lines_before: u32,
}

/// Cuts before every line that starts with `---`. YAML allows such a line nowhere else, not even in a quoted text.
fn parts(text: &str) -> Vec<Part> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut parts = Vec::new();
    let mut part = Part { bytes: start..start, lines_before: 0 };
    let mut only_directives = false;
    for (lines_before, line) in (0..).zip(text.get(start..).unwrap_or_default().split_inclusive('\n')) {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && !only_directives {
            parts.push(part.clone());
            part = Part { bytes: part.bytes.end..part.bytes.end, lines_before };
        }
        // `%YAML 1.2` belongs to the document that the next `---` starts.
        only_directives = !marker
            && if line.starts_with('%') {
                text.get(part.bytes.clone()).is_some_and(|before| only_directives || before.trim().is_empty())
            } else {
                only_directives && (line.trim().is_empty() || line.starts_with('#'))
            };
        part.bytes.end += line.len();
    }
    parts.push(part);
    parts
}
