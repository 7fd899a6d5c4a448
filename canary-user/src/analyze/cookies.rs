//! Regular expressions for the header `cookie` that forget the space behind `;`.
//!
//! Browsers send `sid=1; email=a@example.com`. The expression of many a tutorial, `^(.*?;)?(email=…)(;.*)?$`, wants the
//! cookie right behind the `;`, so that it holds for a request with this cookie only and for no other.
use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::Value;

use super::context::{Context, Finding, Report, list, spec};
use crate::{diagnostic::Severity, model::COOKIES};

/// Istio does not say so.
pub(super) const CODE: &str = "CAN0204";

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        for (rule, value) in list(spec(object), "http").iter().enumerate() {
            for (entry, value) in list(value, "match").iter().enumerate() {
                for headers in ["headers", "withoutHeaders"] {
                    for (name, regex) in cookies(value, headers) {
                        let Some(trap) = trap(regex) else { continue };
                        report.add(Finding {
                            object,
                            severity: Severity::Warning,
                            code: CODE,
                            field: format!("spec.http[{rule}].match[{entry}].{headers}.{name}.regex"),
                            message: format!(
                                "browsers write a space behind each `;` of a cookie header: this does not match `{}`, only `{}`",
                                trap.sent, trap.matched
                            ),
                            remedy: format!(
                                "write `{}`, or test the cookie by itself with the annotation `{COOKIES}`",
                                trap.corrected
                            ),
                        });
                    }
                }
            }
        }
    }
}

/// Regular expressions for the cookie header, with its name as written.
fn cookies<'v>(entry: &'v Value, headers: &str) -> impl Iterator<Item = (&'v str, &'v str)> {
    let headers = entry.get(headers).and_then(Value::as_object).into_iter().flatten();
    headers
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .filter_map(|(name, test)| Some((name.as_str(), test.get("regex")?.as_str()?)))
}

/// An expression that holds for a text only if no space is behind its `;`.
#[derive(Debug, PartialEq, Eq)]
struct Trap {
    sent: String,
    matched: String,
    corrected: String,
}

/// Finds out by trial: makes a text that the expression would match if there were a space, and looks whether it does.
fn trap(regex: &str) -> Option<Trap> {
    let written = whole(regex)?;
    let mut corrected = regex.to_owned();
    let mut found = None;
    // From the back, so that what is inserted moves nothing that is still to come.
    for at in semicolons(regex).into_iter().rev() {
        let Some(sent) = sample(&inserted(regex, at, " ")) else { continue };
        let matched = sent.replace("; ", ";");
        let better = inserted(&corrected, at, r"\s*");
        let helps = whole(&better).is_some_and(|better| better.is_match(&sent));
        if helps && written.is_match(&matched) && !written.is_match(&sent) {
            corrected = better;
            found = Some((sent, matched));
        }
    }
    let (sent, matched) = found?;
    Some(Trap { sent, matched, corrected })
}

/// The expression for a whole text, as Istio applies it.
fn whole(regex: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{regex})$")).ok()
}

fn inserted(regex: &str, at: usize, what: &str) -> String {
    let (before, after) = regex.split_at_checked(at).unwrap_or((regex, ""));
    format!("{before}{what}{after}")
}

/// Where a `;` ends that stands for itself: not in brackets.
fn semicolons(regex: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let (mut escaped, mut in_class) = (false, false);
    for (at, c) in regex.char_indices() {
        match c {
            ';' if !in_class => found.push(at + 1),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = false;
    }
    found
}

/// A text that the expression matches, with what is optional in it, and one space behind a `;`.
fn sample(regex: &str) -> Option<String> {
    whole(regex)?; // What is too large to compile is too large to write out.
    let mut text = String::new();
    write(&regex_syntax::parse(regex).ok()?, &mut text);
    while text.contains(";  ") {
        text = text.replace(";  ", "; ");
    }
    let text = text.trim();
    text.contains("; ").then(|| text.to_owned())
}

fn write(hir: &Hir, text: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => text.extend(character(class, '.')),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            for _ in 0..repetition.min.max(1).min(most) {
                match repetition.sub.kind() {
                    HirKind::Class(class) => text.extend(character(class, 'a')),
                    _ => write(&repetition.sub, text),
                }
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, text)),
        HirKind::Alternation(parts) => {
            let mut samples = parts.iter().map(|part| {
                let mut text = String::new();
                write(part, &mut text);
                text
            });
            let first = samples.next().unwrap_or_default();
            // The alternative that is about the `;`, if there is one.
            let chosen = if first.contains(';') { None } else { samples.find(|sample| sample.contains(';')) };
            text.push_str(&chosen.unwrap_or(first));
        }
    }
}

/// A character of a class that looks natural in a cookie; `any` if it can be any. A single one of these is most often a dot
/// that somebody forgot to escape.
fn character(class: &Class, any: char) -> Option<char> {
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.ranges().iter().map(|range| (range.start(), range.end())).collect(),
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect(),
    };
    let holds = |c: &char| ranges.iter().any(|(start, end)| (start..=end).contains(&c));
    if [';', any].iter().all(holds) {
        return Some(any);
    }
    let natural = ['a', 'A', '1', '-', ' '].into_iter().find(holds);
    natural.or_else(|| ranges.first().map(|(start, _)| *start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_with_and_without_the_trap() {
        let email = "email=[^;]*@some-company-name.com";
        let cases = [
            (format!("^(.*?;)?({email})(;.*)?$"), Some(format!(r"^(.*?;\s*)?({email})(;.*)?$"))),
            (format!("(.*;)?{email}(;.*)?"), Some(format!(r"(.*;\s*)?{email}(;.*)?"))),
            ("^(?:.*;)*user=(a|b)(?:;.*)?$".into(), Some(r"^(?:.*;\s*)*user=(a|b)(?:;.*)?$".into())),
            (".*(^|;)user=a.*".into(), Some(r".*(^|;\s*)user=a.*".into())),
            (r"([^;]+\;)*user=a(;.*)?".into(), Some(r"([^;]+\;\s*)*user=a(;.*)?".into())),
            (r"a=1;b=\d+;c=.{3}".into(), Some(r"a=1;\s*b=\d+;\s*c=.{3}".into())),
            (format!(r"^(.*?;\s*)?({email})(;.*)?$"), None),
            (format!("^(.*?; ?)?({email})(;.*)?$"), None),
            (format!("^(.*?; )?({email})(;.*)?$"), None),
            (format!("^(.*;)? ?{email}(;.*)?$"), None),
            (".*user=a.*".into(), None),
            (".*;?user=a.*".into(), None),
            ("user=a;.*".into(), None),
            ("user=a;".into(), None),
            ("(.*[;,])?user=a".into(), None),
            ("(;|; )user=a".into(), None),
            (String::new(), None),
            ("(".into(), None),
            ("*".into(), None),
            ("(a;b{1000}){1000}".into(), None),
        ];
        for (regex, corrected) in cases {
            assert_eq!(trap(&regex).map(|trap| trap.corrected), corrected, "{regex}");
        }
    }

    #[test]
    fn the_texts_that_are_shown() {
        let found = trap("^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$").unwrap();
        assert_eq!(found.sent, "a; email=a@some-company-name.com;a");
        assert_eq!(found.matched, "a;email=a@some-company-name.com;a");
    }
}
