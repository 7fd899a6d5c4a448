//! Requests that change or try something, and their answers.
use serde::{Deserialize, Serialize};

use super::{DiagnosticV1, NotEnforcedV1};

/// `POST /v1/weights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeightsV1 {
    /// Service.
    pub service: String,
    /// Rule, where there are several.
    #[serde(default)]
    pub rule: Option<String>,
    /// Weights of all versions of the rule.
    pub weights: Vec<WeightV1>,
    /// Change nothing, answer what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A version and its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightV1 {
    /// Name.
    pub version: String,
    /// Weight.
    pub weight: u32,
}

/// `POST /v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyV1 {
    /// Texts with YAML or JSON documents.
    pub files: Vec<FileV1>,
    /// Change nothing, answer what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileV1 {
    /// Name, for messages.
    pub name: String,
    /// Content.
    pub text: String,
}

/// `POST /v1/delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteV1 {
    /// Objects.
    pub objects: Vec<ObjectV1>,
    /// Pass over objects that are not there.
    #[serde(default)]
    pub ignore_not_found: bool,
    /// Also when others refer to them.
    #[serde(default)]
    pub force: bool,
    /// Change nothing, answer what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectV1 {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// `POST /v1/undo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoV1 {
    /// Entry of the history; the newest when absent.
    #[serde(default)]
    pub entry: Option<u64>,
    /// Change nothing, answer what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to every change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EditedV1 {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Objects and what became of them.
    pub objects: Vec<ObjectOutcomeV1>,
    /// Files that were written or removed.
    pub files: Vec<String>,
    /// Weights before and after.
    pub changes: Vec<ChangeV1>,
    /// Versions that get or lose endpoints.
    #[serde(default)]
    pub endpoints: Vec<EndpointsChangeV1>,
    /// Services of these objects that are not enforced as written.
    pub not_enforced: Vec<NotEnforcedV1>,
    /// Findings about the objects.
    pub diagnostics: Vec<DiagnosticV1>,
    /// Map writes of a dry run, in order.
    pub plan: Option<Vec<String>>,
    /// Map writes that were made.
    pub operations: Option<usize>,
    /// Number in the history.
    pub entry: Option<u64>,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectOutcomeV1 {
    /// `Kind namespace/name`.
    pub object: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub outcome: String,
}

/// Weights of one rule before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeV1 {
    /// Service.
    pub service: String,
    /// Rule.
    pub rule: String,
    /// Before; versions of weight 0 are left out. Empty for a rule that is new.
    pub old: Vec<WeightV1>,
    /// After; likewise. Empty for a rule that is gone.
    pub new: Vec<WeightV1>,
}

/// Endpoints of one version before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointsChangeV1 {
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// How many before.
    pub old: usize,
    /// How many after.
    pub new: usize,
    /// How many of them are new.
    pub added: usize,
    /// How many go.
    pub removed: usize,
}

/// One of `GET /v1/history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryV1 {
    /// Number.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who: a user, or `files`.
    pub by: String,
    /// Their id.
    pub uid: Option<u32>,
    /// `set-weight`, `apply`, `delete`, `undo` or `files`.
    pub action: String,
    /// The entry that this one takes back.
    pub undoes: Option<u64>,
    /// The entry that takes this one back.
    pub undone_by: Option<u64>,
    /// What changed.
    pub changes: Vec<ChangeV1>,
}

/// `POST /v1/trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequestV1 {
    /// Client, `IP:PORT`.
    pub from: String,
    /// Virtual address, `IP:PORT`.
    pub to: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How many flows, one after the other.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// What the loaded program says about one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceV1 {
    /// Client.
    pub from: String,
    /// Virtual address.
    pub to: String,
    /// Service.
    pub service: Option<String>,
    /// Rule that matched.
    pub rule: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Endpoint.
    pub endpoint: Option<String>,
    /// Place in the split's sequence.
    pub draw: Option<u64>,
    /// A flow that is known keeps its endpoint.
    pub known: bool,
    /// Why the packet is left alone.
    pub leave: Option<String>,
    /// All of it in one sentence.
    pub why: String,
}

/// `GET /v1/openapi.json` aside, lists come in this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListV1<T> {
    /// The items.
    pub items: Vec<T>,
}
