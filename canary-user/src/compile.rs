//! Turns a valid [`Model`] into the wanted [`State`]: which service answers where, its rules, splits and endpoints.
//!
//! Pure: no I/O, no clock, no randomness. The same model and last state give the same result, byte for byte, in
//! whatever order the objects came. What cannot be enforced as written keeps its last good state and is reported.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use crate::{
    diagnostic::{Diagnostic, Origin, Severity},
    model::{Concerns, Host, Kind, Meta, Model, Pod, Port, Resolution},
    state::{Family, Frontend, ON_NODE, Service, ServiceId, State},
};

mod addresses;
mod consumers;
mod endpoints;
mod held;
mod index;
pub mod limits;
mod proxy;
mod reach;
mod refusal;
mod rules;
mod select;
mod service;
mod statuses;
#[cfg(test)]
mod tests;
mod traffic;
mod versions;

pub use proxy::{PROXY_VERSION, ProxyAddresses};
pub(crate) use statuses::{of_invalid as status_of_invalid, statuses};

use index::{Backend, Index};
use limits::Room;
use reach::{Doors, Reach};
use refusal::{Refusal, Refused};
use service::Target;
use traffic::Uses;

/// What [`compile`] puts out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The wanted content of the maps.
    pub state: State,
    /// What is not enforced, or probably not meant; sorted, without repetition.
    pub diagnostics: Vec<Diagnostic>,
    /// What decided about each service: also for those that are not in the state.
    pub services: BTreeMap<ServiceId, ServiceReport>,
}

/// What decided about one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceReport {
    /// The VirtualService in force; of the Gateway API the oldest route of the Service, or the Gateway.
    pub virtual_service: Option<Decider>,
    /// Others that have rules of the service: delegates of it, or routes beside it.
    pub delegates: Vec<Decider>,
    /// The `DestinationRules` that define its subsets, or how the proxy treats their endpoints.
    pub destination_rules: Vec<Decider>,
    /// The `RoutePolicy` in force.
    pub route_policy: Option<Decider>,
    /// Routes of other namespaces that are not followed, and why: everything else is in force.
    pub left_out: Vec<(String, String)>,
    /// The state is what the objects say; otherwise it is the last good one, or none.
    pub enforced: bool,
    /// Why it is not enforced.
    pub reason: Option<String>,
    /// Its rules in order, those of `http` if the proxy follows them; empty when it is not enforced.
    pub rules: Vec<RuleReport>,
}

impl ServiceReport {
    /// All that decided.
    pub(crate) fn deciders(&self) -> impl Iterator<Item = &Decider> {
        let routes = self.virtual_service.iter().chain(&self.delegates);
        routes.chain(&self.destination_rules).chain(&self.route_policy)
    }
}

/// An object that decided, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decider {
    /// `Kind namespace/name`.
    pub object: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Where one rule of the state is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Name of the rule in the state.
    pub rule: String,
    /// Path in the VirtualService, such as `spec.http[0]`, or `spec.http[0].http[1]` for a rule of the delegate of that
    /// one; empty for a rule that canary adds.
    pub field: String,
    /// Where that stands.
    pub origin: Origin,
    /// (version, path of its destination) in the order in which they are written.
    pub destinations: Vec<(String, String)>,
}

impl Decider {
    fn new(meta: &Meta) -> Self {
        Self { object: meta.id(), origin: meta.origin() }
    }
}

/// Compiles `model`. Services that cannot be enforced are taken from `last`, which is what was in force before.
/// Those with rules that need the request are sent to `proxy`.
#[must_use]
pub fn compile(model: &Model, last: &State, proxy: &ProxyAddresses) -> Compiled {
    let index = Index::new(model);
    let mut compiler = Compiler {
        index: &index,
        last,
        proxy,
        outcomes: BTreeMap::new(),
        diagnostics: model.between().to_vec(),
        uses: Uses::default(),
    };
    let known: BTreeSet<(&str, &str)> = last.services.keys().map(|id| (&*id.namespace, id.plain_name())).collect();
    for service in model.services().values() {
        let key = &service.meta.key;
        // A plain Service of a cluster is left to whoever serves it there: kube-proxy. One that had rules stays, for flows by
        // them are known here only.
        if !service.meta.in_cluster()
            || known.contains(&(&key.namespace, &key.name))
            || select::virtual_service(&index, std::slice::from_ref(&service.host), &key.namespace).is_claimed()
        {
            compiler.service(Backend::Service(service));
        }
    }
    for entry in model.service_entries() {
        compiler.service(Backend::Entry(entry));
    }
    compiler.broken_services();
    compiler.routes_without_service();
    compiler.uses.report(model.destination_rules().iter(), &mut compiler.diagnostics);
    compiler.finish()
}

struct Compiler<'a, 'i> {
    index: &'i Index<'a>,
    last: &'i State,
    proxy: &'i ProxyAddresses,
    outcomes: BTreeMap<ServiceId, Outcome>,
    diagnostics: Vec<Diagnostic>,
    uses: Uses,
}

/// What became of one service port in one family.
struct Outcome {
    meta: Meta,
    doors: Doors,
    result: Result<Service, Refused>,
    /// What stays in force if there is no new state.
    held: Option<Service>,
    report: ServiceReport,
}

impl<'a> Compiler<'a, '_> {
    fn service(&mut self, backend: Backend<'a>) {
        if !self.has_addresses(backend) {
            return;
        }
        if let Backend::Service(service) = backend {
            reach::unknown_node(self.index, service, &mut self.diagnostics);
        }
        let answered = addresses::answered(self.index, backend, &mut self.diagnostics);
        for port in backend.ports() {
            for family in [Family::Ipv4, Family::Ipv6] {
                let addresses = answered.iter().copied();
                let addresses: Vec<IpAddr> =
                    addresses.filter(|address| endpoints::family_of(*address) == family).collect();
                for (reach, doors) in reach::doors(self.index, backend, port, family, &addresses) {
                    self.port(backend, port, family, &addresses, (reach, doors));
                }
            }
        }
    }

    /// Whether there is something to balance; says why not.
    fn has_addresses(&mut self, backend: Backend<'a>) -> bool {
        let meta = backend.meta();
        let mut note = |severity, code, field: String, message: &str, remedy: &str| {
            self.diagnostics.push(meta.diagnostic(severity, code, field, message, remedy));
        };
        match backend {
            Backend::Service(service) if service.kind != Kind::Virtual => return false,
            Backend::Service(service) if service.addresses.is_empty() && !service.ports.is_empty() => {
                let message = "the Service has no address, so no traffic can be addressed to it";
                note(Severity::Warning, "CAN0310", "spec".into(), message, "set `spec.clusterIP`");
            }
            Backend::Service(_) => {}
            Backend::Entry(entry) => {
                if entry.resolution == Resolution::None {
                    let message =
                        "resolution NONE: connections go where they are addressed to; canary leaves them alone";
                    note(Severity::Info, "CAN0311", "spec.resolution".into(), message, "");
                    return false;
                }
                for (position, network) in &entry.networks {
                    let message = format!("{network} is not enforced: canary answers at single addresses only");
                    let field = format!("spec.addresses[{position}]");
                    note(Severity::Warning, "CAN0005", field, &message, "write the addresses one by one");
                }
                if entry.addresses.is_empty() && entry.networks.is_empty() {
                    let message = "the ServiceEntry has no address: canary leaves its traffic alone";
                    note(Severity::Info, "CAN0311", "spec".into(), message, "set `spec.addresses` to balance it");
                }
            }
        }
        !backend.addresses().is_empty()
    }

    fn port(
        &mut self,
        backend: Backend<'a>,
        port: &'a Port,
        family: Family,
        addresses: &[IpAddr],
        (reach, doors): (Reach, Doors),
    ) {
        let meta = backend.meta();
        let on_node = if reach == Reach::Node { ON_NODE } else { "" };
        let id = ServiceId {
            namespace: meta.key.namespace.clone(),
            name: format!("{}{on_node}", backend.name()),
            port: port.number,
            protocol: port.protocol,
            family,
        };
        if let Some(other) = self.outcomes.get(&id) {
            let message =
                format!("{} has the same host and port and is older: this one is not in force", other.meta.id());
            self.diagnostics.push(meta.diagnostic(
                Severity::Error,
                "CAN0312",
                "spec.hosts",
                message,
                "remove one of the two",
            ));
            return;
        }
        let mut report = ServiceReport::default();
        let proxy = self.proxy.of(family);
        let target = Target { index: self.index, backend, port, family, reach, addresses, proxy };
        let built = consumers::build(target, &mut report, &mut self.uses, &mut self.diagnostics);
        let held = self.last.services.get(&id).map(|last| match &built {
            Err(refused) if held::endpoints_are_known(refused) => held::with_endpoints_of_now(target, last),
            _ => last.clone(),
        });
        let held = held.and_then(|last| proxy::held(last, proxy));
        self.outcomes.insert(id, Outcome { meta: meta.clone(), doors, result: built, held, report });
    }

    /// Services whose own object is invalid: whatever was in force of them stays.
    fn broken_services(&mut self) {
        for broken in self.index.model.broken() {
            let hosts: BTreeSet<&str> = match &broken.concerns {
                Concerns::Service(key) if broken.meta.is_kind("Service") => BTreeSet::from([key.name.as_str()]),
                Concerns::Entry(hosts) => hosts.iter().map(Host::as_str).collect(),
                _ => continue,
            };
            let namespace = &broken.meta.key.namespace;
            for (id, last) in &self.last.services {
                if id.namespace != *namespace || !hosts.contains(id.plain_name()) || self.outcomes.contains_key(id) {
                    continue;
                }
                let had = |map: &BTreeMap<Frontend, ServiceId>| {
                    map.iter().filter(|(_, of)| *of == id).map(|(frontend, _)| *frontend).collect()
                };
                let doors = Doors { frontends: had(&self.last.frontends), for_sockets: had(&self.last.for_sockets) };
                let refusal = Refusal::Invalid { object: broken.meta.id() };
                let outcome = Outcome {
                    meta: broken.meta.clone(),
                    doors,
                    result: Err(Refused::new(&broken.meta, "", refusal)),
                    held: proxy::held(last.clone(), self.proxy.of(id.family)),
                    report: ServiceReport::default(),
                };
                self.outcomes.insert(id.clone(), outcome);
            }
        }
    }

    /// `VirtualServices` whose hosts name nothing that is known: most often `reviews.default`.
    fn routes_without_service(&mut self) {
        for route in self.index.model.virtual_services().iter().filter(|route| route.mesh) {
            let client = route.meta.key.namespace.as_str();
            for (position, (host, written)) in route.hosts.iter().zip(&route.written_hosts).enumerate() {
                // Of an object that is there and not valid its own errors tell.
                let broken = || self.index.broken_backend(host).is_some();
                if host.is_wildcard() || self.index.backend(host, client).is_some() || broken() {
                    continue;
                }
                let message = format!("no Service or ServiceEntry `{host}` is known: the rules are for nobody");
                let remedy = versions::meant_host(self.index, host, written, client)
                    .map(|full| format!("`{written}` has a dot and is taken literally; write `{full}`"));
                let remedy = remedy.unwrap_or_else(|| "create it, or correct the name".into());
                let field = format!("spec.hosts[{position}]");
                self.diagnostics.push(route.meta.diagnostic(Severity::Warning, "CAN0313", field, message, remedy));
            }
        }
    }

    /// Puts the outcomes together, as far as there is room. What was in force before comes first: a new service never
    /// displaces one that works.
    fn finish(mut self) -> Compiled {
        let mut compiled = Compiled::default();
        let mut room = Room::default();
        let mut outcomes: Vec<(ServiceId, Outcome)> = std::mem::take(&mut self.outcomes).into_iter().collect();
        let built = outcomes.iter_mut().filter_map(|(_, it)| Some((it.result.as_ref().ok()?, &mut it.doors)));
        addresses::without_loops(built);
        outcomes.sort_by_key(|(id, _)| !self.last.services.contains_key(id));
        for (id, mut outcome) in outcomes {
            let fits = |service: Service, room: &mut Room| match room.take(&service, outcome.doors.len()) {
                Ok(()) => Ok(service),
                Err(refusal) => Err(Refused::new(&outcome.meta, "", refusal)),
            };
            let result = outcome.result.and_then(|service| fits(service, &mut room));
            let service = match result {
                Ok(service) => {
                    outcome.report.enforced = true;
                    Some(service)
                }
                Err(refused) => {
                    let frontends = outcome.doors.len();
                    let held = outcome.held.take().filter(|held| room.take(held, frontends).is_ok());
                    self.diagnostics.push(refused.diagnostic(&id, held.is_some()));
                    outcome.report.reason = Some(refused.refusal.to_string());
                    outcome.report.rules.clear();
                    held
                }
            };
            if let Some(service) = service {
                let Doors { frontends, for_sockets } = outcome.doors;
                let all = frontends.into_iter().map(|it| (it, false));
                for (frontend, sockets_only) in all.chain(for_sockets.into_iter().map(|it| (it, true))) {
                    let State { frontends, for_sockets, .. } = &mut compiled.state;
                    let doors = if sockets_only { for_sockets } else { frontends };
                    if let Some(taken) = doors.get(&frontend) {
                        let message = format!("{frontend} belongs to service {taken} already");
                        let remedy = "give the services different addresses or ports";
                        self.diagnostics.push(outcome.meta.diagnostic(
                            Severity::Error,
                            "CAN0312",
                            "spec",
                            message,
                            remedy,
                        ));
                    } else {
                        doors.insert(frontend, id.clone());
                    }
                }
                compiled.state.services.insert(id.clone(), service);
            }
            compiled.services.insert(id, outcome.report);
        }
        if compiled.state.services.values().any(Service::asks_for_clients) {
            compiled.state.clients = clients(self.index.model);
        }
        // Both families and several ports of one service find the same things.
        let unique: BTreeSet<Diagnostic> = self.diagnostics.into_iter().collect();
        compiled.diagnostics = unique.into_iter().collect();
        compiled.diagnostics.sort_by(|a, b| (&a.origin, &a.object, &a.field).cmp(&(&b.origin, &b.object, &b.field)));
        compiled
    }
}

/// The addresses of pods, by their UIDs: of those on this node, if it is known, for no other has processes here.
fn clients(model: &Model) -> BTreeMap<String, Vec<IpAddr>> {
    let pods = model.pods().values().filter(|pod| !pod.finished && !pod.addresses.is_empty());
    let here = |pod: &Pod| model.here().is_none_or(|node| pod.node.as_deref() == Some(&*node.name));
    let pods = pods.filter(|pod| here(pod));
    pods.filter_map(|pod| Some((pod.uid.clone()?, pod.addresses.clone()))).collect()
}
