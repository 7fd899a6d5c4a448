//! Does a request match? Pure; patterns are compiled once.
//!
//! The semantics are those of Istio on Envoy: alternatives are tried in order, everything in one must hold, an empty
//! list matches every request.
use std::borrow::Cow;

use ipnet::IpNet;
use regex::Regex;

use super::{target, view::RequestView};
use crate::state::{RequestMatch, Text};

/// A [`RequestMatch`], ready to be asked.
#[derive(Debug)]
pub struct CompiledMatch {
    sources: Vec<IpNet>,
    uri: Option<Test>,
    ignore_uri_case: bool,
    scheme: Option<Test>,
    method: Option<Test>,
    authority: Option<Test>,
    headers: Vec<(String, Test)>,
    without_headers: Vec<(String, Test)>,
    query: Vec<(String, Test)>,
    cookies: Vec<(String, Test)>,
}

/// What of the path matched: that is what a rewrite replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// So many bytes from its beginning.
    Prefix(usize),
    /// All of it.
    Whole,
}

/// A [`Text`], ready to be compared.
#[derive(Debug)]
pub(super) enum Test {
    Exact(String),
    Prefix(String),
    Regex(Regex),
    Present,
    PathPrefix(String),
    Host(String),
    /// The pattern does not compile. Validation refuses those; here it must not match whatever the sense of the test.
    Broken,
}

impl CompiledMatch {
    /// Compiles an alternative.
    #[must_use]
    pub fn new(of: &RequestMatch) -> Self {
        let one = |test: &Option<Text>| test.as_ref().map(Test::new);
        let named = |tests: &std::collections::BTreeMap<String, Text>| {
            tests.iter().map(|(name, test)| (name.clone(), Test::new(test))).collect()
        };
        Self {
            sources: of.sources.clone(),
            uri: one(&of.uri),
            ignore_uri_case: of.ignore_uri_case,
            scheme: one(&of.scheme),
            method: one(&of.method),
            authority: one(&of.authority),
            headers: named(&of.headers),
            without_headers: named(&of.without_headers),
            query: named(&of.query),
            cookies: named(&of.cookies),
        }
    }

    /// Whether everything holds for a request, and which part of the path matched.
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> Option<Matched> {
        let one = |test: &Option<Test>, value: &str| test.as_ref().is_none_or(|test| test.holds(Some(value)));
        let holds = (self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&request.client)))
            && one(&self.method, request.method)
            && one(&self.scheme, request.scheme)
            && one(&self.authority, request.authority)
            && self.headers.iter().all(|(name, test)| test.holds(request.header(name).as_deref()))
            && self.without_headers.iter().all(|(name, test)| test.fails(request.header(name).as_deref()))
            && self.query.iter().all(|(name, test)| test.holds(request.query(name).as_deref()))
            && self.cookies.iter().all(|(name, test)| test.holds(request.cookie(name).as_deref()));
        if holds { self.path(request.path()) } else { None }
    }

    fn path(&self, path: &str) -> Option<Matched> {
        let Some(test) = &self.uri else { return Some(Matched::Prefix(1)) }; // Every path begins with `/`.
        let holds = match test {
            Test::Exact(wanted) if self.ignore_uri_case => path.eq_ignore_ascii_case(wanted),
            Test::Prefix(wanted) if self.ignore_uri_case => {
                path.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
            }
            test => test.holds(Some(path)),
        };
        let matched = match test {
            Test::Prefix(wanted) | Test::PathPrefix(wanted) => Matched::Prefix(wanted.len()),
            _ => Matched::Whole,
        };
        holds.then_some(matched)
    }
}

impl Test {
    pub(super) fn new(of: &Text) -> Self {
        match of {
            Text::Exact(text) => Self::Exact(text.clone()),
            Text::Prefix(text) => Self::Prefix(text.clone()),
            // By itself too: `a)|(b` is no pattern, but would be one between the anchors' brackets.
            Text::Regex(pattern) => Regex::new(pattern)
                .and_then(|_| Regex::new(&format!("^(?:{pattern})$")))
                .map_or(Self::Broken, Self::Regex),
            Text::Present => Self::Present,
            Text::PathPrefix(path) => Self::PathPrefix(path.clone()),
            Text::Host(host) => Self::Host(host.to_ascii_lowercase()),
        }
    }

    /// Whether it holds; never for what is missing.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Present => true,
            Self::PathPrefix(path) => {
                value.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Host(host) => is_host(host, target::with_port(value).0),
            Self::Broken => false,
        }
    }

    /// Whether it does not hold. What is missing counts as empty, unless it is about being there at all.
    fn fails(&self, value: Option<&str>) -> bool {
        match self {
            Self::Present => value.is_none(),
            Self::Broken => false,
            _ => !self.holds(Some(value.unwrap_or(""))),
        }
    }
}

/// Whether a name is the host, in lower case, or one below it.
fn is_host(host: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let Some(suffix) = host.strip_prefix('*') else { return name.eq_ignore_ascii_case(host) };
    let start = name.len().checked_sub(suffix.len()).filter(|start| *start > 0);
    start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// The first alternative that matches; no alternatives match every request.
#[must_use]
pub fn matches(alternatives: &[CompiledMatch], request: &RequestView<'_>) -> Option<Matched> {
    if alternatives.is_empty() {
        return Some(Matched::Prefix(1));
    }
    alternatives.iter().find_map(|alternative| alternative.matches(request))
}

/// What a rewrite makes of path and query: what matched is replaced, the rest and the query stay.
#[must_use]
pub fn rewritten<'a>(target: &'a str, matched: Matched, replacement: &str) -> Cow<'a, str> {
    let path = target.find('?').unwrap_or(target.len());
    let rest = match matched {
        Matched::Prefix(len) => target.get(len.min(path)..),
        Matched::Whole => target.get(path..),
    };
    // A target such as `*` has no path to replace.
    if !target.starts_with('/') {
        return target.into();
    }
    let rest = rest.unwrap_or_default();
    // A path is never empty, as after `/prefix` that nothing comes in the place of.
    let root = if replacement.is_empty() && !rest.starts_with('/') { "/" } else { "" };
    format!("{root}{replacement}{rest}").into()
}
