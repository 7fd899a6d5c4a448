//! Paths that are rewritten by a regular expression.
use regex::{Captures, Regex};

use crate::state::{RewritePart, UriRegexRewrite};

/// [`UriRegexRewrite`], ready to be applied.
#[derive(Debug)]
pub(super) struct Substitution {
    pattern: Regex,
    parts: Vec<RewritePart>,
}

impl Substitution {
    /// `None` for what validation refuses.
    pub(super) fn new(of: &UriRegexRewrite) -> Option<Self> {
        Some(Self { pattern: Regex::new(&of.pattern).ok()?, parts: of.rewrite.clone() })
    }

    /// Path and query, with everything in the path that matches replaced; `None` when that makes no path.
    pub(super) fn apply(&self, target: &str) -> Option<String> {
        // A target such as `*` has no path.
        if !target.starts_with('/') {
            return Some(target.to_owned());
        }
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let rewritten = self.pattern.replace_all(path, |found: &Captures<'_>| self.filled(found));
        rewritten.starts_with('/').then(|| format!("{rewritten}{query}"))
    }

    fn filled(&self, found: &Captures<'_>) -> String {
        let text = |part| match part {
            &RewritePart::Group(number) => found.get(number).map_or("", |group| group.as_str()),
            RewritePart::Text(text) => text.as_str(),
        };
        self.parts.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_filled_in_wherever_the_path_matches() {
        let text = |text: &str| RewritePart::Text(text.into());
        let group = RewritePart::Group;
        let cases = [
            (
                "^/service/([^/]+)(/.*)$",
                vec![group(2), text("/instance/"), group(1)],
                "/service/foo/v1/api",
                Some("/v1/api/instance/foo"),
            ),
            ("one", vec![text("two")], "/xxx/one/yyy/one/zzz", Some("/xxx/two/yyy/two/zzz")),
            ("^(.*?)one(.*)$", vec![group(1), text("two"), group(2)], "/x/one/y/one", Some("/x/two/y/one")),
            ("(?i)/xxx/", vec![text("/yyy/")], "/aaa/XxX/bbb", Some("/aaa/yyy/bbb")),
            ("b", vec![text("["), group(0), text("]")], "/abc?b=b", Some("/a[b]c?b=b")),
            ("(x)?b", vec![text("<"), group(1), text(">")], "/b", Some("/<>")),
            ("none", vec![text("x")], "/abc?d", Some("/abc?d")),
            (".", vec![text("x")], "*", Some("*")),
            ("^/", vec![], "/abc", None),
        ];
        for (pattern, rewrite, target, expected) in cases {
            let of = UriRegexRewrite { pattern: pattern.into(), rewrite };
            let made = Substitution::new(&of).unwrap().apply(target);
            assert_eq!(made.as_deref(), expected, "{pattern} {target}");
        }
    }
}
