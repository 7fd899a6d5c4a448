//! The Gateway API: routes that belong to Services or Gateways, and whose rules are ranked by how much they ask for.
//!
//! A route is read by itself here. [`attach`] then makes, of all routes of a Service or a Gateway, the one
//! [`VirtualService`](super::VirtualService) that means the same.
use serde_json::Value;

use super::{
    meta::{Key, Meta},
    names::Host,
    problem::{Faults, Invalid, Problem},
    raw,
    route::read_port,
    settings::Settings,
};
use crate::source::{GATEWAY_API, Object};

mod attach;
mod backends;
mod filters;
mod gateway;
mod grants;
mod matches;
mod merge;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use attach::Attachment;
pub(super) use attach::{World, attach};
pub(crate) use gateway::{Gateway, GatewayClass, Listener, ListenerProtocol, NamespaceLabels};
pub(crate) use grants::ReferenceGrant;
use rules::RouteRule;

/// A valid route.
#[derive(Debug, Clone)]
pub(crate) struct GatewayRoute {
    pub(crate) meta: Meta,
    pub(crate) kind: RouteKind,
    pub(crate) parents: Vec<Parent>,
    /// Of requests or server names. At a Gateway only: a Service has its own name.
    pub(crate) hostnames: Vec<Host>,
    rules: Vec<RouteRule>,
    settings: Settings,
}

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKind {
    Http,
    Grpc,
    Tls,
    Tcp,
    Udp,
}

/// Whom a route belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    pub(crate) target: Target,
    pub(crate) port: Option<u16>,
    /// Name of a listener, or of a port of a Service.
    pub(crate) section: Option<String>,
    /// As it is written, for the status.
    pub(crate) written: Value,
}

/// A parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Service(Key),
    Gateway(Key),
    /// Of a kind that canary has nothing to do with.
    Other,
}

impl RouteKind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Http, Self::Grpc, Self::Tls, Self::Tcp, Self::Udp];

    /// By the kind of an object.
    pub(crate) fn by_name(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == kind)
    }

    /// Of an object.
    pub(crate) fn of(meta: &Meta) -> Option<Self> {
        Self::ALL.into_iter().find(|it| meta.is_kind(it.name()))
    }

    /// As in objects.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }

    /// Whether its rules are for requests.
    pub(crate) const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }
}

impl GatewayRoute {
    pub(super) fn read(kind: RouteKind, object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::GatewayRoute> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let settings = Settings::read(&raw.metadata.annotations, &mut faults);
        let spec = raw.spec.unwrap_or_default();
        let mut parents = Vec::with_capacity(spec.parent_refs.len());
        for (index, written) in spec.parent_refs.into_iter().enumerate() {
            parents.extend(Parent::read(written, &format!("spec.parentRefs[{index}]"), &object.namespace, &mut faults));
        }
        let hostnames = spec.hostnames.iter().enumerate().filter_map(|(index, text)| {
            let host = Host::literal(text).and_then(|host| {
                let alone = host.is_any().then_some(Problem::WildcardAlone);
                alone.map_or(Ok(host), Err)
            });
            faults.take(&format!("spec.hostnames[{index}]"), host)
        });
        let hostnames = hostnames.collect();
        let rules = if spec.rules.is_empty() && kind.is_http() {
            // The API server's default: one rule for every request.
            vec![raw::RouteRule::default()]
        } else {
            spec.rules
        };
        let rules = rules.into_iter().enumerate();
        let rules = rules.map(|(index, rule)| RouteRule::read(rule, kind, index, &object.namespace, &mut faults));
        let rules = rules.collect();
        let meta = Meta::new(object, &raw.metadata);
        faults.finish(Self { meta, kind, parents, hostnames, rules, settings })
    }

    /// The order of the Gateway API among rivals: the oldest first, then by namespace, then by name.
    fn age(&self) -> (Option<&str>, &str, &str) {
        (self.meta.created.as_deref(), &self.meta.key.namespace, &self.meta.key.name)
    }
}

impl Parent {
    fn read(written: Value, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let raw: raw::ParentRef = match raw::read(&written) {
            Ok(raw) => raw,
            Err(Invalid { field, problem }) => {
                faults.push(format!("{path}.{field}"), problem);
                return None;
            }
        };
        let name = raw.name.unwrap_or_default();
        if name.is_empty() {
            faults.push(format!("{path}.name"), Problem::Missing);
        }
        let key = Key::new(raw.namespace.as_deref().unwrap_or(namespace), name);
        let target = match (raw.group.as_deref().unwrap_or(GATEWAY_API), raw.kind.as_deref().unwrap_or("Gateway")) {
            ("" | "core", "Service") => Target::Service(key),
            (GATEWAY_API, "Gateway") => Target::Gateway(key),
            _ => Target::Other,
        };
        let port = match raw.port {
            Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
            None => None,
        };
        Some(Self { target, port, section: raw.section_name.filter(|name| !name.is_empty()), written })
    }
}

/// The parents of a route, also of one that is not valid.
pub(super) fn parents(object: &Object) -> impl Iterator<Item = Parent> {
    let parents = object.body.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten();
    parents.filter_map(|parent| Parent::read(parent.clone(), "", &object.namespace, &mut Faults::default()))
}
