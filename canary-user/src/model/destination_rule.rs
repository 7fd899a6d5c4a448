//! DestinationRule: which endpoints of a host are which version.
use serde_json::Value;

use super::{
    meta::{Labels, Meta},
    names::{ExportTo, Host},
    problem::{Faults, Invalid, Problem},
    raw,
    traffic_policy::{self, Policy},
};
use crate::source::Object;

/// A valid DestinationRule. Invariant: names of subsets are unique and not empty.
#[derive(Debug, Clone)]
pub(crate) struct DestinationRule {
    pub(crate) meta: Meta,
    pub(crate) host: Host,
    pub(crate) policy: Option<Policy>,
    pub(crate) subsets: Vec<Subset>,
    pub(crate) export_to: ExportTo,
}

/// A named set of endpoints of the host: those that carry all of the labels; all of them when there are none.
#[derive(Debug, Clone)]
pub(crate) struct Subset {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) policy: Option<Policy>,
}

impl DestinationRule {
    /// Paths of what only the proxy follows.
    pub(crate) fn proxied(&self) -> impl Iterator<Item = &str> {
        let subsets = self.subsets.iter().filter_map(|subset| subset.policy.as_ref());
        self.policy.iter().chain(subsets).flat_map(|policy| &policy.proxied).map(String::as_str)
    }

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
        let policy = traffic_policy::read(spec.traffic_policy.as_ref(), "spec.trafficPolicy", &mut faults);
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
            let path = format!("{path}.trafficPolicy");
            let policy = traffic_policy::read(subset.traffic_policy.as_ref(), &path, &mut faults);
            subsets.push(Subset { name, labels: subset.labels, policy });
        }
        check_selector(spec.workload_selector.as_ref(), &mut faults);
        // Istio: a rule for selected clients stays in its own namespace.
        let export_to = if spec.workload_selector.is_some() && spec.export_to.is_empty() {
            ExportTo::read(&[".".to_owned()], &object.namespace)
        } else {
            ExportTo::read(&spec.export_to, &object.namespace)
        };
        faults.finish(Self { meta: Meta::new(object, &raw.metadata), host, policy, subsets, export_to })
    }
}

fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn check_selector(selector: Option<&Value>, faults: &mut Faults) {
    let labels = selector.and_then(|selector| selector.get("matchLabels")).and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        if key.contains('*') || value.as_str().is_some_and(|value| value.contains('*')) {
            faults.push(format!("spec.workloadSelector.matchLabels.{key}"), Problem::SelectorWildcard);
        }
    }
}
