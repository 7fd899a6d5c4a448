//! Names: hosts, which object governs which service, and what versions are called.
use super::{codes, compiled, endpoints_of, only, pod, reviews, route, summary};

fn vs(name: &str, namespace: &str, extra: &str, hosts: &str, subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{hosts: [{hosts}]{extra}, http: [{{name: {name}, route: [{{destination: {{host: reviews.default.svc.cluster.local, subset: {subset}}}}}]}}]}}"
    )
}

const FULL: &str = "reviews.default.svc.cluster.local";

#[test]
fn which_hosts_mean_a_service() {
    let cases = [
        ("short, in its namespace", "default", "reviews", true),
        ("short, in another namespace", "other", "reviews", false),
        ("full", "other", FULL, true),
        ("in capitals", "default", "Reviews", true),
        ("a wildcard", "other", "'*.default.svc.cluster.local'", true),
        ("a wildcard inside a label", "other", "'*views.default.svc.cluster.local'", true),
        ("another wildcard", "default", "'*.other.svc.cluster.local'", false),
        ("a dot makes it literal", "default", "reviews.default", false),
        ("so does .svc", "default", "reviews.default.svc", false),
    ];
    for (name, namespace, host, means) in cases {
        let expected = if means { "r{v1:1}" } else { "default{default:1}" };
        assert_eq!(only(&compiled(&[&reviews(), &vs("r", namespace, "", host, "v1")])), expected, "{name}");
    }
}

#[test]
fn a_host_with_a_dot_is_literal_and_the_remedy_is_the_full_name() {
    let compiled = compiled(&[&reviews(), &vs("r", "default", "", "reviews.default", "v1")]);
    let text = compiled.diagnostics.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.contains("`reviews.default` has a dot and is taken literally; write `reviews.default.svc.cluster.local`"),
        "{text}"
    );
    assert_eq!(codes(&compiled), ["CAN0313 spec.hosts[0]"]);
}

#[test]
fn a_destination_with_a_dot_is_literal_too() {
    let to = route("  http: [{route: [{destination: {host: reviews.default, subset: v1}}]}]");
    let compiled = compiled(&[&reviews(), &to]);
    assert_eq!(codes(&compiled), ["IST0101 spec.http[0].route[0].destination.host"]);
    assert_eq!(endpoints_of(&compiled, "v1"), "");
}

#[test]
fn gateways() {
    let cases = [
        ("none is the mesh", "", "r{v1:1}"),
        ("the mesh by name", ", gateways: [mesh]", "r{v1:1}"),
        ("the mesh among others", ", gateways: [gw, mesh]", "r{v1:1}"),
        ("others only", ", gateways: [gw, ns/gw]", "default{default:1}"),
    ];
    for (name, gateways, expected) in cases {
        assert_eq!(only(&compiled(&[&reviews(), &vs("r", "default", gateways, FULL, "v1")])), expected, "{name}");
    }
}

#[test]
fn one_virtual_service_governs_the_mesh_and_none_is_merged() {
    let aged = |name: &str, created: &str, namespace: &str, extra: &str, host: &str| {
        let text = vs(name, namespace, extra, host, "v1");
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{created}', "))
    };
    let (old, new) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let cases = [
        ("the oldest", aged("z", old, "default", "", FULL), aged("a", new, "default", "", FULL), "z"),
        ("then by name", aged("b", new, "default", "", FULL), aged("a", new, "z", "", FULL), "a"),
        ("then by namespace", aged("a", new, "b", "", FULL), aged("a", new, "a", "", FULL), "a"),
        (
            "a private one before the oldest",
            aged("z", old, "default", "", FULL),
            aged("p", new, "default", ", exportTo: [.]", FULL),
            "p",
        ),
        (
            "an exported one before the oldest",
            aged("z", old, "x", "", FULL),
            aged("e", new, "x", ", exportTo: [default, y]", FULL),
            "e",
        ),
        (
            "the full name before a wildcard",
            aged("z", old, "default", "", "'*.svc.cluster.local'"),
            aged("f", new, "default", "", FULL),
            "f",
        ),
        (
            "the longer wildcard",
            aged("z", old, "default", "", "'*.local'"),
            aged("l", new, "default", "", "'*.cluster.local'"),
            "l",
        ),
    ];
    for (name, first, second, winner) in cases {
        let expected = format!("{winner}{{v1:1}}");
        assert_eq!(only(&compiled(&[&reviews(), &first, &second])), expected, "{name}");
        assert_eq!(only(&compiled(&[&reviews(), &second, &first])), expected, "{name}, other order");
    }
    let rivals = compiled(&[&reviews(), &vs("a", "default", "", FULL, "v1"), &vs("b", "default", "", FULL, "v2")]);
    assert_eq!(codes(&rivals), ["IST0109 spec.hosts"]);
    assert_eq!(rivals.diagnostics[0].object, "VirtualService default/b");
}

#[test]
fn visibility() {
    let cases = [
        ("public", "", "r{v1:1}"),
        ("public by *", ", exportTo: ['*']", "r{v1:1}"),
        ("to the service's namespace", ", exportTo: [default]", "r{v1:1}"),
        ("to its own namespace only", ", exportTo: [.]", "default{default:1}"),
        ("to nobody", ", exportTo: ['~']", "default{default:1}"),
    ];
    for (name, export_to, expected) in cases {
        let compiled = compiled(&[&reviews(), &vs("r", "other", export_to, FULL, "v1")]);
        assert_eq!(only(&compiled), expected, "{name}");
        let hidden = expected.starts_with("default");
        assert_eq!(codes(&compiled).contains(&"CAN0314 spec.exportTo".to_owned()), hidden, "{name}");
    }
}

fn rule(name: &str, namespace: &str, host: &str, version: &str, extra: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: '{host}', subsets: [{{name: s, labels: {{version: {version}}}}}]{extra}}}"
    )
}

#[test]
fn where_subsets_are_looked_up() {
    let to = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: client}\nspec: {hosts: [reviews.default.svc.cluster.local], http: [{route: [{destination: {host: reviews.default.svc.cluster.local, subset: s}}]}]}";
    let (v1, v2) = ("10.0.1.1:9080 10.0.1.2:9080", "10.0.2.1:9080");
    let cases: [(&str, Vec<String>, &str); 9] = [
        (
            "the client's namespace first",
            vec![rule("a", "default", FULL, "v1", ""), rule("b", "client", FULL, "v2", "")],
            v2,
        ),
        (
            "then the service's",
            vec![rule("a", "default", FULL, "v1", ""), rule("b", "istio-system", FULL, "v2", "")],
            v1,
        ),
        ("then the root namespace", vec![rule("b", "istio-system", FULL, "v2", "")], v2),
        ("no other namespace", vec![rule("b", "elsewhere", FULL, "v2", "")], ""),
        (
            "not exported",
            vec![rule("a", "default", FULL, "v1", ", exportTo: [.]"), rule("b", "istio-system", FULL, "v2", "")],
            v2,
        ),
        (
            "the full host before a wildcard",
            vec![rule("a", "default", "*.svc.cluster.local", "v1", ""), rule("z", "default", FULL, "v2", "")],
            v2,
        ),
        (
            "the longer wildcard",
            vec![rule("a", "default", "*.local", "v1", ""), rule("z", "default", "*.cluster.local", "v2", "")],
            v2,
        ),
        (
            "of one host the first wins a name",
            vec![rule("a", "default", FULL, "v1", ""), rule("z", "default", FULL, "v2", "")],
            v1,
        ),
        (
            "a short host is its own namespace's",
            vec![rule("a", "default", "reviews", "v1", ""), rule("b", "istio-system", "reviews", "v2", "")],
            v1,
        ),
    ];
    let bare = reviews().replace("kind: DestinationRule", "kind: Other");
    for (name, rules, expected) in cases {
        let compiled = compiled(&[&bare, to, &rules.join("\n---\n")]);
        assert_eq!(endpoints_of(&compiled, "s"), expected, "{name}");
    }
}

#[test]
fn rules_of_one_host_put_their_subsets_together() {
    let other = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: more}\nspec: {host: reviews.default.svc.cluster.local, subsets: [{name: v9, labels: {version: v3}}]}";
    let to = route(
        "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v9}, weight: 1}]}]",
    );
    let compiled = compiled(&[&reviews(), other, &to]);
    assert_eq!(endpoints_of(&compiled, "v9"), "10.0.3.1:9080");
    let report = compiled.services.values().next().unwrap();
    assert_eq!(report.destination_rules.len(), 2);
}

#[test]
fn flagger_splits_between_services() {
    let service = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{{name: http, port: 9898}}]}}"
        )
    };
    let rule = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {name}}}"
        )
    };
    let world = [
        service("podinfo", "10.96.1.1"),
        service("podinfo-primary", "10.96.1.2"),
        service("podinfo-canary", "10.96.1.3"),
        rule("podinfo-primary"),
        rule("podinfo-canary"),
        pod("podinfo-primary", "x", "10.3.0.1"),
        pod("podinfo-canary", "x", "10.3.0.2"),
    ];
    let vs = "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: podinfo}\nspec: {gateways: [mesh], hosts: [podinfo], http: [{route: [{destination: {host: podinfo-primary}, weight: 95}, {destination: {host: podinfo-canary}, weight: 5}]}]}";
    let compiled = compiled(&[&world.join("\n---\n"), vs]);
    let apex = summary(&compiled.state);
    let apex = apex.lines().find(|line| line.contains("/podinfo:")).unwrap();
    assert_eq!(apex, "default/podinfo:9898/tcp http[0]{podinfo-canary:5 podinfo-primary:95}");
    let service = compiled.state.services.iter().find(|(id, _)| id.name == "podinfo").unwrap().1;
    let canary: Vec<String> = service.versions["podinfo-canary"].endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(canary, ["10.3.0.2:9898"]);
    assert_eq!(codes(&compiled), [""; 0]);
}

#[test]
fn the_port_of_a_destination() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.2.2, selector: {app: other}, ports: [PORTS]}";
    let cases = [
        ("given", "{name: a, port: 1}, {name: b, port: 2}", ", port: {number: 2}", "10.4.0.1:2", ""),
        ("the only one", "{name: a, port: 7}", "", "10.4.0.1:7", ""),
        ("the one that was addressed", "{name: a, port: 1}, {name: b, port: 9080}", "", "10.4.0.1:9080", ""),
        ("none to choose", "{name: a, port: 1}, {name: b, port: 2}", "", "", "IST0112"),
        ("one that does not exist", "{name: a, port: 1}", ", port: {number: 5}", "", "IST0101"),
    ];
    for (name, ports, port, expected, code) in cases {
        let to = route(&format!("  http: [{{route: [{{destination: {{host: other{port}}}}}]}}]"));
        let compiled = compiled(&[&reviews(), &other.replace("PORTS", ports), &pod("other", "v", "10.4.0.1"), &to]);
        let service = compiled.state.services.iter().find(|(id, _)| id.name == "reviews").unwrap().1;
        let found: Vec<String> = service.versions["other"].endpoints.keys().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), expected, "{name}");
        let codes = codes(&compiled);
        assert_eq!(
            codes.iter().filter(|found| !code.is_empty() && found.starts_with(code)).count(),
            usize::from(!code.is_empty()),
            "{name}: {codes:?}"
        );
    }
}

#[test]
fn two_versions_of_one_name_stay_apart() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.2.2, selector: {app: other}, ports: [{name: http, port: 80}]}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: other}\nspec: {host: other, subsets: [{name: v1, labels: {version: v1}}]}";
    let to = route(
        "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 3}, {destination: {host: other, subset: v1}, weight: 1}]}]",
    );
    let compiled = compiled(&[&reviews(), other, &pod("other", "v1", "10.4.0.1"), &to]);
    let text = summary(&compiled.state);
    assert!(text.contains("http[0]{v1:3 v1@other.default.svc.cluster.local:80:1}"), "{text}");
}
