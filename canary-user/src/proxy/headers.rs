//! Changes of headers: those that a rule asks for, and those that every proxy makes.
use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{CONNECTION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE},
};

use super::filled::{Facts, Value};
use crate::state::{HeaderOperations, Side};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// [`HeaderOperations`], ready to be applied. Names and values that no header can have are left out: validation refuses
/// them before.
#[derive(Debug, Default)]
pub struct CompiledOperations {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
    authority: Option<HeaderValue>,
}

impl CompiledOperations {
    /// Compiles operations on the headers of a request or an answer.
    #[must_use]
    pub fn new(of: &HeaderOperations, side: Side) -> Self {
        let pair = |(name, value): (&String, &String)| Some((name.parse().ok()?, Value::new(value, side)?));
        let authority = of.set.iter().find(|(name, _)| is_authority(name));
        let authority = authority.and_then(|(_, value)| match Value::new(value, side)? {
            Value::Plain(value) => Some(value),
            Value::Filled(_) => None,
        });
        Self {
            // Without a host there is no request.
            remove: of.remove.iter().filter(|name| !is_authority(name)).filter_map(|name| name.parse().ok()).collect(),
            set: of.set.iter().filter(|(name, _)| !is_authority(name)).filter_map(pair).collect(),
            add: of.add.iter().filter(|(name, _)| !is_authority(name)).filter_map(pair).collect(),
            authority,
        }
    }

    /// Removes, then sets, then adds.
    pub fn apply(&self, headers: &mut HeaderMap, facts: &Facts<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            if let Some(value) = value.of(headers, facts) {
                headers.insert(name, value);
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.of(headers, facts) {
                headers.append(name, value);
            }
        }
    }

    /// What `host` or `:authority` is set to: no header of a request, but a part of its address.
    pub(super) fn authority(&self) -> Option<&HeaderValue> {
        self.authority.as_ref()
    }
}

fn is_authority(name: &str) -> bool {
    matches!(name, "host" | ":authority")
}

/// Removes what is meant for one connection only (RFC 9110 §7.6.1), and what `Connection` names. `te: trailers` stays:
/// both sides pass trailers.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let trailers = listed(headers, &TE, "trailers");
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// The protocol that a message would go over to, if `Connection` says that it means it. None that carries HTTP: its
/// requests would pass the rules unseen.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    let hides = |name: &str| ["h2c", "http", "tls"].iter().any(|it| name.eq_ignore_ascii_case(it));
    let names = protocol.to_str().ok()?.split(',').map(|it| it.split('/').next().unwrap_or_default().trim());
    let open = !names.into_iter().any(hides);
    (open && listed(headers, &CONNECTION, "upgrade")).then(|| protocol.clone())
}

/// Puts an upgrade back that stripping took.
pub(super) fn restore_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether the connection is to end with this message.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    listed(headers, &CONNECTION, "close")
}

/// Whether a list in a header has a word, in any case.
fn listed(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// Puts cookies that HTTP/2 has in several headers into one, as HTTP/1.1 must have them (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) else { return };
    let mut all = first.as_bytes().to_vec();
    for crumb in headers.get_all(COOKIE).iter().skip(1) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(all) = HeaderValue::from_bytes(&all) {
        headers.insert(COOKIE, all);
    }
}

/// Whether a message is of gRPC: `application/grpc`, perhaps with `+proto` or so.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// Says whom a request is forwarded for. The client is appended to those before it, in the same header.
pub fn forwarded(headers: &mut HeaderMap, client: IpAddr, scheme: &str) {
    let mut chain = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.to_string().as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if !headers.contains_key(&FORWARDED_PROTO)
        && let Ok(scheme) = HeaderValue::from_str(scheme)
    {
        headers.insert(FORWARDED_PROTO, scheme);
    }
}
