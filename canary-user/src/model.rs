//! The valid part of a [`Snapshot`]: what `compile` works on.
//!
//! Parse, don't validate: [`Model::read`] turns raw shapes into types whose constructors hold the invariants. What is
//! invalid becomes diagnostics and a note of whom it concerns, so that their last good state stays in force.
//! Pure: no I/O, no clock, no randomness.
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    diagnostic::{Diagnostic, Severity},
    source::{GATEWAY_API, Object, Snapshot},
};

mod broken;
mod delegate;
mod destination_rule;
mod endpoints;
mod fields;
mod gateway_api;
mod meta;
mod names;
mod native;
mod node;
mod others;
mod problem;
mod raw;
mod request;
mod route;
mod service;
mod service_entry;
mod settings;
mod strict;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod traffic_policy;
mod virtual_service;

pub(crate) use broken::{Broken, Concerns};
pub(crate) use delegate::Delegated;
pub(crate) use destination_rule::{DestinationRule, Subset};
pub(crate) use endpoints::{EndpointSlice, Hints, Pod, SliceEndpoint};
pub(crate) use fields::{IN_KERNEL, unenforced};
pub(crate) use gateway_api::{
    Attachment, Gateway, GatewayClass, GatewayRoute, Listener, ListenerProtocol, Parent, RouteKind,
    Target as RouteParent,
};
pub(crate) use meta::{Key, Labels, Meta, selects};
pub(crate) use names::{DOMAIN, ExportTo, Host, ROOT_NAMESPACE};
pub(crate) use request::{COOKIES, HttpAction, HttpMatch, HttpRule, RedirectPort, RedirectTo};
pub(crate) use route::{Api, Destination, Route};
pub(crate) use service::{Application, Kind, Policy, Port, Service, Target};
pub(crate) use service_entry::{Address, Backends, Resolution, ServiceEntry, Workload, WorkloadEntry};
pub(crate) use settings::{DRAIN_SECONDS, RoutePolicy, RulePolicy, Settings};
pub(crate) use traffic_policy::merged as merged_policy;
pub(crate) use virtual_service::{L4Match, L4Rule, SourceMatch, VirtualService};

use gateway_api::{NamespaceLabels, ReferenceGrant};
use native::NativeKind;
use node::Node;
use others::Own;
use problem::{Invalid, diagnose};

/// Valid resources, each kind in an order that does not depend on the order of files.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Oldest first.
    virtual_services: Vec<VirtualService>,
    /// Oldest first.
    destination_rules: Vec<DestinationRule>,
    /// Oldest first.
    service_entries: Vec<ServiceEntry>,
    workload_entries: BTreeMap<Key, WorkloadEntry>,
    services: BTreeMap<Key, Arc<Service>>,
    slices: BTreeMap<Key, Arc<EndpointSlice>>,
    pods: BTreeMap<Key, Arc<Pod>>,
    nodes: BTreeMap<Key, Arc<Node>>,
    policies: BTreeMap<Key, RoutePolicy>,
    broken: Vec<Broken>,
    gateway_routes: Vec<GatewayRoute>,
    gateways: Vec<Gateway>,
    gateway_classes: Vec<GatewayClass>,
    grants: Vec<ReferenceGrant>,
    namespaces: BTreeMap<String, NamespaceLabels>,
    attachments: Vec<Attachment>,
    /// Routes of each listener of a Gateway.
    listening: BTreeMap<(Key, String), usize>,
    between: Vec<Diagnostic>,
    own: Own,
}

impl Model {
    /// Takes the valid objects out of `snapshot`, and says what is wrong with the others.
    ///
    /// The snapshot's own diagnostics are not repeated.
    #[must_use]
    pub fn read(snapshot: &Snapshot) -> (Self, Vec<Diagnostic>) {
        let mut model = Self { own: Own::of(snapshot), ..Self::default() };
        let mut diagnostics = Vec::new();
        for object in &snapshot.objects {
            if let Some(kind) = NativeKind::of(object) {
                model.take_native(kind, object, &mut diagnostics);
                continue;
            }
            let Some(kind) = ReadKind::of(object) else {
                diagnostics.push(skipped(object));
                continue;
            };
            let object = &*object.unpacked();
            if model.own.leaves_to_others(kind, object) {
                continue;
            }
            let take = |known| if known { model.take(kind, object) } else { Self::default().take(kind, object) };
            let (taken, found) = judged(object, take);
            diagnostics.extend(found);
            model.broken.extend(taken.err());
        }
        model.virtual_services.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        let routes: Vec<&Object> = snapshot
            .objects
            .iter()
            .map(|it| &**it)
            .filter(|it| matches!(ReadKind::of(it), Some(ReadKind::VirtualService)))
            .collect();
        model.between = delegate::merge(&mut model.virtual_services, &routes, &model.broken, &model.policies);
        model.attach();
        model.destination_rules.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        model.service_entries.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        model.broken.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        diagnostics
            .sort_by(|a, b| (&a.origin, &a.object, &a.field, a.code).cmp(&(&b.origin, &b.object, &b.field, b.code)));
        (model, diagnostics)
    }

    /// Makes of the routes of the Gateway API what means the same. Gateways of others are theirs.
    fn attach(&mut self) {
        let own: Vec<&str> =
            self.gateway_classes.iter().filter(|it| it.is_own()).map(|it| it.meta.key.name.as_str()).collect();
        self.gateways.retain(|gateway| own.contains(&gateway.class.as_str()));
        let attached = gateway_api::attach(&gateway_api::World {
            routes: &self.gateway_routes,
            gateways: &self.gateways,
            grants: &self.grants,
            namespaces: &self.namespaces,
            services: &self.services,
            entries: &self.service_entries,
        });
        self.virtual_services.extend(attached.virtual_services);
        self.virtual_services.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        self.service_entries.extend(attached.entries);
        self.attachments = attached.attachments;
        self.listening = attached.listening;
        self.between.extend(attached.diagnostics);
    }

    fn take(&mut self, kind: ReadKind, object: &Object) -> Result<(), Vec<Invalid>> {
        let key = Key::new(&object.namespace, &object.name);
        match kind {
            ReadKind::VirtualService => self.virtual_services.push(VirtualService::read(object)?),
            ReadKind::DestinationRule => self.destination_rules.push(DestinationRule::read(object)?),
            ReadKind::ServiceEntry => self.service_entries.push(ServiceEntry::read(object)?),
            ReadKind::WorkloadEntry => {
                self.workload_entries.insert(key, WorkloadEntry::read(object)?);
            }
            ReadKind::RoutePolicy => {
                self.policies.insert(key, RoutePolicy::read(object)?);
            }
            ReadKind::GatewayRoute(kind) => self.gateway_routes.push(GatewayRoute::read(kind, object)?),
            ReadKind::Gateway => self.gateways.push(Gateway::read(object)?),
            ReadKind::GatewayClass => self.gateway_classes.push(GatewayClass::read(object)?),
            ReadKind::ReferenceGrant => self.grants.push(ReferenceGrant::read(object)?),
            ReadKind::Namespace => {
                self.namespaces.insert(object.name.clone(), NamespaceLabels::read(object)?);
            }
        }
        Ok(())
    }

    /// `VirtualServices`, oldest first.
    pub(crate) fn virtual_services(&self) -> &[VirtualService] {
        &self.virtual_services
    }

    /// `DestinationRules`, oldest first.
    pub(crate) fn destination_rules(&self) -> &[DestinationRule] {
        &self.destination_rules
    }

    /// `ServiceEntries`, oldest first.
    pub(crate) fn service_entries(&self) -> &[ServiceEntry] {
        &self.service_entries
    }

    /// `WorkloadEntries` by name.
    pub(crate) fn workload_entries(&self) -> impl Iterator<Item = &WorkloadEntry> {
        self.workload_entries.values()
    }

    /// Services by name.
    pub(crate) fn services(&self) -> &BTreeMap<Key, Arc<Service>> {
        &self.services
    }

    /// The Service, or the ServiceEntry of this host, that a service comes from.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Meta> {
        let entry = || {
            let of_host = |it: &&ServiceEntry| it.hosts.first().is_some_and(|host| host.as_str() == name);
            self.service_entries.iter().filter(|it| it.meta.key.namespace == namespace).find(of_host)
        };
        let service = self.services.get(&Key::new(namespace, name)).map(|it| &it.meta);
        service.or_else(|| entry().map(|it| &it.meta))
    }

    /// `EndpointSlices` by name.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values().map(|slice| &**slice)
    }

    /// Pods by name.
    pub(crate) fn pods(&self) -> &BTreeMap<Key, Arc<Pod>> {
        &self.pods
    }

    /// The node that canary is on: the only one that is known.
    pub(crate) fn here(&self) -> Option<&Node> {
        let mut nodes = self.nodes.values();
        nodes.next().filter(|_| nodes.next().is_none()).map(|node| &**node)
    }

    /// `RoutePolicies` by name.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &RoutePolicy> {
        self.policies.values()
    }

    /// What is wrong between objects that are valid by themselves: `VirtualServices` and their delegates, routes and their
    /// parents.
    pub(crate) fn between(&self) -> &[Diagnostic] {
        &self.between
    }

    /// Routes of the Gateway API at each of their parents that are canary's.
    pub(crate) fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The parents of a route of a cluster that are canary's, also of one that is not valid.
    pub(crate) fn own_parents(&self, route: &Object) -> impl Iterator<Item = Parent> {
        self.own.parents(route)
    }

    /// Whether a Gateway of a cluster is canary's, also one that is not valid.
    pub(crate) fn is_own_gateway(&self, gateway: &Object) -> bool {
        self.own.is_of_own_class(gateway)
    }

    /// Gateways of canary's classes.
    pub(crate) fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Classes of Gateways.
    pub(crate) fn gateway_classes(&self) -> &[GatewayClass] {
        &self.gateway_classes
    }

    /// How many routes a listener has.
    pub(crate) fn routes_of(&self, gateway: &Gateway, listener: &Listener) -> usize {
        self.listening.get(&(gateway.meta.key.clone(), listener.name.clone())).copied().unwrap_or_default()
    }

    /// Invalid objects, oldest first.
    pub(crate) fn broken(&self) -> &[Broken] {
        &self.broken
    }
}

/// Kinds that canary reads, beside [`NativeKind`].
#[derive(Debug, Clone, Copy)]
enum ReadKind {
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    RoutePolicy,
    GatewayRoute(RouteKind),
    Gateway,
    GatewayClass,
    ReferenceGrant,
    Namespace,
}

impl ReadKind {
    fn of(object: &Object) -> Option<Self> {
        let istio = matches!(
            object.api_version.as_str(),
            "networking.istio.io/v1alpha3" | "networking.istio.io/v1beta1" | "networking.istio.io/v1"
        );
        Some(match (object.kind.as_str(), object.api_version.as_str()) {
            ("VirtualService", _) if istio => Self::VirtualService,
            ("DestinationRule", _) if istio => Self::DestinationRule,
            ("ServiceEntry", _) if istio => Self::ServiceEntry,
            ("WorkloadEntry", _) if istio => Self::WorkloadEntry,
            ("RoutePolicy", "canary.io/v1alpha1") => Self::RoutePolicy,
            ("Namespace", "v1") => Self::Namespace,
            (kind, _) if object.group() == GATEWAY_API => match kind {
                "Gateway" => Self::Gateway,
                "GatewayClass" => Self::GatewayClass,
                "ReferenceGrant" => Self::ReferenceGrant,
                kind => Self::GatewayRoute(RouteKind::by_name(kind)?),
            },
            _ => return None,
        })
    }
}

/// What `read` makes of an object, and what there is to say about it. Whoever has fields that are none (`read` is told so by
/// `false`) is read all the same, for what else there is to say.
fn judged<T>(
    object: &Object,
    read: impl FnOnce(bool) -> Result<T, Vec<Invalid>>,
) -> (Result<T, Broken>, Vec<Diagnostic>) {
    let mut faults = strict::unknown(object);
    match read(faults.is_empty()) {
        Ok(taken) if faults.is_empty() => return (Ok(taken), fields::not_enforced(object)),
        Ok(_) => {}
        Err(found) => faults.extend(found),
    }
    (Err(Broken::new(object)), faults.iter().map(|invalid| diagnose(object, invalid)).collect())
}

fn skipped(object: &Object) -> Diagnostic {
    Diagnostic {
        severity: Severity::Info,
        code: "CAN0004",
        object: object.id(),
        field: String::new(),
        origin: object.origin.clone(),
        message: format!("skipped: canary does not read {} of {}", object.kind, object.api_version),
        remedy: String::new(),
    }
}
