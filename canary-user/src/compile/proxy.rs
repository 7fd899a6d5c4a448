//! Rules that need the request: the kernel sends everybody to the proxy, which follows the rules.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    refusal::Refused,
    rules::Candidate,
    service::{Names, Share},
    versions::{Identity, Resolver},
};
use crate::{
    model::{DRAIN_SECONDS, HttpAction, HttpRule as Written, RedirectPort, RedirectTo, Settings},
    state::{
        Choosing, DeadVersion, Family, HeaderChanges, Http, HttpAction as Action, HttpDestination, HttpRoute, HttpRule,
        Mirror, Redirect, Rewrite, Rule, Service, Split, Tls, Version,
    },
};

/// The version whose endpoints are the proxy's addresses. No subset and no Service can be called so.
pub const PROXY_VERSION: &str = "(proxy)";
/// The kernel's only rule of a service whose rules need the request.
const PROXY_RULE: &str = "proxy";

/// Where the proxy listens; without an address of a family its services cannot have rules that need the request or
/// the server name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// Of IPv4.
    pub v4: Vec<SocketAddr>,
    /// Of IPv6.
    pub v6: Vec<SocketAddr>,
}

impl ProxyAddresses {
    /// Those of one family.
    #[must_use]
    pub fn of(&self, family: Family) -> &[SocketAddr] {
        match family {
            Family::Ipv4 => &self.v4,
            Family::Ipv6 => &self.v6,
        }
    }
}

impl FromIterator<SocketAddr> for ProxyAddresses {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        let (v4, v6) = addresses.into_iter().partition(|address| matches!(address.ip(), IpAddr::V4(_)));
        Self { v4, v6 }
    }
}

/// The service with everybody sent to the proxy.
pub(super) fn service(
    (http, tls): (Option<Http>, Option<Tls>),
    mut versions: BTreeMap<String, Version>,
    proxy: &[SocketAddr],
) -> Service {
    let weights = vec![(PROXY_VERSION.to_owned(), 1)];
    let split = Split { choosing: Choosing::default(), dead: DeadVersion::Fail, weights };
    versions.insert(PROXY_VERSION.to_owned(), version(proxy));
    Service { rules: vec![Rule { name: PROXY_RULE.to_owned(), sources: Vec::new(), split }], versions, http, tls }
}

fn version(proxy: &[SocketAddr]) -> Version {
    let endpoints = proxy.iter().map(|address| (*address, 1)).collect();
    Version { endpoints, drain_seconds: DRAIN_SECONDS }
}

/// A service as it was in force, with the proxy where it is now; `None` when it needs one and there is none.
pub(super) fn held(mut last: Service, proxy: &[SocketAddr]) -> Option<Service> {
    if last.is_proxied() {
        if proxy.is_empty() {
            return None;
        }
        last.versions.insert(PROXY_VERSION.to_owned(), version(proxy));
    }
    Some(last)
}

/// The versions that the mirrors of each rule are.
pub(super) fn mirrors<'a>(
    resolver: &mut Resolver<'a, '_>,
    candidates: &[Candidate<'a>],
) -> Result<Vec<Vec<Identity>>, Refused> {
    let mut all = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let written = candidate.http.map(|rule| rule.mirrors.as_slice()).unwrap_or_default();
        let of_rule = written.iter().map(|mirror| {
            let (delegate, path) = candidate.place(&mirror.field);
            resolver.written = delegate;
            resolver.destination(&mirror.destination, &path)
        });
        all.push(of_rule.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

/// What the proxy does by a rule; nothing that it could do for a delegate, which is refused before. `shares` are those of
/// its destinations, `mirrors` are versions; an answer has none.
pub(super) fn rule(
    written: &Written,
    candidate: Candidate<'_>,
    settings: Settings,
    port: u16,
    (shares, mirrors): (&[Share], &[Identity]),
    names: &Names,
) -> Option<HttpRule> {
    let route = |headers: &[HeaderChanges], rewrite| {
        Action::Route(HttpRoute {
            choosing: settings.choosing.unwrap_or_default(),
            dead: settings.dead.unwrap_or_default(),
            destinations: destinations(shares, headers, names),
            rewrite,
        })
    };
    let action = match &written.action {
        HttpAction::Redirect(to) => Action::Redirect(redirect(to, port)),
        HttpAction::Answer { status, body } => Action::Answer { status: *status, body: body.clone() },
        HttpAction::Route { headers, rewrite, .. } => route(headers, rewrite.clone()),
        HttpAction::Plain => route(&[HeaderChanges::default()], Rewrite::default()),
        HttpAction::Delegate(_) => return None,
    };
    let headers = written.headers.clone();
    let (name, matches) = (candidate.name, candidate.matches);
    let mut policy = written.policy.clone();
    let versions = written.mirrors.iter().zip(mirrors);
    policy.mirrors = versions
        .filter_map(|(mirror, version)| {
            Some(Mirror { version: names.get(version)?.clone(), percentage: mirror.percentage })
        })
        .collect();
    Some(HttpRule { name, matches, action, headers, timeout_ms: written.timeout_ms, policy })
}

/// Versions with a share, in the order of names. One that is listed twice has the sum, unless its headers differ.
fn destinations(shares: &[Share], headers: &[HeaderChanges], names: &Names) -> Vec<HttpDestination> {
    let mut found: Vec<HttpDestination> = Vec::with_capacity(shares.len());
    for (share, headers) in shares.iter().zip(headers).filter(|(share, _)| share.weight > 0) {
        let Some(version) = names.get(&share.version) else { continue };
        let seen = found.iter_mut().find(|seen| seen.version == *version && seen.headers == *headers);
        if let Some(seen) = seen {
            // Cannot saturate: the sum of a route's weights is within u32.
            seen.weight = seen.weight.saturating_add(share.weight);
        } else {
            let (version, headers) = (version.clone(), headers.clone());
            found.push(HttpDestination { version, weight: share.weight, headers, refused: share.refused });
        }
    }
    found.sort_by(|a, b| a.version.cmp(&b.version));
    found
}

fn redirect(to: &RedirectTo, port: u16) -> Redirect {
    let (port, bare) = match to.port {
        RedirectPort::Number(number) => (Some(number), false),
        // The port that clients address is known: it is the service's.
        RedirectPort::OfRequest => (Some(port), false),
        RedirectPort::OfScheme => (None, false),
        RedirectPort::Shortest(number) => {
            // Whoever is redirected came without TLS: canary ends none. Without a number a scheme brings its own.
            let of_scheme = if to.scheme.as_deref() == Some("https") { 443 } else { 80 };
            let port = number.or(to.scheme.is_none().then_some(port)).filter(|port| *port != of_scheme);
            (port, port.is_none())
        }
    };
    let RedirectTo { code, uri, prefix, authority, scheme, .. } = to.clone();
    Redirect { code, uri, prefix, authority, scheme, port, bare }
}
