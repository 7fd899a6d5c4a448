//! What `parse` takes, what it says about the rest, and that nothing makes it panic.
use proptest::prelude::*;
use serde_json::json;

use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n";

fn parsed(text: &str) -> Snapshot {
    parse(text, Path::new("f.yaml"))
}

fn ids(text: &str) -> Vec<String> {
    parsed(text).objects.iter().map(|object| object.id()).collect()
}

fn said(text: &str) -> Vec<String> {
    parsed(text).diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn objects_are_found_in_every_form() {
    let cases: [(&str, String, &[&str]); 14] = [
        ("one", SERVICE.to_owned(), &["Service default/a"]),
        ("two", format!("{SERVICE}---\n{}", SERVICE.replace("name: a", "name: b")), &["Service default/a", "Service default/b"]),
        ("empty text", String::new(), &[]),
        ("comments only", "# nothing\n---\n# here\n---\n".to_owned(), &[]),
        ("marker with a comment", format!("--- # first\n{SERVICE}--- \n"), &["Service default/a"]),
        ("directive", format!("%YAML 1.2\n---\n{SERVICE}"), &["Service default/a"]),
        ("end marker", format!("{SERVICE}...\n"), &["Service default/a"]),
        ("byte order mark", format!("\u{feff}{SERVICE}"), &["Service default/a"]),
        ("windows", SERVICE.replace('\n', "\r\n"), &["Service default/a"]),
        ("namespace", format!("{SERVICE}  namespace: n\n"), &["Service n/a"]),
        ("empty namespace", format!("{SERVICE}  namespace:\n"), &["Service default/a"]),
        ("json", r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}"#.to_owned(), &["Service default/a"]),
        ("json with tabs", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"a\", \"x\": \"\\ud83d\\ude00\"}\n}\n".to_owned(), &["Service default/a"]),
        ("non-ASCII", format!("# äöü — 犬\n{SERVICE}"), &["Service default/a"]),
    ];
    for (name, text, expected) in cases {
        assert_eq!(said(&text), Vec::<String>::new(), "{name}");
        assert_eq!(ids(&text), expected, "{name}");
    }
}

#[test]
fn lists_are_taken_apart() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n- apiVersion: v1\n  \
                kind: List\n  items:\n  - apiVersion: v1\n    kind: Pod\n    metadata: {name: b}\n";
    assert_eq!(ids(text), ["Service default/a", "Pod default/b"]);
    let found = parsed(text);
    assert_eq!(found.objects[0].origin.line, 4);
    assert_eq!(found.objects[1].origin_of("metadata.name").line, 12);
    let typed = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n";
    assert_eq!(ids(typed), ["Pod default/a"]);
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = format!(
        "{SERVICE}spec:\n  base: &base {{x: 1, y: 2}}\n  first: *base\n  second:\n    <<: *base\n    y: 3\n  third:\n    <<: [{{x: 8}}, *base]\n"
    );
    let found = parsed(&text);
    assert_eq!(found.diagnostics, []);
    let spec = &found.objects[0].body["spec"];
    assert_eq!(spec["first"], json!({"x": 1, "y": 2}));
    assert_eq!(spec["second"], json!({"x": 1, "y": 3}));
    assert_eq!(spec["third"], json!({"x": 8, "y": 2}));
}

#[test]
fn fields_have_lines() {
    let text = "# a comment\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  http:\n  - route:\n    - destination:\n        host: a\n      weight: 90\n    - {destination: {host: b}, weight: 10}\n";
    let found = parsed(text);
    let line = |field: &str| found.objects[0].origin_of(field).line;
    let cases = [
        ("spec", 7),
        ("spec.http", 8),
        ("spec.http[0]", 9),
        ("spec.http[0].route[0].destination.host", 11),
        ("spec.http[0].route[0].weight", 12),
        ("spec.http[0].route[1].weight", 13),
        ("spec.http[0].route[0].destination.subset", 10),
        ("status", 3),
    ];
    for (field, expected) in cases {
        assert_eq!(line(field), expected, "{field}");
    }
}

#[test]
fn a_broken_document_costs_only_itself() {
    let cases = [
        ("syntax", "a: [1\n", "error [CAN0101] document (f.yaml:6): this is not YAML: "),
        (
            "list",
            "- 1\n",
            "error [CAN0102] document (f.yaml:6): the document is not a Kubernetes object but a single value",
        ),
        (
            "text",
            "hello\n",
            "error [CAN0102] document (f.yaml:6): the document is not a Kubernetes object but a single value",
        ),
        ("no kind", "apiVersion: v1\n", "error [CAN0102] document (f.yaml:6) kind: `kind` is missing"),
        ("no version", "kind: Pod\n", "error [CAN0102] Pod (f.yaml:6) apiVersion: `apiVersion` is missing"),
        (
            "number as kind",
            "apiVersion: v1\nkind: 5\n",
            "error [CAN0102] document (f.yaml:7) kind: `kind` is not a text",
        ),
        (
            "no metadata",
            "apiVersion: v1\nkind: Pod\n",
            "error [CAN0102] Pod (f.yaml:6) metadata: `metadata` is missing or empty",
        ),
        (
            "no name",
            "apiVersion: v1\nkind: Pod\nmetadata: {x: 1}\n",
            "error [CAN0102] Pod (f.yaml:8) metadata.name: `metadata.name` is missing",
        ),
        (
            "number as name",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: 7\n",
            "error [CAN0102] Pod (f.yaml:9) metadata.name: `metadata.name` is not a text",
        ),
        (
            "key twice",
            "a: 1\nb: 2\na: 3\n",
            "error [CAN0101] document (f.yaml:8): the key `a` appears twice — remove one of them",
        ),
        ("unknown alias", "a: *nowhere\n", "error [CAN0101] document (f.yaml:6): this is not YAML: "),
        (
            "alias in itself",
            "a: &a [*a]\n",
            "error [CAN0101] document (f.yaml:6): an alias stands inside the value that it names",
        ),
        (
            "map as key",
            "{a: b}: c\n",
            "error [CAN0101] document (f.yaml:6): a mapping or a list stands where a key should",
        ),
        ("merge of a number", "<<: 5\n", "error [CAN0101] document (f.yaml:6): the merge key `<<` needs a mapping"),
        ("wrong tag", "a: !!int x\n", "error [CAN0101] document (f.yaml:6): the value does not fit its tag"),
        ("quote left open", "a: \"x\n", "error [CAN0101] document (f.yaml:"),
    ];
    for (name, broken, expected) in cases {
        let text = format!("{SERVICE}---\n{broken}---\n{}", SERVICE.replace("name: a", "name: z"));
        assert_eq!(ids(&text), ["Service default/a", "Service default/z"], "{name}");
        let said = said(&text);
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert!(said[0].starts_with(expected), "{name}: {said:?}");
        assert!(said[0].contains(" — "), "{name} has a remedy: {said:?}");
    }
}

/// The Service of the Istio blog post, as published: its metadata is not indented, and its ports are `...`.
#[test]
fn the_service_of_the_article_is_diagnosed() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\nname: helloworld\nlabels:\n  app: helloworld\nspec:\n  selector:\n    app: helloworld\n  ...\n";
    assert_eq!(ids(text), Vec::<String>::new());
    assert_eq!(
        said(text),
        [
            "error [CAN0101] document (f.yaml:10): `...` stands for something that was left out — write out what belongs there, \
             or remove the line",
            "error [CAN0102] Service default/helloworld (f.yaml:3) metadata: `metadata` is empty, and `name` (line 4), `labels` \
             (line 5) at the top level belongs to it — indent these lines by two spaces, so that they are under `metadata:`",
        ],
    );
}

#[test]
fn the_first_of_two_objects_is_kept() {
    let object =
        |api: &str| format!("---\napiVersion: {api}\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{}}\n");
    let text = ["networking.istio.io/v1", "networking.istio.io/v1beta1", "example.com/v1"].map(object).concat();
    let found = parsed(&text);
    assert_eq!(
        found.objects.iter().map(|object| object.api_version.as_str()).collect::<Vec<_>>(),
        ["networking.istio.io/v1", "example.com/v1"]
    );
    assert_eq!(
        said(&text),
        [
            "error [CAN0103] VirtualService default/a (f.yaml:9) metadata.name: VirtualService default/a is already defined at f.yaml:2, and that \
          one is in force — remove one of the two, or give it another name or namespace"
        ],
    );
}

#[test]
fn hostile_input_meets_a_limit() {
    let laughs: String = (1..40)
        .fold("a0: &a0 [x, x]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
    let deep_by_alias: String =
        (1..40).fold("a0: &a0 [[[[x]]]]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [[[[*a{}]]]]\n", n - 1));
    let cases = [
        ("nested lists", "[".repeat(100_000), "CAN0101"),
        ("nested blocks", "- ".repeat(100_000), "CAN0101"),
        ("nested mappings", (0..3_000).map(|n| " ".repeat(n) + "a:\n").collect(), "values nest deeper than 64"),
        ("a billion laughs", laughs, "anchors and aliases multiply"),
        ("deep by alias", deep_by_alias, "values nest deeper than 64"),
        (
            "long text by alias",
            format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1_000)),
            "anchors and aliases multiply",
        ),
        ("many values", format!("a: [{}]\n", "1,".repeat(600_000)), "more than 500000 values"),
        ("huge", " ".repeat(9 << 20), "larger than 8 MiB"),
    ];
    for (name, text, expected) in cases {
        let said = said(&text);
        assert!(said.len() == 1 && said[0].contains(expected), "{name}: {said:?}");
    }
    let many = said(&"---\n1\n".repeat(1_000));
    assert_eq!(many.len(), 101);
    assert!(many[100].contains("900 more errors in this file are not shown"), "{}", many[100]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parsed(&text);
    }

    /// Random texts are rarely near to YAML; these are.
    #[test]
    fn no_almost_yaml_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "a", ": ", ":", "\n", "\n  ", "\n    ", "- ", "-", "---\n", "...\n", "  ...\n", "{", "}", "[", "]", ",", "\"", "'", "|\n", ">-\n",
        "&a ", "*a", "<<: ", "# c\n", "!!int ", "!!str ", "%YAML 1.2\n", "\t", "\r\n", "ä", "\u{feff}", "? ", "1", "kind: List\n", "items:\n",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n", "~", "\u{85}", "\u{2028}", "\0",
    ]), 0..40)) {
        let text = pieces.concat();
        let found = parsed(&text);
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}']).count();
        for object in &found.objects {
            prop_assert!(object.lines.values().all(|&line| line >= 1 && line as usize <= lines), "{:?}", object.lines);
        }
    }

    /// What is written as JSON is read back, whatever it is.
    #[test]
    fn json_is_read_back(name in "[a-z]{1,9}", text in any::<String>(), number in any::<i64>(), big in any::<u64>(), float in -1e300..1e300_f64) {
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"t": text, "n": [number, big], "f": float}});
        let found = parsed(&body.to_string());
        prop_assert_eq!(&found.diagnostics, &vec![]);
        prop_assert_eq!(&found.objects[0].body, &body);
    }
}

#[test]
fn kinds_that_a_group_does_not_have_are_slips() {
    let cases = [
        (
            "networking.istio.io/v1",
            "VirtualServce",
            "kind",
            "`networking.istio.io` has no kind `VirtualServce`",
            "did you mean `VirtualService`?",
        ),
        (
            "networking.istio.io/v1",
            "Service",
            "kind",
            "`networking.istio.io` has no kind `Service`",
            "it has DestinationRule, EnvoyFilter,",
        ),
        (
            "networking.istio.io/v2",
            "VirtualService",
            "apiVersion",
            "canary does not know version `v2` of `networking.istio.io`",
            "write one of v1, v1beta1, v1alpha3",
        ),
        (
            "networking.istoi.io/v1",
            "VirtualService",
            "apiVersion",
            "no API group is called `networking.istoi.io`",
            "did you mean `networking.istio.io/v1`?",
        ),
        ("v1", "service", "kind", "the core group has no kind `service`", "did you mean `Service`?"),
        (
            "canary.io/v1",
            "RoutePolicy",
            "apiVersion",
            "canary does not know version `v1` of `canary.io`",
            "write one of v1alpha1",
        ),
    ];
    for (api, kind, field, message, remedy) in cases {
        let found = parsed(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        assert_eq!(found.objects.len(), 0, "{kind}");
        let one = &found.diagnostics[0];
        assert_eq!((one.code, one.field.as_str(), one.message.as_str()), (code::NO_SUCH_KIND, field, message));
        assert!(one.remedy.starts_with(remedy), "{}", one.remedy);
    }
    for (api, kind) in [
        ("apps/v1", "Deployment"),
        ("networking.istio.io/v1", "Sidecar"),
        ("serving.knative.dev/v1", "Service"),
        ("networking.x-k8s.io/v1alpha1", "Gateway"),
        ("v1", "ConfigMap"),
    ] {
        let found = parsed(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        assert_eq!((found.objects.len(), found.diagnostics.len()), (1, 0), "{kind}");
    }
}

#[test]
fn nothing_stands_behind_the_last_line() {
    let found = parsed(&format!("{SERVICE}? "));
    let lines = u32::try_from(format!("{SERVICE}? ").lines().count()).unwrap();
    assert!(found.objects.iter().all(|object| object.lines.values().all(|&line| line <= lines)), "{:?}", found.objects);
    assert_eq!(found.objects.len(), 1);
}
