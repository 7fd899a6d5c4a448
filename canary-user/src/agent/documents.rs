//! The documents of a YAML file as text: replaces or removes one object and leaves every other byte as it is.
use std::{ops::Range, path::Path, sync::Arc};

use crate::source::{self, Object};

/// Why a document cannot be changed as text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The object is not a document of its own.
    #[error("{object} is not a document of its own in {file} (a List?): edit that file by hand")]
    Shared {
        /// The object.
        object: String,
        /// The file.
        file: String,
    },
    /// The new text would change another object too.
    #[error("{object} cannot be replaced in {file} without changing other documents: edit that file by hand")]
    NotAlone {
        /// The object.
        object: String,
        /// The file.
        file: String,
    },
}

/// Byte ranges of the documents between `---` lines; the separators belong to none.
#[must_use]
pub fn split(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---").map(str::trim_end);
        if rest.is_some_and(|rest| rest.is_empty() || rest.trim_start().starts_with('#')) {
            ranges.push(start..at);
            start = at + line.len();
        }
        at += line.len();
    }
    ranges.push(start..at);
    ranges.retain(|range| text.get(range.clone()).is_some_and(|text| !text.trim().is_empty()));
    ranges
}

/// The text of each object: its own document where it has one, else YAML made from its body (items of a List, JSON).
#[must_use]
pub fn texts(text: &str, file: &Path, objects: &[Arc<Object>]) -> Vec<(String, String)> {
    let alone: Vec<(String, String)> = split(text)
        .into_iter()
        .filter_map(|range| {
            let document = text.get(range)?;
            let parsed = source::parse(document, file);
            // JSON in a .yaml file is YAML, but not one that people want to edit.
            let block = !document.trim_start().starts_with(['{', '[']);
            match parsed.objects.as_slice() {
                [one] if block && parsed.diagnostics.is_empty() => Some((one.id(), document.to_owned())),
                _ => None,
            }
        })
        .collect();
    objects
        .iter()
        .map(|object| {
            let id = object.id();
            let own = alone.iter().find(|(of, _)| *of == id).map(|(_, document)| document.clone());
            let document = own
                .unwrap_or_else(|| serde_norway::to_string(&object.body).unwrap_or_else(|_| object.body.to_string()));
            (id, document)
        })
        .collect()
}

/// `text` with the document of `object` replaced by `document`, or removed when that is `None`.
///
/// # Errors
/// When the object shares its document with others, or others would change.
pub fn replace(text: &str, file: &Path, object: &str, document: Option<&str>) -> Result<String, DocumentError> {
    let shared = || DocumentError::Shared { object: object.into(), file: file.display().to_string() };
    let range = split(text)
        .into_iter()
        .find(|range| {
            let parsed = source::parse(text.get(range.clone()).unwrap_or_default(), file);
            matches!(parsed.objects.as_slice(), [one] if one.id() == object)
        })
        .ok_or_else(shared)?;
    let (before, after) = (text.get(..range.start).ok_or_else(shared)?, text.get(range.end..).ok_or_else(shared)?);
    let changed = match document {
        Some(document) => {
            let end = if document.ends_with('\n') { "" } else { "\n" };
            format!("{before}{document}{end}{after}")
        }
        // Without its document one of the separators around it goes too.
        None => match after.split_once('\n') {
            Some((_separator, rest)) => format!("{before}{rest}"),
            None => before.rsplit_once("---").map_or("", |(head, _)| head).to_owned(),
        },
    };
    let others = |text: &str| {
        let mut bodies: Vec<_> = source::parse(text, file)
            .objects
            .into_iter()
            .filter(|one| one.id() != object)
            .map(|one| (one.id(), one.body.clone()))
            .collect();
        bodies.sort_by(|a, b| a.0.cmp(&b.0));
        bodies
    };
    if others(text) == others(&changed) {
        Ok(changed)
    } else {
        Err(DocumentError::NotAlone { object: object.into(), file: file.display().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# both\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n--- # next\napiVersion: v1\nkind: Service\nmetadata: {name: b} # mine\n";

    fn file() -> &'static Path {
        Path::new("two.yaml")
    }

    #[test]
    fn one_document_changes_and_the_other_bytes_stay() {
        let new = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: y}}";
        assert_eq!(
            replace(TWO, file(), "Service default/a", Some(new)).unwrap(),
            format!("{new}\n--- # next\napiVersion: v1\nkind: Service\nmetadata: {{name: b}} # mine\n"),
        );
        assert_eq!(
            replace(TWO, file(), "Service default/b", None).unwrap(),
            "# both\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
        );
        assert_eq!(
            replace(TWO, file(), "Service default/a", None).unwrap(),
            "apiVersion: v1\nkind: Service\nmetadata: {name: b} # mine\n",
        );
    }

    #[test]
    fn an_item_of_a_list_is_left_to_its_author() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
        assert!(matches!(replace(list, file(), "Service default/a", None), Err(DocumentError::Shared { .. })));
        let objects = source::parse(list, file()).objects;
        let texts = texts(list, file(), &objects);
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[1].1, "apiVersion: v1\nkind: Service\nmetadata:\n  name: b\n");
    }

    #[test]
    fn dashes_inside_a_value_do_not_separate() {
        assert_eq!(split("a: |\n  ---\n  b\n---\nc: d\n").len(), 2);
        assert_eq!(split("---\n\n---\n").len(), 0);
    }
}
