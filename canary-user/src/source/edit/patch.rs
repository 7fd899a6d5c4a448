//! Where in the text a weight stands, or would stand.
use std::ops::Range;

use serde_json::Value;

use crate::source::yaml::{Content, Entry, Node};

/// Where a missing `weight` goes in a block mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// After the last field, as people write it.
    Last,
    /// Before the first field: for values whose end is hard to tell.
    First,
}

/// Bytes to replace, and what by.
pub(super) type Patch = (Range<usize>, String);

/// `text` with the patches applied. They must not overlap.
pub(super) fn apply(text: &str, mut patches: Vec<Patch>) -> String {
    patches.sort_by_key(|(range, _)| range.start);
    let mut edited = text.to_owned();
    for (range, with) in patches.iter().rev() {
        if edited.get(range.clone()).is_some() {
            edited.replace_range(range.clone(), with);
        }
    }
    edited
}

/// The entry has this weight already.
pub(super) fn has_weight(entry: &Node, weight: u32) -> bool {
    match entry.get("weight").map(|value| &value.content) {
        // 10.0 is what some controllers write.
        Some(Content::Scalar(Value::Number(number))) => number.as_f64() == Some(f64::from(weight)),
        _ => false,
    }
}

/// What to change so that the route entry has this weight; `None` when it has.
pub(super) fn weight_patch(text: &str, entry: &Node, weight: u32, place: Place) -> Option<Patch> {
    if has_weight(entry, weight) {
        return None;
    }
    match entry.entry("weight") {
        Some(written) if !written.merged => Some(replacement(text, written, weight)),
        // What a merge key brings in is overridden by a field of its own.
        _ => insertion(text, entry, weight, place),
    }
}

fn replacement(text: &str, written: &Entry, weight: u32) -> Patch {
    if written.value.span.is_empty() {
        // `weight:` and nothing after it.
        let at = after_colon(text, written.key_span.end);
        return (at..at, format!(" {weight}"));
    }
    (written.value.span.clone(), weight.to_string())
}

fn insertion(text: &str, entry: &Node, weight: u32, place: Place) -> Option<Patch> {
    let Content::Mapping(fields) = &entry.content else { return None };
    let own: Vec<&Entry> = fields.iter().filter(|field| !field.merged).collect();
    let start = entry.span.start;
    let quoted = own.iter().any(|field| text.get(field.key_span.clone()).is_some_and(|key| key.starts_with('"')));
    let field = if quoted { format!("\"weight\": {weight}") } else { format!("weight: {weight}") };
    if text.get(start..).is_some_and(|rest| rest.starts_with('{')) {
        let Some(last) = own.last() else { return Some((start + 1..start + 1, field)) };
        let at = end_of(text, last);
        let (line, column) = line_before(text, last.key_span.start)?;
        // Where every field has a line of its own, this one gets one too.
        let gap = if line.trim().is_empty() { newline(text, at) + &" ".repeat(column) } else { " ".to_owned() };
        return Some((at..at, format!(",{gap}{field}")));
    }
    let (first, last) = (own.first()?, own.last()?);
    let (_, column) = line_before(text, first.key_span.start)?;
    let indent = " ".repeat(column);
    match place {
        Place::Last => {
            let end = end_of(text, last);
            let rest = text.get(end..)?;
            let at = end + rest.find(['\r', '\n']).unwrap_or(rest.len());
            Some((at..at, format!("{}{indent}{field}", newline(text, at))))
        }
        Place::First => {
            let at = first.key_span.start;
            Some((at..at, format!("{field}{}{indent}", newline(text, at))))
        }
    }
}

/// Where a field's value ends, as far as the text is known.
fn end_of(text: &str, field: &Entry) -> usize {
    let after_key = after_colon(text, field.key_span.end);
    let value = &field.value;
    let bracketed = text.get(value.span.start..).is_some_and(|rest| rest.starts_with(['{', '[']));
    let end = match &value.content {
        Content::Mapping(fields) if !bracketed && !value.borrowed => {
            fields.iter().rfind(|field| !field.merged).map_or(value.span.start, |last| end_of(text, last))
        }
        Content::Sequence(items) if !bracketed && !value.borrowed => {
            items.last().map_or(value.span.start, |last| last.span.end)
        }
        // The parser puts an empty value where the next thing starts, lines later.
        Content::Scalar(Value::Null) if value.span.is_empty() => after_key,
        _ => value.span.end,
    };
    end.max(after_key)
}

/// The byte after the colon that follows a key; the key's end where there is none (`{a, b}`).
fn after_colon(text: &str, key_end: usize) -> usize {
    let rest = text.get(key_end..).unwrap_or_default();
    let blanks = rest.len() - rest.trim_start().len();
    if rest.trim_start().starts_with(':') { key_end + blanks + 1 } else { key_end }
}

/// The text before `at` on its line, and how many characters it has.
fn line_before(text: &str, at: usize) -> Option<(&str, usize)> {
    let before = text.get(..at)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.get(start..)?;
    Some((line, line.trim_start_matches('\u{feff}').chars().count()))
}

/// The line break that the text uses around `at`.
fn newline(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let windows =
        before.rfind('\n').is_some_and(|newline| before.get(..newline).is_some_and(|line| line.ends_with('\r')));
    if windows { "\r\n" } else { "\n" }.to_owned()
}
