//! Reads YAML into the model, for tests: no lines, and a `_err` key is taken off.
use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::Model;
use crate::{
    diagnostic::{Diagnostic, Origin},
    source::{Object, Snapshot},
};

/// The objects of a text with documents separated by `---`.
pub(crate) fn snapshot(yaml: &str) -> Snapshot {
    let documents = serde_norway::Deserializer::from_str(yaml);
    let values = documents.map(|document| Value::deserialize(document).expect("YAML"));
    Snapshot { objects: values.filter(Value::is_object).map(object).collect(), diagnostics: Vec::new() }
}

/// One document as an object.
pub(crate) fn object(mut body: Value) -> Object {
    if let Some(map) = body.as_object_mut() {
        map.remove("_err");
    }
    let text =
        |pointer: &str, default: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or(default).to_owned();
    Object {
        api_version: text("/apiVersion", ""),
        kind: text("/kind", ""),
        namespace: text("/metadata/namespace", "default"),
        name: text("/metadata/name", ""),
        origin: Origin { file: PathBuf::from("test.yaml"), line: 1 },
        lines: BTreeMap::new(),
        body,
    }
}

/// Reads a text into the model.
pub(crate) fn read(yaml: &str) -> (Model, Vec<Diagnostic>) {
    Model::read(&snapshot(yaml))
}
