//! VirtualService: hosts, who sees it, and its rules.
use ipnet::IpNet;

use super::{
    meta::{Labels, Meta},
    names::{ExportTo, Host},
    problem::{Faults, Invalid, Problem},
    raw,
    route::{Route, read_port},
    settings::{Settings, read_network},
};
use crate::source::Object;

/// A valid VirtualService. Invariants: hosts do not overlap; at least one rule; every route has a positive sum.
#[derive(Debug, Clone)]
pub(crate) struct VirtualService {
    pub(crate) meta: Meta,
    /// Empty for a delegate, which only another VirtualService can refer to.
    pub(crate) hosts: Vec<Host>,
    /// The same, as they are written.
    pub(crate) written_hosts: Vec<String>,
    /// In force for traffic between workloads (`gateways` absent, or with `mesh`).
    pub(crate) mesh: bool,
    pub(crate) export_to: ExportTo,
    pub(crate) http: Vec<HttpRule>,
    pub(crate) tls: Vec<L4Rule>,
    pub(crate) tcp: Vec<L4Rule>,
    pub(crate) settings: Settings,
}

/// An entry of `http[]`.
#[derive(Debug, Clone)]
pub(crate) struct HttpRule {
    pub(crate) name: Option<String>,
    /// Empty matches everything.
    pub(crate) matches: Vec<HttpMatch>,
    pub(crate) action: HttpAction,
}

/// What an HTTP rule does.
#[derive(Debug, Clone)]
pub(crate) enum HttpAction {
    Route(Route),
    /// Answers, redirects or refers without a route of its own; the name of the field.
    Other(&'static str),
}

/// An entry of `http[].match[]`: everything in it must hold.
#[derive(Debug, Clone)]
pub(crate) struct HttpMatch {
    pub(crate) source: SourceMatch,
    pub(crate) port: Option<u16>,
    /// The first field that only a request can answer.
    pub(crate) request: Option<&'static str>,
}

/// An entry of `tcp[]` or `tls[]`.
#[derive(Debug, Clone)]
pub(crate) struct L4Rule {
    /// Empty matches everything (`tcp[]` only).
    pub(crate) matches: Vec<L4Match>,
    pub(crate) route: Route,
}

/// An entry of `match[]` of an [`L4Rule`]: everything in it must hold.
#[derive(Debug, Clone)]
pub(crate) struct L4Match {
    pub(crate) source: SourceMatch,
    pub(crate) port: Option<u16>,
    pub(crate) destination_subnets: Vec<IpNet>,
    /// Empty for `tcp[]`.
    pub(crate) sni_hosts: Vec<Host>,
}

/// Which workloads a match is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SourceMatch {
    /// `gateways` of the match: `None` when absent, else whether `mesh` is among them.
    pub(crate) gateways_mesh: Option<bool>,
    pub(crate) labels: Labels,
    pub(crate) namespace: Option<String>,
}

impl SourceMatch {
    fn new(gateways: &[String], labels: Labels, namespace: Option<String>) -> Self {
        let gateways_mesh = (!gateways.is_empty()).then(|| gateways.iter().any(|name| name == "mesh"));
        Self { gateways_mesh, labels, namespace: namespace.filter(|name| !name.is_empty()) }
    }
}

impl VirtualService {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::VirtualService> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let namespace = &object.namespace;
        let mut faults = Faults::default();
        let settings = Settings::read(&raw.metadata.annotations, &mut faults);
        let spec = raw.spec.unwrap_or_default();
        let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
        let hosts = read_hosts(&spec.hosts, namespace, mesh, &mut faults);
        if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
            faults.push("spec", Problem::ExactlyOne { fields: "`http`, `tls` or `tcp` (or more)", found: 0 });
        }
        let http = at(spec.http, "http").filter_map(|(path, rule)| HttpRule::read(rule, &path, namespace, &mut faults));
        let http = http.collect();
        let tls = at(spec.tls, "tls")
            .filter_map(|(path, rule)| L4Rule::read_tls(rule, &path, namespace, &hosts, &mut faults));
        let tls = tls.collect();
        let tcp = at(spec.tcp, "tcp").filter_map(|(path, rule)| L4Rule::read(rule, &path, namespace, &mut faults));
        let tcp = tcp.collect();
        let meta = Meta::new(object, &raw.metadata);
        let export_to = ExportTo::read(&spec.export_to, namespace);
        faults.finish(Self { meta, hosts, written_hosts: spec.hosts, mesh, export_to, http, tls, tcp, settings })
    }

    /// Whether a rule goes by this name or stands at this position (`http[0]`).
    pub(crate) fn has_rule(&self, name: &str) -> bool {
        let at = |section: &str, count: usize| (0..count).any(|index| name == format!("{section}[{index}]"));
        self.http.iter().any(|rule| rule.name.as_deref() == Some(name))
            || at("http", self.http.len())
            || at("tls", self.tls.len())
            || at("tcp", self.tcp.len())
    }
}

/// Pairs the entries of `spec.<section>` with their paths.
fn at<T>(list: Vec<T>, section: &str) -> impl Iterator<Item = (String, T)> {
    list.into_iter().enumerate().map(move |(index, entry)| (format!("spec.{section}[{index}]"), entry))
}

fn read_hosts(written: &[String], namespace: &str, mesh: bool, faults: &mut Faults) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        let Some(host) = faults.take(&field, Host::read(text, namespace)) else {
            continue;
        };
        if host.is_any() && mesh {
            faults.push(field, Problem::WildcardAlone);
        } else if let Some(seen) = hosts.iter().find(|seen| seen.covers(&host) || host.covers(seen)) {
            faults.push(field, Problem::HostsOverlap { first: seen.to_string(), second: host.to_string() });
        }
        hosts.push(host);
    }
    hosts
}

impl HttpRule {
    fn read(raw: raw::HttpRoute, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let others = [
            ("redirect", raw.redirect.is_some()),
            ("directResponse", raw.direct_response.is_some()),
            ("delegate", raw.delegate.is_some()),
        ];
        let mut set = others.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name);
        let other = set.next();
        let found = usize::from(other.is_some()) + set.count() + usize::from(!raw.route.is_empty());
        if found != 1 {
            let fields = "`route`, `redirect`, `directResponse` and `delegate`";
            faults.push(path, Problem::ExactlyOne { fields, found });
            return None;
        }
        let matches = raw
            .matches
            .into_iter()
            .enumerate()
            .filter_map(|(index, entry)| HttpMatch::read(entry, &format!("{path}.match[{index}]"), faults));
        let matches = matches.collect();
        let action = match other {
            Some(field) => HttpAction::Other(field),
            None => HttpAction::Route(Route::read(raw.route, path, namespace, faults)?),
        };
        Some(Self { name: raw.name.filter(|name| !name.is_empty()), matches, action })
    }
}

impl HttpMatch {
    fn read(raw: raw::HttpMatch, path: &str, faults: &mut Faults) -> Option<Self> {
        // `prefix: /` and `regex: .*` hold for every request.
        let any_uri = raw.uri.as_ref().is_none_or(|uri| {
            uri.is_empty()
                || uri.get("prefix").is_some_and(|prefix| prefix == "/")
                || uri.get("regex").is_some_and(|regex| regex == ".*")
        });
        let tests = [
            ("uri", !any_uri),
            ("method", raw.method.is_some()),
            ("authority", raw.authority.is_some()),
            ("scheme", raw.scheme.is_some()),
            ("headers", !raw.headers.is_empty()),
            ("withoutHeaders", !raw.without_headers.is_empty()),
            ("queryParams", !raw.query_params.is_empty()),
        ];
        let port = match raw.port {
            Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
            None => None,
        };
        Some(Self {
            source: SourceMatch::new(&raw.gateways, raw.source_labels, raw.source_namespace),
            port,
            request: tests.iter().find(|(_, needed)| *needed).map(|(field, _)| *field),
        })
    }
}

impl L4Rule {
    fn read(raw: raw::L4Route, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let matches =
            raw.matches.into_iter().enumerate().filter_map(|(index, entry)| {
                L4Match::read(entry, &format!("{path}.match[{index}]"), namespace, faults)
            });
        let matches = matches.collect();
        Some(Self { matches, route: Route::read(raw.route, path, namespace, faults)? })
    }

    /// A `tls[]` rule needs a match, every match an SNI, and every SNI must be one of the hosts.
    fn read_tls(raw: raw::L4Route, path: &str, namespace: &str, hosts: &[Host], faults: &mut Faults) -> Option<Self> {
        let rule = Self::read(raw, path, namespace, faults)?;
        if rule.matches.is_empty() {
            faults.push(format!("{path}.match"), Problem::Missing);
        }
        for (index, entry) in rule.matches.iter().enumerate() {
            let path = format!("{path}.match[{index}].sniHosts");
            if entry.sni_hosts.is_empty() {
                faults.push(&path, Problem::Missing);
            }
            for (index, sni) in entry.sni_hosts.iter().enumerate() {
                if !hosts.iter().any(|host| host.covers(sni)) {
                    faults.push(format!("{path}[{index}]"), Problem::SniOutsideHosts { sni: sni.to_string() });
                }
            }
        }
        Some(rule)
    }
}

impl L4Match {
    fn read(raw: raw::L4Match, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let port = match raw.port {
            Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
            None => None,
        };
        let subnets = raw.destination_subnets.iter().enumerate().filter_map(|(index, text)| {
            faults.take(&format!("{path}.destinationSubnets[{index}]"), read_network(text))
        });
        let destination_subnets: Vec<IpNet> = subnets.collect();
        // An SNI is a name on the wire: it is never completed, but a short host of the same VirtualService is.
        let sni_hosts =
            raw.sni_hosts.iter().enumerate().filter_map(|(index, text)| {
                faults.take(&format!("{path}.sniHosts[{index}]"), Host::read(text, namespace))
            });
        let sni_hosts = sni_hosts.collect();
        let source = SourceMatch::new(&raw.gateways, raw.source_labels, raw.source_namespace);
        Some(Self { source, port, destination_subnets, sni_hosts })
    }
}
