//! The metrics listener: one path on an address of its own, off unless asked for, and read-only.
use std::{future::Future, io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{
    agent::wake::{Ask, Handle},
    proxy::{limited::Limited, threads::Routes},
    telemetry::metrics,
};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics: is another program there, or the address not of this host?")]
pub struct MetricsError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Listens on `address`.
///
/// # Errors
/// When that is not possible.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(address).await.map_err(|source| MetricsError { address, source })
}

/// Serves `GET /metrics` until `stop` is done.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    agent: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new().route("/metrics", get(page)).with_state(agent);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn page(State(agent): State<Handle>) -> Response {
    match agent.ask(Ask::Counters).await {
        Ok(Ok((counters, view))) => {
            let head = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            let ejections = agent.proxy().map(Routes::ejections).unwrap_or_default();
            let none = Limited::default();
            let limited = agent.proxy().map_or(&none, Routes::limited);
            (head, metrics::text(&view, &counters, &agent.requests(), &ejections, limited)).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")).into_response(),
    }
}
