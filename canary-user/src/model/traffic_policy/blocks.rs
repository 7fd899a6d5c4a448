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

/// Places of a Maglev table: Envoy's default. The same for any number of endpoints, or one more would move every key.
const TABLE_SIZE: u32 = 65_537;

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
        Blocks {
            balancer: self.get("/loadBalancer").is_some().then(|| (self.balancing(), self.warmup())),
            connections: self.get("/connectionPool").is_some().then(|| self.connections()),
            outliers: self.get("/outlierDetection").is_some().then(|| self.outliers()),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.value.pointer(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.get(field)?.as_str().filter(|text| !text.is_empty())
    }

    fn millis(&self, field: &str) -> Option<u64> {
        let length = nanoseconds(self.text(field)?)? / 1e6;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
        Some(length as u64)
    }

    fn seconds(&self, field: &str) -> Option<u64> {
        self.millis(field).map(|millis| millis.div_ceil(1_000))
    }

    /// A whole number; in protobuf's JSON it may also be a string.
    fn number(&mut self, field: &str) -> Option<u32> {
        let value = self.get(field)?;
        let number = match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => read_weight(number).ok(), // Whole, also as `10.0`.
            _ => None,
        };
        if number.is_none() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let field = format!("{}{}", self.path, field.replace('/', "."));
            self.faults.push(field, Problem::Value { value, expected: "a whole number from 0 to 4294967295" });
        }
        number
    }

    /// A limit; 0 is none, as in Istio.
    fn limit(&mut self, field: &str) -> Option<u32> {
        self.number(field).filter(|number| *number > 0)
    }

    fn percent(&mut self, field: &str) -> Option<u8> {
        self.number(field).and_then(|number| u8::try_from(number).ok())
    }

    fn is(&self, field: &str) -> bool {
        self.get(field).and_then(Value::as_bool) == Some(true)
    }

    fn balancing(&mut self) -> Balancing {
        const HASH: &str = "/loadBalancer/consistentHash";
        let table_size = self.limit(&format!("{HASH}/maglev/tableSize")).unwrap_or(TABLE_SIZE);
        let key = if let Some(name) = self.text(&format!("{HASH}/httpHeaderName")) {
            Some(HashKey::Header(name.to_ascii_lowercase()))
        } else if let Some(name) = self.text(&format!("{HASH}/httpCookie/name")) {
            let path = self.text(&format!("{HASH}/httpCookie/path")).unwrap_or_default().to_owned();
            Some(HashKey::Cookie { name: name.to_owned(), path, ttl_seconds: self.cookie_ttl() })
        } else if let Some(name) = self.text(&format!("{HASH}/httpQueryParameterName")) {
            Some(HashKey::Query(name.to_owned()))
        } else {
            self.is(&format!("{HASH}/useSourceIp")).then_some(HashKey::SourceIp)
        };
        if let Some(key) = key {
            return Balancing::Hash { key, table_size };
        }
        match self.text("/loadBalancer/simple") {
            Some("ROUND_ROBIN") => Balancing::RoundRobin,
            Some("RANDOM") => Balancing::Random,
            _ => Balancing::LeastRequest,
        }
    }

    fn cookie_ttl(&mut self) -> Option<u64> {
        const TTL: &str = "/loadBalancer/consistentHash/httpCookie/ttl";
        let text = self.text(TTL)?;
        if nanoseconds(text).is_none() {
            let (value, expected) = (text.to_owned(), "a duration, such as 0s or 1h");
            let field = format!("{}{}", self.path, TTL.replace('/', "."));
            self.faults.push(field, Problem::Value { value, expected });
        }
        self.seconds(TTL)
    }

    fn warmup(&mut self) -> Option<Warmup> {
        let duration_ms = self.millis("/loadBalancer/warmup/duration");
        let duration_ms = duration_ms.or_else(|| self.millis("/loadBalancer/warmupDurationSecs"))?;
        let aggression = self.get("/loadBalancer/warmup/aggression").and_then(Value::as_f64).unwrap_or(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let aggression_milli = ((aggression * 1e3) as u32).max(1);
        let minimum = self.get("/loadBalancer/warmup/minimumPercent").and_then(Value::as_f64).unwrap_or(10.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 100")]
        let minimum_percent = minimum.round() as u8;
        Some(Warmup { duration_ms, aggression_milli, minimum_percent })
    }

    fn connections(&mut self) -> ConnectionPool {
        let keepalive = self.get("/connectionPool/tcp/tcpKeepalive").is_some().then(|| Keepalive {
            time_seconds: self.seconds("/connectionPool/tcp/tcpKeepalive/time"),
            interval_seconds: self.seconds("/connectionPool/tcp/tcpKeepalive/interval"),
            probes: self.limit("/connectionPool/tcp/tcpKeepalive/probes"),
        });
        let (upgrade, own) = ("/connectionPool/http/h2UpgradePolicy", "/connectionPool/http/useClientProtocol");
        let upgrade = self.text(upgrade) == Some("UPGRADE");
        if upgrade && self.is(own) {
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
