//! Why a service is not enforced as written: it keeps its last good state instead.
use thiserror::Error;

use super::limits;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::Meta,
    state::ServiceId,
};

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("the match on `{what}` needs the request, which the kernel does not see")]
    NeedsRequest {
        what: &'static str,
        /// Whether a proxy could follow the rule.
        proxy: bool,
    },
    #[error("`{what}` is an answer without a destination, which the kernel cannot give")]
    NeedsAnswer {
        what: &'static str,
        /// Whether a proxy could give it.
        proxy: bool,
    },
    #[error("the rule is for some server names (SNI) only, which the kernel does not see")]
    NeedsServerName,
    #[error("`destinationSubnets` hold for some of the service's addresses and not for others")]
    SubnetsDivide,
    #[error("{object} is not valid")]
    Invalid { object: String },
    #[error("the split has {found} versions, more than {}", limits::VERSIONS_PER_SPLIT)]
    TooManyVersions { found: usize },
    #[error("version `{version}` has {found} endpoints, more than {}", limits::ENDPOINTS_PER_VERSION)]
    TooManyEndpoints { version: String, found: usize },
    #[error("the service has {found} rules (one for each client network), more than {}", limits::RULES_PER_SERVICE)]
    TooManyRules { found: usize },
    #[error("there is no room for it: canary holds {limit} {what}")]
    NoRoom { what: &'static str, limit: usize },
    #[error("the endpoints have names, which canary does not resolve")]
    NeedsNames,
}

impl Refusal {
    /// Whether a proxy could do it.
    pub(super) const fn is_for_the_proxy(&self) -> bool {
        matches!(self, Self::NeedsRequest { proxy: true, .. } | Self::NeedsAnswer { proxy: true, .. })
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::NeedsRequest { .. }
            | Self::NeedsAnswer { .. }
            | Self::NeedsServerName
            | Self::SubnetsDivide
            | Self::NeedsNames => "CAN0301",
            Self::Invalid { .. } => "CAN0302",
            Self::TooManyVersions { .. }
            | Self::TooManyRules { .. }
            | Self::TooManyEndpoints { .. }
            | Self::NoRoom { .. } => "CAN0303",
        }
    }

    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::NeedsRequest { proxy: true, .. } => {
                "start the agent with --proxy (an address of this family); or match on `port`, `sourceLabels` or `sourceNamespace` only"
            }
            Self::NeedsAnswer { proxy: true, .. } => {
                "start the agent with --proxy (an address of this family); or give the rule a `route`"
            }
            Self::NeedsRequest { .. } => "match on `port`, `sourceLabels` or `sourceNamespace`, or remove the match",
            Self::NeedsAnswer { .. } => "give the rule a `route`",
            Self::NeedsServerName => {
                "start the agent with --proxy (an address of this family); or name all hosts of the service in `sniHosts`"
            }
            Self::SubnetsDivide => "name all addresses of the service, or none",
            Self::Invalid { .. } => "correct it: its own errors say how",
            Self::TooManyVersions { .. } => "remove destinations",
            Self::TooManyRules { .. } => "remove rules, or name larger networks",
            Self::TooManyEndpoints { .. } => "spread the version over several services",
            Self::NoRoom { .. } => "remove what is no longer needed",
            Self::NeedsNames => "write IP addresses, with `resolution: STATIC`",
        }
    }
}

/// A [`Refusal`], by the object and field that cause it.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) meta: Box<Meta>,
    pub(super) field: String,
    pub(super) refusal: Refusal,
}

impl Refused {
    pub(super) fn new(meta: &Meta, field: impl Into<String>, refusal: Refusal) -> Self {
        Self { meta: Box::new(meta.clone()), field: field.into(), refusal }
    }

    /// The error for the service that is refused.
    pub(super) fn diagnostic(&self, service: &ServiceId, held: bool) -> Diagnostic {
        let then = if held {
            "it keeps its last good state"
        } else {
            "there is no earlier state, so its traffic is left alone"
        };
        let message = format!("service {service} is not enforced: {}; {then}", self.refusal);
        self.meta.diagnostic(Severity::Error, self.refusal.code(), &self.field, message, self.refusal.remedy())
    }
}
