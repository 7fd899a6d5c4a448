//! Reads YAML into the model, for tests.
use std::path::Path;

use super::Model;
use crate::{
    diagnostic::Diagnostic,
    source::{self, Snapshot},
};

/// The objects of a text with documents separated by `---`.
pub(crate) fn snapshot(yaml: &str) -> Snapshot {
    source::parse(yaml, Path::new("test.yaml"))
}

/// Reads a text into the model; with the diagnostics of both stages.
pub(crate) fn read(yaml: &str) -> (Model, Vec<Diagnostic>) {
    let snapshot = snapshot(yaml);
    let (model, found) = Model::read(&snapshot);
    (model, [snapshot.diagnostics, found].concat())
}
