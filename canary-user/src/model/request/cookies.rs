//! canary's own match on cookies: an annotation, as Istio has no field for it.
//!
//! `headers.cookie` is one text with all cookies in it, and browsers write a space after each `;`, which regular
//! expressions in tutorials leave out. Here cookies are parsed and each is tested for itself.
use std::collections::BTreeMap;

use super::{
    HttpRule,
    text::{self, Place},
};
use crate::{
    model::{
        meta::Labels,
        problem::{Faults, Problem},
        raw,
    },
    state::Text,
};

/// The annotation: `[{"rule": "http[0]", "match": {"email": {"regex": ".*@example.com"}}}]`.
pub(crate) const COOKIES: &str = "canary.io/cookies";

/// Gives the rules that the annotation names their cookies.
pub(in crate::model) fn read(annotations: &Labels, rules: &mut [HttpRule], faults: &mut Faults) {
    let Some(written) = annotations.get(COOKIES) else { return };
    let field = format!("metadata.annotations.{COOKIES}");
    let entries: Vec<raw::CookieRule> = match serde_json::from_str(written) {
        Ok(entries) => entries,
        Err(source) => return faults.push(field, Problem::Shape { source }),
    };
    for (index, entry) in entries.into_iter().enumerate() {
        let mut fault = |at: &str, problem| {
            let problem = Box::new(problem);
            faults.push(&field, Problem::Inside { at: format!("[{index}].{at}"), problem });
        };
        let tests = read_tests(entry.tests, &mut fault);
        let mut named = rules.iter_mut().filter(|rule| rule.is_called(&entry.rule)).peekable();
        if named.peek().is_none() {
            fault("rule", Problem::UnknownRule { name: entry.rule.clone() });
        }
        for rule in named {
            if rule.cookies.is_empty() {
                rule.cookies.clone_from(&tests);
            } else {
                fault("rule", Problem::Duplicate { value: entry.rule.clone() });
            }
        }
    }
}

fn read_tests(
    written: BTreeMap<String, raw::CookieMatch>,
    fault: &mut impl FnMut(&str, Problem),
) -> BTreeMap<String, Text> {
    if written.is_empty() {
        fault("match", Problem::Empty);
    }
    let mut tests = BTreeMap::new();
    for (name, raw::CookieMatch { exact, prefix, regex }) in written {
        let at = format!("match.{name}");
        if name.is_empty() || name.contains(|c: char| c.is_control() || "=;, \t\"".contains(c)) {
            let expected = "the name of a cookie";
            fault(&at, Problem::Value { value: name.clone(), expected });
        }
        match text::check(raw::StringMatch { exact, prefix, regex }, Place::Other) {
            Ok(Some(test)) => drop(tests.insert(name, test)),
            Ok(None) => {}
            Err((below, problem)) => fault(&format!("{at}{below}"), problem),
        }
    }
    tests
}
