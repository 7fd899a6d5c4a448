//! Requests for one object: get, create, update, patch, delete.
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Parameters, Refusal, Shared, refuse,
    store::{Key, Store, Target},
};

/// Applies a JSON merge patch (RFC 7396).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Changes an object without any effect but a new version.
pub(super) fn touch(store: &mut Store, key: &Key) {
    if let Some(mut object) = store.get(key).cloned() {
        merge(&mut object, &json!({"metadata": {"annotations": {"touched": "by somebody else"}}}));
        store.put(key.clone(), object);
    }
}

pub(super) fn change(
    shared: &Shared,
    target: &Target,
    verb: &str,
    kind: &str,
    body: &[u8],
    parameters: &Parameters,
) -> Result<Response, Refusal> {
    let bad = |message: String| refuse(StatusCode::BAD_REQUEST, "BadRequest", message);
    let mut store = shared.store();
    let given = || serde_json::from_slice::<Value>(body).map_err(|error| bad(error.to_string()));
    let mut key = target.key();
    if verb == "create" {
        let mut object = given()?;
        if object.get("kind").is_none() {
            merge(&mut object, &json!({"kind": target.resource.kind, "apiVersion": target.api_version()}));
        }
        let generated = object.pointer("/metadata/generateName").and_then(Value::as_str).map(str::to_owned);
        if let Some(prefix) = generated.filter(|_| object.pointer("/metadata/name").is_none()) {
            merge(&mut object, &json!({"metadata": {"name": format!("{prefix}{:05}", store.version)}}));
        }
        object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().clone_into(&mut key.name);
        if store.get(&key).is_some() {
            let message = format!("{} \"{}\" already exists", target.resource.id, key.name);
            return Err(refuse(StatusCode::CONFLICT, "AlreadyExists", message));
        }
        let stored = if parameters.dry_run.is_some() { object } else { store.put(key, object) };
        return Ok((StatusCode::CREATED, Json(stored)).into_response());
    }
    let Some(before) = store.get(&key).cloned() else {
        let message = format!("{} \"{}\" not found", target.resource.id, key.name);
        return Err(refuse(StatusCode::NOT_FOUND, "NotFound", message));
    };
    let mut after = match verb {
        "get" => return Ok(Json(before).into_response()),
        "delete" => {
            if parameters.dry_run.is_none() {
                store.remove(&key);
            }
            return Ok(Json(before).into_response());
        }
        "update" => given()?,
        _ if kind.starts_with("application/json-patch") => {
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", "no JSON patches here"));
        }
        // Server-side apply and strategic merges are merges here: for the objects of these tests it is the same.
        _ => {
            let mut after = before.clone();
            merge(&mut after, &given()?);
            after
        }
    };
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    if version(&after).is_some_and(|wanted| Some(wanted) != version(&before)) {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
            target.resource.id, key.name
        );
        return Err(refuse(StatusCode::CONFLICT, "Conflict", message));
    }
    // Each side changes its own part.
    let status = target.subresource.as_deref() == Some("status");
    if let (Some(after), Some(old)) = (after.as_object_mut(), before.as_object()) {
        let kept = if status { ["spec", "metadata"].as_slice() } else { ["status"].as_slice() };
        for field in kept {
            match old.get(*field) {
                Some(old) => after.insert((*field).to_owned(), old.clone()),
                None => after.remove(*field),
            };
        }
    }
    if let Some(manager) = &parameters.field_manager {
        merge(&mut after, &json!({"metadata": {"managedFields": [{"manager": manager, "operation": "Update"}]}}));
    }
    if parameters.dry_run.is_some() || after == before {
        return Ok(Json(after).into_response());
    }
    Ok(Json(store.put(key, after)).into_response())
}
