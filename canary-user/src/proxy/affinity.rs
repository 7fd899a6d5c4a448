//! Consistent hashing: what of a request is hashed, and the cookie for a client that has none.
use std::fmt::Write as _;

use canary_common::build::name_hash;
use hyper::header::HeaderValue;

use super::{rule::Ends, view::RequestView};
use crate::state::HashKey;

/// What a request comes to.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// `None`: it has no key, and goes anywhere.
    pub(super) hash: Option<u64>,
    /// For the answer.
    pub(super) cookie: Option<HeaderValue>,
}

/// Hashes a request.
pub(super) fn of(key: &HashKey, request: &RequestView<'_>, ends: Ends) -> Affinity {
    let hashed = |text: &str| Affinity { hash: Some(name_hash(text.as_bytes())), cookie: None };
    match key {
        HashKey::Header(name) => request.header(name).map(|value| hashed(&value)).unwrap_or_default(),
        HashKey::Query(name) => request.query(name).map(|value| hashed(&value)).unwrap_or_default(),
        HashKey::SourceIp => hashed(&request.client.to_string()),
        HashKey::Cookie { name, path, ttl_seconds } => match (request.cookie(name), ttl_seconds) {
            // As it is set: in quotes, which belong to the syntax.
            (Some(value), _) => hashed(value.trim_matches('"')),
            (None, None) => Affinity::default(),
            (None, Some(ttl)) => {
                // One connection, one value: requests that come at the same time get the same cookie.
                let value = format!("{:016x}", name_hash(format!("{}{}", ends.client, ends.frontend).as_bytes()));
                Affinity { cookie: cookie(name, &value, path, *ttl), ..hashed(&value) }
            }
        },
    }
}

/// The cookie as Envoy writes it; `None` when its name or path is no text for a header.
fn cookie(name: &str, value: &str, path: &str, ttl_seconds: u64) -> Option<HeaderValue> {
    let mut cookie = format!("{name}=\"{value}\"");
    // Writing to a String cannot fail.
    if ttl_seconds > 0 {
        let _ = write!(cookie, "; Max-Age={ttl_seconds}");
    }
    if !path.is_empty() {
        let _ = write!(cookie, "; Path={path}");
    }
    cookie.push_str("; HttpOnly");
    cookie.parse().ok()
}
