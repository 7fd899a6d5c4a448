//! What goes over the wire, version 1. Field names are a promise: add, never rename.
//!
//! Types of their own, so that the model may change; [`super::convert`] is where the two meet. The command line
//! reads the same types, and has no other way in. Fields that came later have a default, for an agent from before them.
use serde::{Deserialize, Serialize};

pub use change::*;
pub use connections::*;
pub use requests::*;

mod change;
mod connections;
mod requests;

/// Every error. The HTTP status says whose fault it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorV1 {
    /// The error.
    pub error: ErrorBodyV1,
}

/// The error itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBodyV1 {
    /// Short name, for programs.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub remedy: String,
    /// Findings that led to it.
    #[serde(default)]
    pub diagnostics: Vec<DiagnosticV1>,
}

/// A finding about an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticV1 {
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// Istio's code where there is one, else `CAN…`.
    pub code: String,
    /// `Kind namespace/name`.
    pub object: String,
    /// Path of the field; may be empty.
    pub field: String,
    /// File.
    pub file: String,
    /// Line, 1-based; 0 when unknown.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfoV1 {
    /// Version of the agent.
    pub version: String,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusV1 {
    /// `starting`, `ready` or `degraded`.
    pub phase: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When the agent started, RFC 3339.
    pub started: String,
    /// Whether it has been ready since then.
    pub was_ready: bool,
    /// Version of the agent.
    pub version: String,
    /// Why it is degraded.
    pub trouble: Option<TroubleV1>,
    /// Interfaces.
    pub attached: Vec<AttachedV1>,
    /// Services in force.
    pub services: usize,
    /// Services whose rules are not enforced.
    pub not_enforced: Vec<NotEnforcedV1>,
    /// Versions in force.
    pub versions: usize,
    /// Endpoints in force.
    pub endpoints: usize,
    /// When the state in force was last applied, RFC 3339.
    pub applied_at: Option<String>,
    /// Map writes of the last pass.
    pub operations: usize,
    /// Passes that succeeded.
    pub passes: u64,
    /// Passes that failed.
    pub failures: u64,
    /// Memory of every map.
    pub maps: Vec<MapV1>,
    /// Bytes of all maps.
    pub map_bytes: u64,
    /// Findings of the last pass.
    pub diagnostics: Vec<DiagnosticV1>,
}

/// Why the agent is degraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleV1 {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// A service whose rules are not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEnforcedV1 {
    /// The service.
    pub service: String,
    /// Why.
    pub reason: String,
}

/// An interface with our programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedV1 {
    /// `xdp` or `tc`.
    pub hook: String,
    /// Name of the interface.
    pub interface: String,
    /// `native`, `generic`, `tcx` or `clsact`.
    pub mode: String,
    /// Taken over from an earlier agent.
    pub adopted: bool,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Memory of one map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapV1 {
    /// Name.
    pub name: String,
    /// Capacity.
    pub entries: u32,
    /// Bytes.
    pub bytes: u64,
}

/// One of `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceV1 {
    /// Id, such as `default/helloworld:5000/tcp`.
    pub service: String,
    /// Addresses at which it answers.
    pub addresses: Vec<String>,
    /// VirtualService that decides, `Kind namespace/name`.
    pub route: Option<String>,
    /// What is written is what is in force.
    pub enforced: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Rules, in order.
    pub rules: Vec<RuleV1>,
    /// Flows since the agent's maps were made.
    pub flows: u64,
}

/// A rule of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleV1 {
    /// Name, or `http[0]` by position.
    pub name: String,
    /// Client networks; empty matches everybody.
    pub sources: Vec<String>,
    /// `exact`, `keyed-flow` or `keyed-client`.
    pub choosing: String,
    /// `fail`, `spill` or `hold`.
    pub on_no_endpoints: String,
    /// Versions with a weight above 0.
    pub versions: Vec<ShareV1>,
}

/// A version in a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareV1 {
    /// Name.
    pub version: String,
    /// Weight.
    pub weight: u32,
    /// Weight divided by the sum of weights.
    pub share: f64,
}

/// Flows, packets and bytes: `in` from clients, `out` to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsV1 {
    /// New flows.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// One of `GET /v1/versions`: a version in a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionV1 {
    /// Service.
    pub service: String,
    /// Rule; `-` for a version that no rule gives a weight.
    pub rule: String,
    /// Name.
    pub version: String,
    /// Weight that is wanted.
    pub weight: u32,
    /// Weight in the maps.
    pub programmed: Option<u32>,
    /// Wanted share, 0 to 1.
    pub share: f64,
    /// Flows by this rule since its weights were last changed; 0 where requests are split.
    pub flows: u64,
    /// Requests by this rule since its weights were last changed; absent where flows are split.
    #[serde(default)]
    pub requests: Option<u64>,
    /// Share of those, 0 to 1; absent without any.
    pub observed_share: Option<f64>,
    /// Flows or requests above or below the share.
    pub deviation: f64,
    /// How far `deviation` may be from 0; absent when they say nothing.
    pub bound: Option<f64>,
    /// Endpoints.
    pub endpoints: usize,
    /// Over all rules, since the agent's maps were made.
    pub total: CountsV1,
    /// TCP connections that sockets have made, over all rules; absent if they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionsV1>,
}

/// One of `GET /v1/endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointV1 {
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// Address and port.
    pub endpoint: String,
    /// Weight inside the version; 0 while draining.
    pub weight: u32,
    /// `active` or `draining`.
    pub state: String,
    /// Seconds until the remaining flows end.
    pub drains_for_seconds: Option<u32>,
    /// Device by which clients' packets go straight to it, past the host's stack.
    pub direct: Option<String>,
    /// Counters.
    #[serde(flatten)]
    pub counts: CountsV1,
}

/// One of `GET /v1/flows`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowV1 {
    /// Client.
    pub client: String,
    /// Virtual address.
    pub frontend: String,
    /// Endpoint.
    pub endpoint: String,
    /// Service.
    pub service: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// `half-open`, `established` or `closing`.
    pub state: String,
    /// Seconds since the last packet.
    pub idle_seconds: u32,
}

/// `GET /v1/flows`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsV1 {
    /// The flows.
    pub items: Vec<FlowV1>,
    /// There are more than were asked for.
    #[serde(default)]
    pub truncated: bool,
}

/// One of `GET /v1/leaves`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveV1 {
    /// Why packets are left alone.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// What happens to them: `pass`, `drop` or `reset`.
    #[serde(default)]
    pub verdict: String,
    /// What the reason means.
    #[serde(default)]
    pub meaning: String,
}

/// `GET /v1/verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyV1 {
    /// Everything agrees.
    pub agrees: bool,
    /// Differences between the wanted state and the maps.
    pub differences: Vec<String>,
    /// Services whose rules are not enforced.
    #[serde(default)]
    pub not_enforced: Vec<NotEnforcedV1>,
    /// Versions that have a share and no endpoints.
    #[serde(default)]
    pub without_endpoints: Vec<WithoutEndpointsV1>,
    /// Splits.
    pub splits: Vec<SplitV1>,
}

/// A version that has a share and no endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WithoutEndpointsV1 {
    /// Service.
    pub service: String,
    /// Rule.
    pub rule: String,
    /// Version.
    pub version: String,
    /// Its share, 0 to 1.
    pub share: f64,
}

/// One split: intended, programmed, observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitV1 {
    /// Service.
    pub service: String,
    /// Rule.
    pub rule: String,
    /// How it chooses.
    pub choosing: String,
    /// Flows since the weights were last changed.
    pub flows: u64,
    /// Draws without a counted flow, or the reverse, at the moment of reading; the bounds are wider by as much.
    pub unaccounted: u64,
    /// Programmed and within the bounds.
    pub agrees: bool,
    /// Versions.
    pub versions: Vec<SplitVersionV1>,
}

/// One version of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitVersionV1 {
    /// Name.
    pub version: String,
    /// Weight that is wanted.
    pub intended: Option<u32>,
    /// Weight in the maps.
    pub programmed: Option<u32>,
    /// Flows that the programmed weight comes to.
    pub expected: f64,
    /// Flows that it got.
    pub observed: u64,
    /// `observed` minus `expected`.
    pub deviation: f64,
    /// How far that may be from 0; absent when flows say nothing.
    pub bound: Option<f64>,
}
