//! DestinationRule: which endpoints of a host are which version.
use serde_json::{Map, Value};

use super::{
    meta::{Labels, Meta},
    names::{ExportTo, Host},
    problem::{Faults, Invalid, Problem},
    raw,
};
use crate::source::Object;

/// A valid DestinationRule. Invariant: names of subsets are unique and not empty.
#[derive(Debug, Clone)]
pub(crate) struct DestinationRule {
    pub(crate) meta: Meta,
    pub(crate) host: Host,
    pub(crate) subsets: Vec<Subset>,
    pub(crate) export_to: ExportTo,
}

/// A named set of endpoints of the host: those that carry all of the labels; all of them when there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subset {
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

impl DestinationRule {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::DestinationRule> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let spec = raw.spec.unwrap_or_default();
        let written = spec.host.unwrap_or_default();
        if written.is_empty() {
            return Err(vec![Invalid { field: "spec.host".into(), problem: Problem::Missing }]);
        }
        let host = Host::read(&written, &object.namespace);
        let host = host.map_err(|problem| vec![Invalid { field: "spec.host".into(), problem }])?;
        check_policy(spec.traffic_policy.as_ref(), "spec.trafficPolicy", &mut faults);
        let mut subsets: Vec<Subset> = Vec::with_capacity(spec.subsets.len());
        for (index, subset) in spec.subsets.into_iter().enumerate() {
            let path = format!("spec.subsets[{index}]");
            let name = subset.name.unwrap_or_default();
            if name.is_empty() {
                faults.push(format!("{path}.name"), Problem::Missing);
            } else if !is_label(&name) {
                let expected = "a name of letters, digits and `-`, at most 63";
                faults.push(format!("{path}.name"), Problem::Value { value: name.clone(), expected });
            } else if subsets.iter().any(|seen| seen.name == name) {
                faults.push(format!("{path}.name"), Problem::Duplicate { value: name.clone() });
            }
            check_policy(subset.traffic_policy.as_ref(), &format!("{path}.trafficPolicy"), &mut faults);
            subsets.push(Subset { name, labels: subset.labels });
        }
        // Istio: a rule for selected clients stays in its own namespace.
        let export_to = if spec.workload_selector.is_some() && spec.export_to.is_empty() {
            ExportTo::read(&[".".to_owned()], &object.namespace)
        } else {
            ExportTo::read(&spec.export_to, &object.namespace)
        };
        faults.finish(Self { meta: Meta::new(object, &raw.metadata), host, subsets, export_to })
    }
}

fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Checks what can be wrong in a `trafficPolicy`, so that a mistake is not taken for a policy that canary lacks.
fn check_policy(policy: Option<&Map<String, Value>>, path: &str, faults: &mut Faults) {
    let Some(policy) = policy else { return };
    check_balancer(policy.get("loadBalancer"), &format!("{path}.loadBalancer"), faults);
    let outlier = policy.get("outlierDetection");
    for field in ["maxEjectionPercent", "minHealthPercent"] {
        let value = outlier.and_then(|outlier| outlier.get(field));
        check_number(
            value,
            &format!("{path}.outlierDetection.{field}"),
            0.0,
            100.0,
            "a percentage from 0 to 100",
            faults,
        );
    }
    let levels = policy.get("portLevelSettings").and_then(Value::as_array);
    for (index, level) in levels.into_iter().flatten().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}].loadBalancer");
        check_balancer(level.get("loadBalancer"), &path, faults);
    }
}

fn check_balancer(balancer: Option<&Value>, path: &str, faults: &mut Faults) {
    let Some(balancer) = balancer else { return };
    if balancer.get("simple").is_some() && balancer.get("consistentHash").is_some() {
        faults.push(path, Problem::Exclusive { first: "`simple`", second: "`consistentHash`" });
    }
    if let Some(warmup) = balancer.get("warmup") {
        if warmup.get("duration").is_none() {
            faults.push(format!("{path}.warmup.duration"), Problem::Missing);
        }
        let percent = format!("{path}.warmup.minimumPercent");
        check_number(warmup.get("minimumPercent"), &percent, 0.0, 100.0, "a percentage from 0 to 100", faults);
        let aggression = format!("{path}.warmup.aggression");
        check_number(warmup.get("aggression"), &aggression, f64::MIN_POSITIVE, f64::MAX, "a number above 0", faults);
    }
    let Some(hash) = balancer.get("consistentHash") else {
        return;
    };
    if let Some(cookie) = hash.get("httpCookie")
        && cookie.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        faults.push(format!("{path}.consistentHash.httpCookie.name"), Problem::Missing);
    }
    if hash.get("ringHash").is_some() && hash.get("maglev").is_some() {
        faults.push(format!("{path}.consistentHash"), Problem::Exclusive { first: "`ringHash`", second: "`maglev`" });
    }
    if let Some(size) = hash.get("maglev").and_then(|maglev| maglev.get("tableSize")).and_then(Value::as_u64)
        && (size >= MAGLEV_LIMIT || !is_prime(size))
    {
        let field = format!("{path}.consistentHash.maglev.tableSize");
        faults.push(field, Problem::Value { value: size.to_string(), expected: "a prime below 5000011" });
    }
}

const MAGLEV_LIMIT: u64 = 5_000_011;

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

fn check_number(value: Option<&Value>, field: &str, low: f64, high: f64, expected: &'static str, faults: &mut Faults) {
    // In protobuf's JSON a wrapped number may also be a string; that is not ours to judge.
    if let Some(number) = value.and_then(Value::as_f64)
        && !(low..=high).contains(&number)
    {
        faults.push(field, Problem::Value { value: number.to_string(), expected });
    }
}
