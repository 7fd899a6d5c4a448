//! Reads a `trafficPolicy`: first what can be wrong in it by the rules of Istio's validation, so that a mistake is not
//! taken for a policy that canary lacks, then what it says.
use serde_json::{Map, Value};

use super::problem::{Faults, Problem};

mod blocks;

pub(crate) use blocks::{Policy, merged};

/// Durations of at least a millisecond.
const DURATIONS: &[&str] = &[
    "connectionPool.http.idleTimeout",
    "connectionPool.tcp.connectTimeout",
    "connectionPool.tcp.idleTimeout",
    "connectionPool.tcp.maxConnectionDuration",
    "connectionPool.tcp.tcpKeepalive.interval",
    "connectionPool.tcp.tcpKeepalive.time",
    "loadBalancer.warmup.duration",
    "loadBalancer.warmupDurationSecs",
    "outlierDetection.baseEjectionTime",
    "outlierDetection.interval",
];

/// Pairs of fields that exclude each other.
const EXCLUSIVE: &[(&str, &str)] = &[
    ("loadBalancer.simple", "loadBalancer.consistentHash"),
    ("loadBalancer.warmup", "loadBalancer.warmupDurationSecs"),
    ("loadBalancer.consistentHash.ringHash", "loadBalancer.consistentHash.maglev"),
    ("loadBalancer.localityLbSetting.distribute", "loadBalancer.localityLbSetting.failover"),
    ("tunnel", "proxyProtocol"),
];

/// Fields that are needed as soon as what is before the last dot is there.
const NEEDED: &[&str] = &[
    "loadBalancer.consistentHash.httpCookie.name",
    "loadBalancer.warmup.duration",
    "tunnel.targetHost",
    "tunnel.targetPort",
];

/// Reads the policy at `path`, with those of its ports.
pub(super) fn read(policy: Option<&Map<String, Value>>, path: &str, faults: &mut Faults) -> Option<Policy> {
    let policy = policy?;
    check_level(policy, path, faults);
    let levels = policy.get("portLevelSettings").and_then(Value::as_array);
    for (index, level) in levels.into_iter().flatten().enumerate() {
        if let Some(level) = level.as_object() {
            check_level(level, &format!("{path}.portLevelSettings[{index}]"), faults);
        }
    }
    Some(blocks::read(policy, path, faults))
}

fn check_level(policy: &Map<String, Value>, path: &str, faults: &mut Faults) {
    let get = |field: &str| {
        let mut parts = field.split('.');
        let first = policy.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part)).filter(|value| !value.is_null())
    };
    for field in NEEDED {
        let Some((parent, _)) = field.rsplit_once('.') else { continue };
        if get(parent).is_some() && get(field).is_none_or(|value| value == "") {
            faults.push(format!("{path}.{field}"), Problem::Missing);
        }
    }
    for (first, second) in EXCLUSIVE {
        if get(first).is_some() && get(second).is_some() {
            faults.push(format!("{path}.{second}"), Problem::Exclusive { first, second });
        }
    }
    let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    let keys = keys.iter().filter(|key| get(&format!("loadBalancer.consistentHash.{key}")).is_some()).count();
    if keys > 1 {
        let fields = "`httpHeaderName`, `httpCookie`, `useSourceIp` and `httpQueryParameterName`";
        faults.push(format!("{path}.loadBalancer.consistentHash"), Problem::ExactlyOne { fields, found: keys });
    }
    for field in DURATIONS {
        if let Some(text) = get(field).and_then(Value::as_str)
            && nanoseconds(text).is_none_or(|length| length < 1e6)
        {
            let expected = "a duration of at least 1ms, such as 3s";
            faults.push(format!("{path}.{field}"), Problem::Value { value: text.into(), expected });
        }
    }
    let percent = "a percentage from 0 to 100";
    let numbers = [
        ("loadBalancer.warmup.minimumPercent", 0.0, 100.0, percent),
        ("loadBalancer.warmup.aggression", f64::MIN_POSITIVE, f64::MAX, "a number above 0"),
        ("outlierDetection.maxEjectionPercent", 0.0, 100.0, percent),
        ("outlierDetection.minHealthPercent", 0.0, 100.0, percent),
    ];
    for (field, low, high, expected) in numbers {
        // In protobuf's JSON a wrapped number may also be a string.
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        if let Some(number) = get(field).and_then(number)
            && !(low..=high).contains(&number)
        {
            faults.push(format!("{path}.{field}"), Problem::Value { value: number.to_string(), expected });
        }
    }
    let table = "loadBalancer.consistentHash.maglev.tableSize";
    if let Some(size) = get(table).and_then(Value::as_u64)
        && (size >= MAGLEV_LIMIT || !is_prime(size))
    {
        let (value, expected) = (size.to_string(), "a prime below 5000011");
        faults.push(format!("{path}.{table}"), Problem::Value { value, expected });
    }
}

const MAGLEV_LIMIT: u64 = 5_000_011;

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// Length of a duration as Go writes it (`1.5h`, `1m30s`); `None` if it is none.
pub(super) fn nanoseconds(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        total += number
            * match after.get(..end)? {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3_600e9,
                _ => return None,
            };
        rest = after.get(end..)?;
    }
    (!text.is_empty()).then_some(total)
}
