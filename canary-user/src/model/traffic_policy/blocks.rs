//! What a `trafficPolicy` says to the proxy, level by level, and what the levels come to together.
use serde_json::{Map, Value};

use super::nanoseconds;
use crate::{
    model::{
        problem::{Faults, Problem},
        route::{read_port, read_weight},
    },
    state::{Balancing, ConnectionPool, HashKey, Keepalive, OutlierDetection, TrafficPolicy, Warmup},
};

/// Fields of a level that the proxy follows and the kernel does not.
const PROXIED: &[&str] = &[
    "/connectionPool",
    "/loadBalancer/consistentHash",
    "/loadBalancer/warmup",
    "/loadBalancer/warmupDurationSecs",
    "/outlierDetection",
    "/portLevelSettings",
];

/// Blocks of a level that are read.
const BLOCKS: &[&str] = &[
    "/loadBalancer",
    "/loadBalancer/consistentHash",
    "/loadBalancer/consistentHash/httpCookie",
    "/loadBalancer/consistentHash/maglev",
    "/loadBalancer/warmup",
    "/connectionPool",
    "/connectionPool/tcp",
    "/connectionPool/tcp/tcpKeepalive",
    "/connectionPool/http",
    "/outlierDetection",
];

/// A policy of a host or of a subset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    all: Blocks,
    ports: Vec<(u16, Blocks)>,
    /// Paths of what only the proxy follows.
    pub(crate) proxied: Vec<String>,
}

/// One level. A block that is missing is that of the level above.
#[derive(Debug, Clone, Default)]
struct Blocks {
    balancer: Option<(Balancing, Option<Warmup>)>,
    connections: Option<ConnectionPool>,
    outliers: Option<OutlierDetection>,
}

/// The policy for a port, of the host's and the subset's; `None` when neither says anything to the proxy.
pub(crate) fn merged(host: Option<&Policy>, subset: Option<&Policy>, port: u16) -> Option<TrafficPolicy> {
    let mut blocks = Blocks::default();
    for policy in [host, subset].into_iter().flatten() {
        let Blocks { balancer, connections, outliers } = policy.all.clone();
        blocks = Blocks {
            balancer: balancer.or(blocks.balancer),
            connections: connections.or(blocks.connections),
            outliers: outliers.or(blocks.outliers),
        };
        // As in Istio: what a port's settings leave out is the default, not what is above.
        if let Some((_, of_port)) = policy.ports.iter().find(|(number, _)| *number == port) {
            blocks = of_port.clone();
        }
    }
    let Blocks { balancer, connections, outliers } = blocks;
    if balancer.is_none() && connections.is_none() && outliers.is_none() {
        return None;
    }
    let (balancing, warmup) = balancer.unwrap_or_default();
    let policy = TrafficPolicy { balancing, warmup, connections: connections.unwrap_or_default(), outliers };
    (!policy.is_plain()).then_some(policy)
}

/// Reads a policy whose durations and percentages are checked.
pub(super) fn read(policy: &Map<String, Value>, path: &str, faults: &mut Faults) -> Policy {
    let all = Value::Object(policy.clone());
    let given = PROXIED.iter().filter(|field| all.pointer(field).is_some_and(|value| !value.is_null()));
    let proxied = given.map(|field| format!("{path}{}", field.replace('/', "."))).collect();
    let levels = policy.get("portLevelSettings").and_then(Value::as_array);
    let mut ports = Vec::new();
    for (index, level) in levels.into_iter().flatten().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        let number = level.pointer("/port/number").and_then(Value::as_i64);
        let Some(number) = number else {
            faults.push(format!("{path}.port.number"), Problem::Missing);
            continue;
        };
        if let Some(number) = faults.take(&format!("{path}.port.number"), read_port(number)) {
            if ports.iter().any(|(known, _)| *known == number) {
                faults.push(format!("{path}.port.number"), Problem::Duplicate { value: number.to_string() });
                continue;
            }
            ports.push((number, Level { value: level, path, faults: &mut *faults }.blocks()));
        }
    }
    let all = Level { value: &all, path: path.to_owned(), faults }.blocks();
    Policy { all, ports, proxied }
}

struct Level<'a> {
    value: &'a Value,
    path: String,
    faults: &'a mut Faults,
}

impl Level<'_> {
    fn blocks(mut self) -> Blocks {
        for block in BLOCKS {
            self.typed(block, |value| value.is_object().then_some(()), "a block of fields");
        }
        Blocks {
            balancer: self.get("/loadBalancer").is_some().then(|| (self.balancing(), self.warmup())),
            connections: self.get("/connectionPool").is_some().then(|| self.connections()),
            outliers: self.get("/outlierDetection").is_some().then(|| self.outliers()),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.value.pointer(field).filter(|value| !value.is_null())
    }

    /// Says that a field has a value that it cannot have.
    fn wrong(&mut self, field: &str, expected: &'static str) {
        let value = self.get(field).cloned().unwrap_or_default();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.faults.push(format!("{}{}", self.path, field.replace('/', ".")), Problem::Value { value, expected });
    }

    /// A value, if it is of its type.
    fn typed<T>(&mut self, field: &str, read: fn(&Value) -> Option<T>, expected: &'static str) -> Option<T> {
        let value = read(self.get(field)?);
        if value.is_none() {
            self.wrong(field, expected);
        }
        value
    }

    fn text(&mut self, field: &str) -> Option<String> {
        self.typed(field, |value| value.as_str().map(str::to_owned), "a text").filter(|text| !text.is_empty())
    }

    /// A name out of a few; in protobuf none is the first.
    fn name(&mut self, field: &str, names: &'static [&'static str], expected: &'static str) -> &'static str {
        let first = names.first().copied().unwrap_or_default();
        let Some(text) = self.text(field) else { return first };
        let known = names.iter().find(|name| **name == text);
        if known.is_none() {
            self.wrong(field, expected);
        }
        known.copied().unwrap_or(first)
    }

    /// A duration whose text is checked.
    fn millis(&mut self, field: &str) -> Option<u64> {
        let length = nanoseconds(&self.text(field)?)? / 1e6;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
        Some(length.round() as u64)
    }

    fn seconds(&mut self, field: &str) -> Option<u64> {
        self.millis(field).map(|millis| millis.div_ceil(1_000))
    }

    /// A whole number; in protobuf's JSON it may also be a string.
    fn number(&mut self, field: &str) -> Option<u32> {
        let read = |value: &Value| match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => read_weight(number).ok(), // Whole, also as `10.0`.
            _ => None,
        };
        self.typed(field, read, "a whole number from 0 to 4294967295")
    }

    /// Any number; a string, too.
    fn float(&mut self, field: &str) -> Option<f64> {
        let read = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        self.typed(field, read, "a number")
    }

    /// A limit; 0 is none, as in Istio.
    fn limit(&mut self, field: &str) -> Option<u32> {
        self.number(field).filter(|number| *number > 0)
    }

    fn percent(&mut self, field: &str) -> Option<u8> {
        self.number(field).and_then(|number| u8::try_from(number).ok())
    }

    fn is(&mut self, field: &str) -> bool {
        self.typed(field, Value::as_bool, "true or false") == Some(true)
    }

    fn balancing(&mut self) -> Balancing {
        const SIMPLE: &[&str] = &["UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH"];
        const HASH: &str = "/loadBalancer/consistentHash";
        let table_size = self.limit(&format!("{HASH}/maglev/tableSize")).unwrap_or(Balancing::TABLE_SIZE);
        let key = if let Some(name) = self.text(&format!("{HASH}/httpHeaderName")) {
            Some(HashKey::Header(name.to_ascii_lowercase()))
        } else if let Some(name) = self.text(&format!("{HASH}/httpCookie/name")) {
            let path = self.text(&format!("{HASH}/httpCookie/path")).unwrap_or_default();
            Some(HashKey::Cookie { name, path, ttl_seconds: self.cookie_ttl() })
        } else if let Some(name) = self.text(&format!("{HASH}/httpQueryParameterName")) {
            Some(HashKey::Query(name))
        } else {
            self.is(&format!("{HASH}/useSourceIp")).then_some(HashKey::SourceIp)
        };
        if let Some(key) = key {
            return Balancing::Hash { key, table_size };
        }
        match self.name(
            "/loadBalancer/simple",
            SIMPLE,
            "UNSPECIFIED, LEAST_REQUEST, LEAST_CONN, RANDOM, ROUND_ROBIN or PASSTHROUGH",
        ) {
            "ROUND_ROBIN" => Balancing::RoundRobin,
            "RANDOM" => Balancing::Random,
            // Istio's default; PASSTHROUGH is reported.
            _ => Balancing::LeastRequest,
        }
    }

    fn cookie_ttl(&mut self) -> Option<u64> {
        const TTL: &str = "/loadBalancer/consistentHash/httpCookie/ttl";
        if nanoseconds(&self.text(TTL)?).is_none() {
            self.wrong(TTL, "a duration, such as 0s or 1h");
        }
        self.seconds(TTL)
    }

    fn warmup(&mut self) -> Option<Warmup> {
        let duration_ms = self.millis("/loadBalancer/warmup/duration");
        let duration_ms = duration_ms.or_else(|| self.millis("/loadBalancer/warmupDurationSecs"))?;
        let aggression = self.float("/loadBalancer/warmup/aggression").unwrap_or(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let aggression_milli = ((aggression * 1e3) as u32).max(1);
        let minimum = self.float("/loadBalancer/warmup/minimumPercent").unwrap_or(10.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 100")]
        let minimum_percent = minimum.round() as u8;
        Some(Warmup { duration_ms, aggression_milli, minimum_percent })
    }

    fn connections(&mut self) -> ConnectionPool {
        const UPGRADES: &[&str] = &["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"];
        let keepalive = self.get("/connectionPool/tcp/tcpKeepalive").is_some().then(|| Keepalive {
            time_seconds: self.seconds("/connectionPool/tcp/tcpKeepalive/time"),
            interval_seconds: self.seconds("/connectionPool/tcp/tcpKeepalive/interval"),
            probes: self.limit("/connectionPool/tcp/tcpKeepalive/probes"),
        });
        let (upgrade, own) = ("/connectionPool/http/h2UpgradePolicy", "/connectionPool/http/useClientProtocol");
        let upgrade = self.name(upgrade, UPGRADES, "DEFAULT, DO_NOT_UPGRADE or UPGRADE") == "UPGRADE";
        let as_client = self.is(own);
        if upgrade && as_client {
            let (first, second) = ("connectionPool.http.h2UpgradePolicy: UPGRADE", "useClientProtocol");
            let field = format!("{}{}", self.path, own.replace('/', "."));
            self.faults.push(field, Problem::Exclusive { first, second });
        }
        let idle = self.millis("/connectionPool/http/idleTimeout");
        ConnectionPool {
            max_connections: self.limit("/connectionPool/tcp/maxConnections"),
            connect_timeout_ms: self.millis("/connectionPool/tcp/connectTimeout"),
            keepalive,
            idle_timeout_ms: idle.or_else(|| self.millis("/connectionPool/tcp/idleTimeout")),
            max_connection_duration_ms: self.millis("/connectionPool/tcp/maxConnectionDuration"),
            max_pending: self.limit("/connectionPool/http/http1MaxPendingRequests"),
            max_requests: self.limit("/connectionPool/http/http2MaxRequests"),
            max_requests_per_connection: self.limit("/connectionPool/http/maxRequestsPerConnection"),
            max_retries: self.limit("/connectionPool/http/maxRetries"),
            max_concurrent_streams: self.limit("/connectionPool/http/maxConcurrentStreams"),
            upgrade,
            as_client,
        }
    }

    fn outliers(&mut self) -> OutlierDetection {
        let split = self.is("/outlierDetection/splitExternalLocalOriginErrors");
        let local = self.limit("/outlierDetection/consecutiveLocalOriginFailures").unwrap_or(5);
        OutlierDetection {
            consecutive_5xx: self.number("/outlierDetection/consecutive5xxErrors").unwrap_or(5),
            consecutive_gateway_errors: self.number("/outlierDetection/consecutiveGatewayErrors").unwrap_or(0),
            consecutive_local_failures: split.then_some(local),
            interval_ms: self.millis("/outlierDetection/interval").unwrap_or(10_000),
            base_ejection_ms: self.millis("/outlierDetection/baseEjectionTime").unwrap_or(30_000),
            max_ejection_percent: self
                .percent("/outlierDetection/maxEjectionPercent")
                .filter(|percent| *percent > 0)
                .unwrap_or(10),
            min_health_percent: self.percent("/outlierDetection/minHealthPercent").unwrap_or(0),
        }
    }
}
