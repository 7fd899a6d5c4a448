//! Which destination of a rule a version name means: the names are those that the agent shows.
use serde_json::Value;

use super::{EditError, Lists};
use crate::source::{
    Object,
    yaml::{Content, Node},
};

/// What completes a host without a dot, after the namespace, and what such hosts end with.
const CLUSTER_SUFFIX: &str = ".svc.cluster.local";

/// A route entry, and what it may be called.
pub(super) struct Named<'n> {
    pub(super) entry: &'n Node,
    /// The subset; without one the Service's name, or the host of what is no Service.
    plain: String,
    /// The full name of the host.
    host: String,
    port: Option<u64>,
    /// It is the host that the `VirtualService` is for: it keeps the plain name when others have the same.
    own: bool,
    /// No other entry of the rule has the plain name.
    unique: bool,
}

impl Named<'_> {
    /// `given` means this entry: by its plain name, or by `name@host` or `name@host:port`.
    pub(super) fn is(&self, given: &str) -> bool {
        let Some((plain, place)) = given.split_once('@') else {
            return given == self.plain && (self.unique || self.own);
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        let port_fits = port.is_none_or(|given| {
            self.port.map_or_else(|| given.parse::<u16>().is_ok(), |port| given.parse() == Ok(port))
        });
        plain == self.plain && host == self.host && port_fits
    }

    /// What to call it in a message.
    pub(super) fn name(&self) -> String {
        match (self.unique || self.own, self.port) {
            (true, _) => self.plain.clone(),
            (false, None) => format!("{}@{}", self.plain, self.host),
            (false, Some(port)) => format!("{}@{}:{port}", self.plain, self.host),
        }
    }
}

/// The entries of a rule with their names.
pub(super) fn named<'n>(entries: &'n [Node], object: &Object) -> Result<Vec<Named<'n>>, EditError> {
    let hosts = object.body.pointer("/spec/hosts").and_then(Value::as_array).into_iter().flatten();
    let parents = object.body.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten();
    let parents = parents.filter(|parent| parent.get("kind").and_then(Value::as_str) == Some("Service"));
    let hosts = hosts.filter_map(|host| Some(full_name(host.as_str()?, &object.namespace)));
    let parents = parents.filter_map(|parent| {
        let namespace = parent.get("namespace").and_then(Value::as_str).unwrap_or(&object.namespace);
        Some(full_name(parent.get("name")?.as_str()?, namespace))
    });
    let own: Vec<String> = hosts.chain(parents).collect();
    let mut all = Vec::new();
    for entry in entries {
        all.push(read(entry, object, &own)?);
    }
    let same = |one: &Named<'_>| all.iter().filter(|other| other.plain == one.plain).count();
    let unique: Vec<bool> = all.iter().map(|named| same(named) == 1).collect();
    for (named, unique) in all.iter_mut().zip(unique) {
        named.unique = unique;
    }
    Ok(all)
}

fn read<'n>(entry: &'n Node, object: &Object, own: &[String]) -> Result<Named<'n>, EditError> {
    let line = entry.line;
    if entry.borrowed {
        let what =
            "this destination is shared by an alias or a merge key: write it out where it is used, to weigh it there";
        return Err(EditError::Shape { line, what });
    }
    let of_gateway_api = Lists::of(object).is_some_and(Lists::are_backends);
    let destination = if of_gateway_api { Some(entry) } else { entry.get("destination") };
    let text = |field: &str| destination.and_then(|destination| destination.get(field)).and_then(Node::text);
    let (field, what) = if of_gateway_api {
        ("name", "a backend needs a `name`")
    } else {
        ("host", "a route entry needs `destination.host`")
    };
    let host = text(field).filter(|host| !host.is_empty()).ok_or(EditError::Shape { line, what })?;
    if entry.get("weight").is_some_and(|weight| !matches!(weight.content, Content::Scalar(_))) {
        return Err(EditError::Shape { line, what: "`weight` is not a number but a list or a mapping" });
    }
    let namespace = text("namespace").filter(|_| of_gateway_api).unwrap_or(&object.namespace);
    let full = full_name(host, namespace);
    let service = full.ends_with(CLUSTER_SUFFIX).then(|| full.split('.').next().unwrap_or_default());
    let subset = text("subset").filter(|subset| !subset.is_empty());
    let plain = subset.or(service).unwrap_or(&full).to_owned();
    let port = destination.and_then(|destination| destination.get("port"));
    let port = if of_gateway_api { port } else { port.and_then(|port| port.get("number")) };
    let port = port.and_then(|number| number.to_value().as_u64());
    Ok(Named { entry, plain, port, own: own.contains(&full), unique: false, host: full })
}

/// Only a name without a dot is completed.
fn full_name(host: &str, namespace: &str) -> String {
    if host.contains('.') { host.to_owned() } else { format!("{host}.{namespace}{CLUSTER_SUFFIX}") }
}
