//! Errors of the API: an HTTP status and a body that says what, why and what to do.
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    agent::{edit::EditError, kernel::KernelError, wake::Stopped},
    api::dto::{DiagnosticV1, ErrorBodyV1, ErrorV1},
    diagnostic::chain,
};

/// What a handler fails with.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// Whose fault it is.
    pub status: StatusCode,
    /// What it is.
    pub body: ErrorBodyV1,
}

impl ApiError {
    /// An error without findings.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let body =
            ErrorBodyV1 { code: code.into(), message: message.into(), remedy: remedy.into(), diagnostics: vec![] };
        Self { status, body }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorV1 { error: self.body })).into_response()
    }
}

impl From<Stopped> for ApiError {
    fn from(error: Stopped) -> Self {
        let remedy = "start it again, or wait until it has been";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error.to_string(), remedy)
    }
}

impl From<KernelError> for ApiError {
    fn from(error: KernelError) -> Self {
        let remedy = "see the agent's log and `canary status`";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "dataplane", chain(&error), remedy)
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        let status = match &error {
            EditError::NoService { .. } | EditError::NotFound { .. } => StatusCode::NOT_FOUND,
            EditError::Ambiguous { .. }
            | EditError::NoRoute { .. }
            | EditError::Needed { .. }
            | EditError::Undo(_)
            | EditError::InCluster { .. }
            | EditError::NoDirectory
            | EditError::SingleFile { .. } => StatusCode::CONFLICT,
            EditError::Invalid { .. } | EditError::Nothing | EditError::Weights(_) | EditError::Document(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            EditError::Read { .. } | EditError::Write(_) | EditError::Remove { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            EditError::Unavailable(_) | EditError::NotInForce(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut api = Self::new(status, error.code(), chain(&error), error.remedy());
        if let EditError::Invalid { diagnostics } | EditError::Needed { diagnostics } = &error {
            api.body.diagnostics = diagnostics.iter().map(DiagnosticV1::from).collect();
        }
        api
    }
}
