//! `rewrite`: what is replaced in a request that is sent on.
use super::{given, headers, text};
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::{Rewrite, RewritePart, UriRegexRewrite},
};

/// Reads `rewrite` of the rule at `path`.
pub(super) fn read(raw: raw::HttpRewrite, path: &str, proxied: &mut Vec<String>, faults: &mut Faults) -> Rewrite {
    let (uri, authority) = (given(raw.uri), given(raw.authority));
    let path = format!("{path}.rewrite");
    match (&uri, &authority, &raw.uri_regex_rewrite) {
        (None, None, None) => {
            let fields = "`uri`, `authority` or `uriRegexRewrite` (or more)";
            faults.push(&path, Problem::ExactlyOne { fields, found: 0 });
        }
        (Some(_), _, Some(_)) => {
            let (first, second) = ("rewrite.uri", "rewrite.uriRegexRewrite");
            faults.push(format!("{path}.uriRegexRewrite"), Problem::Exclusive { first, second });
        }
        _ => {}
    }
    proxied.push("rewrite".to_owned());
    if let Some(authority) = &authority {
        faults.take(&format!("{path}.authority"), headers::check_value(authority));
    }
    if let Some(uri) = &uri {
        faults.take(&format!("{path}.uri"), headers::check_target(uri));
    }
    let regex = raw.uri_regex_rewrite;
    let uri_regex = regex.and_then(|raw| read_regex(raw, &format!("{path}.uriRegexRewrite"), faults));
    Rewrite { uri, authority, uri_regex }
}

fn read_regex(raw: raw::UriRegexRewrite, path: &str, faults: &mut Faults) -> Option<UriRegexRewrite> {
    let mut needed = |text, field| {
        let text = given(text);
        if text.is_none() {
            faults.push(format!("{path}.{field}"), Problem::Missing);
        }
        text
    };
    let (pattern, rewrite) = (needed(raw.pattern, "match"), needed(raw.rewrite, "rewrite"));
    let (pattern, rewrite) = (pattern?, rewrite?);
    let regex = faults.take(&format!("{path}.match"), text::check_part(&pattern))?;
    let path = format!("{path}.rewrite");
    faults.take(&path, headers::check_target(&rewrite))?;
    let expected = "possible: after a backslash there must be the number of a group of `match`, or another backslash";
    let parts = parts(&rewrite, regex.captures_len()).ok_or(Problem::Value { value: rewrite, expected });
    Some(UriRegexRewrite { pattern, rewrite: faults.take(&path, parts)? })
}

/// `\0` to `\9` stand for groups, of which there are `groups` with the whole match, and `\\` for itself.
fn parts(rewrite: &str, groups: usize) -> Option<Vec<RewritePart>> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = rewrite.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            text.push(next);
            continue;
        }
        let escaped = rest.next()?;
        if escaped == '\\' {
            text.push('\\');
            continue;
        }
        let group = usize::try_from(escaped.to_digit(10)?).ok().filter(|group| *group < groups)?;
        if !text.is_empty() {
            parts.push(RewritePart::Text(std::mem::take(&mut text)));
        }
        parts.push(RewritePart::Group(group));
    }
    if !text.is_empty() {
        parts.push(RewritePart::Text(text));
    }
    Some(parts)
}
