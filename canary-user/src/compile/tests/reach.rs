//! Traffic policies, node ports and hints: which endpoints count for whom.
use super::{addresses::in_cluster, codes, compiled, join};
use crate::{compile::Compiled, state::Frontend};

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.7}, {type: Hostname, address: n1}, {type: ExternalIP, address: 'fd00::7'}]}";
const ROUTE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}";

fn service(more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: 10.96.0.1, selector: {{app: web}}, ports: [{{port: 80, nodePort: 30080}}], {more}}}"
    )
}

/// One endpoint on each of two nodes, and a third on the second one, with this besides.
fn slice(more: [&str; 3]) -> String {
    let [a, b, c] = more;
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.0.0.1], nodeName: n1{a}}}, {{addresses: [10.0.0.2], nodeName: n2{b}}}, {{addresses: [10.0.0.3], nodeName: n2{c}}}]"
    )
}

/// `address → hosts of the endpoints` for packets, and for sockets where that is different.
fn doors(compiled: &Compiled) -> String {
    let state = &compiled.state;
    let hosts = |at: &Frontend, id| {
        let versions = state.services.get(id).map(|service| &service.versions);
        let endpoints = versions.into_iter().flatten().flat_map(|(_, version)| version.endpoints.keys());
        let hosts: Vec<String> =
            endpoints.map(|it| it.ip().to_string().rsplit('.').next().unwrap_or_default().to_owned()).collect();
        format!("{}:{}→{}", at.addr, at.port, hosts.join("+"))
    };
    let packets: Vec<String> = state.frontends.iter().map(|(at, id)| hosts(at, id)).collect();
    let sockets: Vec<String> = state.for_sockets.iter().map(|(at, id)| hosts(at, id)).collect();
    format!("{} | {}", packets.join(" "), sockets.join(" "))
}

#[test]
fn traffic_policies_say_which_endpoints_count_for_whom() {
    let outside = "externalIPs: [203.0.113.1]";
    let cases = [
        (
            "no node port without a type that has one is odd, but the API has it",
            "",
            "10.96.0.1:80→1+2+3 | 192.0.2.7:30080→1+2+3",
        ),
        ("inside", "internalTrafficPolicy: Local", "10.96.0.1:80→1 | 192.0.2.7:30080→1+2+3"),
        ("outside", "externalTrafficPolicy: Local", "10.96.0.1:80→1+2+3 192.0.2.7:30080→1 | 192.0.2.7:30080→1+2+3"),
        (
            "both",
            "internalTrafficPolicy: Local, externalTrafficPolicy: Local",
            "10.96.0.1:80→1 192.0.2.7:30080→1 | 192.0.2.7:30080→1+2+3",
        ),
        (
            "external addresses",
            &format!("externalTrafficPolicy: Local, {outside}"),
            "10.96.0.1:80→1+2+3 192.0.2.7:30080→1 203.0.113.1:80→1 | 192.0.2.7:30080→1+2+3 203.0.113.1:80→1+2+3",
        ),
        (
            "to any endpoint packets from outside are kube-proxy's",
            outside,
            "10.96.0.1:80→1+2+3 | 192.0.2.7:30080→1+2+3 203.0.113.1:80→1+2+3",
        ),
    ];
    for (name, spec, expected) in cases {
        let compiled = in_cluster(&[&service(spec), &slice([""; 3]), NODE, ROUTE]);
        assert_eq!(doors(&compiled), expected, "{name}");
        assert_eq!(codes(&compiled), [""; 0], "{name}");
    }
}

/// What is chosen in a directory comes back by the same host: there packets have every endpoint, too.
#[test]
fn a_directory_answers_packets_at_external_addresses() {
    let compiled = compiled(&[&service("externalIPs: [203.0.113.1]"), &slice([""; 3]), NODE]);
    assert_eq!(doors(&compiled), "10.96.0.1:80→1+2+3 192.0.2.7:30080→1+2+3 203.0.113.1:80→1+2+3 | ");
}

#[test]
fn a_policy_that_nobody_can_follow_is_told_and_everything_counts() {
    let local = service("internalTrafficPolicy: Local, externalTrafficPolicy: Local");
    let compiled = in_cluster(&[&local, &slice([""; 3]), ROUTE]);
    assert_eq!(doors(&compiled), "10.96.0.1:80→1+2+3 | ");
    let expected = ["spec.externalTrafficPolicy", "spec.internalTrafficPolicy", "spec.ports[0].nodePort"];
    assert_eq!(codes(&compiled), expected.map(|field| format!("CAN0005 {field}")));
    let wrong = in_cluster(&[&service("internalTrafficPolicy: Near"), ROUTE]);
    assert!(codes(&wrong).contains(&"CAN0001 spec.internalTrafficPolicy".to_owned()), "{:?}", codes(&wrong));
}

/// Who is on the node and about to end is better than nobody there; who is elsewhere does not count.
#[test]
fn a_local_policy_is_strict() {
    let ending = ", conditions: {ready: false, serving: true, terminating: true}";
    let local = service("internalTrafficPolicy: Local");
    for (first, expected) in [(ending, "10.96.0.1:80→1"), (", conditions: {ready: false}", "10.96.0.1:80→")] {
        let compiled = in_cluster(&[&local, &slice([first, "", ""]), NODE, ROUTE]);
        assert_eq!(doors(&compiled).split(' ').next(), Some(expected), "{first}");
    }
}

#[test]
fn hints_are_followed_as_kube_proxy_does() {
    let zone = |zone: &str| format!(", hints: {{forZones: [{{name: {zone}}}]}}");
    let node = |node: &str| format!(", hints: {{forNodes: [{{name: {node}}}], forZones: [{{name: z1}}]}}");
    let (z1, z2, n1, n2) = (zone("z1"), zone("z2"), node("n1"), node("n2"));
    let cases = [
        ("nobody has any", ["", "", ""], "1+2+3"),
        ("some are for this zone", [&z1, &z2, &z1], "1+3"),
        ("one has none", [&z1, &z2, ""], "1+2+3"),
        ("all are for others", [&z2, &z2, &z2], "1+2+3"),
        ("this node comes before its zone", [&n2, &n1, &n2], "2"),
        ("nobody for this node: its zone", [&n2, &n2, &n2], "1+2+3"),
        ("not all are for a node: the zone", [&n1, &z2, &z1], "1+3"),
    ];
    for (name, hints, expected) in cases {
        let compiled = in_cluster(&[&service(""), &slice(hints), NODE, ROUTE]);
        assert_eq!(doors(&compiled).split(' ').next(), Some(&*format!("10.96.0.1:80→{expected}")), "{name}");
    }
}

/// Weights hold whatever the topology: a version that is only far away keeps its share.
#[test]
fn a_version_without_near_endpoints_uses_its_others() {
    let pod = |name: &str, version: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web, version: {version}}}}}\nstatus: {{podIP: {ip}}}"
        )
    };
    let zone = |zone: &str| format!(", hints: {{forZones: [{{name: {zone}}}]}}");
    let split = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}, weight: 90}, {destination: {host: web, subset: v2}, weight: 10}]}]}";
    let pods = [pod("a", "v1", "10.0.0.1"), pod("b", "v1", "10.0.0.2"), pod("c", "v2", "10.0.0.3")];
    let slice = slice([&zone("z1"), &zone("z2"), &zone("z2")]);
    let compiled = in_cluster(&[&service(""), &slice, NODE, split, &join(&pods.each_ref().map(String::as_str))]);
    let service = compiled.state.services.values().next().unwrap();
    let of = |version: &str| -> Vec<String> {
        service.versions[version].endpoints.keys().map(|it| it.ip().to_string()).collect()
    };
    assert_eq!((of("v1"), of("v2")), (vec!["10.0.0.1".to_owned()], vec!["10.0.0.3".to_owned()]));
    assert_eq!(service.rules[0].split.weights, [("v1".to_owned(), 90), ("v2".to_owned(), 10)]);
}
