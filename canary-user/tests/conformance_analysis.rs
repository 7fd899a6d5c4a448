//! Istio's own cases for `istioctl analyze`: the same messages, as (code, object), neither more nor fewer.
use std::{collections::BTreeMap, fs, path::Path};

use canary_user::{
    analyze::{ANALYZERS, Options, analyze_with},
    source::{Snapshot, parse},
};
use serde::Deserialize;

/// What is reached, and must stay so.
const PRECISION_MIN: f64 = 1.0;
const RECALL_MIN: f64 = 1.0;

#[derive(Deserialize)]
struct Case {
    name: String,
    analyzer: String,
    files: Vec<String>,
    expected: Vec<(String, String)>,
}

/// How often each (code, object) is said.
type Messages = BTreeMap<(String, String), usize>;

fn count(messages: impl Iterator<Item = (String, String)>) -> Messages {
    let mut counts = Messages::new();
    for message in messages {
        *counts.entry(message).or_default() += 1;
    }
    counts
}

/// Istio's name of the analyzer in the expression that its test has.
fn analyzer_name(expression: &str) -> &str {
    match expression {
        "schemaValidation.CollectionValidationAnalyzer(collections.VirtualService)" => {
            "schema.ValidationAnalyzer.VirtualService"
        }
        other => other.trim_start_matches('&').trim_end_matches("{}"),
    }
}

/// An object without a namespace has none in Istio's test; here it is in `default`.
fn with_namespace(object: &str) -> String {
    match object.split_once(' ') {
        Some((kind, name)) if !name.contains('/') => format!("{kind} default/{name}"),
        _ => object.to_owned(),
    }
}

fn found(folder: &Path, case: &Case) -> Messages {
    let mut parts = Vec::new();
    let mut mesh_config = None;
    for file in &case.files {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let part = parse(&text, Path::new(file));
        if part.objects.is_empty() {
            mesh_config = Some(text); // Not a Kubernetes object: the mesh's configuration.
        } else {
            assert_eq!(part.diagnostics, [], "{file}");
            parts.push(part);
        }
    }
    let name = analyzer_name(&case.analyzer);
    assert!(ANALYZERS.iter().any(|analyzer| analyzer.name == name), "there is no analyzer {name}");
    let options = Options { only: Some(name), mesh_config: mesh_config.as_deref() };
    let found = analyze_with(&Snapshot::merge(parts), options);
    for diagnostic in &found {
        assert!(diagnostic.origin.line > 0 && !diagnostic.remedy.is_empty(), "{diagnostic}");
    }
    count(found.into_iter().map(|diagnostic| (diagnostic.code.to_owned(), diagnostic.object)))
}

/// A share of nothing is whole: nothing was said, and nothing was to be said.
#[expect(clippy::cast_precision_loss, reason = "a few dozen messages")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[test]
fn istio_says_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/istio-analysis");
    let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 20);
    let (mut right, mut said, mut wanted) = (0, 0, 0);
    println!("{:>9} {:>6}  case", "precision", "recall");
    for case in &cases {
        let found = found(&folder, case);
        let expected = count(case.expected.iter().map(|(code, object)| (code.clone(), with_namespace(object))));
        let both = found.iter().map(|(message, &count)| count.min(expected.get(message).copied().unwrap_or(0))).sum();
        let (all_found, all_expected): (usize, usize) = (found.values().sum(), expected.values().sum());
        println!("{:>9.2} {:>6.2}  {}", share(both, all_found), share(both, all_expected), case.name);
        for (message, count) in &expected {
            if found.get(message) != Some(count) {
                println!("                  expected {message:?} {count} times, found {:?}", found.get(message));
            }
        }
        for message in found.keys().filter(|message| !expected.contains_key(message)) {
            println!("                  not expected: {message:?}");
        }
        right += both;
        said += all_found;
        wanted += all_expected;
    }
    let (precision, recall) = (share(right, said), share(right, wanted));
    println!("{precision:>9.2} {recall:>6.2}  all {} cases, {wanted} messages", cases.len());
    assert!(precision >= PRECISION_MIN, "precision is {precision}");
    assert!(recall >= RECALL_MIN, "recall is {recall}");
}
