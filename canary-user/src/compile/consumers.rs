//! Routes of other namespaces than the Service's, which are for the clients of their own (GEP-1426 calls them consumers'
//! routes). Nobody has asked the Service's owner, so none of them may harm anybody else: one that cannot be followed is
//! left out, by itself.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Decider, ServiceReport,
    refusal::Refused,
    select,
    service::{self, Target},
    traffic::Uses,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Host, Meta, RouteKind},
    state::Service,
};

/// The routes of each namespace.
type Consumers<'a> = BTreeMap<&'a str, BTreeMap<String, &'a Meta>>;

/// What comes of a service port without some of them.
struct Trial {
    result: Result<Service, Refused>,
    report: ServiceReport,
    uses: Uses,
    diagnostics: Vec<Diagnostic>,
}

impl Trial {
    fn new<'a>(target: Target<'a, '_>, left_out: &BTreeSet<&'a str>) -> Self {
        let (mut report, mut uses, mut diagnostics) = (ServiceReport::default(), Uses::default(), Vec::new());
        let result = service::build(target, left_out, &mut report, &mut uses, &mut diagnostics);
        Self { result, report, uses, diagnostics }
    }

    fn is_proxied(&self) -> bool {
        self.result.as_ref().is_ok_and(Service::is_proxied)
    }
}

/// Compiles a service port, with as many of the consumers' routes as can be followed. `report` says who decided, also when
/// it is refused.
pub(super) fn build(
    target: Target<'_, '_>,
    report: &mut ServiceReport,
    uses: &mut Uses,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Service, Refused> {
    let consumers = consumers(target);
    let mut done = Trial::new(target, &BTreeSet::new());
    // Most are followed in the kernel, which needs no comparison.
    if !consumers.is_empty() && (done.is_proxied() || done.result.is_err()) {
        let alone = Trial::new(target, &consumers.keys().copied().collect());
        if done.is_proxied() && !alone.is_proxied() {
            done.diagnostics.extend(leads_to_the_proxy(target, &consumers));
        } else if done.result.is_err() {
            done = as_many_as_can_be(target, &consumers, alone);
        }
    }
    *report = done.report;
    uses.add(done.uses);
    diagnostics.append(&mut done.diagnostics);
    done.result
}

/// The consumers of the routes that govern the service.
fn consumers<'a>(target: Target<'a, '_>) -> Consumers<'a> {
    let backend = target.backend;
    let namespace = backend.meta().key.namespace.as_str();
    let mut consumers = Consumers::new();
    let claims = select::virtual_service(target.index, backend.hosts(), namespace);
    let Some((route, _)) = claims.winner.filter(|(route, _)| RouteKind::of(&route.meta).is_some()) else {
        return consumers;
    };
    let requests = route.http.iter().filter(|rule| !rule.position.is_empty()).map(|rule| rule.delegated.as_ref());
    let connections = route.tls.iter().chain(&route.tcp).map(|rule| rule.delegated.as_ref());
    let written = requests.chain(connections).map(|delegated| delegated.map_or(&route.meta, |it| &it.meta));
    for meta in written.filter(|meta| meta.key.namespace != namespace) {
        consumers.entry(&meta.key.namespace).or_default().insert(meta.id(), meta);
    }
    consumers
}

/// `alone`, the service without them, with each of them that can be added.
fn as_many_as_can_be<'a>(target: Target<'a, '_>, consumers: &Consumers<'a>, alone: Trial) -> Trial {
    let mut left_out: BTreeSet<&str> = consumers.keys().copied().collect();
    let mut done = alone;
    if done.result.is_err() {
        return done; // It is not for them that it is refused.
    }
    let mut refused = Vec::new();
    for (namespace, routes) in consumers {
        left_out.remove(namespace);
        let trial = Trial::new(target, &left_out);
        match trial.result {
            Ok(_) => done = trial,
            Err(why) => {
                left_out.insert(namespace);
                refused.push((namespace, routes, why));
            }
        }
    }
    for (namespace, routes, why) in refused {
        for (object, meta) in routes {
            let is_it = |decider: &Decider| decider.object == *object;
            done.report.virtual_service.take_if(|it| is_it(it));
            done.report.delegates.retain(|it| !is_it(it));
            done.report.left_out.push((object.clone(), why.refusal.to_string()));
            let message = format!(
                "left out at {}: {}; clients of namespace `{namespace}` are treated as all others",
                name(target),
                why.refusal
            );
            let field = if why.meta.id() == *object { why.field.as_str() } else { "spec" };
            done.diagnostics.push(meta.diagnostic(Severity::Error, "CAN0319", field, message, why.refusal.remedy()));
        }
    }
    done
}

/// Says of the routes that make everybody's connections go by the proxy that they do.
fn leads_to_the_proxy<'a>(target: Target<'a, '_>, consumers: &Consumers<'a>) -> Vec<Diagnostic> {
    let mut said = Vec::new();
    for (namespace, routes) in consumers {
        let others: BTreeSet<&str> = consumers.keys().copied().filter(|it| it != namespace).collect();
        if !Trial::new(target, &others).is_proxied() {
            continue;
        }
        let message = format!(
            "needs the request, so the proxy follows the rules of {} for clients of all namespaces: they are treated as before, and the endpoints see the node as their client",
            name(target)
        );
        let remedy = "match nothing but the client's namespace to leave it to the kernel";
        said.extend(
            routes.values().map(|meta| meta.diagnostic(Severity::Warning, "CAN0320", "spec", &*message, remedy)),
        );
    }
    said
}

fn name(target: Target<'_, '_>) -> String {
    let Target { backend, port, .. } = target;
    format!("port {} of {}", port.number, backend.hosts().first().map_or("", Host::as_str))
}
