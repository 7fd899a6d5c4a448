//! A request that is traced: what is asked, and what is answered.
use serde::{Deserialize, Serialize};

/// `POST /v1/trace/http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTraceRequestV1 {
    /// Client, `IP:PORT`; absent: any.
    #[serde(default)]
    pub from: Option<String>,
    /// Virtual address, `IP:PORT`.
    pub to: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, in order; `host` is the authority.
    #[serde(default)]
    pub headers: Vec<HeaderV1>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderV1 {
    /// Name, in any case.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What a request would meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpTraceV1 {
    /// Client.
    pub from: String,
    /// Virtual address.
    pub to: String,
    /// Method, path and query.
    pub request: String,
    /// Service.
    pub service: Option<String>,
    /// Rule that it meets.
    pub rule: Option<PlacedRuleV1>,
    /// Rules before that one.
    pub passed: Vec<PassedRuleV1>,
    /// `route`, `redirect`, `answer`, or `none` where no rule matches; `kernel` where connections are split and requests
    /// are not looked at; `left` where no service answers.
    pub action: String,
    /// Status of an answer that no endpoint makes.
    pub status: Option<u16>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// Flag of a request that no endpoint answers, as in metrics and the access log.
    pub flags: Option<String>,
    /// `exact`, `keyed-flow` or `keyed-client`.
    pub choosing: Option<String>,
    /// Versions that it may get.
    pub versions: Vec<TracedVersionV1>,
    /// All of it in one sentence.
    pub why: String,
}

/// A rule and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRuleV1 {
    /// Place among the rules of the service, from 0.
    pub index: usize,
    /// Name, or `http[0]` by position.
    pub name: String,
    /// `Kind namespace/name`; absent for a service that is held at its last good state.
    pub object: Option<String>,
    /// Path of the field.
    pub field: Option<String>,
    /// File.
    pub file: Option<String>,
    /// Line.
    pub line: Option<u32>,
}

/// A rule that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedRuleV1 {
    /// The rule.
    #[serde(flatten)]
    pub rule: PlacedRuleV1,
    /// Why not.
    pub why: String,
}

/// A version that a request may get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracedVersionV1 {
    /// Name.
    pub version: String,
    /// Weight as it is followed.
    pub weight: u32,
    /// Share, 0 to 1; 1 and 0 where this client's version is known.
    pub share: f64,
    /// Endpoints.
    pub endpoints: Vec<String>,
}
