//! Faults that a rule asks for: some requests wait, some are answered with an error.
use std::time::Duration;

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::time::sleep;

use super::{Flag, body::Body, headers::is_grpc, own, portion::Portion, telemetry::Record};
use crate::state::{self, AbortWith, ServiceId};

const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What Envoy says.
const WORDS: &str = "fault filter abort";

/// [`state::Fault`], ready to be injected.
#[derive(Debug)]
pub(super) struct Fault {
    delay: Option<(Portion, Duration)>,
    abort: Option<(Portion, AbortWith)>,
}

impl Fault {
    /// Compiles the faults of a rule.
    pub(super) fn new(of: &state::Fault, id: &ServiceId, rule: &str) -> Self {
        let portion = |percentage, what| Portion::new(percentage, id, rule, what);
        let delay = |it: &state::Delay| (portion(it.percentage, "delay"), Duration::from_millis(it.fixed_ms));
        let abort = |it: &state::Abort| (portion(it.percentage, "abort"), it.with);
        Self { delay: of.delay.as_ref().map(delay), abort: of.abort.as_ref().map(abort) }
    }

    /// Waits, if it is for this request. The answer, if the request goes no further.
    pub(super) async fn inject(&self, request: &HeaderMap, record: &mut Record) -> Option<Response<Body>> {
        if let Some((portion, length)) = &self.delay
            && portion.takes()
        {
            record.note(Flag::DI);
            sleep(*length).await;
        }
        let (portion, with) = self.abort.as_ref()?;
        portion.takes().then(|| aborted(*with, request))
    }
}

/// The answer for a share that leads nowhere, as the Gateway API has it: 500, and to gRPC "unavailable".
pub(super) fn refused(request: &HeaderMap) -> Response<Body> {
    const UNAVAILABLE: u16 = 14;
    let answer = if is_grpc(request) {
        grpc(UNAVAILABLE, "no such backend")
    } else {
        own::plain(StatusCode::INTERNAL_SERVER_ERROR, hyper::body::Bytes::new())
    };
    own::flagged(answer, Flag::NC)
}

/// An answer of gRPC without a message.
fn grpc(code: u16, words: &'static str) -> Response<Body> {
    let mut answer = own::plain(StatusCode::OK, hyper::body::Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(words));
    answer
}

fn aborted(with: AbortWith, request: &HeaderMap) -> Response<Body> {
    let code = match with {
        AbortWith::Grpc(code) if is_grpc(request) => return own::flagged(grpc(code, WORDS), Flag::FI),
        AbortWith::Grpc(code) => in_http(code),
        AbortWith::Http(code) => code,
    };
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    own::flagged(own::plain(status, WORDS.into()), Flag::FI)
}

/// The HTTP status that stands for a gRPC status, for clients that do not speak gRPC.
const fn in_http(grpc: u16) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
