//! One function per path: ask the agent, convert, answer.
use std::net::SocketAddr;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Query, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    agent::{
        edit::{Edit, Target, What, is_named},
        history::Author,
        wake::{Ask, Handle, Wake},
    },
    api::{
        OPENAPI, TIMEOUT, convert,
        dto::{
            ApplyV1, DeleteV1, EditedV1, EndpointV1, EntryV1, FlowV1, FlowsV1, HeaderV1, HttpTraceRequestV1,
            HttpTraceV1, LeaveV1, ListV1, ServiceV1, SetWeightsV1, StatusV1, TraceRequestV1, TraceV1, UndoV1, VerifyV1,
            VersionInfoV1, VersionV1,
        },
        error::ApiError,
    },
    dataplane::Probe,
    proxy::{explain::explain, view::RequestView},
    state::Protocol,
};

/// Flows in one answer unless `?limit=` says otherwise, and the most that it may say.
const FLOWS: usize = 1_000;
const FLOWS_MAX: usize = 1_000_000;
/// Flows in one trace.
const TRACES_MAX: u32 = 10_000;

type Answer<T> = Result<Json<T>, ApiError>;
type Agent = State<Handle>;
type Body = Result<Bytes, BytesRejection>;

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

pub(super) async fn version() -> Json<VersionInfoV1> {
    Json(VersionInfoV1 { version: env!("CARGO_PKG_VERSION").into() })
}

pub(super) async fn status(State(agent): Agent) -> Answer<StatusV1> {
    let memory = agent.ask(Ask::Memory).await??;
    Ok(Json(convert::status(&agent.view(), &memory)))
}

pub(super) async fn services(State(agent): Agent) -> Answer<ListV1<ServiceV1>> {
    let (counters, view) = agent.ask(Ask::Counters).await??;
    Ok(Json(ListV1 { items: convert::services(&view, &counters) }))
}

pub(super) async fn versions(State(agent): Agent) -> Answer<ListV1<VersionV1>> {
    let (counters, view) = agent.ask(Ask::Counters).await??;
    Ok(Json(ListV1 { items: convert::versions(&view, &counters, &agent.requests()) }))
}

pub(super) async fn endpoints(State(agent): Agent) -> Answer<ListV1<EndpointV1>> {
    let (counters, view) = agent.ask(Ask::Counters).await??;
    Ok(Json(ListV1 { items: convert::endpoints(&view, &counters) }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowQuery {
    limit: Option<usize>,
    service: Option<String>,
}

pub(super) async fn flows(
    State(agent): Agent,
    query: Result<Query<FlowQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<FlowsV1> {
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let limit = query.limit.unwrap_or(FLOWS).min(FLOWS_MAX);
    // One more than are wanted says whether that was all. Those of one service may stand anywhere.
    let read = if query.service.is_some() { FLOWS_MAX } else { limit } + 1;
    let flows = agent.ask(|reply| Ask::Flows(read, reply)).await??;
    let mut items: Vec<FlowV1> = flows.iter().map(FlowV1::from).collect();
    if let Some(name) = &query.service {
        items.retain(|flow| flow.service.as_ref().is_some_and(|id| is_named(id, name)));
    }
    let truncated = items.len() > limit || flows.len() > FLOWS_MAX;
    items.truncate(limit);
    Ok(Json(FlowsV1 { items, truncated }))
}

pub(super) async fn leaves(State(agent): Agent) -> Answer<ListV1<LeaveV1>> {
    let (counters, _) = agent.ask(Ask::Counters).await??;
    Ok(Json(ListV1 { items: convert::leaves(&counters) }))
}

/// Reads again while flows are between their draw and their counter: a moment later they are not.
pub(super) async fn verify(State(agent): Agent) -> Answer<VerifyV1> {
    let mut attempts = 0;
    loop {
        let differences = agent.ask(Ask::Verify).await??;
        let (counters, view) = agent.ask(Ask::Counters).await??;
        let verified = convert::verify(&view, &counters, &agent.requests(), differences);
        attempts += 1;
        if verified.agrees && verified.splits.iter().all(|split| split.unaccounted == 0) || attempts == 5 {
            return Ok(Json(verified));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub(super) async fn history(State(agent): Agent) -> Json<ListV1<EntryV1>> {
    Json(ListV1 { items: convert::history(&agent.view().history) })
}

pub(super) async fn weights(State(agent): Agent, Extension(author): Extension<Author>, body: Body) -> Answer<EditedV1> {
    let asked: SetWeightsV1 = json(body)?;
    let weights = asked.weights.into_iter().map(|one| (one.version, one.weight)).collect();
    let what = What::SetWeights { service: asked.service, rule: asked.rule, weights };
    edit(&agent, author, what, asked.dry_run).await
}

pub(super) async fn apply(State(agent): Agent, Extension(author): Extension<Author>, body: Body) -> Answer<EditedV1> {
    let asked: ApplyV1 = json(body)?;
    let files = asked.files.into_iter().map(|file| (file.name.into(), file.text)).collect();
    edit(&agent, author, What::Apply(files), asked.dry_run).await
}

pub(super) async fn delete(State(agent): Agent, Extension(author): Extension<Author>, body: Body) -> Answer<EditedV1> {
    let asked: DeleteV1 = json(body)?;
    let target = |object: crate::api::dto::ObjectV1| Target {
        kind: object.kind,
        namespace: object.namespace,
        name: object.name,
    };
    let targets = asked.objects.into_iter().map(target).collect();
    let what = What::Delete { targets, ignore_missing: asked.ignore_not_found, force: asked.force };
    edit(&agent, author, what, asked.dry_run).await
}

pub(super) async fn undo(State(agent): Agent, Extension(author): Extension<Author>, body: Body) -> Answer<EditedV1> {
    let asked: UndoV1 = json(body)?;
    edit(&agent, author, What::Undo(asked.entry), asked.dry_run).await
}

async fn edit(agent: &Handle, author: Author, what: What, dry_run: bool) -> Answer<EditedV1> {
    let edited = agent.edit(Edit { dry_run, what }, author).await??;
    Ok(Json(convert::edited(&edited, dry_run)))
}

pub(super) async fn trace(State(agent): Agent, body: Body) -> Answer<ListV1<TraceV1>> {
    let asked: TraceRequestV1 = json(body)?;
    let (from, to) = ends(&asked.from, &asked.to)?;
    let protocol = match asked.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(bad(format!("`protocol`: `{other}` is neither `tcp` nor `udp`"))),
    };
    if !(1..=TRACES_MAX).contains(&asked.count) {
        return Err(bad(format!("`count`: {} is not between 1 and {TRACES_MAX}", asked.count)));
    }
    // One flow after the other: the next port of the client, the next place in the sequence.
    let probes: Vec<Probe> = (0..asked.count)
        .map(|ahead| {
            let port = 1 + (u32::from(from.port()).saturating_sub(1) + ahead) % 65_535;
            let from = SocketAddr::new(from.ip(), u16::try_from(port).unwrap_or(u16::MAX));
            Probe { from, to, protocol, ahead }
        })
        .collect();
    let traces = agent.ask(|reply| Ask::Trace(probes.clone(), reply)).await??;
    let view = agent.view();
    let items = probes.iter().zip(&traces).map(|(probe, trace)| convert::trace(&view, *probe, trace)).collect();
    Ok(Json(ListV1 { items }))
}

fn ends(from: &str, to: &str) -> Result<(SocketAddr, SocketAddr), ApiError> {
    let address = |field: &str, text: &str| {
        text.parse::<SocketAddr>().map_err(|_| bad(format!("`{field}`: `{text}` is not IP:PORT")))
    };
    let (from, to) = (address("from", from)?, address("to", to)?);
    if from.is_ipv4() != to.is_ipv4() {
        return Err(bad("`from` and `to` are of different address families".into()));
    }
    Ok((from, to))
}

/// Asks nobody but what is in force: neither the kernel nor the proxy sees anything of it.
pub(super) async fn trace_http(State(agent): Agent, body: Body) -> Answer<HttpTraceV1> {
    let asked: HttpTraceRequestV1 = json(body)?;
    let anybody = if asked.to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let (from, to) = ends(asked.from.as_deref().unwrap_or(anybody), &asked.to)?;
    let method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| bad(format!("`method`: `{}` is no method", asked.method)))?;
    let target = asked.target.parse::<PathAndQuery>().ok().filter(|target| target.as_str().starts_with('/'));
    let target = target.ok_or_else(|| bad(format!("`target`: `{}` is no path", asked.target)))?;
    let mut headers = HeaderMap::new();
    let mut authority = to.to_string();
    for HeaderV1 { name, value } in &asked.headers {
        let wrong = || bad(format!("`headers`: `{name}: {value}` is no header"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        if name == header::HOST {
            authority.clone_from(value);
        } else {
            headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
    }
    let request = RequestView {
        method: method.as_str(),
        scheme: "http",
        authority: &authority,
        target: target.as_str(),
        headers: &headers,
        client: from.ip(),
    };
    let view = agent.view();
    let explained = explain(&view.in_force, from, to, &request);
    Ok(Json(convert::explained(&view, from, to, format!("{method} {target}"), explained)))
}

pub(super) async fn resync(State(agent): Agent) -> Result<StatusCode, ApiError> {
    agent.wake(Wake::Resync)?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn not_found(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "no-such-path", message, "GET /v1/openapi.json lists all paths")
}

pub(super) async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", message, "GET /v1/openapi.json lists all paths")
}

/// Ends a request that takes too long. An edit that has begun is finished all the same.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            format!("no answer within {} s", TIMEOUT.as_secs()),
            "see `canary status` and the agent's log",
        )
        .into_response(),
    }
}

fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the request is longer than {} MiB", super::BODY_MAX >> 20);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message, "apply fewer files at a time")
        }
        _ => bad(error.body_text()),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("the request is not what this path takes: {error}")))
}

fn bad(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad-request", message, "see GET /v1/openapi.json")
}
