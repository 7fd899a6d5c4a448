//! Builds trees from the parser's events, within limits.
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Number, Value};

use super::{ALIASED_MAX, Content, DEPTH_MAX, Entry, Node, Part, Problem, ProblemKind, VALUE_BYTES, VALUES_MAX};

/// Builds the trees of one part from the parser's events.
pub(super) struct Reader<'t> {
    /// The part's text.
    text: &'t str,
    /// Bytes of the whole text before it.
    bytes_before: usize,
    /// Lines of the whole text before it.
    lines_before: u32,
    lines: u32,
    /// Byte offset of every character; empty when all are one byte long.
    offsets: Vec<u32>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    anchored: usize,
    aliased: usize,
    values: usize,
}

/// A collection whose end has not been read.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, with its place.
    key: Option<(Key, Range<usize>, u32)>,
    /// Keys so far. A set, because hostile mappings are long.
    names: HashSet<String>,
    /// What merge keys bring in, the strongest first; keys written out win over all of them.
    merged: Vec<Entry>,
}

/// What a key is to its mapping.
enum Key {
    Name(String),
    Merge,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, part: &Part) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect()
        };
        Self {
            text,
            bytes_before: part.bytes.start,
            lines_before: part.lines_before,
            lines: u32::try_from(text.split(['\n', '\r']).count()).unwrap_or(u32::MAX),
            offsets,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            anchored: 0,
            aliased: 0,
            values: 0,
        }
    }

    pub(super) fn read(mut self) -> Vec<Result<Node, Problem>> {
        let mut found = Vec::new();
        let mut parser = Parser::new_from_str(self.text);
        while let Some(event) = parser.next_event() {
            let step = match event {
                Ok((event, span)) => self.step(event, span),
                Err(error) => {
                    // An error at the end of the text stands on its last line, not after it.
                    let lines = u32::try_from(self.text.trim_end().lines().count()).unwrap_or(u32::MAX).max(1);
                    let line = self.line(*error.marker()).min(self.lines_before.saturating_add(lines));
                    Err(Problem::at(line, ProblemKind::Syntax(error.info().to_owned())))
                }
            };
            match step {
                Ok(None) => {}
                Ok(Some(node)) if node.content == Content::Scalar(Value::Null) => {}
                Ok(Some(node)) => found.push(Ok(node)),
                Err(problem) => {
                    found.push(Err(problem));
                    break; // The parser cannot go on after an error.
                }
            }
        }
        found
    }

    fn line(&self, marker: Marker) -> u32 {
        // What is empty at the end of the text stands on its last line, not after it.
        self.lines_before.saturating_add(u32::try_from(marker.line()).unwrap_or(u32::MAX).clamp(1, self.lines))
    }

    fn byte(&self, marker: Marker) -> usize {
        let inside = if self.offsets.is_empty() {
            marker.index().min(self.text.len())
        } else {
            self.offsets.get(marker.index()).map_or(self.text.len(), |&at| at as usize)
        };
        self.bytes_before + inside
    }

    fn byte_at(&self, whole: usize) -> Option<u8> {
        self.text.as_bytes().get(whole.checked_sub(self.bytes_before)?).copied()
    }

    /// Takes one event; yields the root when it is complete.
    fn step(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Problem> {
        let line = self.line(span.start);
        let bytes = self.byte(span.start)..self.byte(span.end).max(self.byte(span.start));
        let problem = |kind| Problem::at(line, kind);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(None),
            Event::DocumentStart(_) => {
                self.open.clear();
                self.anchors.clear();
                (self.anchored, self.aliased, self.values) = (0, 0, 0);
                Ok(None)
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_key() {
                    let merge = text == "<<" && style == ScalarStyle::Plain;
                    let key = if merge { Key::Merge } else { Key::Name(text.into_owned()) };
                    return self.key(key, bytes, line);
                }
                let value = scalar(&text, style, tag.as_deref())
                    .ok_or_else(|| problem(ProblemKind::Tag(tag.map(|tag| tag.to_string()).unwrap_or_default())))?;
                let size = 1 + text.len() / VALUE_BYTES;
                let node = Node { content: Content::Scalar(value), line, span: bytes, borrowed: false, size, depth: 0 };
                self.place(node, anchor)
            }
            Event::SequenceStart(anchor, _) => self.descend(Content::Sequence(Vec::new()), anchor, line, bytes),
            Event::MappingStart(anchor, _) => self.descend(Content::Mapping(Vec::new()), anchor, line, bytes),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(None) };
                let (mut node, anchor) = (open.node, open.anchor);
                // The event's span takes in a comment after the bracket.
                let bracket = usize::from(self.byte_at(bytes.start).is_some_and(|byte| b"}]".contains(&byte)));
                node.span.end = (bytes.start + bracket).max(node.span.start);
                if let Content::Mapping(entries) = &mut node.content {
                    let mut names = open.names;
                    entries.extend(open.merged.into_iter().filter(|entry| names.insert(entry.key.clone())));
                }
                self.place(node, anchor)
            }
            Event::Alias(id) => {
                let target = self.anchors.get(&id).ok_or_else(|| problem(ProblemKind::Cycle))?;
                self.aliased += target.size;
                if self.aliased > ALIASED_MAX {
                    return Err(problem(ProblemKind::Aliases));
                }
                let mut node = target.clone();
                if self.expects_key() {
                    let name = node.text().ok_or_else(|| problem(ProblemKind::ComplexKey))?;
                    return self.key(Key::Name(name.to_owned()), bytes, line);
                }
                if self.open.len() + node.depth > DEPTH_MAX {
                    return Err(problem(ProblemKind::Depth));
                }
                borrow(&mut node);
                (node.line, node.span) = (line, bytes);
                self.place(node, 0)
            }
        }
    }

    /// The next value in the innermost open collection is a key.
    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.node.content, Content::Mapping(_)) && open.key.is_none())
    }

    fn key(&mut self, key: Key, span: Range<usize>, line: u32) -> Result<Option<Node>, Problem> {
        if let Some(open) = self.open.last_mut() {
            if let Key::Name(name) = &key
                && !open.names.insert(name.clone())
            {
                return Err(Problem::at(line, ProblemKind::DuplicateKey(name.clone())));
            }
            open.key = Some((key, span, line));
        }
        Ok(None)
    }

    fn descend(
        &mut self,
        content: Content,
        anchor: usize,
        line: u32,
        span: Range<usize>,
    ) -> Result<Option<Node>, Problem> {
        if self.expects_key() {
            return Err(Problem::at(line, ProblemKind::ComplexKey));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Problem::at(line, ProblemKind::Depth));
        }
        let node = Node { content, line, span, borrowed: false, size: 1, depth: 1 };
        self.open.push(Open { node, anchor, key: None, names: HashSet::new(), merged: Vec::new() });
        Ok(None)
    }

    /// Puts a complete value where it belongs; yields it when it is the root.
    fn place(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, Problem> {
        let line = node.line;
        if node.depth == 0 || node.borrowed {
            self.values += node.size;
        } else {
            self.values += 1; // What is in it has been counted.
        }
        if self.values > VALUES_MAX {
            return Err(Problem::at(line, ProblemKind::Values));
        }
        if anchor != 0 {
            self.anchored += node.size;
            if self.anchored > ALIASED_MAX {
                return Err(Problem::at(line, ProblemKind::Aliases));
            }
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        open.node.size += node.size;
        open.node.depth = open.node.depth.max(1 + node.depth);
        match (&mut open.node.content, open.key.take()) {
            (Content::Sequence(items), _) => items.push(node),
            (Content::Mapping(entries), Some((Key::Name(key), key_span, line))) => {
                entries.push(Entry { key, key_span, line, merged: false, value: node });
            }
            (Content::Mapping(_), Some((Key::Merge, ..))) => {
                let merged = merge(node).ok_or_else(|| Problem::at(line, ProblemKind::Merge))?;
                open.merged.extend(merged);
            }
            (Content::Mapping(_) | Content::Scalar(_), _) => {} // A mapping's value always follows its key.
        }
        Ok(None)
    }
}

/// The entries that `<<: node` brings in.
fn merge(mut node: Node) -> Option<Vec<Entry>> {
    borrow(&mut node);
    let mut entries = mappings(node)?;
    for entry in &mut entries {
        entry.merged = true;
    }
    Some(entries)
}

/// The entries of a mapping, or of a list of mappings.
fn mappings(node: Node) -> Option<Vec<Entry>> {
    match node.content {
        Content::Mapping(entries) => Some(entries),
        Content::Sequence(items) => {
            let each = items.into_iter().map(|item| match item.content {
                Content::Mapping(entries) => Some(entries),
                _ => None,
            });
            each.collect::<Option<Vec<_>>>().map(|lists| lists.into_iter().flatten().collect())
        }
        Content::Scalar(_) => None,
    }
}

/// Marks a value and all in it as standing elsewhere.
fn borrow(node: &mut Node) {
    node.borrowed = true;
    match &mut node.content {
        Content::Sequence(items) => items.iter_mut().for_each(borrow),
        Content::Mapping(entries) => entries.iter_mut().for_each(|entry| borrow(&mut entry.value)),
        Content::Scalar(_) => {}
    }
}

/// YAML's core schema; `None` when the text does not fit its tag.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Value> {
    let string = || Value::String(text.to_owned());
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    match core {
        Some("str") => Some(string()),
        _ if style != ScalarStyle::Plain => Some(string()),
        None => Some(plain(text)),
        Some("null") => Some(plain(text)).filter(Value::is_null),
        Some("bool") => Some(plain(text)).filter(Value::is_boolean),
        Some("int") => Some(plain(text)).filter(|value| value.is_i64() || value.is_u64()),
        Some("float") => Some(plain(text)).filter(Value::is_number),
        Some(_) => None,
    }
}

/// An untagged, unquoted scalar. Numbers that JSON does not have (`.nan`, `1e999`) stay texts.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    let unsigned = |digits: &str, base| {
        let starts = digits.starts_with(|first: char| first.is_ascii_hexdigit()); // Rust would accept another sign.
        if starts { u64::from_str_radix(digits, base).ok() } else { None }
    };
    let radix = |prefix, base| digits.strip_prefix(prefix).and_then(|digits| unsigned(digits, base));
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| unsigned(digits, 10));
    if let Some(whole) = whole {
        return Value::Number(whole.into());
    }
    if let Ok(negative) = text.parse::<i64>() {
        return Value::Number(negative.into());
    }
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_digit());
    let float = if numeric { text.parse().ok().and_then(Number::from_f64) } else { None };
    float.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}
