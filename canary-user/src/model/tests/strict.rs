//! Slips where fields decide: errors, so that the object keeps its last good state.
use super::*;

#[test]
fn a_misspelt_weight_is_an_error_and_not_a_weight_of_nothing() {
    let route = |of_v1: &str| {
        format!(
            "{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{route: [{{destination: {{host: a, subset: v1}}, {of_v1}}}, {{destination: {{host: a, subset: v2}}, weight: 10}}]}}]}}"
        )
    };
    let cases = [
        (route("wieght: 90"), "spec.http[0].route[0].wieght", "did you mean `weight`?"),
        (
            route("weight: 90").replace("subset: v2}, weight: 10", "subset: v2, weight: 10}"),
            "spec.http[0].route[1].destination.weight",
            "`weight` belongs beside `destination`, not under it",
        ),
        (route("mirror: {}"), "spec.http[0].route[0].mirror", "known here: destination, weight, headers"),
        (route("weight: 90").replace("spec:", "sepc:"), "sepc", "did you mean `spec`?"),
    ];
    for (yaml, field, remedy) in cases {
        let (_, found) = read(&yaml);
        let seen = found.iter().find(|found| found.field == field).unwrap_or_else(|| panic!("{field}: {found:?}"));
        assert_eq!((seen.severity, seen.remedy.as_str()), (Severity::Error, remedy), "{field}");
    }
    let (_, found) = read(&route("headers: {response: {add: {a: b}}}, weight: 90"));
    assert!(found.iter().all(|found| found.severity < Severity::Error), "Flagger writes that: {found:?}");
}

#[test]
fn a_slip_that_would_widen_or_empty_a_rule_is_an_error() {
    let istio = |kind: &str, spec: &str| format!("{ISTIO}{kind}\nmetadata: {{name: a}}\nspec: {spec}");
    let to = "route: [{destination: {host: a}}]";
    let cases = [
        (istio("VirtualService", &format!("{{hosts: [a], http: [{{macth: [{{port: 1}}], {to}}}]}}")), "spec.http[0].macth", "did you mean `match`?"),
        (istio("VirtualService", &format!("{{hosts: [a], http: [{{match: [{{prot: 1}}], {to}}}]}}")), "spec.http[0].match[0].prot", "did you mean `port`?"),
        (istio("VirtualService", &format!("{{hosts: [a], tcp: [{{matches: [{{port: 1}}], {to}}}]}}")), "spec.tcp[0].matches", "did you mean `match`?"),
        (istio("VirtualService", &format!("{{hosts: [a], tls: [{{match: [{{sniHost: [a]}}], {to}}}]}}")), "spec.tls[0].match[0].sniHost", "did you mean `sniHosts`?"),
        (istio("VirtualService", &format!("{{hosts: [a], gateway: [g], http: [{{{to}}}]}}")), "spec.gateway", "did you mean `gateways`?"),
        (istio("DestinationRule", "{host: a, subset: [{name: v1}]}"), "spec.subset", "did you mean `subsets`?"),
        (istio("DestinationRule", "{host: a, subsets: [{name: v1, lables: {a: b}}]}"), "spec.subsets[0].lables", "did you mean `labels`?"),
        (istio("ServiceEntry", "{hosts: [a.b], resolution: STATIC, endpoint: [{address: 1.2.3.4}]}"), "spec.endpoint", "did you mean `endpoints`?"),
        (istio("WorkloadEntry", "{address: 1.2.3.4, wieght: 3}"), "spec.wieght", "did you mean `weight`?"),
        ("apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {name: a}\nspec: {targetRef: {kind: VirtualService, name: a}, rules: [{name: a, source: [10.0.0.0/8]}]}".into(), "spec.rules[0].source", "did you mean `sources`?"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selctor: {a: b}}".into(), "spec.selctor", "did you mean `selector`?"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nsepc: {ports: []}".into(), "sepc", "did you mean `spec`?"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1, targetport: 2}]}".into(), "spec.ports[0].targetport", "did you mean `targetPort`?"),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: [{addresses: [1.2.3.4], conditions: {raedy: false}}]".into(), "endpoints[0].conditions.raedy", "did you mean `ready`?"),
        (istio("VirtualService", &format!("{{hosts: [a], http: [{{when: [{{port: 1}}], {to}}}]}}")), "spec.http[0].when", "known here: name, match, route, redirect, directResponse, delegate, rewrite, timeout, retries, fault, mirror, mirrors, mirrorPercent, mirror_percent, mirrorPercentage, corsPolicy, headers"),
    ];
    for (yaml, field, remedy) in cases {
        let (model, found) = read(&yaml);
        let said = found.iter().filter(|found| found.severity == Severity::Error && found.field == field);
        assert_eq!(said.map(|found| found.remedy.as_str()).collect::<Vec<_>>(), [remedy], "{field}");
        assert_eq!(model.broken().len(), 1, "{field}");
    }
}

#[test]
fn slips_and_wrong_types_are_said_together() {
    let yaml = format!(
        "{ISTIO}VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{macth: [], route: [{{destination: {{host: a}}, weight: \"10\"}}]}}]}}"
    );
    let said = said(&yaml);
    assert!(said.iter().any(|text| text.contains("spec.http[0].macth")), "{said:#?}");
    let weight = said.iter().find(|text| text.starts_with("CAN0002 spec.http[0].route[0].weight")).unwrap();
    assert!(weight.ends_with("— write the number without quotes"), "{weight}");
}
