//! Which endpoints a version has.
use super::{codes, compile_text, compiled, endpoints_of, join, only, pod, reviews, route, summary};
use crate::state::{State, Version};

const SPLIT: &str = "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}]";

#[test]
fn versions_are_chosen_by_the_labels_of_pods() {
    let compiled = compiled(&[&reviews(), &route(SPLIT)]);
    assert_eq!(endpoints_of(&compiled, "v1"), "10.0.1.1:9080 10.0.1.2:9080");
    assert_eq!(endpoints_of(&compiled, "v2"), "10.0.2.1:9080");
}

#[test]
fn a_service_without_routes_has_one_version_with_everybody() {
    let compiled = compiled(&[&reviews()]);
    assert_eq!(only(&compiled), "default{default:1}");
    assert_eq!(endpoints_of(&compiled, "default"), "10.0.1.1:9080 10.0.1.2:9080 10.0.2.1:9080 10.0.3.1:9080");
}

#[test]
fn pods_without_slices() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: TARGET}]}";
    let pod = |change: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: web}}{meta}}}\nspec: {{containers: [{{ports: [{{name: metrics, containerPort: 1}}, {{name: www, containerPort: 8080}}]}}]}}\nstatus: {{podIP: 10.0.0.1{status}}}",
            meta = if change.starts_with("deletion") { format!(", {change}") } else { String::new() },
            status =
                if change.starts_with("deletion") || change.is_empty() { String::new() } else { format!(", {change}") },
        )
    };
    let cases = [
        ("a number", "8080", "", "10.0.0.1:8080"),
        ("a name", "www", "", "10.0.0.1:8080"),
        ("an unknown name", "nobody", "", ""),
        ("ready", "1", "conditions: [{type: Ready, status: 'True'}]", "10.0.0.1:1"),
        ("not ready", "1", "conditions: [{type: Ready, status: 'False'}]", ""),
        ("pending", "1", "phase: Pending", ""),
        ("running", "1", "phase: Running", "10.0.0.1:1"),
        ("being deleted", "1", "deletionTimestamp: '2026-01-01T00:00:00Z'", ""),
    ];
    for (name, target, change, expected) in cases {
        let compiled = compiled(&[&service.replace("TARGET", target), &pod(change)]);
        assert_eq!(endpoints_of(&compiled, "default"), expected, "{name}");
    }
}

fn slice(name: &str, version: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: reviews{version}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: {endpoints}"
    )
}

#[test]
fn slices_come_before_pods_and_say_who_is_ready() {
    let cases = [
        ("absent conditions mean ready", "{addresses: [10.0.1.1]}", "10.0.1.1:8080"),
        ("ready", "{addresses: [10.0.1.1], conditions: {ready: true}}", "10.0.1.1:8080"),
        ("not ready", "{addresses: [10.0.1.1], conditions: {ready: false}}", ""),
        (
            "terminating, beside one that is not",
            "{addresses: [10.0.1.1], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.0.1.2]}",
            "10.0.1.2:8080",
        ),
        (
            "terminating, and nobody else",
            "{addresses: [10.0.1.1], conditions: {ready: false, serving: true, terminating: true}}",
            "10.0.1.1:8080",
        ),
        (
            "terminating, and it does not answer",
            "{addresses: [10.0.1.1], conditions: {ready: false, serving: false, terminating: true}}",
            "",
        ),
        (
            "a Pod that is not known yet, at the address of another one",
            "{addresses: [10.0.1.1], targetRef: {kind: Pod, name: new}}",
            "",
        ),
        ("null conditions", "{addresses: [10.0.1.1], conditions: {ready: null}}", "10.0.1.1:8080"),
        (
            "the Pod it names",
            "{addresses: [10.9.9.9], targetRef: {kind: Pod, name: reviews-v1-10-0-1-2}}",
            "10.9.9.9:8080",
        ),
        ("the Pod of another version", "{addresses: [10.0.2.1]}", ""),
        ("nobody's address", "{addresses: [10.7.7.7]}", ""),
    ];
    for (name, endpoint, expected) in cases {
        let compiled = compiled(&[&reviews(), &slice("a", "", &format!("[{endpoint}]")), &route(SPLIT)]);
        assert_eq!(endpoints_of(&compiled, "v1"), expected, "{name}");
    }
}

#[test]
fn without_pods_the_labels_of_a_slice_say_the_version() {
    let v1 = slice("a", ", version: v1", "[{addresses: [10.7.7.1]}, {addresses: [10.7.7.2]}]");
    let v2 = slice("b", ", version: v2", "[{addresses: [10.7.7.3]}]");
    let compiled = compiled(&[super::REVIEWS, &v1, &v2, &route(SPLIT)]);
    assert_eq!(endpoints_of(&compiled, "v1"), "10.7.7.1:8080 10.7.7.2:8080");
    assert_eq!(endpoints_of(&compiled, "v2"), "10.7.7.3:8080");
}

#[test]
fn an_empty_subset_label_list_is_everybody() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: more}\nspec: {host: reviews, subsets: [{name: all, labels: {}}]}";
    let to_all = route("  http: [{route: [{destination: {host: reviews, subset: all}}]}]");
    let compiled = compiled(&[&reviews(), rule, &to_all]);
    assert_eq!(endpoints_of(&compiled, "all").split(' ').count(), 4);
}

#[test]
fn an_unknown_subset_fails_and_never_falls_over() {
    let typo = route(
        "  http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: vv2}, weight: 10}]}]",
    );
    let compiled = compiled(&[&reviews(), &typo]);
    assert_eq!(only(&compiled), "http[0]{v1:90 vv2:10}");
    assert_eq!(endpoints_of(&compiled, "vv2"), "");
    assert_eq!(codes(&compiled), ["IST0101 spec.http[0].route[1].destination.subset"]);
    let message = compiled.diagnostics[0].to_string();
    assert!(
        message.ends_with("`reviews` has no subset `vv2`: this share fails — define it, or use one of v1, v2, v3"),
        "{message}"
    );
}

#[test]
fn a_known_subset_without_endpoints_keeps_its_share() {
    let compiled = compiled(&[super::REVIEWS, &pod("reviews", "v1", "10.0.1.1"), &route(SPLIT)]);
    assert_eq!(only(&compiled), "http[0]{v1:90 v2:10}");
    assert_eq!(endpoints_of(&compiled, "v2"), "");
    assert_eq!(codes(&compiled), ["CAN0309 spec.http[0].route[1].destination"]);
}

#[test]
fn each_family_and_address_of_a_service() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], externalIPs: [192.0.2.1], selector: {app: web}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {hostname: lb.example.com}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00:1::1'}]}
";
    let compiled = compiled(&[service]);
    let line = |id: &str| format!("{id} default{{default:1}}");
    let ids = ["default/web:53/udp", "default/web:53/udp6", "default/web:80/tcp", "default/web:80/tcp6"];
    let mut found: Vec<String> = summary(&compiled.state).lines().map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, ids.map(line));
    let frontends: Vec<String> = compiled.state.frontends.keys().map(ToString::to_string).collect();
    let expected = [
        "10.96.0.1:53/udp",
        "10.96.0.1:80/tcp",
        "192.0.2.1:53/udp",
        "192.0.2.1:80/tcp",
        "198.51.100.1:53/udp",
        "198.51.100.1:80/tcp",
        "[fd00::1]:53/udp",
        "[fd00::1]:80/tcp",
    ];
    let mut sorted = frontends.clone();
    sorted.sort();
    let mut wanted = expected.map(str::to_owned).to_vec();
    wanted.sort();
    assert_eq!(sorted, wanted);
    for (id, service) in &compiled.state.services {
        let Version { endpoints, drain_seconds } = &service.versions["default"];
        assert_eq!(*drain_seconds, 300);
        assert_eq!(endpoints.keys().next().unwrap().is_ipv6(), id.to_string().ends_with('6'), "{id}");
        assert_eq!(endpoints.len(), 1, "{id}");
    }
}

#[test]
fn services_without_an_address_of_their_own() {
    let cases = [
        ("headless", "clusterIP: None", ""),
        ("no address yet", "selector: {a: b}", "CAN0310 spec"),
        ("a name", "type: ExternalName, externalName: example.com", ""),
    ];
    for (name, spec, expected) in cases {
        let service =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{{spec}, ports: [{{port: 80}}]}}");
        let compiled = compiled(&[&service]);
        assert!(compiled.state.services.is_empty() && compiled.state.frontends.is_empty(), "{name}");
        assert_eq!(codes(&compiled).join(" "), expected, "{name}");
    }
}

#[test]
fn two_services_cannot_have_one_address() {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}"
        )
    };
    let alone = compiled(&[&service("zeta")]);
    let text = join(&[&service("alpha"), &service("zeta")]);
    let owner = |compiled: &super::Compiled| compiled.state.frontends.values().next().unwrap().name.clone();
    let fresh = compile_text(&text, &State::default());
    assert_eq!((owner(&fresh).as_str(), codes(&fresh)), ("alpha", vec!["CAN0312 spec".to_owned()]));
    assert_eq!(owner(&compile_text(&text, &alone.state)), "zeta", "who was there first stays");
}

#[test]
fn endpoints_of_service_entries() {
    let entry = |rest: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec: {{hosts: [api.example.com], addresses: [192.0.2.7], ports: [{{number: 443, name: tls, protocol: TLS, targetPort: 8443}}], {rest}}}"
        )
    };
    let workload = "apiVersion: networking.istio.io/v1beta1\nkind: WorkloadEntry\nmetadata: {name: vm, labels: {app: api}}\nspec: {address: 10.5.0.9, ports: {tls: 9443}, weight: 3}";
    let chosen = pod("api", "v1", "10.5.0.8");
    let cases = [
        (
            "inline",
            "resolution: STATIC, endpoints: [{address: 10.5.0.1}, {address: 10.5.0.2, weight: 5, ports: {tls: 1443}}]",
            "10.5.0.1:8443 10.5.0.2:1443*5",
        ),
        ("weight 0 is not set", "resolution: STATIC, endpoints: [{address: 10.5.0.1, weight: 0}]", "10.5.0.1:8443"),
        ("addresses under DNS", "resolution: DNS, endpoints: [{address: 10.5.0.1}]", "10.5.0.1:8443"),
        (
            "selected workloads and Pods",
            "resolution: STATIC, workloadSelector: {labels: {app: api}}",
            "10.5.0.8:8443 10.5.0.9:9443*3",
        ),
        ("an empty selector selects nothing", "resolution: STATIC, workloadSelector: {}", ""),
    ];
    for (name, rest, expected) in cases {
        let compiled = compiled(&[&entry(rest), workload, &chosen]);
        assert_eq!(summary(&compiled.state), "default/api.example.com:443/tcp default{default:1}", "{name}");
        assert_eq!(endpoints_of(&compiled, "default"), expected, "{name}");
    }
    let cases = [
        (
            "names are not resolved",
            "resolution: DNS, endpoints: [{address: a.example.com}]",
            "CAN0301 spec.endpoints[0].address",
        ),
        ("nor the host itself", "resolution: DNS", "CAN0301 spec.resolution"),
        ("NONE passes untouched", "resolution: NONE", ""),
    ];
    for (name, rest, expected) in cases {
        let compiled = compiled(&[&entry(rest)]);
        assert!(compiled.state.services.is_empty(), "{name}");
        assert_eq!(codes(&compiled).join(" "), expected, "{name}");
    }
}

#[test]
fn subsets_of_a_service_entry_go_by_the_labels_of_its_endpoints() {
    let world = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example.com]
  addresses: [192.0.2.9]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.6.0.1, labels: {version: old}}, {address: 10.6.0.2, labels: {version: new}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db.example.com, subsets: [{name: old, labels: {version: old}}, {name: new, labels: {version: new}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.example.com]
  tcp: [{route: [{destination: {host: db.example.com, subset: old}, weight: 99}, {destination: {host: db.example.com, subset: new}, weight: 1}]}]
";
    let compiled = compiled(&[world]);
    assert_eq!(summary(&compiled.state), "default/db.example.com:5432/tcp tcp[0]{new:1 old:99}");
    assert_eq!(endpoints_of(&compiled, "new"), "10.6.0.2:5432");
}

#[test]
fn who_publishes_what_is_not_ready_publishes_what_is_ending() {
    let service = super::REVIEWS.replace("selector:", "publishNotReadyAddresses: true\n  selector:");
    let endpoints = "[{addresses: [10.0.1.1], conditions: {ready: true, serving: false, terminating: true}}, {addresses: [10.0.1.2]}]";
    let compiled = compiled(&[&service, &slice("a", "", endpoints)]);
    assert_eq!(endpoints_of(&compiled, "default"), "10.0.1.1:8080 10.0.1.2:8080");
}

#[test]
fn the_address_of_a_pod_that_has_ended_is_nobodys() {
    let done = pod("reviews", "v2", "10.0.1.1").replace("status: {", "status: {phase: Succeeded, ");
    let compiled = compiled(&[super::REVIEWS, &done, &slice("a", "", "[{addresses: [10.0.1.1]}]"), &route(SPLIT)]);
    assert_eq!(endpoints_of(&compiled, "v2"), "");
}
