//! What the loop publishes after every pass: the one thing that status, metrics and `get` read.
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    agent::{history::History, pass::PassError},
    compile::ServiceReport,
    dataplane::{Applied, Attached},
    diagnostic::Diagnostic,
    source::cluster::Remark,
    state::{ServiceId, State},
};

/// How the agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// No pass has succeeded yet.
    #[default]
    Starting,
    /// What is wanted is in force.
    Ready,
    /// The last pass failed; what was in force stays, and the next pass tries again.
    Degraded,
}

/// Why the last pass failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Trouble {
    pub(super) fn of(error: &PassError) -> Self {
        Self { message: crate::diagnostic::chain(error), remedy: error.remedy().into() }
    }
}

/// The agent at one moment. A new one replaces it whole.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// How the agent is.
    pub phase: Phase,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// When the agent started.
    pub started: u64,
    /// Whether it has been ready since it started.
    pub was_ready: bool,
    /// Why it is degraded.
    pub trouble: Option<Trouble>,
    /// What the last pass wanted.
    pub intended: Arc<State>,
    /// What was applied last.
    pub in_force: Arc<State>,
    /// What decided about each service.
    pub reports: BTreeMap<ServiceId, ServiceReport>,
    /// Findings of the last pass.
    pub diagnostics: Vec<Diagnostic>,
    /// Passes that succeeded.
    pub passes: u64,
    /// Passes that failed.
    pub failures: u64,
    /// When maps were last written or found right, in seconds since 1970.
    pub applied_at: Option<u64>,
    /// What the last successful pass wrote.
    pub applied: Applied,
    /// Interfaces.
    pub attached: Vec<Attached>,
    /// What is to be said at the API server.
    pub remarks: Arc<Vec<Remark>>,
    /// Changes of weights.
    pub history: Arc<History>,
}
