//! From destinations to versions: which endpoints each has, and what it is called.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    endpoints,
    index::{Backend, Index},
    reach::Reach,
    refusal::{Refusal, Refused},
    select, service,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Api, Broken, DOMAIN, Destination, DestinationRule, Host, Labels, Meta, Port},
    state::Family,
};

/// What a version is, whatever it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    /// All endpoints of the service itself, without a route.
    Service,
    /// Nobody.
    Nowhere,
    Destination {
        host: Host,
        port: u16,
        subset: Option<String>,
    },
}

/// Looks up the destinations of one service port.
#[derive(Debug)]
pub(super) struct Resolver<'a, 'i> {
    pub(super) index: &'i Index<'a>,
    /// The service that clients address.
    pub(super) service: Backend<'a>,
    pub(super) port: &'a Port,
    pub(super) family: Family,
    pub(super) reach: Reach,
    /// The VirtualService.
    pub(super) route: Option<&'a Meta>,
    /// The delegate of it in which the destinations stand that are looked up.
    pub(super) written: Option<&'a Meta>,
    /// Endpoints of every version seen.
    pub(super) versions: BTreeMap<Identity, BTreeMap<SocketAddr, u32>>,
    /// Those of the Gateway API that may not be used or are not there.
    pub(super) refused: BTreeSet<Identity>,
    /// `DestinationRules` that had a say.
    pub(super) rules: BTreeMap<String, &'a DestinationRule>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl<'a> Resolver<'a, '_> {
    /// The version of the service itself.
    pub(super) fn own(&mut self) -> Identity {
        if !self.versions.contains_key(&Identity::Service) {
            let all = endpoints::of(self.index, self.service, self.port, self.family, self.reach);
            self.versions.insert(Identity::Service, endpoints::with_labels(&all, &Labels::new()));
        }
        Identity::Service
    }

    /// The version that has no endpoints.
    pub(super) fn nowhere(&mut self) -> Identity {
        self.versions.entry(Identity::Nowhere).or_default();
        Identity::Nowhere
    }

    /// The version of the destination that is written at `path` of the VirtualService.
    pub(super) fn destination(&mut self, destination: &Destination, path: &str) -> Result<Identity, Refused> {
        let identity =
            |port| Identity::Destination { host: destination.host.clone(), port, subset: destination.subset.clone() };
        let Some(backend) = self.index.backend(&destination.host, self.client()) else {
            refuse_broken(self.index.broken_backend(&destination.host))?;
            if destination.api != Api::Refused {
                self.unknown_host(destination, path);
            }
            return Ok(self.dead(destination, identity(destination.port.unwrap_or(self.port.number))));
        };
        refuse_broken(self.index.broken_endpoints(backend))?;
        service::check_names(backend)?;
        let Some(port) = self.port_of(backend, destination, path) else {
            return Ok(self.dead(destination, identity(destination.port.unwrap_or(self.port.number))));
        };
        let identity = identity(port.number);
        if self.versions.contains_key(&identity) {
            return Ok(identity);
        }
        let Some(labels) = self.labels(backend, destination, path)? else {
            return Ok(self.dead(destination, identity));
        };
        let all = endpoints::of(self.index, backend, port, self.family, self.reach);
        let chosen = endpoints::with_labels(&all, &labels);
        if chosen.is_empty() {
            self.no_endpoints(destination, path);
        }
        self.versions.insert(identity.clone(), chosen);
        Ok(identity)
    }

    /// Istio's rules depend on the client's namespace: for canary it is that of the VirtualService.
    pub(super) fn client(&self) -> &'a str {
        let meta = self.route.unwrap_or_else(|| self.service.meta());
        &meta.key.namespace
    }

    /// A version whose flows fail: it never falls over to another.
    fn dead(&mut self, destination: &Destination, identity: Identity) -> Identity {
        if destination.api != Api::Istio {
            self.refused.insert(identity.clone());
        }
        self.versions.entry(identity.clone()).or_default();
        identity
    }

    /// The destination's port: the one it names, the only one there is, else the one that the client addressed.
    fn port_of(&mut self, backend: Backend<'a>, destination: &Destination, path: &str) -> Option<&'a Port> {
        let ports = backend.ports();
        let wanted = match (destination.port, ports) {
            (Some(number), _) => number,
            (None, [only]) => only.number,
            (None, _) => self.port.number,
        };
        let found = ports.iter().find(|port| port.number == wanted && port.protocol == self.port.protocol);
        if found.is_none() {
            let listed: Vec<String> = ports.iter().map(|port| port.number.to_string()).collect();
            let (code, message) = if destination.port.is_some() {
                ("IST0101", format!("`{}` has no port {wanted}: this share fails", destination.written))
            } else {
                (
                    "IST0112",
                    format!(
                        "`{}` has several ports, and none of them is {wanted}: this share fails",
                        destination.written
                    ),
                )
            };
            let field = destination.port_field();
            let remedy = format!("set `{field}` to one of {}", listed.join(", "));
            self.note(Severity::Error, code, format!("{path}.{field}"), message, remedy);
        }
        found
    }

    /// The labels of the destination's subset; none without a subset; `None` when the subset is unknown.
    fn labels(
        &mut self,
        backend: Backend<'a>,
        destination: &Destination,
        path: &str,
    ) -> Result<Option<Labels>, Refused> {
        let service = backend.meta().key.namespace.as_str();
        let client = self.client();
        let Some(name) = &destination.subset else {
            return Ok(Some(Labels::new()));
        };
        let rules = select::destination_rules(self.index, &destination.host, client, Some(service))?;
        if let Some((rule, subset)) = select::subset(&rules, name) {
            self.rules.insert(rule.meta.id(), rule);
            return Ok(Some(subset.labels.clone()));
        }
        let known: BTreeSet<&str> =
            rules.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str()).collect();
        let known: Vec<&str> = known.into_iter().collect();
        let message = format!("`{}` has no subset `{name}`: this share fails", destination.written);
        let remedy = if known.is_empty() {
            format!("define `{name}` in a DestinationRule for `{}`", destination.host)
        } else {
            format!("define it, or use one of {}", known.join(", "))
        };
        self.note(Severity::Error, "IST0101", format!("{path}.subset"), message, remedy);
        Ok(None)
    }

    fn unknown_host(&mut self, destination: &Destination, path: &str) {
        let Destination { written, host, .. } = destination;
        let field = destination.host_field();
        let message = format!("no Service or ServiceEntry `{host}` is known: this share fails");
        let remedy = meant_host(self.index, host, written, self.client())
            .map(|full| format!("`{written}` has a dot and is taken literally; write `{full}`"));
        let remedy = remedy.unwrap_or_else(|| "create it, or correct the name".into());
        self.note(Severity::Error, "IST0101", format!("{path}.{field}"), message, remedy);
    }

    fn no_endpoints(&mut self, destination: &Destination, path: &str) {
        let what = match &destination.subset {
            Some(subset) => format!("subset `{subset}` of `{}`", destination.written),
            None => format!("`{}`", destination.written),
        };
        let family = if self.family == Family::Ipv6 { "IPv6" } else { "IPv4" };
        let message = format!("{what} has no ready {family} endpoint");
        let remedy = "its share is treated as `canary.io/on-no-endpoints` says (default: it fails)";
        self.note(Severity::Warning, "CAN0309", path.to_owned(), message, remedy);
    }

    fn note(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: String,
        message: String,
        remedy: impl Into<String>,
    ) {
        if let Some(route) = self.written.or(self.route) {
            self.diagnostics.push(route.diagnostic(severity, code, field, message, remedy));
        }
    }

    /// Names of all versions seen: the subset, else the destination's short name; where two want one name, the one of
    /// the service itself keeps it, and the others say their host and port.
    pub(super) fn names(&self) -> BTreeMap<Identity, String> {
        let mut wanted: BTreeMap<String, Vec<&Identity>> = BTreeMap::new();
        for identity in self.versions.keys() {
            wanted.entry(plain_name(identity)).or_default().push(identity);
        }
        let mut names = BTreeMap::new();
        for (plain, rivals) in wanted {
            let single = rivals.len() == 1;
            for identity in rivals {
                let name =
                    if single || self.is_own(identity) { plain.clone() } else { qualified_name(identity, &plain) };
                names.insert(identity.clone(), name);
            }
        }
        names
    }

    fn is_own(&self, identity: &Identity) -> bool {
        matches!(identity, Identity::Destination { host, port, .. }
            if *port == self.port.number && self.service.hosts().contains(host))
    }
}

/// An invalid object is not an absent one: what depends on it waits until it is corrected.
fn refuse_broken(broken: Option<&Broken>) -> Result<(), Refused> {
    let Some(broken) = broken else { return Ok(()) };
    Err(Refused::new(&broken.meta, "", Refusal::Invalid { object: broken.meta.id() }))
}

fn plain_name(identity: &Identity) -> String {
    match identity {
        Identity::Service => "default".into(),
        Identity::Nowhere => "unmatched".into(),
        Identity::Destination { subset: Some(subset), .. } => subset.clone(),
        Identity::Destination { host, .. } if host.as_str().ends_with(&format!(".svc.{DOMAIN}")) => {
            host.first_label().into()
        }
        Identity::Destination { host, .. } => host.to_string(),
    }
}

/// `@` is in no name of Kubernetes or Istio, so these clash with nothing.
fn qualified_name(identity: &Identity, plain: &str) -> String {
    match identity {
        Identity::Service | Identity::Nowhere => format!("{plain}@canary"),
        Identity::Destination { host, port, .. } => format!("{plain}@{host}:{port}"),
    }
}

/// The Service that someone meant who wrote `reviews.default`, which Istio takes literally.
pub(super) fn meant_host(index: &Index<'_>, host: &Host, written: &str, client: &str) -> Option<Host> {
    let (name, namespace) = written.split_once('.')?;
    let namespace = namespace.strip_suffix(".svc").unwrap_or(namespace);
    let full = Host::of_service(name, namespace);
    (full != *host && index.backend(&full, client).is_some()).then_some(full)
}
