//! What canary has to say about routes and Gateways in their own `status`: the conditions of the Gateway API.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ServiceReport;
use crate::{
    model::{Attachment, Gateway, Host, Listener, ListenerProtocol, Model, Parent, RouteKind, RouteParent},
    source::{
        GATEWAY_API, Object,
        cluster::{CONTROLLER, Says},
    },
    state::ServiceId,
};

/// The statuses of all objects that canary answers for, in order of their names.
pub(crate) fn statuses(model: &Model, services: &BTreeMap<ServiceId, ServiceReport>) -> Vec<(String, Says)> {
    let mut parents: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for attachment in model.attachments() {
        let entry = parent(attachment, services);
        parents.entry(attachment.route.id()).or_default().push(entry);
    }
    let parents = parents.into_iter().map(|(object, entries)| (object, Says::Parents(entries)));
    let gateways = model.gateways().iter().map(|it| gateway(model, it));
    let classes = model.gateway_classes().iter().filter(|class| class.is_own()).map(|class| {
        let conditions = json!([condition("Accepted", Ok("Accepted"), "its Gateways are canary's")]);
        (class.meta.id(), Says::Fields(json!({"conditions": conditions})))
    });
    let mut all: Vec<(String, Says)> = parents.chain(gateways).chain(classes).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// What an object that is not valid says of itself: nothing of what holds for its last good form.
pub(crate) fn of_invalid(model: &Model, object: &Object, why: &str) -> Option<Says> {
    if RouteKind::by_name(&object.kind).is_some() {
        let accepted = condition("Accepted", Err("UnsupportedValue"), why);
        let parents = model.own_parents(object);
        let entries = parents.map(|it| entry(&it, std::slice::from_ref(&accepted))).collect::<Vec<_>>();
        return (!entries.is_empty()).then_some(Says::Parents(entries));
    }
    (object.kind == "Gateway" && model.is_own_gateway(object)).then(|| {
        let conditions = ["Accepted", "Programmed"].map(|kind| condition(kind, Err("Invalid"), why));
        Says::Fields(json!({"conditions": conditions}))
    })
}

/// The entry of a route for one of its parents.
fn parent(of: &Attachment, services: &BTreeMap<ServiceId, ServiceReport>) -> Value {
    let accepted = match of.refused {
        Some(because) => condition("Accepted", Err(because.reason()), because.message()),
        None => condition("Accepted", Ok("Accepted"), "the parent takes the route"),
    };
    let resolved = match &of.unresolved {
        Some((why, said)) => condition("ResolvedRefs", Err(why.reason()), said),
        None => condition("ResolvedRefs", Ok("ResolvedRefs"), "all references lead somewhere"),
    };
    let mut conditions = vec![accepted, resolved];
    if of.refused.is_none() {
        conditions.push(programmed(of, services));
    }
    entry(&of.parent, &conditions)
}

fn entry(parent: &Parent, conditions: &[Value]) -> Value {
    json!({"parentRef": parent.written, "controllerName": CONTROLLER, "conditions": conditions})
}

/// Whether the rules of a route are in force for its parent.
fn programmed(of: &Attachment, services: &BTreeMap<ServiceId, ServiceReport>) -> Value {
    let (namespace, name) = match &of.parent.target {
        RouteParent::Service(key) => (&key.namespace, key.name.clone()),
        RouteParent::Gateway(key) => (&key.namespace, Host::of_gateway(&key.name, &key.namespace).as_str().to_owned()),
        RouteParent::Other => return condition("Programmed", Err("Invalid"), "it is not canary's"),
    };
    let route = of.route.id();
    let mut deciding = false;
    for (id, report) in services.iter().filter(|(id, _)| id.namespace == *namespace && id.name == name) {
        if let Some((_, why)) = report.left_out.iter().find(|(object, _)| *object == route) {
            return condition("Programmed", Err("NotEnforced"), &format!("{id}: {why}"));
        }
        if !report.deciders().any(|decider| decider.object == route) {
            continue;
        }
        deciding = true;
        if let (false, Some(reason)) = (report.enforced, &report.reason) {
            return condition("Programmed", Err("NotEnforced"), &format!("{id}: {reason}"));
        }
    }
    if deciding {
        condition("Programmed", Ok("Programmed"), "the rules are in force")
    } else {
        let message = "another object is in force for the parent, or it has no address or port that the rules are for";
        condition("Programmed", Err("NotInForce"), message)
    }
}

fn gateway(model: &Model, of: &Gateway) -> (String, Says) {
    let programmed = if of.addresses.is_empty() {
        condition("Programmed", Err("AddressNotAssigned"), "`spec.addresses` has no IP address to answer at")
    } else {
        condition("Programmed", Ok("Programmed"), "canary answers at its addresses")
    };
    let accepted = condition("Accepted", Ok("Accepted"), "the Gateway is canary's");
    let addresses: Vec<Value> =
        of.addresses.iter().map(|address| json!({"type": "IPAddress", "value": address.to_string()})).collect();
    let listeners: Vec<Value> = of.listeners.iter().map(|it| listener(model, of, it)).collect();
    let says = json!({"addresses": addresses, "conditions": [accepted, programmed], "listeners": listeners});
    (of.meta.id(), Says::Fields(says))
}

fn listener(model: &Model, gateway: &Gateway, of: &Listener) -> Value {
    let supported = of.protocol != ListenerProtocol::Unsupported;
    let rival = gateway.listeners.iter().take_while(|other| other.name != of.name).find(|other| {
        other.port == of.port
            && (other.protocol != of.protocol || other.hostname == of.hostname)
            && (other.protocol == ListenerProtocol::Udp) == (of.protocol == ListenerProtocol::Udp)
    });
    let accepted = if supported {
        condition("Accepted", Ok("Accepted"), "the listener is as it should be")
    } else {
        condition("Accepted", Err("UnsupportedProtocol"), "canary speaks HTTP, TCP, UDP, and passes TLS through")
    };
    let conflicted = match rival {
        Some(other) => {
            let reason = if other.protocol == of.protocol { "HostnameConflict" } else { "ProtocolConflict" };
            condition("Conflicted", Ok(reason), &format!("listener `{}` has the same port", other.name))
        }
        None => condition("Conflicted", Err("NoConflicts"), "no other listener is in its way"),
    };
    let resolved = if of.unknown_kinds {
        condition("ResolvedRefs", Err("InvalidRouteKinds"), "it asks for kinds of routes that its protocol has not")
    } else {
        condition("ResolvedRefs", Ok("ResolvedRefs"), "all references lead somewhere")
    };
    let programmed = if supported && rival.is_none() && !gateway.addresses.is_empty() {
        condition("Programmed", Ok("Programmed"), "canary answers at its port")
    } else {
        condition("Programmed", Err("Invalid"), "canary does not answer at its port")
    };
    let kinds: Vec<Value> = of.kinds.iter().map(|kind| json!({"group": GATEWAY_API, "kind": kind.name()})).collect();
    json!({
        "name": of.name,
        "attachedRoutes": model.routes_of(gateway, of),
        "supportedKinds": kinds,
        "conditions": [accepted, conflicted, programmed, resolved],
    })
}

/// A condition that holds, or does not, for this reason.
fn condition(kind: &str, reason: Result<&str, &str>, message: &str) -> Value {
    let status = if reason.is_ok() { "True" } else { "False" };
    let (Ok(reason) | Err(reason)) = reason;
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}
