//! The weights in a VirtualService or a route as they are written: which rules it has, which versions each names.
use serde_json::Value;

use crate::source::{Object, edit::Lists};

/// One rule with a split, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name, or `http[0]`, `tcp[1]`, … by position.
    pub rule: String,
    /// Versions (subset, or first label of the destination's host) and weights; a missing weight is 0.
    pub weights: Vec<(String, u32)>,
}

/// The rules of a VirtualService or a route that have destinations.
#[must_use]
pub fn written(object: &Object) -> Vec<Written> {
    let mut rules = Vec::new();
    let Some(lists) = Lists::of(object) else { return rules };
    for section in lists.sections {
        let list = object.body.pointer(&format!("/spec/{section}")).and_then(Value::as_array);
        for (index, rule) in list.into_iter().flatten().enumerate() {
            let Some(routes) = rule.get(lists.entries).and_then(Value::as_array) else { continue };
            let name = rule.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            rules.push(Written {
                rule: name.map_or_else(|| format!("{section}[{index}]"), str::to_owned),
                weights: routes
                    .iter()
                    .map(|route| (version(route), weight(route).unwrap_or(lists.unwritten)))
                    .collect(),
            });
        }
    }
    rules
}

fn version(route: &Value) -> String {
    let field = |name| route.pointer(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let host = field("/destination/host").map(|host| host.split('.').next().unwrap_or(host));
    field("/destination/subset").or(host).or(field("/name")).unwrap_or_default().to_owned()
}

fn weight(route: &Value) -> Option<u32> {
    // Argo Rollouts writes weights as JSON floats such as `10.0`.
    let float = || route.get("weight").and_then(Value::as_f64).and_then(|weight| format!("{weight}").parse().ok());
    let whole = route.get("weight").and_then(Value::as_u64).and_then(|weight| weight.try_into().ok());
    whole.or_else(float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fake::object;

    #[test]
    fn versions_are_subsets_or_hosts() {
        let object = object(
            "VirtualService",
            "helloworld",
            serde_json::json!({"spec": {
                "http": [
                    {"name": "canary", "route": [
                        {"destination": {"host": "helloworld", "subset": "v1"}, "weight": 90},
                        {"destination": {"host": "helloworld", "subset": "v2"}, "weight": 10.0},
                        {"destination": {"host": "helloworld-canary.default.svc.cluster.local"}},
                    ]},
                    {"redirect": {}},
                ],
                "tcp": [{"route": [{"destination": {"host": "helloworld"}}]}],
            }}),
        );
        let weights = |pairs: &[(&str, u32)]| pairs.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
        assert_eq!(
            written(&object),
            [
                Written {
                    rule: "canary".into(),
                    weights: weights(&[("v1", 90), ("v2", 10), ("helloworld-canary", 0)])
                },
                Written { rule: "tcp[0]".into(), weights: weights(&[("helloworld", 0)]) },
            ]
        );
    }
}
