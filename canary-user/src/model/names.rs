//! Hosts as Istio reads them: short names are completed, names with a dot are taken literally, `*` only leads.
use std::fmt;

use super::problem::Problem;

/// The domain of the cluster.
pub(crate) const DOMAIN: &str = "cluster.local";
/// Istio's root namespace: `DestinationRules` here are the last resort.
pub(crate) const ROOT_NAMESPACE: &str = "istio-system";

/// A host: complete, in lower case, perhaps with a leading `*`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host(String);

impl Host {
    /// Reads a host written in an object of `namespace`: a name without a dot is one of its Services.
    pub(crate) fn read(written: &str, namespace: &str) -> Result<Self, Problem> {
        let host = Self::literal(written)?;
        // A wildcard, an address and a name with a dot are complete: `reviews.default` is *not* a short name.
        if host.is_wildcard() || host.0.contains(['.', ':']) {
            Ok(host)
        } else {
            Ok(Self::of_service(&host.0, namespace))
        }
    }

    /// Reads a host that is complete as it is written.
    pub(crate) fn literal(written: &str) -> Result<Self, Problem> {
        let host = written.to_ascii_lowercase();
        let (after_wildcard, name) = match host.strip_prefix('*') {
            Some(name) => (true, name),
            None => (false, host.as_str()),
        };
        if name.contains('*') {
            return Err(Problem::WildcardNotFirst { host: written.into() });
        }
        if !is_name(name, after_wildcard) && host.parse::<std::net::IpAddr>().is_err() {
            return Err(Problem::HostInvalid { host: written.into() });
        }
        Ok(Self(host))
    }

    /// The full name of a Kubernetes Service.
    pub(crate) fn of_service(name: &str, namespace: &str) -> Self {
        Self(format!("{name}.{namespace}.svc.{DOMAIN}"))
    }

    /// A Gateway, which has no name that a client could ask for. No Service can be called so.
    pub(crate) fn of_gateway(name: &str, namespace: &str) -> Self {
        Self(format!("{name}.{namespace}.gateway"))
    }

    /// What a route may not lead to: nothing else is called so.
    pub(crate) fn of_refused(name: &str, namespace: &str, kind: &str) -> Self {
        Self(format!("{name}.{namespace}.{}.refused", kind.to_ascii_lowercase()))
    }

    /// Whether it starts with `*`.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether it is `*` alone.
    pub(crate) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether every name that `other` stands for is also one of this host's.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            Some(end) => other.0.ends_with(end),
            None => self == other,
        }
    }

    /// Orders hosts that cover the same name: a full name first, then the longer wildcard.
    pub(crate) fn specificity(&self) -> usize {
        if self.is_wildcard() { self.0.len() } else { usize::MAX }
    }

    /// What stands before the first dot.
    pub(crate) fn first_label(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labels of letters, digits, `-` and `_`, joined by dots. What follows a `*` may start with anything of these.
fn is_name(name: &str, after_wildcard: bool) -> bool {
    if after_wildcard && name.is_empty() {
        return true;
    }
    let name = if after_wildcard { name.strip_prefix('.').unwrap_or(name) } else { name };
    // A trailing dot is legal in DNS.
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 255
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// Who may see an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExportTo {
    /// Everybody (`*`, the default).
    Public,
    /// These namespaces; none for `~`.
    Namespaces(Vec<String>),
}

impl ExportTo {
    /// Reads `exportTo` of an object in `namespace`.
    pub(crate) fn read(written: &[String], namespace: &str) -> Self {
        if written.is_empty() || written.iter().any(|entry| entry == "*") {
            return Self::Public;
        }
        let mut namespaces: Vec<String> = written
            .iter()
            .filter(|entry| *entry != "~")
            .map(|entry| if entry == "." { namespace.to_owned() } else { entry.clone() })
            .collect();
        namespaces.sort();
        namespaces.dedup();
        Self::Namespaces(namespaces)
    }

    /// Whether clients in `namespace` see the object.
    pub(crate) fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(list) => list.iter().any(|entry| entry == namespace),
        }
    }
}
