//! The head of a request as the endpoint gets it.
use std::net::SocketAddr;

use hyper::{
    Request, StatusCode, Uri, Version,
    body::Incoming,
    header::{EXPECT, HOST, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};

use super::{endpoint::Picked, exchange::Way, filled::Facts, headers, matching, server::HEADERS, table::Service};
use crate::state::EndpointHttp;

/// The authority of a request. `Host` is taken out: an address in the request line is the one that counts (RFC 9112 §3.2.2).
pub(super) fn authority(parts: &mut Parts, frontend: SocketAddr) -> Result<String, StatusCode> {
    if parts.headers.len() > HEADERS {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let hosts = parts.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version == Version::HTTP_11) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let host = parts.headers.remove(HOST);
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.as_str().to_owned());
    }
    match host {
        Some(host) => host.to_str().map(str::to_owned).map_err(|_| StatusCode::BAD_REQUEST),
        None if parts.version == Version::HTTP_2 => Err(StatusCode::BAD_REQUEST),
        None => Ok(frontend.to_string()), // HTTP/1.0 need not say it.
    }
}

/// The version of HTTP that an endpoint is spoken to in. What changes the protocol needs HTTP/1.1, and gRPC HTTP/2,
/// whatever the port declares.
pub(super) fn spoken_to(service: &Service, to: &Picked, request: &Request<Incoming>, upgrades: bool) -> Version {
    let mine = if request.version() == Version::HTTP_2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let as_client = to.chosen.as_ref().is_some_and(|chosen| chosen.group.usage.limits.as_client);
    match service.endpoint_http {
        EndpointHttp::Http1 if !as_client && !headers::is_grpc(request.headers()) => Version::HTTP_11,
        EndpointHttp::Http2 if !as_client && !upgrades => Version::HTTP_2,
        _ => mine,
    }
}

/// The head as the endpoint gets it; `None` when what is put in makes no address.
pub(super) fn head(mut parts: Parts, way: &Way<'_>, authority: &str, version: Version) -> Option<Parts> {
    headers::strip_hop_by_hop(&mut parts.headers);
    // The client is told to continue when its body is asked for.
    parts.headers.remove(EXPECT);
    headers::forwarded(&mut parts.headers, way.ends.client.ip(), parts.uri.scheme_str().unwrap_or("http"));
    let pseudo = [
        (":method", parts.method.as_str()),
        (":path", parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)),
        (":authority", authority),
        ("host", authority), // Taken out before.
    ];
    let facts = Facts::of_request(way.ends, way.asked, &pseudo);
    let changes = [&way.destination.headers.request, &way.rule.headers.request];
    for change in changes {
        change.apply(&mut parts.headers, &facts);
    }
    let set = changes.iter().rev().find_map(|change| change.authority());
    let authority = match set.or(way.route.authority.as_ref()) {
        Some(replacement) => replacement.clone(),
        None => HeaderValue::from_str(authority).ok()?,
    };
    let same = parts.uri.path_and_query();
    let target = same.map_or("/", PathAndQuery::as_str);
    let path = match (&way.route.uri, &way.route.uri_regex, same) {
        (Some(uri), _, _) => matching::rewritten(target, way.matched, uri).parse().ok()?,
        (None, Some(regex), _) => regex.apply(target)?.parse().ok()?,
        (None, None, Some(same)) => same.clone(),
        (None, None, None) => PathAndQuery::from_static("/"),
    };
    let mut uri = Uri::builder().path_and_query(path);
    if version == Version::HTTP_2 {
        // Pseudo headers come from here. Endpoints are spoken to in the clear.
        uri = uri.scheme("http").authority(authority.as_bytes());
    } else {
        parts.headers.insert(HOST, authority);
        headers::join_cookies(&mut parts.headers);
    }
    parts.version = version;
    parts.uri = uri.build().ok()?;
    Some(parts)
}
