//! Shapes of the resources as people write them. Nothing is checked; only these types derive `Deserialize`.
//!
//! Only fields that canary reads are here; [`fields`](super::fields) reports the others.
use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::problem::{Invalid, Problem};

mod gateway_api;
mod http;
mod istio;
mod kubernetes;

pub(super) use gateway_api::*;
pub(super) use http::*;
pub(super) use istio::*;
pub(super) use kubernetes::*;

/// Labels, selectors, annotations.
pub(super) type Labels = BTreeMap<String, String>;

/// An object of any kind.
#[derive(Debug, Deserialize)]
pub(super) struct Resource<Spec> {
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
}

/// What canary reads of `metadata`, beside the identity, which the source has read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) uid: Option<String>,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    pub(super) creation_timestamp: Option<String>,
    pub(super) deletion_timestamp: Option<String>,
}

/// A port by number or by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrName {
    Number(i64),
    Name(String),
}

/// Reads `body` as `T`. A wrong type is reported with the path of its field.
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Invalid> {
    let pruned = without_nulls(body);
    serde_path_to_error::deserialize(&pruned).map_err(|error| {
        let path = error.path().to_string();
        // The library writes `.` for the root.
        let field = if path == "." { String::new() } else { path };
        Invalid { field, problem: Problem::Shape { source: error.into_inner() } }
    })
}

/// `labels:` with nothing behind it means "not set", as the API server has it. In the maps of a request match a null is
/// a value (and an error later), so these are left as they are.
pub(super) fn without_nulls(value: &Value) -> Value {
    pruned(value, false)
}

fn pruned(value: &Value, in_match: bool) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| {
                    let kept = in_match && matches!(key.as_str(), "headers" | "withoutHeaders" | "queryParams");
                    let inner = || pruned(value, in_match || key == "match");
                    (key.clone(), if kept { value.clone() } else { inner() })
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(|value| pruned(value, in_match)).collect()),
        other => other.clone(),
    }
}
