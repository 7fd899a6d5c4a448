//! `matches` of a rule: which requests it is for, and how much they ask for.
use std::collections::BTreeMap;

use super::{
    super::{
        problem::{Faults, Problem},
        raw,
        request::{header_name, regex},
    },
    RouteKind,
};
use crate::state::{RequestMatch, Text};

/// How much a match asks for; more comes first, whatever the order in which rules are written.
///
/// An exact path, then the longest prefix, then a method, then the most headers, then the most parameters. Regular
/// expressions come after all other paths, as in Istio: the API leaves that open. Of gRPC it is the longest service, then the
/// longest method, then the most headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    path: PathRank,
    /// Of the path; of gRPC the service's.
    length: usize,
    /// One for a method of HTTP; of gRPC its length.
    method: usize,
    headers: usize,
    query: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    #[default]
    Regex,
    Prefix,
    Exact,
}

/// Reads the matches at `path`; none stand for every request.
pub(super) fn read(
    raw: Vec<raw::RouteMatch>,
    kind: RouteKind,
    path: &str,
    faults: &mut Faults,
) -> Vec<(Rank, RequestMatch)> {
    let raw = if raw.is_empty() { vec![raw::RouteMatch::default()] } else { raw };
    let raw = raw.into_iter().enumerate();
    raw.map(|(index, one)| read_one(one, kind, &format!("{path}.matches[{index}]"), faults)).collect()
}

fn read_one(raw: raw::RouteMatch, kind: RouteKind, path: &str, faults: &mut Faults) -> (Rank, RequestMatch) {
    let mut request = RequestMatch {
        headers: read_named(raw.headers, &format!("{path}.headers"), true, faults),
        query: read_named(raw.query_params, &format!("{path}.queryParams"), false, faults),
        ..RequestMatch::default()
    };
    let mut rank = Rank { path: PathRank::Prefix, length: usize::from(kind == RouteKind::Http), ..Rank::default() };
    rank.headers = request.headers.len();
    rank.query = request.query.len();
    match raw.method {
        Some(raw::Method::Name(name)) if kind == RouteKind::Http => {
            request.method = Some(Text::Exact(name));
            rank.method = 1;
        }
        Some(raw::Method::Call(call)) if kind == RouteKind::Grpc => {
            (rank.length, rank.method) = (length(call.service.as_ref()), length(call.method.as_ref()));
            request.uri = read_call(call, &format!("{path}.method"), faults);
        }
        Some(_) => {
            let expected = if kind == RouteKind::Grpc { "`service` and `method`" } else { "the name of a method" };
            faults.push(format!("{path}.method"), Problem::Value { value: "it".into(), expected });
        }
        None => {}
    }
    if let Some(test) = raw.path {
        (request.uri, rank.path, rank.length) = read_path(test, &format!("{path}.path"), faults);
    }
    (rank, request)
}

fn read_path(raw: raw::NameMatch, path: &str, faults: &mut Faults) -> (Option<Text>, PathRank, usize) {
    let value = raw.value.unwrap_or_else(|| "/".into());
    let kind = raw.kind.as_deref().unwrap_or("PathPrefix");
    if kind != "RegularExpression" && !value.starts_with('/') {
        let expected = "a path: it must begin with `/`";
        faults.push(format!("{path}.value"), Problem::Value { value: value.clone(), expected });
    }
    let length = value.len();
    match kind {
        "Exact" => (Some(Text::Exact(value)), PathRank::Exact, length),
        "PathPrefix" => {
            let prefix = value.trim_end_matches('/');
            let test = Text::PathPrefix(prefix.to_owned());
            (Some(test), PathRank::Prefix, prefix.len().max(1))
        }
        "RegularExpression" => {
            faults.take(&format!("{path}.value"), regex(&value));
            (Some(Text::Regex(value)), PathRank::Regex, length)
        }
        other => {
            let expected = "one of Exact, PathPrefix, RegularExpression";
            faults.push(format!("{path}.type"), Problem::Value { value: other.into(), expected });
            (None, PathRank::Prefix, 1)
        }
    }
}

/// A call of gRPC is a path: `/service/method`.
fn read_call(raw: raw::Call, path: &str, faults: &mut Faults) -> Option<Text> {
    let (service, method) = (given(raw.service), given(raw.method));
    let kind = raw.kind.as_deref().unwrap_or("Exact");
    if !matches!(kind, "Exact" | "RegularExpression") {
        let expected = "Exact or RegularExpression";
        faults.push(format!("{path}.type"), Problem::Value { value: kind.into(), expected });
    }
    let is_regex = kind == "RegularExpression";
    for (field, text) in [("service", &service), ("method", &method)] {
        if let Some(text) = text.as_ref().filter(|_| is_regex) {
            faults.take(&format!("{path}.{field}"), regex(text));
        }
    }
    match (service, method) {
        (None, None) => {
            let fields = "`service` or `method` (or both)";
            faults.push(path, Problem::ExactlyOne { fields, found: 0 });
            None
        }
        (Some(service), Some(method)) if !is_regex => Some(Text::Exact(format!("/{service}/{method}"))),
        (Some(service), None) if !is_regex => Some(Text::PathPrefix(format!("/{service}"))),
        (service, method) => {
            let part = |text: Option<String>, any: &str| match text {
                Some(text) if is_regex => format!("(?:{text})"),
                Some(text) => regex_syntax::escape(&text),
                None => any.to_owned(),
            };
            let test = format!("/{}/{}", part(service, "[^/]+"), part(method, "[^/]+"));
            Some(Text::Regex(test))
        }
    }
}

fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

/// Tests of headers or parameters. Of two for one name the first counts, as the API has it.
fn read_named(raw: Vec<raw::NameMatch>, path: &str, is_header: bool, faults: &mut Faults) -> BTreeMap<String, Text> {
    let mut tests = BTreeMap::new();
    for (index, test) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let written = test.name.unwrap_or_default();
        let name = match written.as_str() {
            "" => Err(Problem::Missing),
            name if is_header => header_name(name),
            name => Ok(name.to_owned()),
        };
        let Some(name) = faults.take(&format!("{path}.name"), name) else { continue };
        let value = test.value.unwrap_or_default();
        let text = match test.kind.as_deref().unwrap_or("Exact") {
            "Exact" => Text::Exact(value),
            "RegularExpression" => {
                faults.take(&format!("{path}.value"), regex(&value));
                Text::Regex(value)
            }
            other => {
                let expected = "Exact or RegularExpression";
                faults.push(format!("{path}.type"), Problem::Value { value: other.into(), expected });
                continue;
            }
        };
        tests.entry(name).or_insert(text);
    }
    tests
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
