//! What changes, what stays, and what is refused.
use std::path::Path;

use proptest::prelude::*;

use super::*;

const HEAD: &str = "# Bought by v1's team\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n";

fn object(text: &str) -> Object {
    let found = parse(text, Path::new("f.yaml"));
    assert_eq!(found.diagnostics, []);
    (**found.objects.iter().find(|object| object.kind == "VirtualService").unwrap()).clone()
}

fn weights(pairs: &[(&str, u32)]) -> Vec<(String, u32)> {
    pairs.iter().map(|&(version, weight)| (version.to_owned(), weight)).collect()
}

fn set(text: &str, rule: Option<&str>, pairs: &[(&str, u32)]) -> Result<String, EditError> {
    set_weights(text, &object(text), rule, &weights(pairs))
}

#[test]
fn only_the_weights_change() {
    let cases = [
        (
            "block",
            "  http:\n  - route:\n    # the old one\n    - destination: # here\n        host: reviews\n        subset: v1\n      weight: 90 # percent\n    - destination:\n        host: reviews\n        subset: v2\n      weight: 10\n",
            "  http:\n  - route:\n    # the old one\n    - destination: # here\n        host: reviews\n        subset: v1\n      weight: 25 # percent\n    - destination:\n        host: reviews\n        subset: v2\n      weight: 75\n",
        ),
        (
            "one missing, one empty",
            "  http:\n    - route:\n        - destination:\n            host: reviews\n            subset: v1 # stable\n          # nothing yet\n        - weight: # later\n          destination: {host: reviews, subset: v2}\n",
            "  http:\n    - route:\n        - destination:\n            host: reviews\n            subset: v1 # stable\n          weight: 25\n          # nothing yet\n        - weight: 75 # later\n          destination: {host: reviews, subset: v2}\n",
        ),
        (
            "flow style",
            "  http: [{route: [{destination: {host: reviews, subset: v1}}, {weight: 10, destination: {host: reviews, subset: v2}}]}]\n",
            "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 25}, {weight: 75, destination: {host: reviews, subset: v2}}]}]\n",
        ),
        (
            "flow style over lines, with a comma at the end",
            "  http:\n  - route:\n    - {\n        destination: {host: reviews, subset: v1}, # one\n      }\n    - {destination: {host: reviews, subset: v2}, weight: 1,}\n",
            "  http:\n  - route:\n    - {\n        destination: {host: reviews, subset: v1},\n        weight: 25, # one\n      }\n    - {destination: {host: reviews, subset: v2}, weight: 75,}\n",
        ),
        (
            "tcp by host, no newline at the end",
            "  tcp:\n  - match: [{port: 1}]\n    route:\n    - destination: {host: v1.default.svc.cluster.local}\n      weight: '5'\n    - destination:\n        host: v2",
            "  tcp:\n  - match: [{port: 1}]\n    route:\n    - destination: {host: v1.default.svc.cluster.local}\n      weight: 25\n    - destination:\n        host: v2\n      weight: 75",
        ),
        (
            "a weight by alias, a destination after a merge key",
            "  tls:\n  - route:\n    - destination: {host: a, subset: v1}\n      weight: &w 25\n    - <<: {weight: 9}\n      destination: {host: a, subset: v2}\n  x: 25\n",
            "  tls:\n  - route:\n    - destination: {host: a, subset: v1}\n      weight: &w 25\n    - <<: {weight: 9}\n      destination: {host: a, subset: v2}\n      weight: 75\n  x: 25\n",
        ),
        (
            "a text whose end is hard to tell: before the first field",
            "  http:\n  - route:\n    - destination:\n        host: |-\n          a\n\n\n        subset: v1\n      headers:\n        x: |\n          y\n\n    - destination: {host: a, subset: v2}\n      weight: 1.0\n",
            "  http:\n  - route:\n    - weight: 25\n      destination:\n        host: |-\n          a\n\n\n        subset: v1\n      headers:\n        x: |\n          y\n\n    - destination: {host: a, subset: v2}\n      weight: 75\n",
        ),
    ];
    for (name, spec, expected) in cases {
        let after = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: reviews}\n";
        for tail in ["", after] {
            if !tail.is_empty() && !spec.ends_with('\n') {
                continue;
            }
            let edited = set(&format!("{HEAD}{spec}{tail}"), None, &[("v2", 75), ("v1", 25)]);
            assert_eq!(edited, Ok(format!("{HEAD}{expected}{tail}")), "{name}");
        }
        let windows = |text: &str| format!("{HEAD}{text}").replace('\n', "\r\n");
        assert_eq!(set(&windows(spec), None, &[("v2", 75), ("v1", 25)]), Ok(windows(expected)), "{name}, Windows");
    }
}

#[test]
fn json_is_edited_too() {
    let text = "{\n  \"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"VirtualService\", \"metadata\": {\"name\": \"r\"},\n  \"spec\": {\"http\": [{\"route\": [\n    {\"destination\": {\"host\": \"a\"}},\n    {\n      \"destination\": {\"host\": \"b\"}\n    }\n  ]}]}\n}\n";
    let edited = set(text, None, &[("a", 1), ("b", 2)]).unwrap();
    assert_eq!(
        edited,
        text.replace("\"a\"}}", "\"a\"}, \"weight\": 1}").replace("\"b\"}\n", "\"b\"},\n      \"weight\": 2\n"),
    );
}

#[test]
fn a_rule_is_found_by_name_or_position() {
    let entry = |version: &str| format!("    - destination: {{host: r, subset: {version}}}\n      weight: 1\n");
    let text = format!(
        "{HEAD}  http:\n  - name: beta\n    route:\n{}{}  - route:\n{}  - redirect: {{uri: /}}\n  tcp:\n  - route:\n{}{}",
        entry("v1"),
        entry("v2"),
        entry("v1"),
        entry("v1"),
        entry("v3"),
    );
    let changed = |rule: &str, pairs: &[(&str, u32)]| {
        let edited = set(&text, Some(rule), pairs).unwrap();
        let lines: Vec<usize> = (1..)
            .zip(text.lines().zip(edited.lines()))
            .filter(|(_, (old, new))| old != new)
            .map(|(line, _)| line)
            .collect();
        lines
    };
    assert_eq!(changed("beta", &[("v1", 7), ("v2", 8)]), [12, 14]);
    assert_eq!(changed("http[0]", &[("v1", 7), ("v2", 1)]), [12]);
    assert_eq!(changed("http[1]", &[("v1", 7)]), [17]);
    assert_eq!(changed("tcp[0]", &[("v1", 7), ("v3", 8)]), [22, 24]);
    let error = |rule| set(&text, rule, &[("v1", 7), ("v2", 8)]).unwrap_err().to_string();
    assert_eq!(error(None), "VirtualService default/reviews has several rules — say which one: beta, http[1], tcp[0]");
    assert_eq!(
        error(Some("bta")),
        "VirtualService default/reviews has no single rule `bta` — did you mean `beta`? its rules are beta, http[1], tcp[0]"
    );
    assert!(error(Some("http[2]")).contains("has no single rule `http[2]`"), "a redirect has no weights");
}

/// The names are those that the agent shows: see `compile`.
#[test]
fn versions_with_the_same_name_are_told_apart() {
    let text = format!(
        "{HEAD}  http:\n  - route:\n    - destination: {{host: reviews, subset: v1}}\n    - destination: {{host: b, subset: v1, port: {{number: 80}}}}\n    - destination: {{host: www.example.com}}\n    - destination: {{host: c.other.svc.cluster.local}}\n"
    );
    let numbers = |pairs: &[(&str, u32)]| -> Result<Vec<u64>, String> {
        let edited = set(&text, None, pairs).map_err(|error| error.to_string())?;
        let body = &object(&edited).body;
        Ok((0..4).map(|index| body["spec"]["http"][0]["route"][index]["weight"].as_u64().unwrap()).collect::<Vec<_>>())
    };
    let b = "v1@b.default.svc.cluster.local";
    let rest = [("www.example.com", 3), ("c", 4)];
    let with = |one: &'static str, two: &str| numbers(&[&[(one, 1), (two, 2)], &rest[..]].concat());
    assert_eq!(with("v1", b), Ok(vec![1, 2, 3, 4]));
    assert_eq!(with("v1@reviews.default.svc.cluster.local:5000", &format!("{b}:80")), Ok(vec![1, 2, 3, 4]));
    let error = with("v1", &format!("{b}:81")).unwrap_err();
    assert!(error.starts_with("rule `http[0]` has no version `v1@b.default.svc.cluster.local:81` — did you mean `v1@b.default.svc.cluster.local:80`?"), "{error}");
    assert_eq!(
        with("v1", "v1@reviews.default.svc.cluster.local").unwrap_err(),
        "version `v1@reviews.default.svc.cluster.local` is given two weights"
    );
    let twice = format!(
        "{HEAD}  http:\n  - route:\n    - destination: {{host: reviews}}\n    - destination: {{host: reviews}}\n"
    );
    let error = set(&twice, None, &[("reviews", 1)]).unwrap_err().to_string();
    assert_eq!(
        error,
        "rule `http[0]` has several destinations called `reviews`, so it is not clear which is meant — its versions are reviews, reviews; where two are the same, edit the file"
    );
}

/// Name, spec, weights, message.
type Refusal = (&'static str, &'static str, &'static [(&'static str, u32)], &'static str);

#[test]
fn what_is_refused_and_what_it_says() {
    let two = "  http:\n  - route:\n    - destination: {host: r, subset: v1}\n      weight: 90\n    - destination: {host: r, subset: v2}\n      weight: 10\n";
    let cases: [Refusal; 11] = [
        ("missing", two, &[("v1", 1)], "rule `http[0]`: no weight given for v2 — name every version, with 0 for none"),
        (
            "unknown",
            two,
            &[("v1", 1), ("v2", 1), ("v3", 1)],
            "rule `http[0]` has no version `v3` — did you mean `v1`? its versions are v1, v2; add a destination to the rule to have another",
        ),
        ("twice", two, &[("v1", 1), ("v2", 1), ("v1", 2)], "version `v1` is given two weights"),
        (
            "zero",
            two,
            &[("v1", 0), ("v2", 0)],
            "the weights add up to 0, so nobody would get any traffic — give at least one version a weight",
        ),
        (
            "nothing",
            two,
            &[],
            "the weights add up to 0, so nobody would get any traffic — give at least one version a weight",
        ),
        (
            "too much",
            two,
            &[("v1", u32::MAX), ("v2", 1)],
            "the weights add up to more than 4294967295 — use smaller numbers in the same proportion",
        ),
        ("no rules", "  http: []\n", &[("v1", 1)], "VirtualService default/reviews has no rule with a route"),
        (
            "same name",
            "  http:\n  - route:\n    - destination: {host: a, subset: v1}\n    - destination: {host: b, subset: v1}\n",
            &[("v1", 1)],
            "rule `http[0]` has no version `v1` — its versions are v1@a.default.svc.cluster.local, v1@b.default.svc.cluster.local; add a destination to the rule to have another",
        ),
        (
            "no host",
            "  http:\n  - route:\n    - destination: {subset: v1}\n",
            &[("v1", 1)],
            "line 10: a route entry needs `destination.host`",
        ),
        (
            "shared by an alias",
            "  http:\n  - match: [{port: 1}]\n    route: &r\n    - destination: {host: a, subset: v1}\n    - destination: {host: a, subset: v2}\n  - route: [{destination: {host: b}}]\n  - name: copy\n    route: *r\n",
            &[("v1", 1), ("v2", 2)],
            "VirtualService default/reviews has several rules — say which one: http[0], http[1], copy",
        ),
        (
            "a list as weight",
            "  http:\n  - route:\n    - destination: {host: a, subset: v1}\n      weight: [1]\n",
            &[("v1", 1)],
            "line 10: `weight` is not a number but a list or a mapping",
        ),
    ];
    for (name, spec, pairs, expected) in cases {
        let text = format!("{HEAD}{spec}");
        assert_eq!(set(&text, None, pairs).unwrap_err().to_string(), expected, "{name}");
    }
}

#[test]
fn an_edit_that_would_change_more_is_refused() {
    let shared = format!(
        "{HEAD}  http:\n  - route: &r\n    - destination: {{host: a, subset: v1}}\n    - destination: {{host: a, subset: v2}}\n  - name: copy\n    route: *r\n"
    );
    let error = |rule| set(&shared, Some(rule), &[("v1", 1), ("v2", 2)]).unwrap_err();
    assert!(matches!(error("http[0]"), EditError::NotOnlyWeights { .. }));
    assert!(
        error("copy").to_string().starts_with("line 10: this destination is shared by an alias"),
        "{}",
        error("copy")
    );
    let named =
        format!("{HEAD}  http:\n  - timeout: *w\n    route:\n    - destination: {{host: a}}\n      weight: &w 5\n")
            .replace("timeout: *w", "x: 1")
            + "  y: *w\n";
    assert!(matches!(set(&named, None, &[("a", 6)]), Err(EditError::NotOnlyWeights { .. })));
}

#[test]
fn other_texts_and_kinds_are_refused() {
    let text = format!("{HEAD}  http:\n  - route:\n    - destination: {{host: a}}\n");
    let mut other = object(&text);
    other.namespace = "elsewhere".to_owned();
    let error = set_weights(&text, &other, None, &weights(&[("a", 1)])).unwrap_err().to_string();
    assert_eq!(error, "VirtualService elsewhere/reviews is not in this text (any more) — read it again");
    other.kind = "Pod".to_owned();
    let error = set_weights(&text, &other, None, &weights(&[("a", 1)])).unwrap_err().to_string();
    assert_eq!(
        error,
        "Pod elsewhere/reviews is neither a VirtualService nor a route of the Gateway API, so it has no weights to set"
    );
}

/// One route entry in some style; `None` writes no weight.
fn entry(style: u8, version: usize, weight: Option<u32>, comment: &str) -> String {
    let number = weight.map(|weight| weight.to_string());
    match (style % 5, number) {
        (0, Some(number)) => format!(
            "    - destination:\n        host: r{comment}\n        subset: v{version}\n      weight: {number}{comment}\n"
        ),
        (0, None) => format!("    - destination:\n        host: r\n        subset: v{version}{comment}\n"),
        (1, Some(number)) => {
            format!("    - weight: {number}\n      destination: {{host: r, subset: v{version}}}{comment}\n")
        }
        (1, None) => format!("    - destination: {{host: r, subset: v{version}}}{comment}\n"),
        (2, Some(number)) => {
            format!("    - {{weight: {number}, destination: {{host: r, subset: 'v{version}'}}}}{comment}\n")
        }
        (2, None) => format!("    - {{destination: {{host: \"r\", subset: v{version}}} }}{comment}\n"),
        (3, Some(number)) => {
            format!("    -   destination: {{host: \"ä\", subset: v{version}}}\n\n        weight:   {number}{comment}\n")
        }
        (3, None) => format!(
            "    -   destination:\n         subset: v{version}\n         host: ö{comment}\n        weight:{comment}\n"
        ),
        (_, Some(number)) => format!(
            "    - \"destination\": {{\"host\": \"r\", \"subset\": \"v{version}\"}}\n      \"weight\": {number}\n{comment}\n"
        ),
        (_, None) => {
            format!("    - \"destination\": {{\"host\": \"r\",\n         \"subset\": \"v{version}\"}}\n{comment}\n")
        }
    }
}

proptest! {
    /// In whatever style it is written: the weights are those that were asked for, a second edit changes nothing, and
    /// going back gives the old text again, byte for byte, where every weight was written.
    #[test]
    fn an_edit_does_what_was_asked_and_can_be_undone(
        entries in prop::collection::vec((any::<u8>(), prop::option::weighted(0.8, 0..1_000_u32), prop::sample::select(vec!["", " # note", "  # {weight: 3}"])), 1..6),
        wanted in prop::collection::vec(1..1_000_u32, 6),
        section in prop::sample::select(vec!["http", "tls", "tcp"]),
        windows: bool,
    ) {
        let routes: String = entries.iter().enumerate().map(|(version, &(style, weight, comment))| entry(style, version, weight, comment)).collect();
        let mut text = format!("{HEAD}  {section}:\n  - name: split\n    route:\n{routes}  # the end\n");
        if windows {
            text = text.replace('\n', "\r\n");
        }
        let wanted: Vec<_> = wanted.iter().enumerate().take(entries.len()).map(|(version, &weight)| (format!("v{version}"), weight)).collect();
        let object = object(&text);
        let edited = set_weights(&text, &object, None, &wanted).unwrap();
        let body = parse(&edited, Path::new("-")).objects[0].body.clone();
        for (index, (_, weight)) in wanted.iter().enumerate() {
            prop_assert_eq!(&body["spec"][section][0]["route"][index]["weight"], &serde_json::json!(weight));
        }
        prop_assert_eq!(set_weights(&edited, &object, Some("split"), &wanted), Ok(edited.clone()));
        let before: Vec<_> = entries.iter().enumerate().filter_map(|(version, &(_, weight, _))| Some((format!("v{version}"), weight?))).collect();
        if before.len() == entries.len() && before.iter().any(|&(_, weight)| weight > 0) {
            prop_assert_eq!(set_weights(&edited, &object, None, &before), Ok(text));
        }
    }

    /// Arbitrary text around a rule is either kept or refused.
    #[test]
    fn no_text_makes_it_panic(before in "[ -~\n]{0,40}", after in "[ -~\n]{0,40}") {
        let text = format!("{HEAD}  http:\n  - route:\n    - destination: {{host: a}}\n");
        let object = object(&text);
        let text = format!("{before}\n---\n{text}{after}");
        if let Ok(edited) = set_weights(&text, &object, None, &weights(&[("a", 5)])) {
            prop_assert!(edited.starts_with(&before));
            prop_assert!(edited.ends_with(&after));
        }
    }
}
