//! canary's own settings: annotations on `VirtualServices` and Services, and the `RoutePolicy` resource.
use ipnet::IpNet;

use super::{
    meta::{Key, Labels, Meta},
    problem::{Faults, Invalid, Problem},
    raw,
};
use crate::{
    source::Object,
    state::{Choosing, DeadVersion},
};

/// How long the flows of an endpoint that went away may go on, unless the user says otherwise.
pub(crate) const DRAIN_SECONDS: u32 = 300;

const CHOOSING: &str = "canary.io/choosing";
const ON_NO_ENDPOINTS: &str = "canary.io/on-no-endpoints";
const DRAIN: &str = "canary.io/drain";
const UDP: &str = "canary.io/udp";

/// Settings of a route or a service; `None` leaves the choice to who comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) choosing: Option<Choosing>,
    pub(crate) dead: Option<DeadVersion>,
    pub(crate) drain_seconds: Option<u32>,
    /// The rules are for the service's UDP ports too. In Istio none ever is.
    pub(crate) udp: Option<bool>,
}

impl Settings {
    /// Reads the annotations of an object.
    pub(super) fn read(annotations: &Labels, faults: &mut Faults) -> Self {
        let take = |name: &str| annotations.get(name).map(|value| (format!("metadata.annotations.{name}"), value));
        let (choosing, dead, drain, udp) = (take(CHOOSING), take(ON_NO_ENDPOINTS), take(DRAIN), take(UDP));
        Self {
            choosing: choosing.and_then(|(field, value)| faults.take(&field, read_choosing(value))),
            dead: dead.and_then(|(field, value)| faults.take(&field, read_dead(value))),
            drain_seconds: drain.and_then(|(field, value)| faults.take(&field, read_seconds(value))),
            udp: udp.and_then(|(field, value)| faults.take(&field, read_flag(value))),
        }
    }

    /// These settings, and what they leave open from `next`.
    pub(crate) fn or(self, next: Self) -> Self {
        Self {
            choosing: self.choosing.or(next.choosing),
            dead: self.dead.or(next.dead),
            drain_seconds: self.drain_seconds.or(next.drain_seconds),
            udp: self.udp.or(next.udp),
        }
    }
}

fn read_choosing(value: &str) -> Result<Choosing, Problem> {
    match value {
        "exact" => Ok(Choosing::Exact),
        "keyed-flow" => Ok(Choosing::KeyedFlow),
        "keyed-client" => Ok(Choosing::KeyedClient),
        _ => Err(Problem::Value { value: value.into(), expected: "one of exact, keyed-flow, keyed-client" }),
    }
}

fn read_dead(value: &str) -> Result<DeadVersion, Problem> {
    match value {
        "fail" => Ok(DeadVersion::Fail),
        "spill" => Ok(DeadVersion::Spill),
        "hold" => Ok(DeadVersion::Hold),
        _ => Err(Problem::Value { value: value.into(), expected: "one of fail, spill, hold" }),
    }
}

fn read_flag(value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::Value { value: value.into(), expected: "\"true\" or \"false\", in quotes" }),
    }
}

/// Whether an object that cannot be read wishes its rules to be for UDP.
pub(super) fn wishes_udp(annotations: &Labels) -> bool {
    annotations.get(UDP).is_some_and(|value| value != "false")
}

/// Reads `90s`, `5m`, `1h30m`: whole numbers with a unit, added up.
fn read_seconds(value: &str) -> Result<u32, Problem> {
    seconds(value)
        .ok_or_else(|| Problem::Value { value: value.into(), expected: "a duration such as 90s, 5m or 1h30m" })
}

fn seconds(value: &str) -> Option<u32> {
    let mut rest = value;
    let mut total: u32 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest.get(..digits)?.parse().ok()?;
        let factor = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (!value.is_empty()).then_some(total)
}

/// `kind: RoutePolicy`: settings per rule of one VirtualService, in the same namespace.
#[derive(Debug, Clone)]
pub(crate) struct RoutePolicy {
    pub(crate) meta: Meta,
    pub(crate) target: Key,
    pub(crate) rules: Vec<RulePolicy>,
    pub(crate) drain_seconds: Option<u32>,
}

/// Settings of one rule. Invariant of the list: names are unique.
#[derive(Debug, Clone)]
pub(crate) struct RulePolicy {
    pub(crate) name: String,
    /// Client networks; empty leaves the rule to everybody.
    pub(crate) sources: Vec<IpNet>,
    pub(crate) settings: Settings,
}

impl RoutePolicy {
    pub(super) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::RoutePolicy> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let mut faults = Faults::default();
        let spec = raw.spec.unwrap_or_default();
        let target = spec.target_ref.unwrap_or_default();
        if target.kind.as_deref().is_some_and(|kind| kind != "VirtualService") {
            let value = target.kind.unwrap_or_default();
            faults.push("spec.targetRef.kind", Problem::Value { value, expected: "VirtualService" });
        }
        let target = target.name.unwrap_or_default();
        if target.is_empty() {
            faults.push("spec.targetRef.name", Problem::Missing);
        }
        let mut rules: Vec<RulePolicy> = Vec::with_capacity(spec.rules.len());
        for (index, rule) in spec.rules.into_iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let name = rule.name.unwrap_or_default();
            if name.is_empty() {
                faults.push(format!("{path}.name"), Problem::Missing);
            } else if rules.iter().any(|seen| seen.name == name) {
                faults.push(format!("{path}.name"), Problem::Duplicate { value: name.clone() });
            }
            let sources = rule
                .sources
                .iter()
                .enumerate()
                .filter_map(|(entry, text)| faults.take(&format!("{path}.sources[{entry}]"), read_network(text)));
            let sources: Vec<IpNet> = sources.collect();
            let settings = Settings {
                choosing: rule.choosing.and_then(|text| faults.take(&format!("{path}.choosing"), read_choosing(&text))),
                dead: rule
                    .on_no_endpoints
                    .and_then(|text| faults.take(&format!("{path}.onNoEndpoints"), read_dead(&text))),
                drain_seconds: None,
                udp: None,
            };
            rules.push(RulePolicy { name, sources, settings });
        }
        let drain_seconds = spec.drain.and_then(|text| faults.take("spec.drain", read_seconds(&text)));
        let target = Key::new(&object.namespace, target);
        faults.finish(Self { meta: Meta::new(object, &raw.metadata), target, rules, drain_seconds })
    }
}

/// Reads `10.0.0.0/8` or a single address. Bits behind the prefix are cleared.
pub(super) fn read_network(text: &str) -> Result<IpNet, Problem> {
    text.parse::<IpNet>()
        .map(|net| net.trunc())
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| Problem::Value { value: text.into(), expected: "an address or a network such as 10.0.0.0/8" })
}
