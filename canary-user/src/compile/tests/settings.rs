//! canary's own annotations and the `RoutePolicy`.
use super::{codes, compiled, only, reviews, route};
use crate::state::{Choosing, DeadVersion, Service};

const SPLIT: &str = "  http: [{name: office, route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v2}, weight: 50}]}, {route: [{destination: {host: reviews, subset: v1}}]}]";

fn annotated(text: &str, annotations: &str) -> String {
    text.replacen(
        "metadata: {name: reviews}",
        &format!("metadata: {{name: reviews, annotations: {{{annotations}}}}}"),
        1,
    )
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: p}}\nspec: {{targetRef: {{kind: VirtualService, name: reviews}}, {spec}}}"
    )
}

fn service(documents: &[&str]) -> Service {
    let compiled = compiled(documents);
    compiled.state.services.into_values().next().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

#[test]
fn annotations_of_a_virtual_service_and_of_a_service() {
    let all = "canary.io/choosing: keyed-client, canary.io/on-no-endpoints: spill, canary.io/drain: 1h30m";
    let by_route = service(&[&reviews(), &annotated(&route(SPLIT), all)]);
    let by_service = service(&[&annotated(&reviews(), all), &route(SPLIT)]);
    assert_eq!(by_route, by_service);
    let split = &by_route.rules[0].split;
    assert_eq!((split.choosing, split.dead), (Choosing::KeyedClient, DeadVersion::Spill));
    assert_eq!(by_route.versions["v1"].drain_seconds, 5_400);
    let both = service(&[&annotated(&reviews(), all), &annotated(&route(SPLIT), "canary.io/choosing: exact")]);
    assert_eq!(both.rules[0].split.choosing, Choosing::Exact, "the route's own comes first");
    assert_eq!(both.rules[0].split.dead, DeadVersion::Spill, "what it leaves open is the service's");
}

/// `sessionAffinity: ClientIP`: kube-proxy's clients stay with an endpoint, so here with a version and an endpoint of it.
#[test]
fn a_service_with_affinity_is_keyed_by_client_unless_the_route_says_otherwise() {
    let sticky = reviews().replacen("  clusterIP", "  sessionAffinity: ClientIP\n  clusterIP", 1);
    assert_ne!(sticky, reviews());
    let choosing = |documents: &[&str]| service(documents).rules[0].split.choosing;
    assert_eq!(choosing(&[&sticky, &route(SPLIT)]), Choosing::KeyedClient);
    assert_eq!(choosing(&[&sticky, &annotated(&route(SPLIT), "canary.io/choosing: keyed-flow")]), Choosing::KeyedFlow);
    let wrong = compiled(&[&sticky.replace("ClientIP", "Cookie"), &route(SPLIT)]);
    assert!(codes(&wrong).contains(&"CAN0001 spec.sessionAffinity".to_owned()), "{:?}", codes(&wrong));
}

/// Whoever has no address when he connects is told by his pod.
#[test]
fn pods_are_told_by_their_uids_where_a_client_decides() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: sleep, uid: u-1}\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.7}, {ip: 'fd00::7'}]}";
    let ended = pod.replace("sleep", "job").replace("u-1", "u-2").replace("Running", "Succeeded");
    let clients = |route: &str| compiled(&[&reviews(), route, pod, &ended]).state.clients;
    assert_eq!(clients(&route(SPLIT)), [].into(), "nobody asks");
    let asked = clients(&annotated(&route(SPLIT), "canary.io/choosing: keyed-client"));
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}";
    let elsewhere = compiled(&[&reviews(), &annotated(&route(SPLIT), "canary.io/choosing: keyed-client"), pod, node]);
    assert_eq!(elsewhere.state.clients, [].into(), "it is on no node, and this is one");
    assert_eq!(asked, [("u-1".to_owned(), ["10.0.0.7", "fd00::7"].map(|it| it.parse().unwrap()).to_vec())].into());
}

#[test]
fn udp_follows_a_virtual_service_only_when_it_says_so() {
    let udp = reviews().replace("name: http", "name: dns, protocol: UDP");
    assert_ne!(udp, reviews());
    let names = |documents: &[&str]| service(documents).rules[0].split.weights.clone();
    assert_eq!(names(&[&udp, &route(SPLIT)]).len(), 1, "as in Istio: the plain service");
    let asked = annotated(&route(SPLIT), "canary.io/udp: 'true'");
    assert_eq!(names(&[&udp, &asked]).len(), 2);
    let declined = annotated(&route(SPLIT), "canary.io/udp: 'false'");
    assert_eq!(names(&[&udp, &declined]).len(), 1);
}

#[test]
fn values_of_annotations() {
    let cases = [
        ("udp: maybe", "metadata.annotations.canary.io/udp"),
        ("choosing: sometimes", "metadata.annotations.canary.io/choosing"),
        ("on-no-endpoints: cry", "metadata.annotations.canary.io/on-no-endpoints"),
        ("drain: 5", "metadata.annotations.canary.io/drain"),
        ("drain: -5m", "metadata.annotations.canary.io/drain"),
        ("drain: 5 minutes", "metadata.annotations.canary.io/drain"),
        ("drain: ''", "metadata.annotations.canary.io/drain"),
        ("drain: 9999999999h", "metadata.annotations.canary.io/drain"),
    ];
    for (annotation, field) in cases {
        let annotation = annotation.replacen(": ", ": '", 1).replace("''", "") + "'";
        let compiled = compiled(&[&reviews(), &annotated(&route(SPLIT), &format!("canary.io/{annotation}"))]);
        assert!(codes(&compiled).contains(&format!("CAN0001 {field}")), "{annotation}: {:?}", codes(&compiled));
    }
}

#[test]
fn a_policy_narrows_a_rule_to_client_networks() {
    let spec = "rules: [{name: office, sources: [192.0.2.0/24, 'fd00::/8'], choosing: keyed-client, onNoEndpoints: hold}], drain: 10s";
    let compiled = compiled(&[&reviews(), &route(SPLIT), &policy(spec)]);
    assert_eq!(only(&compiled), "office<192.0.2.0/24>{v1:50 v2:50} http[1]{v1:1}");
    let service = compiled.state.services.values().next().unwrap();
    let splits: Vec<_> = service.rules.iter().map(|rule| (rule.split.choosing, rule.split.dead)).collect();
    assert_eq!(splits, [(Choosing::KeyedClient, DeadVersion::Hold), (Choosing::Exact, DeadVersion::Fail)]);
    assert_eq!(service.versions["v1"].drain_seconds, 10);
    let report = compiled.services.values().next().unwrap();
    assert_eq!(report.route_policy.as_ref().unwrap().object, "RoutePolicy default/p");
}

#[test]
fn a_policy_for_networks_of_the_other_family_leaves_the_rule_to_nobody() {
    let compiled = compiled(&[&reviews(), &route(SPLIT), &policy("rules: [{name: office, sources: ['fd00::/8']}]")]);
    assert_eq!(only(&compiled), "http[1]{v1:1}");
}

#[test]
fn a_policy_goes_by_name_or_position_and_says_when_there_is_none() {
    let compiled = compiled(&[
        &reviews(),
        &route(SPLIT),
        &policy("rules: [{name: 'http[0]', sources: [192.0.2.1]}, {name: nobody}]"),
    ]);
    assert_eq!(only(&compiled), "office<192.0.2.1/32>{v1:50 v2:50} http[1]{v1:1}");
    assert_eq!(codes(&compiled), ["IST0101 spec.rules[1].name"]);
}
