//! Objects that are not valid: what they would have governed keeps its last good state.
//!
//! From such an object only as much is read as says whom it concerns. Where even that cannot be read, nothing is
//! guessed: its error is all that comes of it.
use serde_json::Value;

use super::{
    endpoints::SERVICE_LABEL,
    gateway_api::{self, RouteKind},
    meta::{Key, Labels, Meta},
    names::Host,
    raw,
    settings::wishes_udp,
};
use crate::source::Object;

/// An invalid object and whom it concerns.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) meta: Meta,
    pub(crate) concerns: Concerns,
}

/// Whom an invalid object concerns.
#[derive(Debug, Clone)]
pub(crate) enum Concerns {
    /// A VirtualService: whoever it would have been selected for.
    Routes { hosts: Vec<Host>, mesh: bool, udp: bool },
    /// A DestinationRule: destinations with a subset on this host.
    Subsets(Host),
    /// A Service, or an EndpointSlice of it.
    Service(Key),
    /// A ServiceEntry of these hosts.
    Entry(Vec<Host>),
    /// A Pod or WorkloadEntry: services that select these labels in its namespace.
    Workload(Labels),
    /// A `RoutePolicy` of this VirtualService.
    Policy(Key),
    /// Not to be found out.
    Nobody,
}

impl Broken {
    pub(super) fn new(object: &Object) -> Self {
        let mut meta = Meta::new(object, &raw::Metadata::default());
        meta.created = text(object.body.pointer("/metadata/creationTimestamp"));
        Self { concerns: concerns(object), meta }
    }
}

fn concerns(object: &Object) -> Concerns {
    let at = |pointer: &str| object.body.pointer(pointer);
    let namespace = &object.namespace;
    match object.kind.as_str() {
        "VirtualService" => {
            let hosts = texts(at("/spec/hosts")).filter_map(|host| Host::read(&host, namespace).ok()).collect();
            Concerns::Routes {
                hosts,
                mesh: is_for_the_mesh(object),
                udp: wishes_udp(&labels(at("/metadata/annotations"))),
            }
        }
        "DestinationRule" => match text(at("/spec/host")).map(|host| Host::read(&host, namespace)) {
            Some(Ok(host)) => Concerns::Subsets(host),
            _ => Concerns::Nobody,
        },
        "Service" => Concerns::Service(Key::new(namespace, &object.name)),
        "EndpointSlice" => {
            let labels = labels(at("/metadata/labels"));
            let name = labels.get(SERVICE_LABEL);
            name.map_or(Concerns::Nobody, |name| Concerns::Service(Key::new(namespace, name)))
        }
        "ServiceEntry" => {
            Concerns::Entry(texts(at("/spec/hosts")).filter_map(|host| Host::literal(&host).ok()).collect())
        }
        "Pod" => Concerns::Workload(labels(at("/metadata/labels"))),
        "WorkloadEntry" => {
            let mut all = labels(at("/spec/labels"));
            all.extend(labels(at("/metadata/labels")));
            Concerns::Workload(all)
        }
        "RoutePolicy" => match text(at("/spec/targetRef/name")) {
            Some(name) => Concerns::Policy(Key::new(namespace, name)),
            None => Concerns::Nobody,
        },
        kind if RouteKind::by_name(kind).is_some() => {
            let hosts = gateway_api::parents(object).filter_map(|parent| match parent.target {
                gateway_api::Target::Service(key) => Some(Host::of_service(&key.name, &key.namespace)),
                _ => None,
            });
            Concerns::Routes { hosts: hosts.collect(), mesh: true, udp: kind == "UDPRoute" }
        }
        _ => Concerns::Nobody,
    }
}

/// Whether a VirtualService is for traffic between workloads, valid or not.
pub(super) fn is_for_the_mesh(object: &Object) -> bool {
    let gateways: Vec<String> = texts(object.body.pointer("/spec/gateways")).collect();
    gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

/// The strings of a list, or the one string that stands where a list should.
fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    let one = value.filter(|value| value.is_string());
    let many = value.and_then(Value::as_array).into_iter().flatten();
    one.into_iter().chain(many).filter_map(|entry| text(Some(entry)))
}

fn labels(value: Option<&Value>) -> Labels {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), text(Some(value))?))).collect()
}
