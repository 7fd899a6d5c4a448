//! From routes to what they mean: one VirtualService for all routes of a Service, and one for those of a Gateway.
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        meta::{Key, Meta},
        names::{ExportTo, Host},
        route::Destination,
        service::{Application, Port, Service, Target as PortTarget},
        service_entry::{Backends, Resolution, ServiceEntry},
        settings::Settings,
        virtual_service::VirtualService,
    },
    GatewayRoute, Parent, ReferenceGrant, RouteKind, Target,
    backends::{Backend, Unresolved},
    gateway::{Gateway, Listener, ListenerProtocol, NamespaceLabels},
    merge::{of_gateway, of_service},
    rules::RouteRule,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    state::Protocol,
};

/// A route and one of its parents: what the route's status says.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) route: Meta,
    /// The parent.
    pub(crate) parent: Parent,
    /// Why the parent does not take the route.
    pub(crate) refused: Option<Because>,
    /// A reference of it that leads nowhere, and what is said about it.
    pub(crate) unresolved: Option<(Unresolved, String)>,
}

/// Why a parent does not take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Because {
    NoMatchingParent,
    NotAllowedByListeners,
    NoMatchingListenerHostname,
    /// A filter that canary does not know.
    UnsupportedValue,
}

impl Because {
    /// The reason of the condition `Accepted`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::NoMatchingParent => "NoMatchingParent",
            Self::NotAllowedByListeners => "NotAllowedByListeners",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::UnsupportedValue => "UnsupportedValue",
        }
    }

    /// In a sentence.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::NoMatchingParent => "there is no such Service, port or listener",
            Self::NotAllowedByListeners => "no listener of the Gateway allows this kind of route from this namespace",
            Self::NoMatchingListenerHostname => "no listener of the Gateway is for one of its hostnames",
            Self::UnsupportedValue => "a filter is of a type that canary does not know: requests by its rule get 500",
        }
    }
}

/// What routes are attached with.
pub(in crate::model) struct World<'a> {
    pub(in crate::model) routes: &'a [GatewayRoute],
    /// Those of canary's classes.
    pub(in crate::model) gateways: &'a [Gateway],
    pub(in crate::model) grants: &'a [ReferenceGrant],
    pub(in crate::model) namespaces: &'a BTreeMap<String, NamespaceLabels>,
    pub(in crate::model) services: &'a BTreeMap<Key, Arc<Service>>,
    pub(in crate::model) entries: &'a [ServiceEntry],
}

/// What comes of it.
#[derive(Debug, Default)]
pub(in crate::model) struct Attached {
    pub(in crate::model) virtual_services: Vec<VirtualService>,
    /// The Gateways, as what clients address.
    pub(in crate::model) entries: Vec<ServiceEntry>,
    pub(in crate::model) attachments: Vec<Attachment>,
    /// Routes of each listener, by Gateway and the listener's name.
    pub(in crate::model) listening: BTreeMap<(Key, String), usize>,
    pub(in crate::model) diagnostics: Vec<Diagnostic>,
}

/// Attaches every route to its parents.
pub(in crate::model) fn attach(world: &World<'_>) -> Attached {
    let hosts = world.services.values().map(|it| &it.host).chain(world.entries.iter().flat_map(|it| &it.hosts));
    let hosts: HashSet<&Host> = hosts.collect();
    let mut attached = Attached::default();
    let mut routes: Vec<&GatewayRoute> = world.routes.iter().collect();
    routes.sort_by(|a, b| a.age().cmp(&b.age()));
    let routes: Vec<Resolved<'_>> =
        routes.into_iter().map(|route| Resolved::new(route, world.grants, &hosts)).collect();
    let mut by_service: BTreeMap<&Key, Vec<Bound<'_>>> = BTreeMap::new();
    let mut by_gateway: BTreeMap<&Key, Vec<Bound<'_>>> = BTreeMap::new();
    for resolved in &routes {
        let mut is_own = false;
        for parent in &resolved.route.parents {
            let bound = match &parent.target {
                Target::Service(key) => world.services.get(key).map(|service| bind_service(resolved, parent, service)),
                Target::Gateway(key) => {
                    let Some(gateway) = world.gateway(key) else { continue };
                    Some(world.bind_gateway(resolved, parent, gateway, &mut attached.listening))
                }
                Target::Other => continue,
            };
            is_own = true;
            let bound = bound.unwrap_or(Err(Because::NoMatchingParent));
            let refused = bound.as_ref().err().copied();
            if let Some(because) = refused {
                attached.diagnostics.push(not_taken(resolved.route, parent, because));
            }
            let unresolved = resolved.unresolved.first().map(|(_, _, why, said)| (*why, said.clone()));
            let refused = refused.or(resolved.unknown_filter().then_some(Because::UnsupportedValue));
            let (route, parent_ref) = (resolved.route.meta.clone(), parent.clone());
            attached.attachments.push(Attachment { route, parent: parent_ref, refused, unresolved });
            match &parent.target {
                Target::Service(key) => by_service.entry(key).or_default().extend(bound.into_iter().flatten()),
                Target::Gateway(key) => by_gateway.entry(key).or_default().extend(bound.into_iter().flatten()),
                Target::Other => {}
            }
        }
        // Of others' routes others tell.
        if is_own {
            attached.diagnostics.extend(resolved.said());
        }
    }
    for (key, bound) in by_service {
        if let Some(service) = world.services.get(key) {
            attached.virtual_services.extend(of_service(service, bound));
        }
    }
    for gateway in world.gateways {
        let bound = by_gateway.remove(&gateway.meta.key).unwrap_or_default();
        attached.virtual_services.push(of_gateway(gateway, &bound));
        attached.entries.push(entry(gateway));
    }
    attached
}

impl World<'_> {
    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.meta.key == *key)
    }

    fn bind_gateway<'r>(
        &self,
        resolved: &'r Resolved<'r>,
        parent: &Parent,
        gateway: &Gateway,
        listening: &mut BTreeMap<(Key, String), usize>,
    ) -> Result<Vec<Bound<'r>>, Because> {
        let route = resolved.route;
        let meant = gateway.listeners.iter().filter(|it| {
            parent.port.is_none_or(|port| port == it.port)
                && parent.section.as_ref().is_none_or(|name| *name == it.name)
        });
        let meant: Vec<&Listener> = meant.filter(|it| it.protocol != ListenerProtocol::Unsupported).collect();
        if meant.is_empty() {
            return Err(Because::NoMatchingParent);
        }
        let namespace = &route.meta.key.namespace;
        let labels = self.namespaces.get(namespace);
        let allowed = meant
            .into_iter()
            .filter(|it| it.kinds.contains(&route.kind) && it.takes_from(namespace, &gateway.meta.key, labels));
        let allowed: Vec<&Listener> = allowed.collect();
        if allowed.is_empty() {
            return Err(Because::NotAllowedByListeners);
        }
        let mut bound = Vec::new();
        for listener in allowed {
            if let Some(names) = listener.names(&route.hostnames) {
                *listening.entry((gateway.meta.key.clone(), listener.name.clone())).or_default() += 1;
                let listener_name = listener.hostname.clone();
                bound.push(Bound {
                    resolved,
                    port: Some(listener.port),
                    consumer: None,
                    names,
                    listener: listener_name,
                });
            }
        }
        if bound.is_empty() { Err(Because::NoMatchingListenerHostname) } else { Ok(bound) }
    }
}

/// Destinations of a rule, and those of its mirrors.
pub(super) type RuleTo = (Vec<Destination>, Vec<Option<Destination>>);

/// A route with what its references lead to.
pub(super) struct Resolved<'a> {
    pub(super) route: &'a GatewayRoute,
    /// Of each rule.
    pub(super) to: Vec<RuleTo>,
    /// Rule, backend, why, and what is said about it.
    unresolved: Vec<(&'a RouteRule, &'a Backend, Unresolved, String)>,
}

impl<'a> Resolved<'a> {
    fn new(route: &'a GatewayRoute, grants: &[ReferenceGrant], hosts: &HashSet<&Host>) -> Self {
        let from = (route.kind.name(), route.meta.key.namespace.as_str());
        let mut unresolved = Vec::new();
        let mut to = Vec::with_capacity(route.rules.len());
        for rule in &route.rules {
            let mut resolve = |backend: &'a Backend| {
                let (destination, why) = backend.destination(from, grants, |host| hosts.contains(host));
                unresolved.extend(why.map(|why| (rule, backend, why, backend.said(why).0)));
                (destination, why)
            };
            let destinations = rule.backends.iter().map(|it| resolve(it).0).collect();
            let mirrors = rule.mirrors().map(|it| {
                let (destination, why) = resolve(it);
                why.is_none_or(|why| why == Unresolved::BackendNotFound).then_some(destination)
            });
            to.push((destinations, mirrors.collect()));
        }
        Self { route, to, unresolved }
    }

    /// What there is to say, but for what is not known: that is said of the services for which it matters.
    fn said(&self) -> Vec<Diagnostic> {
        let meta = &self.route.meta;
        let refused = self.unresolved.iter().filter(|(_, _, why, _)| *why != Unresolved::BackendNotFound);
        let refused = refused.map(|(rule, backend, why, said)| {
            let field = format!("spec.{}.{}", rule.position, backend.field);
            meta.diagnostic(Severity::Error, "CAN0317", field, said.clone(), backend.said(*why).1)
        });
        let unknown = self.route.rules.iter().filter_map(|rule| Some((rule, rule.unknown_filter()?)));
        let unknown = unknown.map(|(rule, filter)| {
            let field = format!("spec.{}.{filter}", rule.position);
            let message = "canary does not know this filter: requests by the rule get 500, as the Gateway API asks";
            meta.diagnostic(Severity::Error, "CAN0317", field, message, "remove the filter")
        });
        refused.chain(unknown).collect()
    }

    fn unknown_filter(&self) -> bool {
        self.route.rules.iter().any(|rule| rule.unknown_filter().is_some())
    }
}

/// A route at one of its parents.
pub(super) struct Bound<'a> {
    pub(super) resolved: &'a Resolved<'a>,
    pub(super) port: Option<u16>,
    /// The namespace of the clients that it is for: a route in another namespace than the Service's is for its own clients.
    pub(super) consumer: Option<&'a str>,
    /// Of requests or server names; none for all.
    pub(super) names: Vec<Host>,
    /// The name of the listener.
    pub(super) listener: Option<Host>,
}

fn bind_service<'a>(resolved: &'a Resolved<'a>, parent: &Parent, service: &Service) -> Result<Vec<Bound<'a>>, Because> {
    let route = resolved.route;
    let protocol = if route.kind == RouteKind::Udp { Protocol::Udp } else { Protocol::Tcp };
    let meant = service.ports.iter().filter(|it| {
        it.protocol == protocol
            && parent.port.is_none_or(|port| port == it.number)
            && parent.section.as_ref().is_none_or(|name| *name == it.name)
    });
    let meant: Vec<u16> = meant.map(|it| it.number).collect();
    let all = parent.port.is_none() && parent.section.is_none();
    if meant.is_empty() {
        return Err(Because::NoMatchingParent);
    }
    let namespace = route.meta.key.namespace.as_str();
    let consumer = (namespace != service.meta.key.namespace).then_some(namespace);
    let names = if route.kind == RouteKind::Tls { route.hostnames.clone() } else { Vec::new() };
    let ports = if all { vec![None] } else { meant.into_iter().map(Some).collect() };
    Ok(ports.into_iter().map(|port| Bound { resolved, port, consumer, names: names.clone(), listener: None }).collect())
}

fn not_taken(route: &GatewayRoute, parent: &Parent, because: Because) -> Diagnostic {
    let position = route.parents.iter().position(|it| std::ptr::eq(it, parent)).unwrap_or_default();
    let what = match &parent.target {
        Target::Service(key) => format!("Service {}/{}", key.namespace, key.name),
        Target::Gateway(key) => format!("Gateway {}/{}", key.namespace, key.name),
        Target::Other => "the parent".into(),
    };
    let message = format!("{what} does not take the route: {}", because.message());
    let field = format!("spec.parentRefs[{position}]");
    route.meta.diagnostic(Severity::Warning, "CAN0318", field, message, "correct `parentRefs`, or create the parent")
}

/// A Gateway as what clients address.
fn entry(gateway: &Gateway) -> ServiceEntry {
    let mut ports: Vec<Port> = Vec::new();
    for listener in &gateway.listeners {
        let (protocol, application) = match listener.protocol {
            // Endpoints are spoken to as the client speaks.
            ListenerProtocol::Http => (Protocol::Tcp, Application::Sniffed),
            ListenerProtocol::Tls => (Protocol::Tcp, Application::Tls),
            ListenerProtocol::Tcp => (Protocol::Tcp, Application::Tcp),
            ListenerProtocol::Udp => (Protocol::Udp, Application::Udp),
            ListenerProtocol::Unsupported => continue,
        };
        if !ports.iter().any(|it| (it.number, it.protocol) == (listener.port, protocol)) {
            let (name, number, target) = (listener.name.clone(), listener.port, PortTarget::Number(listener.port));
            ports.push(Port { name, number, protocol, application, target, on_nodes: None });
        }
    }
    ServiceEntry {
        meta: gateway.meta.clone(),
        hosts: vec![gateway.host()],
        addresses: gateway.addresses.clone(),
        networks: Vec::new(),
        ports,
        resolution: Resolution::Static,
        backends: Backends::Inline(Vec::new()),
        export_to: ExportTo::Public,
        settings: Settings::default(),
    }
}
