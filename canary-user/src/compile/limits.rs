//! How much fits: `compile` refuses what does not, by name, and never truncates.
use canary_common::limits;

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
