//! Where a redirected client is sent.
use hyper::header::HeaderValue;

use super::{
    matching::{Matched, rewritten},
    view::RequestView,
};
use crate::state::Redirect;

/// The `Location` of a redirect, as Envoy builds it: what it does not replace is the request's.
pub(super) fn location(redirect: &Redirect, request: &RequestView<'_>, matched: Matched) -> Option<HeaderValue> {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let authority = match (&redirect.authority, redirect.port) {
        (Some(authority), None) => authority.clone(),
        (Some(authority), Some(port)) => format!("{}:{port}", without_port(authority)),
        (None, Some(port)) => format!("{}:{port}", without_port(request.authority)),
        (None, None) if redirect.bare => without_port(request.authority).to_owned(),
        (None, None) => kept(request, scheme).to_owned(),
    };
    let target = match &redirect.uri {
        None => match &redirect.prefix {
            Some(prefix) => rewritten(request.target, matched, prefix).into_owned(),
            None => request.target.to_owned(),
        },
        Some(uri) if uri.contains('?') => uri.clone(), // It brings a query of its own.
        Some(uri) => {
            let query = request.target.find('?').and_then(|at| request.target.get(at..)).unwrap_or_default();
            format!("{uri}{query}")
        }
    };
    HeaderValue::from_str(&format!("{scheme}://{authority}{target}")).ok()
}

/// The request's authority under another scheme: the default port of the old scheme would be wrong there.
fn kept<'a>(request: &RequestView<'a>, scheme: &str) -> &'a str {
    let stale = match (request.scheme, scheme) {
        ("http", "https") => ":80",
        ("https", "http") => ":443",
        _ => return request.authority,
    };
    request.authority.strip_suffix(stale).unwrap_or(request.authority)
}

fn without_port(authority: &str) -> &str {
    with_port(authority).0
}

/// Host and port of an authority.
pub(super) fn with_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None), // `[::1]` has colons, but no port.
    }
}
