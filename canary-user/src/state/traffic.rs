//! How the proxy treats the endpoints of a version: which of them gets a request, over which connections, and which
//! rest. What `trafficPolicy` of a DestinationRule comes to.
use serde::{Deserialize, Serialize};

/// The policy of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// Which endpoint gets a request.
    pub balancing: Balancing,
    /// How an endpoint that is new comes to its share.
    pub warmup: Option<Warmup>,
    /// Connections to the endpoints.
    pub connections: ConnectionPool,
    /// Which endpoints rest for a while.
    pub outliers: Option<OutlierDetection>,
}

impl TrafficPolicy {
    /// Whether it asks for nothing but what a version without a policy has: turns.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self { balancing: Balancing::RoundRobin, ..Self::default() }
    }
}

/// How the endpoint of a request is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Balancing {
    /// Of two that are drawn the one with fewer requests under way: Istio's default.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// Requests with the same key go to the same endpoint.
    Hash {
        /// What is hashed; a request without it goes anywhere.
        key: HashKey,
        /// Places of the Maglev table: a prime.
        table_size: u32,
    },
}

impl Balancing {
    /// Places of a Maglev table: Envoy's default. The same for any number of endpoints, or one more would move every key.
    pub(crate) const TABLE_SIZE: u32 = 65_537;

    /// A client stays with its endpoint.
    #[must_use]
    pub const fn by_client() -> Self {
        Self::Hash { key: HashKey::SourceIp, table_size: Self::TABLE_SIZE }
    }
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// Value of a header, by its name in lower case.
    Header(String),
    /// Value of a cookie.
    Cookie {
        /// Name.
        name: String,
        /// Path of the cookie that is set; empty: none.
        path: String,
        /// A client without the cookie is given one for so long, 0 for its session; `None`: it is given none.
        ttl_seconds: Option<u64>,
    },
    /// The client's address.
    SourceIp,
    /// First value of a query parameter.
    Query(String),
}

/// Slow start: the weight of an endpoint rises to its own from a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmup {
    /// How long, in milliseconds; at least 1.
    pub duration_ms: u64,
    /// Thousandths of the aggression, at least 1: 1 000 is linear, more rises faster at first.
    pub aggression_milli: u32,
    /// The least part of the weight, in percent.
    pub minimum_percent: u8,
}

/// Connections of each version. `None` is no limit, or what the proxy does anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPool {
    /// Connections at a time to all endpoints; each may always have one.
    pub max_connections: Option<u32>,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: Option<u64>,
    /// TCP keepalive.
    pub keepalive: Option<Keepalive>,
    /// Longest time that a connection is kept unused, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Oldest connection that is given another request, in milliseconds.
    pub max_connection_duration_ms: Option<u64>,
    /// Requests that wait for a connection at a time.
    pub max_pending: Option<u32>,
    /// Requests under way at a time.
    pub max_requests: Option<u32>,
    /// Requests over one connection, one after another or at a time.
    pub max_requests_per_connection: Option<u32>,
    /// Retries under way at a time.
    pub max_retries: Option<u32>,
    /// Requests at a time over one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 to the endpoints, whatever the client speaks.
    pub upgrade: bool,
    /// What the client speaks, whatever the port declares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_client: bool,
}

/// TCP keepalive; `None` is the system's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Seconds without data before the first probe.
    pub time_seconds: Option<u64>,
    /// Seconds between probes.
    pub interval_seconds: Option<u64>,
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
}

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// Answers 5xx one after another; 0: they do not matter.
    pub consecutive_5xx: u32,
    /// Answers 502, 503 and 504 one after another; 0: they do not matter.
    pub consecutive_gateway_errors: u32,
    /// Failures to get an answer at all, one after another, counted by themselves; `None`: they count as 503 and 504.
    pub consecutive_local_failures: Option<u32>,
    /// How long an endpoint must be well for one of its ejections to be forgotten, in milliseconds.
    pub interval_ms: u64,
    /// The first ejection, in milliseconds; the n-th is n times as long, up to 5 minutes.
    pub base_ejection_ms: u64,
    /// Most endpoints that are ejected at a time, in percent.
    pub max_ejection_percent: u8,
    /// If fewer are well, in percent, all get requests.
    pub min_health_percent: u8,
}
