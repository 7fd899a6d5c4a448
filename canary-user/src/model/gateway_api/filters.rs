//! `filters` of a rule or of one of its backends: what becomes of a request on its way.
use std::collections::BTreeMap;

use super::{
    super::{
        problem::{Faults, Problem},
        raw,
        request::{NotFollowed, RedirectPort, RedirectTo, check_target, check_value, read_changes},
        route::read_port,
    },
    backends::Backend,
};
use crate::state::{Cors, HeaderChanges, HeaderOperations, Percentage, Rewrite, RewritePart, Text, UriRegexRewrite};

/// What the filters of a rule ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    pub(super) headers: HeaderChanges,
    pub(super) redirect: Option<RedirectTo>,
    pub(super) rewrite: Rewrite,
    pub(super) mirrors: Vec<(Backend, Percentage)>,
    pub(super) cors: Option<Cors>,
    /// One that canary does not know, by its path under the rule: its requests must fail, says the API.
    pub(super) unknown: Option<String>,
}

/// Reads the filters of the rule at `path`.
pub(super) fn read(
    raw: Vec<raw::Filter>,
    path: &str,
    namespace: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> Filters {
    let mut filters = Filters::default();
    for (index, filter) in raw.into_iter().enumerate() {
        let field = format!("filters[{index}]");
        let at = format!("{path}.{field}");
        let kind = filter.kind.as_deref().unwrap_or_default();
        match (kind, &filter) {
            ("RequestHeaderModifier" | "ResponseHeaderModifier", _) => {
                let changes = changes(filter, (path, &field), not_followed, faults);
                add(&mut filters.headers.request, changes.request);
                add(&mut filters.headers.response, changes.response);
            }
            ("RequestMirror", _) => {
                let field = format!("{field}.requestMirror");
                let Some(mirror) = filter.request_mirror else {
                    faults.push(format!("{at}.requestMirror"), Problem::Missing);
                    continue;
                };
                let share = share(&mirror, &format!("{at}.requestMirror"), faults);
                let Some(to) = mirror.backend_ref else {
                    faults.push(format!("{path}.{field}.backendRef"), Problem::Missing);
                    continue;
                };
                let place = (path, format!("{field}.backendRef"));
                filters.mirrors.extend(Backend::read(to, place, namespace, not_followed, faults).zip(share));
            }
            ("RequestRedirect", _) => {
                let raw = filter.request_redirect.unwrap_or_default();
                filters.redirect = redirect(raw, &format!("{at}.requestRedirect"), faults);
            }
            ("URLRewrite", _) => {
                filters.rewrite = rewrite(filter.url_rewrite.unwrap_or_default(), &format!("{at}.urlRewrite"), faults);
            }
            ("CORS", _) => filters.cors = Some(cors(filter.cors.unwrap_or_default())),
            ("", _) => faults.push(format!("{at}.type"), Problem::Missing),
            _ => filters.unknown = Some(field),
        }
    }
    if filters.redirect.is_some() && filters.rewrite != Rewrite::default() {
        let (first, second) = ("RequestRedirect", "URLRewrite");
        faults.push(format!("{path}.filters"), Problem::Exclusive { first, second });
    }
    filters
}

/// The changes of headers of a backend at `rule`.`field`; other filters are not possible there.
pub(super) fn of_backend(
    raw: Vec<raw::Filter>,
    (rule, field): (&str, &str),
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> HeaderChanges {
    let mut all = HeaderChanges::default();
    for (index, filter) in raw.into_iter().enumerate() {
        let field = format!("{field}.filters[{index}]");
        match filter.kind.as_deref() {
            Some("RequestHeaderModifier" | "ResponseHeaderModifier") => {
                let changes = changes(filter, (rule, &field), not_followed, faults);
                add(&mut all.request, changes.request);
                add(&mut all.response, changes.response);
            }
            Some(_) => {
                let why = "of the filters of a backend only changes of headers are done";
                not_followed.push(NotFollowed { field, why });
            }
            None => faults.push(format!("{rule}.{field}.type"), Problem::Missing),
        }
    }
    all
}

fn changes(
    filter: raw::Filter,
    (rule, field): (&str, &str),
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> HeaderChanges {
    // Values are what they are here: no `%…%` is filled in.
    let pairs = |list: Vec<raw::HeaderValue>| {
        let mut pairs = BTreeMap::new();
        for it in list {
            pairs.entry(it.name.to_ascii_lowercase()).or_insert_with(|| it.value.replace('%', "%%"));
        }
        pairs
    };
    let operations = |raw: raw::HeaderModifier| raw::HeaderOperations {
        set: pairs(raw.set),
        add: pairs(raw.add),
        remove: raw.remove,
    };
    let (kind, field) = (filter.kind.as_deref().unwrap_or_default(), field.to_owned());
    let (request, response, name) = if kind == "RequestHeaderModifier" {
        (filter.request_header_modifier.map(operations), None, "requestHeaderModifier")
    } else {
        (None, filter.response_header_modifier.map(operations), "responseHeaderModifier")
    };
    if request.is_none() && response.is_none() {
        faults.push(format!("{rule}.{field}.{name}"), Problem::Missing);
    }
    read_changes(Some(raw::Headers { request, response }), rule, &field, not_followed, faults)
}

fn add(to: &mut HeaderOperations, more: HeaderOperations) {
    to.remove.extend(more.remove);
    to.set.extend(more.set);
    to.add.extend(more.add);
}

/// Of how many requests there are copies; all, if nothing else is said.
fn share(raw: &raw::RequestMirror, path: &str, faults: &mut Faults) -> Option<Percentage> {
    let (numerator, denominator, field) = match (&raw.percent, &raw.fraction) {
        (Some(_), Some(_)) => {
            let (first, second) = ("percent", "fraction");
            faults.push(format!("{path}.fraction"), Problem::Exclusive { first, second });
            return None;
        }
        (Some(percent), None) => (*percent, 100, "percent"),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100), "fraction"),
        (None, None) => return Some(Percentage::ALL),
    };
    if denominator < 1 || !(0..=denominator).contains(&numerator) {
        let (value, expected) = (format!("{numerator} of {denominator}"), "a share from none to all");
        faults.push(format!("{path}.{field}"), Problem::Value { value, expected });
        return None;
    }
    let millionths = i128::from(numerator) * 1_000_000 / i128::from(denominator);
    u32::try_from(millionths).ok().map(Percentage::from_millionths)
}

/// In place of a whole path, or of the prefix that matched.
enum Replacement {
    Nothing,
    Whole(String),
    Prefix(String),
}

fn replacement(raw: Option<raw::PathModifier>, path: &str, faults: &mut Faults) -> Replacement {
    let Some(raw) = raw else { return Replacement::Nothing };
    match (raw.kind.as_deref(), raw.replace_full_path, raw.replace_prefix_match) {
        (Some("ReplaceFullPath"), Some(whole), None) => {
            faults.take(&format!("{path}.replaceFullPath"), check_target(&whole));
            Replacement::Whole(if whole.is_empty() { "/".into() } else { whole })
        }
        (Some("ReplacePrefixMatch"), None, Some(prefix)) => {
            faults.take(&format!("{path}.replacePrefixMatch"), check_target(&prefix));
            // What follows the prefix begins with `/` itself.
            Replacement::Prefix(prefix.trim_end_matches('/').to_owned())
        }
        (Some("ReplaceFullPath" | "ReplacePrefixMatch"), ..) => {
            let fields = "`replaceFullPath` or `replacePrefixMatch`, as `type` says,";
            faults.push(path, Problem::ExactlyOne { fields, found: 0 });
            Replacement::Nothing
        }
        (other, ..) => {
            let expected = "ReplaceFullPath or ReplacePrefixMatch";
            let value = other.unwrap_or_default().to_owned();
            faults.push(format!("{path}.type"), Problem::Value { value, expected });
            Replacement::Nothing
        }
    }
}

fn redirect(raw: raw::RequestRedirect, path: &str, faults: &mut Faults) -> Option<RedirectTo> {
    let code = match raw.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => u16::try_from(code).ok(),
        code => {
            let (value, expected) = (code.to_string(), "301, 302, 303, 307 or 308");
            faults.push(format!("{path}.statusCode"), Problem::Value { value, expected });
            None
        }
    };
    let scheme = raw.scheme.filter(|scheme| !scheme.is_empty());
    if let Some(scheme) = scheme.as_ref().filter(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
        let (value, expected) = (scheme.clone(), "http or https");
        faults.push(format!("{path}.scheme"), Problem::Value { value, expected });
    }
    let port = match raw.port {
        Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
        None => None,
    };
    let port = RedirectPort::Shortest(port);
    let authority = raw.hostname.filter(|host| !host.is_empty());
    if let Some(authority) = &authority {
        faults.take(&format!("{path}.hostname"), check_target(authority));
    }
    let (uri, prefix) = match replacement(raw.path, &format!("{path}.path"), faults) {
        Replacement::Nothing => (None, None),
        Replacement::Whole(whole) => (Some(whole), None),
        Replacement::Prefix(prefix) => (None, Some(prefix)),
    };
    Some(RedirectTo { code: code?, uri, prefix, authority, scheme, port })
}

fn rewrite(raw: raw::UrlRewrite, path: &str, faults: &mut Faults) -> Rewrite {
    let authority = raw.hostname.filter(|host| !host.is_empty());
    if let Some(authority) = &authority {
        faults.take(&format!("{path}.hostname"), check_value(authority));
    }
    let (uri, uri_regex) = match replacement(raw.path, &format!("{path}.path"), faults) {
        Replacement::Nothing => (None, None),
        Replacement::Whole(whole) => {
            let rewrite = vec![RewritePart::Text(whole)];
            (None, Some(UriRegexRewrite { pattern: "/.*".into(), rewrite }))
        }
        Replacement::Prefix(prefix) => (Some(prefix), None),
    };
    Rewrite { uri, authority, uri_regex }
}

fn cors(raw: raw::Cors) -> Cors {
    let origin = |text: String| match text.split_once('*') {
        None => Text::Exact(text),
        Some(("", "")) => Text::Regex(".*".into()),
        Some((before, after)) => {
            Text::Regex(format!("{}.*{}", regex_syntax::escape(before), regex_syntax::escape(after)))
        }
    };
    Cors {
        origins: raw.allow_origins.into_iter().map(origin).collect(),
        methods: raw.allow_methods,
        headers: raw.allow_headers,
        expose: raw.expose_headers,
        max_age_s: raw.max_age.and_then(|seconds| u64::try_from(seconds).ok()),
        credentials: raw.allow_credentials,
        forward_unmatched: false,
    }
}
