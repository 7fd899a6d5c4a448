//! VirtualService: hosts, who sees it, and its rules.
use ipnet::IpNet;

use super::{
    delegate::{self, Delegated},
    meta::{Labels, Meta},
    names::{ExportTo, Host},
    problem::{Faults, Invalid, Problem},
    raw,
    request::{HttpRule, cookies},
    route::{Route, read_port},
    settings::{Settings, read_network},
};
use crate::{source::Object, state::Protocol};

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

/// An entry of `tcp[]` or `tls[]`.
#[derive(Debug, Clone)]
pub(crate) struct L4Rule {
    /// Its name, if that is not its position.
    pub(crate) name: Option<String>,
    /// Where it stands: `tcp[0]`, or `rules[0]` in a route of the Gateway API.
    pub(crate) position: String,
    /// Where it is written, if not in the object that stands for all.
    pub(crate) delegated: Option<Delegated>,
    /// Empty matches everything (`tcp[]` only).
    pub(crate) matches: Vec<L4Match>,
    /// `None` leads nowhere: the Gateway API's, when nothing has a weight.
    pub(crate) route: Option<Route>,
}

/// An entry of `match[]` of an [`L4Rule`]: everything in it must hold.
#[derive(Debug, Clone)]
pub(crate) struct L4Match {
    pub(crate) source: SourceMatch,
    pub(crate) port: Option<u16>,
    /// `None`: of whatever protocol the rule's section is for.
    pub(crate) protocol: Option<Protocol>,
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
    pub(super) fn new(gateways: &[String], labels: Labels, namespace: Option<String>) -> Self {
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
        delegate::check(&spec, &mut faults);
        let written = spec.http.len();
        let http = at(spec.http, "http").filter_map(|(path, rule)| HttpRule::read(rule, &path, namespace, &mut faults));
        let mut http: Vec<HttpRule> = http.collect();
        // With one rule that cannot be read, the positions of the others are not what is written.
        if http.len() == written {
            cookies::read(&raw.metadata.annotations, &mut http, &mut faults);
        }
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
        self.http.iter().any(|rule| rule.is_called(name)) || at("tls", self.tls.len()) || at("tcp", self.tcp.len())
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

impl L4Rule {
    fn read(raw: raw::L4Route, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let matches =
            raw.matches.into_iter().enumerate().filter_map(|(index, entry)| {
                L4Match::read(entry, &format!("{path}.match[{index}]"), namespace, faults)
            });
        let matches = matches.collect();
        let route = Some(Route::read(raw.route, path, namespace, faults)?);
        Some(Self {
            name: None,
            position: path.strip_prefix("spec.").unwrap_or(path).to_owned(),
            delegated: None,
            matches,
            route,
        })
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
        Some(Self { source, port, protocol: None, destination_subnets, sni_hosts })
    }
}
