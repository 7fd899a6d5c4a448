//! Addresses that are not answered at.
use std::path::Path;

use super::{REVIEWS, compile_for, join, pod, summary};
use crate::{
    compile::{Compiled, ProxyAddresses, compile},
    model::Model,
    source,
    state::State,
};

/// Compiles objects of a cluster.
pub(super) fn in_cluster(documents: &[&str]) -> Compiled {
    let snapshot = source::parse(&join(documents), Path::new("kubernetes:objects"));
    let (model, found) = Model::read(&snapshot);
    let mut compiled = compile(&model, &State::default(), &ProxyAddresses::default());
    compiled.diagnostics.extend(found);
    compiled
}

fn entry(addresses: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: mine}}\nspec: {{hosts: [e.example], addresses: [{addresses}], ports: [{{number: 53, name: tcp}}], resolution: STATIC, endpoints: [{{address: 10.9.9.9}}]{more}}}"
    )
}

#[test]
fn a_service_entry_of_a_cluster_takes_nobodys_address() {
    let node = pod("node", "x", "192.0.2.9").replace("status:", "spec: {hostNetwork: true}\nstatus:");
    for (addresses, more, answered) in [
        ("240.0.0.1", "", true),
        ("10.96.0.1", "", false),
        ("192.0.2.9", "", false),
        ("127.0.0.1", "", false),
        ("169.254.169.254", "", false),
        ("'::1'", "", false),
        ("240.0.0.1", ", exportTo: ['.']", false),
    ] {
        let compiled = in_cluster(&[REVIEWS, &node, &entry(addresses, more)]);
        let frontends: Vec<String> = compiled.state.frontends.keys().map(ToString::to_string).collect();
        let expected: &[&str] = if answered { &["240.0.0.1:53/tcp"] } else { &[] };
        assert_eq!(frontends, expected, "{addresses}{more}");
        let said = compiled.diagnostics.iter().any(|found| found.code == "CAN0312");
        assert_eq!(said, !answered, "{addresses}{more}: {:?}", compiled.diagnostics);
    }
    // A directory is its owner's.
    let found = compile_for(&entry("127.0.0.1", ""), &State::default(), &ProxyAddresses::default());
    assert_eq!(found.state.frontends.len(), 1);
}

#[test]
fn the_proxy_never_asks_itself() {
    let proxy: ProxyAddresses = ["192.0.2.1:15001".parse().unwrap()].into_iter().collect();
    let entry = entry("240.0.0.1, 10.9.9.9", "").replace("name: tcp", "name: http");
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: e, namespace: mine}\nspec: {hosts: [e.example], http: [{MATCH route: [{destination: {host: e.example}}]}]}";
    let frontends = |route: &str| -> Vec<String> {
        let compiled = compile_for(&join(&[&entry, route]), &State::default(), &proxy);
        assert!(!summary(&compiled.state).is_empty());
        compiled.state.frontends.keys().map(ToString::to_string).collect()
    };
    // In the kernel an endpoint that is addressed is what it is.
    assert_eq!(frontends(&route.replace("MATCH", "")), ["10.9.9.9:53/tcp", "240.0.0.1:53/tcp"]);
    let by_request = route.replace("MATCH", "match: [{uri: {prefix: /x}}],");
    assert_eq!(frontends(&by_request), ["240.0.0.1:53/tcp"]);
}

#[test]
fn some_addresses_of_a_balancer_are_its_own() {
    for (status, spec, answered) in [
        ("{ip: 203.0.113.1}", "", true),
        ("{ip: 203.0.113.1, ipMode: VIP}", "", true),
        ("{ip: 203.0.113.1, ipMode: Proxy}", "", false),
        ("{ip: 203.0.113.1}", "loadBalancerSourceRanges: [198.51.100.0/24]", false),
    ] {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: 10.96.0.1\n  ports: [{{port: 80}}]\n  {spec}\nstatus: {{loadBalancer: {{ingress: [{status}]}}}}"
        );
        let compiled = compile_for(&service, &State::default(), &ProxyAddresses::default());
        assert_eq!(compiled.state.frontends.len(), if answered { 2 } else { 1 }, "{status} {spec}");
    }
}
