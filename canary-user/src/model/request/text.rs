//! Tests of texts: `exact`, `prefix` or `regex`.
use std::collections::BTreeMap;

use regex::Regex;

use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::Text,
};

/// As long a regular expression may be, as in Istio.
const REGEX_LENGTH: usize = 1_024;

/// Where a text is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The path, of which `/`, and nothing, is a prefix in any case.
    Uri,
    Other,
}

/// Reads a test at `field`; `None` for one that holds for everything, too.
pub(super) fn read(raw: raw::StringMatch, field: &str, place: Place, faults: &mut Faults) -> Option<Text> {
    match check(raw, place) {
        Ok(test) => test,
        Err((below, problem)) => {
            faults.push(format!("{field}{below}"), problem);
            None
        }
    }
}

/// Reads the tests of a map at `field`; `name` reads its keys.
pub(super) fn read_all(
    raw: BTreeMap<String, Option<raw::StringMatch>>,
    field: &str,
    name: impl Fn(&str) -> Result<String, Problem>,
    faults: &mut Faults,
) -> BTreeMap<String, Text> {
    let mut tests = BTreeMap::new();
    for (written, test) in raw {
        let field = format!("{field}.{written}");
        let Some(test) = test else {
            faults.push(field, Problem::Empty);
            continue;
        };
        let name = faults.take(&field, name(&written));
        let test = read(test, &field, Place::Other, faults);
        if let (Some(name), Some(test)) = (name, test)
            && tests.insert(name, test).is_some()
        {
            faults.push(field, Problem::Duplicate { value: written });
        }
    }
    tests
}

/// The test; else where below the field something is wrong, and what.
pub(super) fn check(raw: raw::StringMatch, place: Place) -> Result<Option<Text>, (&'static str, Problem)> {
    let found = [&raw.exact, &raw.prefix, &raw.regex].iter().filter(|text| text.is_some()).count();
    if found > 1 {
        return Err(("", Problem::ExactlyOne { fields: "`exact`, `prefix` and `regex`", found }));
    }
    match (raw.exact, raw.prefix, raw.regex, place) {
        (Some(text), ..) => Ok(Some(Text::Exact(text))),
        (_, Some(text), _, Place::Uri) if text.is_empty() || text == "/" => Ok(None),
        (_, Some(text), ..) if text.is_empty() => Err((".prefix", Problem::Empty)),
        (_, Some(text), ..) => Ok(Some(Text::Prefix(text))),
        // No regular expression, but Istio's word for "whatever it is".
        (_, _, Some(text), Place::Other) if text == "*" => Ok(Some(Text::Present)),
        (_, _, Some(text), _) => match check_regex(&text) {
            Ok(()) => Ok(Some(Text::Regex(text))),
            Err(problem) => Err((".regex", problem)),
        },
        (None, None, None, Place::Uri) => Ok(None),
        (None, None, None, Place::Other) => Ok(Some(Text::Present)),
    }
}

/// Whether it is a regular expression for a whole text.
pub(in crate::model) fn check_regex(text: &str) -> Result<(), Problem> {
    // With `(?x)` a comment may swallow the end of what is applied: to the whole text.
    check_part(text).and_then(|_| Regex::new(&format!("^(?:{text})$")).map_err(|error| problem(text, &error))).map(drop)
}

/// Reads a regular expression for a part of a text.
pub(super) fn check_part(text: &str) -> Result<Regex, Problem> {
    let length = text.chars().count();
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if length > REGEX_LENGTH {
        return Err(Problem::RegexLong { length, limit: REGEX_LENGTH });
    }
    Regex::new(text).map_err(|error| problem(text, &error))
}

fn problem(text: &str, error: &regex::Error) -> Problem {
    // The library draws the place over several lines; the last one says what is wrong.
    let why = error.to_string();
    let why = why.lines().last().unwrap_or_default();
    Problem::Regex { what: format!("`{text}`"), why: why.strip_prefix("error: ").unwrap_or(why).to_owned() }
}
