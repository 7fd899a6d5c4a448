//! The agent's door: HTTP over a unix socket, the only way in for `canary` and for `curl --unix-socket` alike.
//!
//! [`socket`] says who may come in, [`dto`] what goes over the wire; `GET /v1/openapi.json` describes it.
#![forbid(unsafe_code)]

use std::time::Duration;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, get, post},
};

use crate::agent::wake::Handle;

pub mod convert;
pub mod dto;
pub mod error;
mod handlers;
pub mod peer;
pub mod socket;
#[cfg(test)]
pub(crate) mod tests;

/// Longest body of a request: a directory of objects in one `apply`.
pub const BODY_MAX: usize = 16 << 20;
/// Longest time for a request. A pass over many thousands of objects takes seconds.
pub const TIMEOUT: Duration = Duration::from_mins(1);
/// The description of this API.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// Method, path and handler of everything that is served. A test compares it with [`OPENAPI`].
fn routes() -> Vec<(&'static str, &'static str, MethodRouter<Handle>)> {
    use handlers as h;
    vec![
        ("get", "/v1/openapi.json", get(h::openapi)),
        ("get", "/v1/version", get(h::version)),
        ("get", "/v1/status", get(h::status)),
        ("get", "/v1/services", get(h::services)),
        ("get", "/v1/versions", get(h::versions)),
        ("get", "/v1/endpoints", get(h::endpoints)),
        ("get", "/v1/flows", get(h::flows)),
        ("get", "/v1/leaves", get(h::leaves)),
        ("get", "/v1/verify", get(h::verify)),
        ("get", "/v1/history", get(h::history)),
        ("post", "/v1/weights", post(h::weights)),
        ("post", "/v1/apply", post(h::apply)),
        ("post", "/v1/delete", post(h::delete)),
        ("post", "/v1/undo", post(h::undo)),
        ("post", "/v1/trace", post(h::trace)),
        ("post", "/v1/trace/http", post(h::trace_http)),
        ("post", "/v1/resync", post(h::resync)),
    ]
}

/// The API of the agent behind `handle`. Every request must carry a [`peer::Peer`] (see [`socket::serve`]).
pub fn router(handle: Handle) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (_, path, method)| router.route(path, method))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(handlers::in_time))
        .with_state(handle)
}
