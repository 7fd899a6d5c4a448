//! Rules and matches of `VirtualServices` that nothing can reach, because an earlier rule takes it all.
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::context::{Context, Finding, Report, list, spec, text};
use crate::{diagnostic::Severity, source::Object};

/// A rule with a match stands after one that matches everything. Istio does not say so.
pub(super) const AFTER_CATCH_ALL: &str = "CAN0202";
/// An HTTP match has the same path prefix as an earlier one, and only more conditions. Istio does not say so.
pub(super) const SAME_PREFIX: &str = "CAN0203";
/// So many earlier matches are named that cover one.
const COVERS_MAX: usize = 8;
const SECTIONS: [&str; 3] = ["http", "tls", "tcp"];
/// Fields that narrow an HTTP match, apart from the path's prefix.
const SINGLE: [&str; 7] = ["method", "authority", "scheme", "port", "gateways", "sourceNamespace", "ignoreUriCase"];
/// Fields that narrow it by each of their keys.
const KEYED: [&str; 4] = ["headers", "queryParams", "withoutHeaders", "sourceLabels"];

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        for section in SECTIONS {
            repeated(object, section, report);
        }
        overlapping(object, "IST0131", report);
    }
}

/// Matches with the prefix of an earlier match and more conditions.
pub(super) fn same_prefix(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        overlapping(object, SAME_PREFIX, report);
    }
}

/// A match entry and where it stands.
#[derive(Clone, Copy)]
struct Match<'o> {
    rule: usize,
    entry: usize,
    value: &'o Value,
}

impl Match<'_> {
    fn field(&self, section: &str) -> String {
        format!("spec.{section}[{}].match[{}]", self.rule, self.entry)
    }
}

fn rules<'o>(object: &'o Object, section: &str) -> &'o [Value] {
    list(spec(object), section)
}

fn matches<'o>(object: &'o Object, section: &str) -> impl Iterator<Item = Match<'o>> + use<'o> {
    rules(object, section).iter().enumerate().flat_map(|(rule, value)| {
        list(value, "match").iter().enumerate().map(move |(entry, value)| Match { rule, entry, value })
    })
}

fn rule_name(object: &Object, section: &str, index: usize) -> String {
    let name = rules(object, section).get(index).map_or("", |rule| text(rule, "name"));
    if name.is_empty() { format!("{section}[{index}]") } else { format!("\"{name}\" ({section}[{index}])") }
}

/// Rules without a match before the last one, and matches that have been written before.
fn repeated(object: &Object, section: &str, report: &mut Report) {
    let mut unreachable = |rule: usize, why: String, remedy: &str| {
        report.add(Finding {
            object,
            severity: Severity::Warning,
            code: "IST0130",
            field: format!("spec.{section}[{rule}]"),
            message: format!("rule {} is never used: {why}", rule_name(object, section, rule)),
            remedy: remedy.to_owned(),
        });
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut catch_all: Option<usize> = None;
    let mut ineffective = Vec::new();
    for (index, rule) in rules(object, section).iter().enumerate() {
        let entries = list(rule, "match");
        if entries.is_empty() {
            if let Some(first) = catch_all {
                let why = format!(
                    "{} has no match either; only the last rule can have none",
                    rule_name(object, section, first)
                );
                unreachable(index, why, "give the earlier one a match, or remove one of them");
            }
            catch_all = Some(index);
            continue;
        }
        let mut repeats = 0;
        for (entry, value) in entries.iter().enumerate() {
            match seen.get(&canonical(value)) {
                Some(&first) => {
                    repeats += 1;
                    ineffective.push((Match { rule: index, entry, value }, first, "has the same match"));
                }
                None => {
                    seen.insert(canonical(value), index);
                }
            }
        }
        if repeats == entries.len() {
            unreachable(
                index,
                "all its matches are used by earlier rules".to_owned(),
                "remove it, or change its matches",
            );
        }
    }
    report_ineffective(object, section, "IST0131", &ineffective, report);
}

/// Path prefixes that an earlier match covers, with all its other conditions: a shorter prefix is what Istio reports,
/// the same one is ours.
fn overlapping(object: &Object, code: &'static str, report: &mut Report) {
    let mut seen: Vec<Match<'_>> = Vec::new();
    let mut texts: HashSet<String> = HashSet::new();
    let mut ineffective = Vec::new();
    for found in matches(object, "http") {
        let Some(longer) = prefix(found.value) else { continue };
        if !texts.insert(canonical(found.value)) {
            continue; // The same match: said already.
        }
        let covering = seen.iter().filter(|earlier| {
            prefix(earlier.value).is_some_and(|shorter| {
                longer.starts_with(shorter) && (shorter.len() == longer.len()) == (code == SAME_PREFIX)
            }) && narrows_no_more(earlier.value, found.value)
        });
        for first in covering.take(COVERS_MAX) {
            ineffective.push((found, first.rule, "has a prefix that covers it"));
        }
        seen.push(found);
    }
    report_ineffective(object, "http", code, &ineffective, report);
}

fn report_ineffective(
    object: &Object,
    section: &str,
    code: &'static str,
    found: &[(Match<'_>, usize, &str)],
    report: &mut Report,
) {
    for (found, first, why) in found {
        let (rule, first) = (rule_name(object, section, found.rule), rule_name(object, section, *first));
        report.add(Finding {
            object,
            severity: Severity::Info,
            code,
            field: found.field(section),
            message: format!("match[{}] of rule {rule} is never used: rule {first} {why}", found.entry),
            remedy: "remove it, or let it stand before the other".to_owned(),
        });
    }
}

fn prefix(value: &Value) -> Option<&str> {
    value.get("uri").map(|uri| text(uri, "prefix")).filter(|prefix| !prefix.is_empty())
}

/// Whatever `earlier` demands beside the prefix, `later` demands too.
fn narrows_no_more(earlier: &Value, later: &Value) -> bool {
    let demanded = |field: &str| earlier.get(field).filter(|value| !is_empty(value));
    let single = SINGLE.iter().all(|field| demanded(field).is_none_or(|value| later.get(field) == Some(value)));
    let keyed = KEYED.iter().all(|field| {
        demanded(field).and_then(Value::as_object).is_none_or(|pairs| {
            pairs.iter().all(|(key, value)| later.get(field).and_then(|later| later.get(key)) == Some(value))
        })
    });
    single && keyed
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(true) | Value::String(_) => false,
    }
}

/// A match as text that is the same for the same meaning: without its name, fields in order, empty ones left out.
fn canonical(value: &Value) -> String {
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().map(|(key, value)| (key.clone(), ordered(value))).collect();
                fields.sort_by(|(one, _), (other, _)| one.cmp(other));
                Value::Object(fields.into_iter().collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(ordered).collect(),
            scalar => scalar.clone(),
        }
    }
    let mut value = ordered(value);
    if let Value::Object(fields) = &mut value {
        fields.retain(|key, value| key != "name" && !is_empty(value));
    }
    value.to_string()
}

/// Rules with a match after the first that matches everything: they look as if they did something.
pub(super) fn after_catch_all(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        for section in ["http", "tcp"] {
            let rules = rules(object, section);
            let everything = |rule: &Value| {
                let entries = list(rule, "match");
                entries.is_empty() || entries.iter().any(|entry| canonical(entry) == "{}")
            };
            let Some(first) = rules.iter().position(everything) else { continue };
            let after = rules.iter().enumerate().skip(first + 1).filter(|(_, rule)| !list(rule, "match").is_empty());
            for (index, _) in after {
                report.add(Finding {
                    object,
                    severity: Severity::Warning,
                    code: AFTER_CATCH_ALL,
                    field: format!("spec.{section}[{index}]"),
                    message: format!(
                        "rule {} is never used: rule {}, before it, matches everything",
                        rule_name(object, section, index),
                        rule_name(object, section, first)
                    ),
                    remedy: "rules are tried in order: let the one without a match be the last".to_owned(),
                });
            }
        }
    }
}
