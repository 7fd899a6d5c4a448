//! Which requests match: tables, and a naive model beside them.
use std::{borrow::Cow, collections::BTreeMap};

use hyper::{HeaderMap, header::HeaderName};
use proptest::prelude::*;

use crate::{
    proxy::{
        matching::{CompiledMatch, Matched, Test, matches, rewritten},
        view::RequestView,
    },
    state::{RequestMatch, Text},
};

fn exact(text: &str) -> Text {
    Text::Exact(text.into())
}

fn prefix(text: &str) -> Text {
    Text::Prefix(text.into())
}

fn regex(text: &str) -> Text {
    Text::Regex(text.into())
}

fn one<K: Into<String>>(name: K, text: Text) -> BTreeMap<String, Text> {
    BTreeMap::from([(name.into(), text)])
}

/// Headers of a request.
type Sent = &'static [(&'static str, &'static str)];

/// Whether an alternative matches a GET of `target` with headers.
fn holds(of: &RequestMatch, target: &str, headers: &[(&str, &str)]) -> bool {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let view = RequestView {
        method: "GET",
        scheme: "http",
        authority: "reviews:9080",
        target,
        headers: &map,
        client: "10.1.2.3".parse().unwrap(),
    };
    CompiledMatch::new(of).matches(&view).is_some()
}

#[test]
fn the_path_is_tested_without_its_query() {
    let uri = |text: Text, case| RequestMatch { uri: Some(text), ignore_uri_case: case, ..RequestMatch::default() };
    let table = [
        (exact("/a"), false, "/a", true),
        (exact("/a"), false, "/a?b=1", true),
        (exact("/a"), false, "/A", false),
        (exact("/a"), true, "/A?b", true),
        (exact("/a"), false, "/a/", false),
        (prefix("/a"), false, "/ab?x", true),
        (prefix("/A"), true, "/ab", true),
        (prefix("/a"), false, "/b?/a", false),
        (prefix("/abc"), true, "/a", false),
        (regex("/v[0-9]+"), false, "/v12?q", true),
        (regex("/v[0-9]+"), false, "/v12/x", false),
        (regex("/v[0-9]+"), true, "/V12", false),
        (regex("/a|/ab"), false, "/ab", true),
        (regex("/a)|(/b"), false, "/b", false),
        (regex("("), false, "/", false),
        (Text::Present, false, "/", true),
    ];
    for (text, case, target, wanted) in table {
        assert_eq!(holds(&uri(text.clone(), case), target, &[]), wanted, "{text:?} {case} {target}");
    }
}

#[test]
fn headers_are_tested_by_name() {
    let header = |name: &str, text| RequestMatch { headers: one(name, text), ..RequestMatch::default() };
    let table: [(&str, Text, Sent, bool); 13] = [
        ("x", exact("1"), &[("X", "1")], true),
        ("x", exact("1"), &[], false),
        ("x", exact(""), &[], false),
        ("x", regex(".*"), &[], false),
        ("x", Text::Present, &[("x", "")], true),
        ("x", Text::Present, &[], false),
        ("x", exact("1,2"), &[("x", "1"), ("x", "2")], true),
        ("x", exact("1"), &[("x", "1"), ("x", "2")], false),
        (":method", exact("GET"), &[], true),
        (":authority", prefix("reviews"), &[], true),
        ("host", exact("reviews:9080"), &[], true),
        (":path", exact("/p?q=1"), &[], true),
        (":scheme", exact("https"), &[], false),
    ];
    for (name, text, headers, wanted) in table {
        assert_eq!(holds(&header(name, text.clone()), "/p?q=1", headers), wanted, "{name} {text:?} {headers:?}");
    }
}

#[test]
fn without_headers_count_what_is_missing_as_empty() {
    let without = |text| RequestMatch { without_headers: one("x", text), ..RequestMatch::default() };
    let table: [(Text, Sent, bool); 9] = [
        (exact("1"), &[], true),
        (exact("1"), &[("x", "1")], false),
        (exact("1"), &[("x", "2")], true),
        (exact(""), &[], false),
        (Text::Present, &[], true),
        (Text::Present, &[("x", "")], false),
        (regex(".*"), &[], false),
        (regex(".+"), &[], true),
        (regex("("), &[], false),
    ];
    for (text, headers, wanted) in table {
        assert_eq!(holds(&without(text.clone()), "/", headers), wanted, "{text:?} {headers:?}");
    }
}

#[test]
fn a_cookie_is_found_where_a_pattern_misses_it() {
    let pattern = regex("^(.*?;)?(email=[^;]*@some-company-name.com)(;.*)?$");
    let by_pattern = RequestMatch { headers: one("cookie", pattern), ..RequestMatch::default() };
    let by_name = RequestMatch { cookies: one("email", regex(".*@some-company-name\\.com")), ..Default::default() };
    let first = [("cookie", "email=a@some-company-name.com;x=1")];
    let second = [("cookie", "sid=1; email=a@some-company-name.com")];
    assert!(holds(&by_pattern, "/", &first) && !holds(&by_pattern, "/", &second));
    assert!(holds(&by_name, "/", &first) && holds(&by_name, "/", &second));
    assert!(holds(&by_name, "/", &[("cookie", "sid=1"), ("cookie", "email=a@some-company-name.com")]));
    assert!(!holds(&by_name, "/", &[("cookie", "xemail=a@some-company-name.com; email")]));
}

#[test]
fn query_parameters_are_decoded() {
    let query = |name: &str, text| RequestMatch { query: one(name, text), ..RequestMatch::default() };
    let table = [
        ("a", exact("1"), "/?a=1&a=2", true),
        ("a", exact("2"), "/?a=1&a=2", false),
        ("a", exact("x y/"), "/?b&a=x%20y%2f", true),
        ("ä", exact("1"), "/?%C3%A4=1", true),
        ("a", exact("1%"), "/?a=1%", true),
        ("a", exact("%zz+"), "/?a=%zz+", true),
        ("a", exact(""), "/?a", true),
        ("a", Text::Present, "/?a", true),
        ("a", Text::Present, "/a", false),
    ];
    for (name, text, target, wanted) in table {
        assert_eq!(holds(&query(name, text.clone()), target, &[]), wanted, "{name} {text:?} {target}");
    }
}

#[test]
fn everything_in_an_alternative_must_hold() {
    let of = RequestMatch {
        sources: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()],
        method: Some(exact("GET")),
        authority: Some(exact("reviews:9080")),
        scheme: Some(exact("http")),
        ..RequestMatch::default()
    };
    assert!(holds(&of, "/", &[]));
    assert!(!holds(&RequestMatch { method: Some(exact("get")), ..of.clone() }, "/", &[]));
    assert!(!holds(&RequestMatch { sources: vec!["10.2.0.0/16".parse().unwrap()], ..of }, "/", &[]));
}

#[test]
fn prefixes_of_the_gateway_api_are_of_whole_elements() {
    let of = |path: &str| RequestMatch { uri: Some(Text::PathPrefix(path.into())), ..RequestMatch::default() };
    for (prefix, path, wanted) in [
        ("/foo", "/foo", true),
        ("/foo", "/foo/", true),
        ("/foo", "/foo/bar", true),
        ("/foo", "/foobar", false),
        ("/foo", "/Foo", false),
        ("/foo", "/fo", false),
        ("", "/", true),
        ("", "/anything", true),
    ] {
        assert_eq!(holds(&of(prefix), path, &[]), wanted, "{prefix} {path}");
    }
}

#[test]
fn hosts_are_compared_without_port_and_case() {
    for (host, authority, wanted) in [
        ("a.example", "a.example", true),
        ("a.example", "A.Example:8080", true),
        ("a.example", "a.example.", true),
        ("a.example", "b.a.example", false),
        ("*.example", "a.example:80", true),
        ("*.example", "b.a.example", true),
        ("*.example", "example", false),
        ("*.example", ".example", false),
        ("*.example", "aexample", false),
    ] {
        assert_eq!(Test::new(&Text::Host(host.into())).holds(Some(authority)), wanted, "{host} {authority}");
    }
}

#[test]
fn rewrites_replace_what_matched() {
    let table = [
        ("/a/b?c", Matched::Prefix(2), "/x", "/x/b?c"),
        ("/a/b?c", Matched::Whole, "/x", "/x?c"),
        ("/b", Matched::Prefix(1), "/x/", "/x/b"),
        ("/", Matched::Prefix(1), "/x", "/x"),
        ("*", Matched::Whole, "/x", "*"),
        // The Gateway API's prefixes end without a slash, and what replaces them does.
        ("/a/b?c", Matched::Prefix(2), "", "/b?c"),
        ("/a?c", Matched::Prefix(2), "", "/?c"),
        ("/a/", Matched::Prefix(2), "/x", "/x/"),
        ("/b", Matched::Prefix(0), "/x", "/x/b"),
    ];
    for (target, matched, replacement, wanted) in table {
        assert_eq!(rewritten(target, matched, replacement), wanted);
    }
}

fn texts() -> impl Strategy<Value = Text> {
    prop_oneof!["[ab]{0,2}".prop_map(Text::Exact), "[ab]{0,2}".prop_map(Text::Prefix), Just(Text::Present)]
}

fn alternatives() -> impl Strategy<Value = Vec<RequestMatch>> {
    let named = || prop::collection::btree_map("[xy]", texts(), 0..2);
    let alternative = (prop::option::of(texts()), any::<bool>(), named(), named(), named(), named()).prop_map(
        |(uri, ignore_uri_case, headers, without_headers, query, cookies)| {
            let uri = uri.map(|text| match text {
                Text::Exact(text) => Text::Exact(format!("/{text}")),
                Text::Prefix(text) => Text::Prefix(format!("/{text}")),
                other => other,
            });
            RequestMatch { uri, ignore_uri_case, headers, without_headers, query, cookies, ..Default::default() }
        },
    );
    prop::collection::vec(alternative, 0..4)
}

/// The same, said as plainly as can be.
fn naive(test: &Text, value: Option<&str>) -> bool {
    match (test, value) {
        (Text::Exact(wanted), Some(value)) => value == wanted,
        (Text::Prefix(wanted), Some(value)) => value.get(..wanted.len()) == Some(wanted),
        (Text::Present, Some(_)) => true,
        (Text::PathPrefix(prefix), Some(value)) => value == prefix || value.starts_with(&format!("{prefix}/")),
        (Text::Host(host), Some(value)) => value.split(':').next() == Some(host.as_str()),
        (Text::Regex(_), _) | (_, None) => false,
    }
}

type Pairs = Vec<(String, String)>;

fn model(of: &RequestMatch, path: &str, headers: &Pairs, query: &Pairs, cookies: &Pairs) -> bool {
    let first = |pairs: &Pairs, name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let all = |name: &str| {
        let values: Vec<_> = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let fold = |text: &str| if of.ignore_uri_case { text.to_lowercase() } else { text.to_owned() };
    let uri = of.uri.as_ref().is_none_or(|test| match test {
        Text::Exact(text) => fold(path) == fold(text),
        Text::Prefix(text) => fold(path).starts_with(&fold(text)),
        _ => true,
    });
    uri && of.headers.iter().all(|(name, test)| naive(test, all(name).as_deref()))
        && of.query.iter().all(|(name, test)| naive(test, first(query, name).as_deref()))
        && of.cookies.iter().all(|(name, test)| naive(test, first(cookies, name).as_deref()))
        && of.without_headers.iter().all(|(name, test)| match (test, all(name)) {
            (Text::Present, value) => value.is_none(),
            (test, value) => !naive(test, Some(&value.unwrap_or_default())),
        })
}

fn of_headers(headers: &HeaderMap) -> RequestView<'_> {
    let client = "10.0.0.1".parse().unwrap();
    RequestView { method: "GET", scheme: "http", authority: "a", target: "/", headers, client }
}

fn holds_for(test: &RequestMatch, view: &RequestView<'_>) -> bool {
    matches(&[CompiledMatch::new(test)], view).is_some()
}

#[test]
fn cookies_in_headers_of_their_own_are_one_header_to_a_regex() {
    let pattern = r"^(.*?;\s*)?(email=[^;]*@some-company-name.com)(;.*)?$";
    let header = ("cookie".to_owned(), Text::Regex(pattern.into()));
    let test = RequestMatch { headers: [header].into(), ..RequestMatch::default() };
    let mut headers = HeaderMap::new();
    for crumb in ["sid=1", "email=a@some-company-name.com", "theme=dark"] {
        headers.append("cookie", crumb.parse().unwrap());
    }
    assert!(holds_for(&test, &of_headers(&headers)));
}

proptest! {
    #[test]
    fn matching_agrees_with_the_model(
        rules in alternatives(),
        path in "/[aAbB]{0,3}",
        headers in prop::collection::vec(("[xy]", "[ab]{0,2}"), 0..3),
        query in prop::collection::vec(("[xy]", "[ab]{0,2}"), 0..3),
        cookies in prop::collection::vec(("[xy]", "[ab]{0,2}"), 0..3),
        space in "[ ]?",
    ) {
        let join = |pairs: &Pairs, by: &str| {
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(by)
        };
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        if !cookies.is_empty() {
            map.insert("cookie", join(&cookies, &format!(";{space}")).parse().unwrap());
        }
        let target =
            if query.is_empty() { Cow::from(&path) } else { format!("{path}?{}", join(&query, "&")).into() };
        let view = RequestView {
            method: "GET", scheme: "http", authority: "a", target: &target, headers: &map,
            client: "10.0.0.1".parse().unwrap(),
        };
        let compiled: Vec<_> = rules.iter().map(CompiledMatch::new).collect();
        let wanted = rules.is_empty() || rules.iter().any(|it| model(it, &path, &headers, &query, &cookies));
        prop_assert_eq!(matches(&compiled, &view).is_some(), wanted);
    }

    /// Whatever a client sends as cookies is looked at without a panic, and in several headers like in one.
    #[test]
    fn cookies_may_be_anything(crumbs in prop::collection::vec("[ab;=, \"\\x{80}-\\x{ff}]{0,12}", 1..4), wanted in "[ab]{0,3}") {
        let value = |text: &str| hyper::header::HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let (mut one, mut several) = (HeaderMap::new(), HeaderMap::new());
        one.insert("cookie", value(&crumbs.join("; ")));
        for crumb in &crumbs {
            several.append("cookie", value(crumb));
        }
        let test = || RequestMatch { cookies: [("a".to_owned(), Text::Exact(wanted.clone()))].into(), ..RequestMatch::default() };
        prop_assert_eq!(holds_for(&test(), &of_headers(&one)), holds_for(&test(), &of_headers(&several)));
        prop_assert_eq!(of_headers(&one).header("cookie"), of_headers(&several).header("cookie"));
    }

    /// A regular expression matches the whole value, as the `regex` crate says when it is asked directly.
    #[test]
    fn regular_expressions_match_all_of_a_value(pattern in "(a|b|\\.|a\\||[ab]|\\(a\\|b\\)|a\\*|b\\?|\\^|\\$){0,6}", value in "[abc]{0,6}") {
        let Ok(whole) = regex::Regex::new(&format!(r"\A(?:{pattern})\z")) else { return Ok(()) };
        let whole = whole.is_match(&value);
        let mut headers = HeaderMap::new();
        headers.insert("x", value.parse().unwrap());
        let test = RequestMatch { headers: [("x".to_owned(), Text::Regex(pattern))].into(), ..RequestMatch::default() };
        prop_assert_eq!(holds_for(&test, &of_headers(&headers)), whole);
    }
}
