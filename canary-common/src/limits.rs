//! Every capacity of the data plane, and the relations between them.
//!
//! Exceeding one is a typed error of `compile` that names the object: never truncation, never a log line.

/// Services (one port, protocol and address family of a Service each).
pub const SERVICES: u32 = 4_096;
/// Virtual addresses: a service may answer at several.
pub const FRONTENDS: u32 = 4 * SERVICES;
/// Entries for them: packets and sockets have one each, which may lead to different services.
pub const FRONTEND_ENTRIES: u32 = 2 * FRONTENDS;
/// Splits in force, one per rule.
pub const SPLITS: u32 = 16_384;
/// Versions, each a set of endpoints of one service.
pub const VERSIONS: u32 = 65_536;
/// Endpoints, those that drain included.
pub const ENDPOINTS: u32 = 262_144;
/// Versions of one split. The keyed choice walks them, so the verifier must see the bound.
pub const VERSIONS_PER_SPLIT: u32 = 64;
/// Rules of one service, each client network of a rule counted. Walked as well.
pub const RULES_PER_SERVICE: u32 = 64;
/// Endpoints of one version: the depth of a weighted choice among them is bounded by [`ENDPOINT_DEPTH`].
pub const ENDPOINTS_PER_VERSION: u32 = 16_384;

/// Rule slots. A service's rules are written anew as a block before the old block is given up.
pub const RULE_SLOTS: u32 = 65_536;
/// Split slots: twice the splits, because new weights are a new split.
pub const SPLIT_SLOTS: u32 = 2 * SPLITS;
/// Leaves of splits: one for each (split, version).
pub const LEAF_SLOTS: u32 = 2 * VERSIONS;
/// Two-way nodes, of splits and of weighted endpoints.
pub const NODE_SLOTS: u32 = LEAF_SLOTS + 2 * ENDPOINTS;
/// Groups: immutable sets of endpoints; a version points to one.
pub const GROUP_SLOTS: u32 = 2 * VERSIONS;
/// Pool of endpoint numbers: member lists and Maglev rings.
pub const MEMBER_SLOTS: u32 = 4 * 1_048_576;
/// Sockets that have addressed a service, two entries each; the least recently used are forgotten first.
pub const SOCKETS: u32 = 131_072;
/// Connections of sockets to the proxy, from which it learns where they were meant to go.
pub const ORIGINS: u32 = 16_384;
/// Pods of a node whose processes can be told by their cgroups.
pub const CLIENTS: u32 = 4_096;
/// Levels of cgroups above a process that are looked at for its pod's.
pub const CGROUP_DEPTH: i32 = 12;
/// Open TCP connections of sockets whose end is counted.
pub const CONNECTIONS: u32 = 262_144;
/// Datagrams whose later fragments are awaited.
pub const FRAGMENTS: u32 = 8_192;

/// Levels of a tree of [`VERSIONS_PER_SPLIT`] versions.
pub const SPLIT_DEPTH: u32 = 6;
/// Levels of a tree of [`ENDPOINTS_PER_VERSION`] endpoints.
pub const ENDPOINT_DEPTH: u32 = 14;
/// Largest Maglev ring, a prime. 100 slots an endpoint keep shares within about 1 % of even (Maglev, NSDI '16, §5.3).
pub const RING_MAX: u32 = 65_537;

const _: () = assert!(1 << SPLIT_DEPTH >= VERSIONS_PER_SPLIT, "the walk reaches every leaf");
const _: () = assert!(1 << ENDPOINT_DEPTH >= ENDPOINTS_PER_VERSION, "the walk reaches every endpoint");
const _: () = assert!(RULE_SLOTS >= 2 * RULES_PER_SERVICE, "the largest block can be replaced");
const _: () = assert!(SPLITS >= SERVICES, "a rule for every service");
const _: () = assert!(MEMBER_SLOTS >= 2 * ENDPOINTS, "every endpoint is a member once, and once more while replaced");
const _: () = assert!(NODE_SLOTS < 1 << 31, "the top bit of a node reference marks a leaf");
const _: () = assert!(FRONTENDS >= SERVICES, "an address for every service");
