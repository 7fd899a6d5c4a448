//! How much fits: `compile` refuses what does not, by name, and never truncates.
use canary_common::limits;

use super::refusal::Refusal;
use crate::state::Service;

/// Services, counted per port and address family.
pub const SERVICES: usize = limits::SERVICES as usize;
/// Virtual addresses of all services together.
pub const FRONTENDS: usize = limits::FRONTENDS as usize;
/// Splits (rules) of all services together.
pub const SPLITS: usize = limits::SPLITS as usize;
/// Versions of all services together.
pub const VERSIONS: usize = limits::VERSIONS as usize;
/// Endpoints of all versions together.
pub const ENDPOINTS: usize = limits::ENDPOINTS as usize;
/// Versions with a share in one split.
pub const VERSIONS_PER_SPLIT: usize = limits::VERSIONS_PER_SPLIT as usize;
/// Rules of one service; a rule for several client networks counts once for each.
pub const RULES_PER_SERVICE: usize = limits::RULES_PER_SERVICE as usize;
/// Endpoints of one version.
pub const ENDPOINTS_PER_VERSION: usize = limits::ENDPOINTS_PER_VERSION as usize;

/// How much of each kind is taken.
#[derive(Debug, Default)]
pub(super) struct Room {
    services: usize,
    frontends: usize,
    splits: usize,
    versions: usize,
    endpoints: usize,
}

impl Room {
    /// Takes what `service` needs, all of it or nothing.
    pub(super) fn take(&mut self, service: &Service, frontends: usize) -> Result<(), Refusal> {
        let endpoints: usize = service.versions.values().map(|version| version.endpoints.len()).sum();
        let next = Self {
            services: self.services + 1,
            frontends: self.frontends + frontends,
            splits: self.splits + service.rules.len(),
            versions: self.versions + service.versions.len(),
            endpoints: self.endpoints + endpoints,
        };
        let checks = [
            (next.services, SERVICES, "services"),
            (next.frontends, FRONTENDS, "virtual addresses"),
            (next.splits, SPLITS, "splits"),
            (next.versions, VERSIONS, "versions"),
            (next.endpoints, ENDPOINTS, "endpoints"),
        ];
        for (needed, limit, what) in checks {
            if needed > limit {
                return Err(Refusal::NoRoom { what, limit });
            }
        }
        *self = next;
        Ok(())
    }
}
