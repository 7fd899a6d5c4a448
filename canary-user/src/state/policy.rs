//! What a rule of requests asks for beside the way: retries, faults, mirrors, CORS.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Text;

/// A share of requests, in parts per million: as fine as Envoy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Percentage(u32);

impl Percentage {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// From parts per million; more than all is all.
    #[must_use]
    pub const fn from_millionths(parts: u32) -> Self {
        if parts > Self::ALL.0 { Self::ALL } else { Self(parts) }
    }

    /// Parts per million.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// Policies of a rule; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpPolicy {
    /// When a request is sent again; `None`: never.
    pub retries: Option<Retries>,
    /// Faults on purpose.
    pub fault: Option<Fault>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirror>,
    /// What browsers are told.
    pub cors: Option<Cors>,
}

/// Which pages of other origins may use a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Whose pages; what matches `*` is for everybody.
    pub origins: Vec<Text>,
    /// With these methods; `*`: any.
    pub methods: Vec<String>,
    /// With these headers of their own; `*`: any.
    pub headers: Vec<String>,
    /// Headers of answers that they may read.
    pub expose: Vec<String>,
    /// How long a browser may remember this.
    pub max_age_s: Option<u64>,
    /// With cookies and the like.
    pub credentials: bool,
    /// Preflights of other origins go to the endpoint; otherwise they get an answer that allows nothing.
    pub forward_unmatched: bool,
}

/// Who gets copies of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Name of the version: a key of `Service::versions`.
    pub version: String,
    /// Of how many.
    pub percentage: Percentage,
}

/// Faults on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Requests that wait.
    pub delay: Option<Delay>,
    /// Requests that are answered with an error.
    pub abort: Option<Abort>,
}

/// Requests that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// How many.
    pub percentage: Percentage,
    /// How long.
    pub fixed_ms: u64,
}

/// Requests that are answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// How many, of those that come after the delay.
    pub percentage: Percentage,
    /// The error.
    pub with: AbortWith,
}

/// An error in place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortWith {
    /// HTTP status, 200 to 599.
    Http(u16),
    /// gRPC status; for others than gRPC clients the HTTP status that stands for it.
    Grpc(u16),
}

/// When, how often and how fast a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Most attempts after the first one, at least 1.
    pub attempts: u32,
    /// Longest time for the head of an answer to one attempt.
    pub per_try_timeout_ms: Option<u64>,
    /// What another attempt is made for.
    pub on: BTreeSet<RetryOn>,
    /// Statuses for which another attempt is made.
    pub statuses: BTreeSet<u16>,
    /// The rule names the conditions itself: also what may do harm twice is sent again.
    pub explicit: bool,
    /// Endpoints that have failed are avoided, if there are others.
    pub avoid_previous: bool,
    /// First longest pause between attempts; it doubles, up to ten times this.
    pub backoff_ms: u64,
}

/// A condition of Envoy's `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx, and no answer.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503 or 504, and no answer.
    GatewayError,
    /// No answer.
    Reset,
    /// The connection ended before anything of the request was sent.
    ResetBeforeRequest,
    /// No connection.
    ConnectFailure,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Conflict,
    /// The endpoint says that it did nothing for the stream.
    RefusedStream,
    /// The answer says `x-envoy-ratelimited`, which forbids another attempt otherwise.
    EnvoyRatelimited,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 13.
    Internal,
    /// gRPC status 14.
    Unavailable,
}

impl Default for Retries {
    /// Istio's, for rules that say nothing.
    fn default() -> Self {
        use RetryOn::{Cancelled, ConnectFailure, RefusedStream, Unavailable};
        Self {
            attempts: 2,
            per_try_timeout_ms: None,
            on: [ConnectFailure, RefusedStream, Unavailable, Cancelled].into(),
            statuses: BTreeSet::new(),
            explicit: false,
            avoid_previous: true,
            backoff_ms: 25,
        }
    }
}

impl RetryOn {
    /// By Envoy's name. `retriable-status-codes` is none: the statuses beside it say it all.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::ServerError,
            "gateway-error" => Self::GatewayError,
            "reset" => Self::Reset,
            "reset-before-request" => Self::ResetBeforeRequest,
            "connect-failure" => Self::ConnectFailure,
            "retriable-4xx" => Self::Conflict,
            "refused-stream" => Self::RefusedStream,
            "envoy-ratelimited" => Self::EnvoyRatelimited,
            "cancelled" => Self::Cancelled,
            "deadline-exceeded" => Self::DeadlineExceeded,
            "resource-exhausted" => Self::ResourceExhausted,
            "internal" => Self::Internal,
            "unavailable" => Self::Unavailable,
            _ => return None,
        })
    }
}
