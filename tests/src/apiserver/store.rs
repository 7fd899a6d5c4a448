//! Objects with versions, and the events that watches replay.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Parameters, Refusal,
    change::merge,
    discovery::{RESOURCES, Resource},
    refuse,
};

/// Identity of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Its plural; no two groups here share one, but `gateways`, whose group is in front.
    pub(super) resource: &'static str,
    /// Empty for what belongs to no namespace.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// The key of a whole object.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let kind = object.get("kind")?.as_str()?;
        let group = object.get("apiVersion")?.as_str()?.rsplit_once('/').map_or("", |(group, _)| group);
        let resource = RESOURCES.iter().find(|it| it.kind == kind && it.group == group)?;
        let metadata = |field| object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
        let namespace = if resource.namespaced { metadata("namespace").unwrap_or("default") } else { "" };
        Some(Self { resource: resource.id, namespace: namespace.to_owned(), name: metadata("name")?.to_owned() })
    }

    /// The key of an object that is named.
    pub(super) fn named(resource: &str, namespace: &str, name: &str) -> Result<Self> {
        let known = RESOURCES.iter().find(|it| it.id == resource).with_context(|| format!("no resource {resource}"))?;
        let namespace = if known.namespaced { namespace } else { "" };
        Ok(Self { resource: known.id, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// What the path of a request names.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) resource: &'static Resource,
    /// The version of the API in the path.
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, sub] => (*plural, Some(*name), Some(*sub)),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|it| it.group == group && it.plural == plural)?;
        resource.versions.contains(&version).then(|| Self {
            resource,
            version: version.to_owned(),
            namespace,
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    pub(super) fn key(&self) -> Key {
        Key {
            resource: self.resource.id,
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
        }
    }

    pub(super) fn api_version(&self) -> String {
        let group = self.resource.group;
        if group.is_empty() { self.version.clone() } else { format!("{group}/{}", self.version) }
    }

    /// Whether an object is among those that the path names.
    pub(super) fn covers(&self, key: &Key) -> bool {
        key.resource == self.resource.id && self.namespace.as_ref().is_none_or(|it| *it == key.namespace)
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) kind: &'static str,
    pub(super) key: Key,
    pub(super) object: Value,
}

/// All objects, and what happened to them.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) version: u64,
    objects: BTreeMap<Key, Value>,
    events: Vec<Event>,
    /// Events up to here are forgotten.
    compacted: u64,
    unserved: BTreeSet<&'static str>,
    next_uid: u64,
    pub(super) requests: Vec<String>,
}

impl Store {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(super) fn all(&self, resource: &str) -> Vec<Value> {
        self.objects.iter().filter(|(key, _)| key.resource == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Stores an object as the API does: with a version, an identity, a generation that counts changes of its spec.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(&key);
        let old = |pointer: &str| before.and_then(|before| before.pointer(pointer)).cloned();
        let same_spec = before.is_some_and(|before| before.get("spec") == object.get("spec"));
        let generation = old("/metadata/generation").and_then(|it| it.as_u64()).unwrap_or(0) + u64::from(!same_spec);
        let uid = old("/metadata/uid").unwrap_or_else(|| {
            self.next_uid += 1;
            json!(format!("00000000-0000-4000-8000-{:012}", self.next_uid))
        });
        let given = object.pointer("/metadata/creationTimestamp").cloned();
        let created = old("/metadata/creationTimestamp").or(given).unwrap_or_else(|| json!("2026-01-01T00:00:00Z"));
        let version = self.version.to_string();
        let metadata =
            json!({"resourceVersion": version, "generation": generation, "uid": uid, "creationTimestamp": created});
        merge(&mut object, &json!({"metadata": metadata}));
        if !key.namespace.is_empty() {
            merge(&mut object, &json!({"metadata": {"namespace": key.namespace}}));
        }
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.events.push(Event { version: self.version, kind, key: key.clone(), object: object.clone() });
        self.objects.insert(key, object.clone());
        object
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        merge(&mut object, &json!({"metadata": {"resourceVersion": self.version.to_string()}}));
        let event = Event { version: self.version, kind: "DELETED", key: key.clone(), object: object.clone() };
        self.events.push(event);
        Some(object)
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.events.clear();
    }

    pub(super) fn serve(&mut self, resource: &'static str, served: bool) {
        if served {
            self.unserved.remove(resource)
        } else {
            self.unserved.insert(resource)
        };
    }

    pub(super) fn serves(&self, plural: &str) -> bool {
        !self.unserved.contains(plural)
    }

    /// What happened after `version`; `None` when that is forgotten.
    pub(super) fn events_after(&self, version: u64) -> Option<&[Event]> {
        let first = self.events.partition_point(|event| event.version <= version);
        (version >= self.compacted).then(|| self.events.get(first..).unwrap_or_default())
    }

    /// A page of a list. The token of the next one has the version of the first, and the last name.
    pub(super) fn list(&self, target: &Target, parameters: &Parameters) -> Result<Response, Refusal> {
        let gone = || refuse(StatusCode::GONE, "Expired", "The provided continue parameter is too old");
        let (version, after) = match parameters.go_on.as_deref() {
            None => (self.version, None),
            Some(token) => {
                let (version, namespace, name) =
                    serde_json::from_str::<(u64, String, String)>(token).map_err(|_| gone())?;
                if version < self.compacted {
                    return Err(gone());
                }
                (version, Some(Key { resource: target.resource.id, namespace, name }))
            }
        };
        let wanted = parameters.name();
        let mut found = self
            .objects
            .iter()
            .filter(|(key, _)| target.covers(key) && wanted.is_none_or(|name| key.name == name))
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let limit = parameters.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let last = page.last().map(|(key, _)| (*key).clone()).filter(|_| found.next().is_some());
        let token = last.map(|key| json!([version, key.namespace, key.name]).to_string());
        // As the real one: items of a list do not say what they are.
        let items: Vec<Value> = page
            .into_iter()
            .map(|(_, object)| {
                let mut item = object.clone();
                if let Some(item) = item.as_object_mut() {
                    item.remove("apiVersion");
                    item.remove("kind");
                }
                item
            })
            .collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        merge(&mut metadata, &json!({"continue": token}));
        let kind = format!("{}List", target.resource.kind);
        let answer = json!({"kind": kind, "apiVersion": target.api_version(), "metadata": metadata, "items": items});
        Ok(Json(answer).into_response())
    }
}
