//! Changes the weights of one rule in the text of a VirtualService or a route of the Gateway API, and leaves every other
//! byte as it was.
//!
//! The proof is in the function itself: the new text is parsed, and unless it differs from the old one in exactly
//! these weights it is not handed out.
use serde_json::Value;

use self::{
    names::{Named, named},
    patch::{Place, apply, weight_patch},
};
use super::{GATEWAY_API, Object, documents, object::object_nodes, parse, similar::did_you_mean, yaml::Node};

mod names;
mod patch;
#[cfg(test)]
mod tests;

/// Where the weights of an object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lists {
    /// The lists of rules in `spec`.
    pub(crate) sections: &'static [&'static str],
    /// The list of destinations in a rule.
    pub(crate) entries: &'static str,
    /// What a weight is that is not written.
    pub(crate) unwritten: u32,
}

/// Of a VirtualService.
const VIRTUAL_SERVICE: Lists = Lists { sections: &["http", "tls", "tcp"], entries: "route", unwritten: 0 };
/// Of a route of the Gateway API.
const GATEWAY_ROUTE: Lists = Lists { sections: &["rules"], entries: "backendRefs", unwritten: 1 };

impl Lists {
    /// Those of an object that has weights.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        Self::of_kind(object.group(), &object.kind)
    }

    /// Those of a kind that has weights.
    pub(crate) fn of_kind(group: &str, kind: &str) -> Option<Self> {
        match kind {
            "VirtualService" => Some(VIRTUAL_SERVICE),
            kind if group == GATEWAY_API && kind.ends_with("Route") => Some(GATEWAY_ROUTE),
            _ => None,
        }
    }

    /// Whether an entry is the destination itself, by name and port.
    fn are_backends(self) -> bool {
        self == GATEWAY_ROUTE
    }
}

/// Why weights were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Only a VirtualService or a route has weights that can be set.
    #[error("{object} is neither a VirtualService nor a route of the Gateway API, so it has no weights to set")]
    NotAVirtualService {
        /// The object.
        object: String,
    },
    /// The text does not hold the object, or not where it can be changed.
    #[error("{object} is not in this text (any more) — read it again")]
    NotFound {
        /// The object.
        object: String,
    },
    /// There is nothing to split.
    #[error("{object} has no rule with a route")]
    NoRules {
        /// The object.
        object: String,
    },
    /// Several rules could be meant.
    #[error("{object} has several rules — say which one: {}", rules.join(", "))]
    WhichRule {
        /// The object.
        object: String,
        /// Their names.
        rules: Vec<String>,
    },
    /// There is no such rule, or there are two.
    #[error("{object} has no single rule `{rule}` — {suggestion}its rules are {}", rules.join(", "))]
    UnknownRule {
        /// The object.
        object: String,
        /// The rule that was asked for.
        rule: String,
        /// A near name.
        suggestion: String,
        /// Their names.
        rules: Vec<String>,
    },
    /// A route entry is not written as one should be.
    #[error("line {line}: {what}")]
    Shape {
        /// Line in the file.
        line: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// Some versions were not given a weight.
    #[error("rule `{rule}`: no weight given for {} — name every version, with 0 for none", missing.join(", "))]
    Missing {
        /// The rule.
        rule: String,
        /// The versions.
        missing: Vec<String>,
    },
    /// The rule does not route to this version.
    #[error(
        "rule `{rule}` has no version `{version}` — {suggestion}its versions are {}; add a destination to the \
         rule to have another",
        versions.join(", ")
    )]
    UnknownVersion {
        /// The rule.
        rule: String,
        /// The version that was asked for.
        version: String,
        /// A near name.
        suggestion: String,
        /// The versions that it has.
        versions: Vec<String>,
    },
    /// Several destinations of the rule have the same version name.
    #[error(
        "rule `{rule}` has several destinations called `{version}`, so it is not clear which is meant — its versions are \
         {}; where two are the same, edit the file",
        versions.join(", ")
    )]
    SameName {
        /// The rule.
        rule: String,
        /// The version.
        version: String,
        /// The versions that it has.
        versions: Vec<String>,
    },
    /// A version was given two weights.
    #[error("version `{version}` is given two weights")]
    GivenTwice {
        /// The version.
        version: String,
    },
    /// Nobody would get anything.
    #[error("the weights add up to 0, so nobody would get any traffic — give at least one version a weight")]
    SumIsZero,
    /// More than can be represented.
    #[error("the weights add up to more than {} — use smaller numbers in the same proportion", u32::MAX)]
    SumTooLarge,
    /// The text is written in a way that this cannot change safely.
    #[error("{object}: the weights cannot be changed without changing something else (aliases?) — edit the file")]
    NotOnlyWeights {
        /// The object.
        object: String,
    },
}

/// `text` with the weights of one rule of `object` set. `rule` is its name, or `http[0]`, `tcp[1]`, … by position;
/// it may be left out when there is only one rule, or only one that has several destinations. `weights` must name every
/// version of the rule: by subset; without one by the Service's name, or the whole host of what is no Service; where two
/// have the same name, by `name@host` or `name@host:port`.
///
/// # Errors
/// When it is not clear what is meant, or the text cannot be changed without changing more.
pub fn set_weights(
    text: &str,
    object: &Object,
    rule: Option<&str>,
    weights: &[(String, u32)],
) -> Result<String, EditError> {
    let lists = Lists::of(object).ok_or_else(|| EditError::NotAVirtualService { object: object.id() })?;
    let sum: u64 = weights.iter().map(|&(_, weight)| u64::from(weight)).sum();
    match sum {
        0 => return Err(EditError::SumIsZero),
        sum if sum > u64::from(u32::MAX) => return Err(EditError::SumTooLarge),
        _ => {}
    }
    let documents = documents(text);
    let nodes = documents.iter().flatten().flat_map(object_nodes).map(|(node, _)| node);
    let node = nodes.into_iter().find(|node| is(node, object));
    let node = node.ok_or_else(|| EditError::NotFound { object: object.id() })?;
    let rule = find_rule(node, object, lists, rule)?;
    let wanted = assign(&rule, object, weights)?;
    let expected = expected(text, object, &rule, &wanted);
    for place in [Place::Last, Place::First] {
        let patches: Vec<_> =
            wanted.iter().filter_map(|&(entry, weight)| weight_patch(text, entry, weight, place)).collect();
        let edited = apply(text, patches);
        if bodies(&edited) == expected {
            return Ok(edited);
        }
    }
    Err(EditError::NotOnlyWeights { object: object.id() })
}

fn is(node: &Node, object: &Object) -> bool {
    let metadata = |field: &str| node.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Node::text);
    let text = |field: &str| node.get(field).and_then(Node::text);
    let group = text("apiVersion").map(|version| version.split_once('/').map_or("", |(group, _)| group));
    text("kind") == Some(&object.kind)
        && group == Some(object.group())
        && metadata("name") == Some(&object.name)
        && metadata("namespace").unwrap_or("default") == object.namespace
}

/// A rule and where it stands in the object.
struct FoundRule<'n> {
    lists: Lists,
    name: String,
    section: &'static str,
    index: usize,
    entries: &'n [Node],
}

impl FoundRule<'_> {
    fn position(&self) -> String {
        format!("{}[{}]", self.section, self.index)
    }
}

fn find_rule<'n>(
    node: &'n Node,
    object: &Object,
    lists: Lists,
    wanted: Option<&str>,
) -> Result<FoundRule<'n>, EditError> {
    let section_rules = |section: &'static str| {
        let list = node.get("spec").and_then(|spec| spec.get(section)).map(Node::items).unwrap_or_default();
        list.iter().enumerate().map(move |(index, rule)| {
            let position = format!("{section}[{index}]");
            let name = rule.get("name").and_then(Node::text).filter(|name| !name.is_empty());
            let entries = rule.get(lists.entries).map(Node::items).unwrap_or_default();
            FoundRule { lists, name: name.map_or(position, str::to_owned), section, index, entries }
        })
    };
    let mut rules: Vec<_> =
        lists.sections.iter().copied().flat_map(section_rules).filter(|rule| !rule.entries.is_empty()).collect();
    let names = |rules: &[FoundRule<'_>]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let all = names(&rules);
    if all.is_empty() {
        return Err(EditError::NoRules { object: object.id() });
    }
    match wanted {
        Some(wanted) => {
            // Beside other routes of the same host, a rule is called by its route's name too.
            let wanted = wanted.strip_prefix(&format!("{}.", object.name)).unwrap_or(wanted);
            rules.retain(|rule| rule.name == wanted || rule.position() == wanted);
        }
        None if rules.len() > 1 => rules.retain(|rule| rule.entries.len() > 1),
        None => {}
    }
    match (<[FoundRule<'_>; 1]>::try_from(rules), wanted) {
        (Ok([rule]), _) => Ok(rule),
        (Err(_), None) => Err(EditError::WhichRule { object: object.id(), rules: all }),
        (Err(_), Some(wanted)) => Err(EditError::UnknownRule {
            object: object.id(),
            rule: wanted.to_owned(),
            suggestion: did_you_mean(wanted, all.iter().map(String::as_str)),
            rules: all,
        }),
    }
}

/// Which entry gets which weight.
fn assign<'n>(
    rule: &FoundRule<'n>,
    object: &Object,
    weights: &[(String, u32)],
) -> Result<Vec<(&'n Node, u32)>, EditError> {
    let entries = named(rule.entries, object)?;
    let names: Vec<String> = entries.iter().map(Named::name).collect();
    let mut wanted: Vec<Option<u32>> = vec![None; entries.len()];
    for (given, weight) in weights {
        let mut meant = entries.iter().zip(&mut wanted).filter(|(entry, _)| entry.is(given));
        match (meant.next(), meant.next()) {
            (Some((_, Some(_))), _) => return Err(EditError::GivenTwice { version: given.clone() }),
            (Some((_, slot)), None) => *slot = Some(*weight),
            (Some(_), Some(_)) => {
                return Err(EditError::SameName { rule: rule.name.clone(), version: given.clone(), versions: names });
            }
            (None, _) => {
                return Err(EditError::UnknownVersion {
                    rule: rule.name.clone(),
                    version: given.clone(),
                    suggestion: did_you_mean(given, names.iter().map(String::as_str)),
                    versions: names,
                });
            }
        }
    }
    let missing: Vec<String> =
        names.into_iter().zip(&wanted).filter(|(_, weight)| weight.is_none()).map(|(name, _)| name).collect();
    if !missing.is_empty() {
        return Err(EditError::Missing { rule: rule.name.clone(), missing });
    }
    Ok(entries.iter().map(|named| named.entry).zip(wanted.into_iter().flatten()).collect())
}

/// Everything that is in a text, as far as it must not change.
fn bodies(text: &str) -> (Vec<(String, Value)>, Vec<&'static str>) {
    let found = parse(text, std::path::Path::new("-"));
    let objects = found.objects.into_iter().map(|object| (object.id(), object.body.clone())).collect();
    (objects, found.diagnostics.iter().map(|diagnostic| diagnostic.code).collect())
}

/// What the edited text must hold.
fn expected(
    text: &str,
    object: &Object,
    rule: &FoundRule<'_>,
    wanted: &[(&Node, u32)],
) -> (Vec<(String, Value)>, Vec<&'static str>) {
    let (mut objects, codes) = bodies(text);
    let id = object.id();
    for (_, body) in objects.iter_mut().filter(|(other, body)| *other == id && is_same_group(body, object)) {
        let pointer = format!("/spec/{}/{}/{}", rule.section, rule.index, rule.lists.entries);
        let entries = body.pointer_mut(&pointer).and_then(Value::as_array_mut);
        for (entry, &(node, weight)) in entries.into_iter().flatten().zip(wanted) {
            if let (Value::Object(entry), false) = (entry, patch::has_weight(node, weight)) {
                entry.insert("weight".to_owned(), weight.into());
            }
        }
    }
    (objects, codes)
}

fn is_same_group(body: &Value, object: &Object) -> bool {
    let version = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group) == object.group()
}
