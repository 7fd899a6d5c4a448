//! Weights mean what they mean in Istio (semantics B1).
use super::{codes, compiled, endpoints_of, only, reviews, route};

fn http(destinations: &str) -> String {
    route(&format!("  http: [{{route: [{destinations}]}}]"))
}

fn to(subset: &str, weight: &str) -> String {
    let weight = if weight.is_empty() { String::new() } else { format!(", weight: {weight}") };
    format!("{{destination: {{host: reviews, subset: {subset}}}{weight}}}")
}

/// Name, (subset, weight as written) of each destination, and what comes of it.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn weights_of_a_virtual_service() {
    let cases: [Case; 11] = [
        ("the sum is 100", &[("v1", "90"), ("v2", "10")], "http[0]{v1:90 v2:10}"),
        ("the sum need not be 100", &[("v1", "3"), ("v2", "1")], "http[0]{v1:3 v2:1}"),
        ("one per mille", &[("v1", "999"), ("v2", "1")], "http[0]{v1:999 v2:1}"),
        ("the largest sum", &[("v1", "4294967294"), ("v2", "1")], "http[0]{v1:4294967294 v2:1}"),
        ("a single destination without weight gets all", &[("v1", "")], "http[0]{v1:1}"),
        ("a single destination of weight 0 gets all", &[("v1", "0")], "http[0]{v1:1}"),
        ("a single destination of weight 37 gets all", &[("v1", "37")], "http[0]{v1:1}"),
        ("a missing weight among several is nothing", &[("v1", ""), ("v2", "10")], "http[0]{v2:10}"),
        ("weight 0 among several is nothing", &[("v1", "100"), ("v2", "0")], "http[0]{v1:100}"),
        ("whole floats, as Argo writes them", &[("v1", "90.0"), ("v2", "1e1")], "http[0]{v1:90 v2:10}"),
        ("the same destination twice adds up", &[("v1", "1"), ("v2", "2"), ("v1", "3")], "http[0]{v1:4 v2:2}"),
    ];
    for (name, destinations, expected) in cases {
        let destinations: Vec<String> = destinations.iter().map(|(subset, weight)| to(subset, weight)).collect();
        let compiled = compiled(&[&reviews(), &http(&destinations.join(", "))]);
        assert_eq!(only(&compiled), expected, "{name}: {:#?}", compiled.diagnostics);
        assert_eq!(codes(&compiled), [""; 0], "{name}");
    }
}

#[test]
fn a_version_of_weight_0_keeps_its_endpoints_and_its_counters() {
    let compiled = compiled(&[&reviews(), &http(&[to("v1", "100"), to("v2", "0")].join(", "))]);
    assert_eq!(only(&compiled), "http[0]{v1:100}");
    assert_eq!(endpoints_of(&compiled, "v2"), "10.0.2.1:9080");
}

#[test]
fn weights_that_are_refused() {
    let cases: [Case; 6] = [
        ("all zero", &[("v1", "0"), ("v2", "0")], "CAN0001 spec.http[0].route"),
        ("all missing", &[("v1", ""), ("v2", "")], "CAN0001 spec.http[0].route"),
        ("negative", &[("v1", "-1"), ("v2", "10")], "CAN0001 spec.http[0].route[0].weight"),
        ("a fraction", &[("v1", "1.5"), ("v2", "10")], "CAN0001 spec.http[0].route[0].weight"),
        ("more than u32", &[("v1", "4294967295"), ("v2", "1")], "CAN0001 spec.http[0].route"),
        ("text", &[("v1", "'90'"), ("v2", "10")], "CAN0002 spec.http[0].route[0].weight"),
    ];
    for (name, destinations, expected) in cases {
        let destinations: Vec<String> = destinations.iter().map(|(subset, weight)| to(subset, weight)).collect();
        let compiled = compiled(&[&reviews(), &http(&destinations.join(", "))]);
        assert!(codes(&compiled).contains(&expected.to_owned()), "{name}: {:#?}", compiled.diagnostics);
        assert!(compiled.state.services.is_empty(), "{name}: a broken rule must not open the service to everybody");
    }
}

#[test]
fn the_message_about_weights_names_all_that_is_needed() {
    let compiled = compiled(&[&reviews(), &http(&[to("v1", "0"), to("v2", "0")].join(", "))]);
    let error = compiled.diagnostics.iter().find(|diagnostic| diagnostic.code == "CAN0001").unwrap();
    assert_eq!(
        error.to_string(),
        "error [CAN0001] VirtualService default/reviews (test.yaml:48) spec.http[0].route: \
         total destination weight = 0 — give at least one destination a weight above 0"
    );
}

#[test]
fn sixty_four_versions_fit_and_one_more_is_an_error_that_names_the_rule() {
    for (count, fits) in [(64, true), (65, false)] {
        let subsets: Vec<String> = (0..count).map(|n| format!("{{name: s{n}, labels: {{}}}}")).collect();
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: more}}\nspec: {{host: reviews, subsets: [{}]}}",
            subsets.join(", ")
        );
        let destinations: Vec<String> = (0..count).map(|n| to(&format!("s{n}"), "1")).collect();
        let compiled = compiled(&[&reviews(), &rule, &http(&destinations.join(", "))]);
        assert_eq!(compiled.state.services.len(), usize::from(fits), "{count}");
        assert_eq!(codes(&compiled).contains(&"CAN0303 spec.http[0].route".to_owned()), !fits, "{count}");
    }
}
