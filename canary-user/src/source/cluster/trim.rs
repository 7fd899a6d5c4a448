//! From an object of the API to what canary keeps of it.
use serde_json::{Map, Value};

use super::{Kind, Object, place};
use crate::{diagnostic::Origin, source::Compact};

/// Of `metadata`, what somebody reads. Names and namespaces are in the object itself, too, and texts of objects have them.
const METADATA: [&str; 8] =
    ["name", "namespace", "labels", "annotations", "creationTimestamp", "deletionTimestamp", "generation", "uid"];
/// A copy of the whole object, as `kubectl apply` leaves it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object with the fields that are kept. `None` for one without a name, which the API does not have.
pub(super) fn trim(kind: &Kind, version: &str, mut body: Value) -> Option<Object> {
    let metadata = body.get_mut("metadata").map(Value::take)?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
    let (name, namespace) = (text("name")?, text("namespace").unwrap_or_default());
    let api_version = if kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", kind.group) };
    let mut kept = Map::new();
    kept.insert("apiVersion".into(), api_version.clone().into());
    kept.insert("kind".into(), kind.name.into());
    kept.insert("metadata".into(), trim_metadata(metadata, kind));
    match (kind.keep, body) {
        (None, Value::Object(fields)) => {
            let own = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata" | "status");
            kept.extend(fields.into_iter().filter(|(name, _)| !own(name)));
        }
        (paths, mut body) => {
            let mut some = Value::Object(kept);
            paths.unwrap_or_default().iter().for_each(|path| move_field(&mut body, &mut some, path));
            kept = match some {
                Value::Object(kept) => kept,
                _ => Map::new(),
            };
        }
    }
    let object = Object {
        api_version,
        kind: kind.name.to_owned(),
        namespace,
        name,
        body: Value::Object(kept),
        origin: Origin { file: place(kind), line: 0 },
        lines: std::collections::BTreeMap::new(),
        compact: Compact::default(),
    };
    Some(if kind.keep.is_none() { object } else { object.packed() })
}

fn trim_metadata(metadata: Value, kind: &Kind) -> Value {
    let Value::Object(fields) = metadata else { return Value::Null };
    let mut kept: Map<String, Value> =
        fields.into_iter().filter(|(name, _)| METADATA.contains(&name.as_str())).collect();
    // Annotations of pods are many, and nobody reads them; those of canary are on Services and routes.
    if matches!(kind.plural, "pods" | "endpointslices") {
        kept.remove("annotations");
    }
    if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
    }
    Value::Object(kept)
}

/// Moves what is at `path` (`spec.ports[].name`) from one value to another. Of a list every entry stays, in its place.
fn move_field(from: &mut Value, to: &mut Value, path: &str) {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let Some(found) = from.get_mut(name).filter(|found| !found.is_null()) else { return };
    if rest.is_empty() {
        let found = found.take();
        if let Value::Object(to) = to {
            to.insert(name.to_owned(), found);
        }
        return;
    }
    let Value::Object(to) = to else { return };
    if let Some(rest) = rest.strip_prefix("[].") {
        let Value::Array(items) = found else { return };
        let list = to.entry(name).or_insert_with(|| vec![Value::Object(Map::new()); items.len()].into());
        for (from, to) in items.iter_mut().zip(list.as_array_mut().into_iter().flatten()) {
            move_field(from, to, rest);
        }
    } else if let Some(rest) = rest.strip_prefix('.') {
        let inner = to.entry(name).or_insert_with(|| Value::Object(Map::new()));
        move_field(found, inner, rest);
    }
}
