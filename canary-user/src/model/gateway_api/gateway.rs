//! Gateways of canary's own class: addresses and ports at which traffic from outside arrives, and whose routes they take.
use std::net::IpAddr;

use super::{
    super::{
        meta::{Key, Labels, Meta},
        names::Host,
        problem::{Faults, Invalid, Problem},
        raw,
        route::read_port,
        selects,
    },
    RouteKind,
};
use crate::source::{GATEWAY_API, Object, cluster::CONTROLLER};

/// A valid Gateway, of any class.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) class: String,
    /// Those that are asked for, as far as they are addresses.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<Listener>,
}

/// A port of a Gateway, perhaps for one name only.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) hostname: Option<Host>,
    pub(crate) port: u16,
    pub(crate) protocol: ListenerProtocol,
    from: From,
    /// Kinds of routes that it takes, of those that its protocol has.
    pub(crate) kinds: Vec<RouteKind>,
    /// It asks for kinds that there are not.
    pub(crate) unknown_kinds: bool,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerProtocol {
    Http,
    /// TLS that is passed through.
    Tls,
    Tcp,
    Udp,
    /// Not with canary: it ends no TLS.
    Unsupported,
}

/// Namespaces whose routes a listener takes.
#[derive(Debug, Clone)]
enum From {
    All,
    Same,
    None,
    Selector(raw::LabelSelector),
}

/// Whose Gateways they are.
#[derive(Debug, Clone)]
pub(crate) struct GatewayClass {
    pub(crate) meta: Meta,
    pub(crate) controller: String,
}

/// A namespace, for selectors.
#[derive(Debug, Clone)]
pub(crate) struct NamespaceLabels(pub(crate) Labels);

impl GatewayClass {
    pub(in crate::model) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::GatewayClass> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let Some(controller) = raw.spec.unwrap_or_default().controller_name else {
            return Err(vec![Invalid { field: "spec.controllerName".into(), problem: Problem::Missing }]);
        };
        Ok(Self { meta: Meta::new(object, &raw.metadata), controller })
    }

    /// Whether its Gateways are canary's.
    pub(crate) fn is_own(&self) -> bool {
        self.controller == CONTROLLER
    }
}

impl NamespaceLabels {
    pub(in crate::model) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<serde_json::Value> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut labels = raw.metadata.labels;
        // Every namespace has it, and a file need not say so.
        labels.entry("kubernetes.io/metadata.name".into()).or_insert_with(|| object.name.clone());
        Ok(Self(labels))
    }
}

impl Gateway {
    pub(in crate::model) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::Gateway> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let spec = raw.spec.unwrap_or_default();
        let class = spec.class_name.unwrap_or_default();
        if class.is_empty() {
            faults.push("spec.gatewayClassName", Problem::Missing);
        }
        let addresses = spec.addresses.iter().filter(|it| it.kind.as_deref().unwrap_or("IPAddress") == "IPAddress");
        let mut addresses: Vec<IpAddr> = addresses.filter_map(|it| it.value.as_deref()?.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        let listeners = spec.listeners.into_iter().enumerate();
        let listeners = listeners
            .filter_map(|(index, raw)| Listener::read(raw, &format!("spec.listeners[{index}]"), &mut faults))
            .collect();
        faults.finish(Self { meta: Meta::new(object, &raw.metadata), class, addresses, listeners })
    }

    /// What its clients address.
    pub(crate) fn host(&self) -> Host {
        Host::of_gateway(&self.meta.key.name, &self.meta.key.namespace)
    }
}

impl Listener {
    fn read(raw: raw::Listener, path: &str, faults: &mut Faults) -> Option<Self> {
        let name = raw.name.unwrap_or_default();
        if name.is_empty() {
            faults.push(format!("{path}.name"), Problem::Missing);
        }
        let port = raw.port.ok_or(Problem::Missing).and_then(read_port);
        let port = faults.take(&format!("{path}.port"), port)?;
        let hostname = raw.hostname.filter(|host| !host.is_empty());
        let hostname = hostname.and_then(|host| faults.take(&format!("{path}.hostname"), Host::literal(&host)));
        let passes = raw.tls.and_then(|tls| tls.mode).as_deref() == Some("Passthrough");
        let protocol = match raw.protocol.as_deref() {
            Some("HTTP") => ListenerProtocol::Http,
            Some("TLS") if passes => ListenerProtocol::Tls,
            Some("TCP") => ListenerProtocol::Tcp,
            Some("UDP") => ListenerProtocol::Udp,
            Some(_) => ListenerProtocol::Unsupported,
            None => {
                faults.push(format!("{path}.protocol"), Problem::Missing);
                return None;
            }
        };
        let allowed = raw.allowed_routes.unwrap_or_default();
        let namespaces = allowed.namespaces.unwrap_or_default();
        let from = match namespaces.from.as_deref() {
            Some("All") => From::All,
            None | Some("Same") => From::Same,
            Some("Selector") => From::Selector(namespaces.selector.unwrap_or_default()),
            Some("None") => From::None,
            Some(other) => {
                let expected = "one of All, Same, Selector, None";
                faults.push(
                    format!("{path}.allowedRoutes.namespaces.from"),
                    Problem::Value { value: other.into(), expected },
                );
                return None;
            }
        };
        let (mut kinds, mut unknown_kinds) = (protocol.kinds().to_vec(), false);
        if !allowed.kinds.is_empty() {
            let asked = allowed.kinds.iter().map(|it| {
                let own = it.group.as_deref().unwrap_or(GATEWAY_API) == GATEWAY_API;
                RouteKind::by_name(&it.kind).filter(|kind| own && protocol.kinds().contains(kind))
            });
            let asked: Vec<_> = asked.collect();
            unknown_kinds = asked.contains(&None);
            kinds = asked.into_iter().flatten().collect();
        }
        Some(Self { name, hostname, port, protocol, from, kinds, unknown_kinds })
    }

    /// Whether it takes routes of a namespace with these labels; `own` is the Gateway's.
    pub(super) fn takes_from(&self, namespace: &str, own: &Key, labels: Option<&NamespaceLabels>) -> bool {
        match &self.from {
            From::All => true,
            From::Same => namespace == own.namespace,
            From::None => false,
            From::Selector(selector) => {
                let name = || [("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into();
                let labels = labels.map_or_else(name, |it| it.0.clone());
                selects(&selector.match_labels, &labels)
                    && selector.match_expressions.iter().all(|it| requirement(it, &labels))
            }
        }
    }

    /// What of the route's names it is for: `None` when nothing, else the names, none for all.
    pub(super) fn names(&self, route: &[Host]) -> Option<Vec<Host>> {
        let Some(own) = &self.hostname else { return Some(route.to_vec()) };
        if route.is_empty() {
            return Some(vec![own.clone()]);
        }
        let both = route.iter().filter_map(|host| {
            if own.covers(host) {
                Some(host.clone())
            } else if host.covers(own) {
                Some(own.clone())
            } else {
                None
            }
        });
        let both: Vec<Host> = both.collect();
        (!both.is_empty()).then_some(both)
    }
}

impl ListenerProtocol {
    const fn kinds(self) -> &'static [RouteKind] {
        match self {
            Self::Http => &[RouteKind::Http, RouteKind::Grpc],
            Self::Tls => &[RouteKind::Tls],
            Self::Tcp => &[RouteKind::Tcp],
            Self::Udp => &[RouteKind::Udp],
            Self::Unsupported => &[],
        }
    }
}

fn requirement(of: &raw::Requirement, labels: &Labels) -> bool {
    let value = labels.get(&of.key);
    let is_one = || value.is_some_and(|value| of.values.contains(value));
    match of.operator.as_str() {
        "In" => is_one(),
        "NotIn" => !is_one(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}
