//! Headers: names, and what is changed about them.
use std::collections::BTreeMap;

use super::NotFollowed;
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::{HeaderChanges, HeaderOperations, Part, Side, parts},
};

/// Istio's names for claims of a token. No request that comes here has such a header.
const CLAIMS: &str = "@request.auth.claims";

/// Parts of a request that Istio lets rules test as headers, by their names in HTTP/2 (RFC 9113 §8.3.1).
const PSEUDO: [&str; 3] = [":method", ":path", ":scheme"];

/// Reads the name of a header that is tested, in lower case.
pub(in crate::model) fn read_tested(name: &str) -> Result<String, Problem> {
    let as_it_is = name.starts_with(CLAIMS) || PSEUDO.contains(&name);
    if as_it_is { Ok(name.to_lowercase()) } else { read_name(name) }
}

/// Reads a header's name: a token of HTTP, in lower case. `:authority` is HTTP/2's name for `host`.
fn read_name(name: &str) -> Result<String, Problem> {
    if name == ":authority" {
        return Ok("host".to_owned());
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.is_empty() && name.chars().all(token) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(Problem::HeaderName { name: name.to_owned() })
    }
}

/// Reads `headers` at `path`.`field`. Values that Envoy would fill in are left out and noted in `not_followed`.
pub(in crate::model) fn read_changes(
    raw: Option<raw::Headers>,
    path: &str,
    field: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> HeaderChanges {
    let raw = raw.unwrap_or_default();
    let mut read = |operations: Option<raw::HeaderOperations>, side: &str| {
        let raw = operations.unwrap_or_default();
        let field = format!("{field}.{side}");
        let mut remove = Vec::with_capacity(raw.remove.len());
        for (index, name) in raw.remove.iter().enumerate() {
            let field = format!("{path}.{field}.remove[{index}]");
            match read_name(name) {
                // There is no request without it.
                Ok(host) if host == "host" => faults.push(field, Problem::HeaderName { name: name.clone() }),
                name => remove.extend(faults.take(&field, name)),
            }
        }
        let mut pairs = |written: BTreeMap<String, String>, what: &str| {
            let mut pairs = BTreeMap::new();
            for (name, value) in written {
                let below = format!("{field}.{what}.{name}");
                let whole = format!("{path}.{below}");
                let read = faults.take(&whole, read_name(&name));
                let valid = faults.take(&whole, check_value(&value)).is_some();
                let Some(read) = read.filter(|_| valid) else { continue };
                if side == "response" && read == "host" {
                    not_followed.push(NotFollowed { field: below, why: "an answer has no host" });
                    continue;
                }
                let way = if side == "request" { Side::Request } else { Side::Response };
                if parts(&value, way).is_none_or(|parts| read == "host" && !is_plain(&parts)) {
                    not_followed
                        .push(NotFollowed { field: below, why: "canary does not fill in what its `%…%` asks for" });
                    continue;
                }
                if pairs.insert(read, value).is_some() {
                    faults.push(whole, Problem::Duplicate { value: name });
                }
            }
            pairs
        };
        let (set, add) = (pairs(raw.set, "set"), pairs(raw.add, "add"));
        HeaderOperations { remove, set, add }
    };
    HeaderChanges { request: read(raw.request, "request"), response: read(raw.response, "response") }
}

/// Whether a header can have this value.
pub(in crate::model) fn check_value(value: &str) -> Result<(), Problem> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Problem::Value {
            value: value.escape_debug().to_string(),
            expected: "the value of a header: it has control characters",
        });
    }
    Ok(())
}

/// Whether a request can ask for this.
pub(in crate::model) fn check_target(uri: &str) -> Result<(), Problem> {
    if uri.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Problem::Value {
            value: uri.escape_debug().to_string(),
            expected: "a path: it has spaces or control characters",
        });
    }
    Ok(())
}

/// Whether a value is the same for every message.
fn is_plain(parts: &[Part]) -> bool {
    parts.iter().all(|part| matches!(part, Part::Text(_)))
}
