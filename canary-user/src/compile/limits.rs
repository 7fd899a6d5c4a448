//! How much fits: `compile` refuses what does not, by name, and never truncates.

/// Services, counted per port and address family.
pub const SERVICES: usize = 4_096;
/// Splits (rules) of all services together.
pub const SPLITS: usize = 16_384;
/// Versions of all services together.
pub const VERSIONS: usize = 65_536;
/// Endpoints of all versions together.
pub const ENDPOINTS: usize = 262_144;
/// Versions with a share in one split.
pub const VERSIONS_PER_SPLIT: usize = 64;
/// Rules of one service.
pub const RULES_PER_SERVICE: usize = 64;

const _: () = assert!(SERVICES <= SPLITS && SPLITS <= VERSIONS && VERSIONS <= ENDPOINTS);
