//! `backendRefs`: where a rule of a route leads, and with which weights.
use super::{
    super::{
        meta::Key,
        names::Host,
        problem::{Faults, Problem},
        raw,
        request::NotFollowed,
        route::{Api, Destination, read_port, read_weight},
    },
    filters,
    grants::ReferenceGrant,
};
use crate::state::HeaderChanges;

/// The largest weight, as the API server has it.
const WEIGHT_MAX: u32 = 1_000_000;

/// One that a rule leads to.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    /// Its path under the rule's.
    pub(super) field: String,
    group: String,
    kind: String,
    key: Key,
    port: Option<u16>,
    pub(super) weight: u32,
    pub(super) headers: HeaderChanges,
    /// It has filters of its own.
    pub(super) filtered: bool,
}

/// Why a reference does not lead anywhere: the words of the API's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unresolved {
    InvalidKind,
    RefNotPermitted,
    BackendNotFound,
}

impl Unresolved {
    /// The reason of the condition `ResolvedRefs`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::InvalidKind => "InvalidKind",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::BackendNotFound => "BackendNotFound",
        }
    }
}

impl Backend {
    /// Reads the reference at `rule`.`field`; a weight that is not written is 1.
    pub(super) fn read(
        raw: raw::BackendRef,
        (rule, field): (&str, String),
        namespace: &str,
        not_followed: &mut Vec<NotFollowed>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let path = format!("{rule}.{field}");
        let name = raw.name.unwrap_or_default();
        if name.is_empty() {
            faults.push(format!("{path}.name"), Problem::Missing);
            return None;
        }
        let group = raw.group.unwrap_or_default();
        let kind = raw.kind.unwrap_or_else(|| "Service".into());
        let port = match raw.port {
            Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
            None if group.is_empty() && kind == "Service" => {
                faults.push(format!("{path}.port"), Problem::Missing);
                return None;
            }
            None => None,
        };
        let weight = match raw.weight {
            Some(weight) => {
                let expected = "a weight of at most 1000000";
                let read = read_weight(&weight).and_then(|read| {
                    if read > WEIGHT_MAX { Err(Problem::Value { value: read.to_string(), expected }) } else { Ok(read) }
                });
                faults.take(&format!("{path}.weight"), read)?
            }
            None => 1,
        };
        let filtered = !raw.filters.is_empty();
        let headers = filters::of_backend(raw.filters, (rule, &field), not_followed, faults);
        let key = Key::new(raw.namespace.filter(|it| !it.is_empty()).as_deref().unwrap_or(namespace), name);
        Some(Self { field, group, kind, key, port, weight, headers, filtered })
    }

    /// The destination, and why it is none if so. `from` is the kind and the namespace of the route.
    pub(super) fn destination(
        &self,
        (from, namespace): (&str, &str),
        grants: &[ReferenceGrant],
        is_known: impl Fn(&Host) -> bool,
    ) -> (Destination, Option<Unresolved>) {
        let Key { namespace: of, name } = &self.key;
        let (host, known_kind) = match (self.group.as_str(), self.kind.as_str()) {
            ("" | "core", "Service") => {
                (Host::literal(&format!("{name}.{of}.svc.{}", super::super::DOMAIN)).ok(), true)
            }
            // Istio's way to name what is no Service: a host of a ServiceEntry.
            ("networking.istio.io", "Hostname") => (Host::literal(name).ok(), true),
            _ => (None, false),
        };
        let granted = of == namespace
            || self.kind == "Hostname"
            || grants.iter().any(|it| it.allows((from, namespace), (&self.group, &self.kind), &self.key));
        let unresolved = if !known_kind {
            Some(Unresolved::InvalidKind)
        } else if !granted {
            Some(Unresolved::RefNotPermitted)
        } else if !host.as_ref().is_some_and(is_known) {
            Some(Unresolved::BackendNotFound)
        } else {
            None
        };
        // What may not be used has a name that nothing has: its share must not be anybody else's.
        let (host, api) = match (unresolved, host) {
            (None | Some(Unresolved::BackendNotFound), Some(host)) => (host, Api::Gateway),
            _ => (Host::of_refused(name, of, &self.kind), Api::Refused),
        };
        (Destination { host, port: self.port, subset: None, written: name.clone(), api }, unresolved)
    }

    /// What is said about one that leads nowhere.
    pub(super) fn said(&self, why: Unresolved) -> (String, &'static str) {
        let Self { group, kind, key, .. } = self;
        let dot = if group.is_empty() { "" } else { "." };
        match why {
            Unresolved::InvalidKind => (
                format!("`{kind}{dot}{group}` is nothing that canary can lead to: this share fails"),
                "refer to a Service",
            ),
            Unresolved::RefNotPermitted => (
                format!(
                    "Service {}/{} is in another namespace, without a grant: this share fails",
                    key.namespace, key.name
                ),
                "write a ReferenceGrant there, which is `from` this kind and namespace `to` the Service",
            ),
            Unresolved::BackendNotFound => (
                format!("no {kind} `{}` is known in namespace `{}`: this share fails", key.name, key.namespace),
                "create it, or correct the name",
            ),
        }
    }
}
