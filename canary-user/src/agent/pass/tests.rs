//! What a pass wants, and what there is to say at the API server.
use std::path::Path;

use serde_json::Value;

use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}";

/// The objects of a text, as if a cluster held them.
fn cluster(text: &str) -> Snapshot {
    crate::source::parse(text, Path::new("kubernetes:all"))
}

fn remembered(snapshot: &Snapshot) -> Memory {
    want(snapshot, &Memory::default(), &ProxyAddresses::default()).into_memory()
}

impl Wanted {
    fn into_memory(self) -> Memory {
        Memory { state: self.state, objects: self.objects }
    }

    /// What an object says of itself.
    fn says(&self, object: &str) -> Option<Value> {
        let remark = self.remarks().into_iter().find(|it| it.object.id() == object)?;
        remark.says.map(|says| match says {
            Says::Parents(parents) => parents.into(),
            Says::Fields(fields) => fields,
        })
    }
}

/// `type=status reason` of the conditions of the first parent.
fn conditions(parents: Option<Value>) -> Vec<String> {
    let parents = parents.unwrap_or_default();
    let conditions = parents.pointer("/0/conditions").or_else(|| parents.pointer("/conditions"));
    let all = conditions.and_then(Value::as_array).into_iter().flatten();
    let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    all.map(|it| format!("{}={} {}", text(it, "type"), text(it, "status"), text(it, "reason"))).collect()
}

fn route(weight: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: split, generation: 7}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules: [{{backendRefs: [{{name: reviews, port: 80, weight: {weight}}}]}}]"
    )
}

/// With `--config` and `--kube` an object that is in both is an error at a place of the cluster, which is no file that
/// cannot be read.
#[test]
fn what_a_cluster_does_not_hold_any_more_is_deleted() {
    let service =
        |name: &str| cluster(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{}}"));
    let (stays, gone) = (service("stays"), service("gone"));
    let objects = stays.objects.iter().chain(&gone.objects).map(|it| (it.id(), Arc::clone(it))).collect();
    let memory = Memory { objects, ..Memory::default() };
    let twice = Snapshot::merge([stays.clone(), stays]);
    assert!(errors(&twice.diagnostics).next().is_some());
    let wanted = want(&twice, &memory, &ProxyAddresses::default());
    assert!(!wanted.objects.contains_key("Service default/gone"), "{:?}", wanted.objects.keys());
}

#[test]
fn an_invalid_object_says_so_of_what_is_written_now() {
    let good = cluster(&format!("{SERVICE}\n---\n{}", route("1")));
    let wanted = want(&good, &Memory::default(), &ProxyAddresses::default());
    let fine = ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs", "Programmed=True Programmed"];
    assert_eq!(conditions(wanted.says("HTTPRoute default/split")), fine);
    // Edited to something invalid, the last good one is in force; never valid, nothing is. Both say the same.
    let bad = cluster(&format!("{SERVICE}\n---\n{}", route("-1")));
    for memory in [remembered(&good), Memory::default()] {
        let wanted = want(&bad, &memory, &ProxyAddresses::default());
        let parents = wanted.says("HTTPRoute default/split").unwrap();
        let message = parents.pointer("/0/conditions/0/message").and_then(Value::as_str).unwrap_or_default().to_owned();
        assert!(message.starts_with("spec.rules[0].backendRefs[0].weight: "), "{message}");
        assert_eq!(conditions(Some(parents)), ["Accepted=False UnsupportedValue"]);
        let remarks = wanted.remarks();
        let remark = remarks.iter().find(|it| it.object.kind == "HTTPRoute").unwrap();
        assert_eq!(remark.object.body.pointer("/spec/rules/0/backendRefs/0/weight"), Some(&Value::from(-1)));
    }
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: canary}\nspec: {controllerName: canary.io/gateway-controller}";
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassName: canary, listeners: [{name: web, port: 0, protocol: HTTP}]}";
    let wanted = want(&cluster(&format!("{class}\n---\n{gateway}")), &Memory::default(), &ProxyAddresses::default());
    assert_eq!(conditions(wanted.says("Gateway default/g")), ["Accepted=False Invalid", "Programmed=False Invalid"]);
}

#[test]
fn what_others_read_is_theirs() {
    let theirs = [
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge}\nspec: {hosts: [reviews], gateways: [edge], http: [{rout: []}]}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edge}\nspec:\n  parentRefs: [{name: edge}]\n  rules: [{backendRefs: [{name: reviews, weight: -1}], filters: [{type: x}]}]",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec: {gatewayClassName: other, listeners: [{name: web, port: 0, protocol: HTTP}]}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: other}\nspec: {controllerName: example.com/other, nonsense: 1}",
    ];
    let text = theirs.join("\n---\n");
    let wanted = want(&cluster(&text), &Memory::default(), &ProxyAddresses::default());
    assert_eq!(wanted.diagnostics, []);
    assert_eq!(wanted.remarks(), []);
    // In a directory nobody else says it.
    let directory = crate::source::parse(&text, Path::new("all.yaml"));
    let found = want(&directory, &Memory::default(), &ProxyAddresses::default()).diagnostics;
    let objects: BTreeSet<&str> = errors(&found).map(|it| it.object.as_str()).collect();
    let routes = ["HTTPRoute default/edge", "VirtualService default/edge"];
    assert!(routes.iter().all(|it| objects.contains(it)), "{objects:?}");
}

#[test]
fn a_route_without_a_place_in_the_data_plane_is_not_programmed() {
    let good = cluster(&format!("{SERVICE}\n---\n{}", route("1")));
    let mut wanted = want(&good, &Memory::default(), &ProxyAddresses::default());
    let refused: Vec<Refused> = wanted
        .state
        .services
        .keys()
        .map(|service| Refused { service: service.clone(), why: "the pool is full".into(), kept: false })
        .collect();
    assert!(!refused.is_empty());
    wanted.refuse(&refused, &State::default());
    let conditions = conditions(wanted.says("HTTPRoute default/split"));
    assert!(conditions.contains(&"Programmed=False NotEnforced".to_owned()), "{conditions:?}");
    let remarks = wanted.remarks();
    let service = remarks.iter().find(|it| it.object.id() == "Service default/reviews").unwrap();
    assert!(service.problems.iter().any(|(code, text)| *code == "CAN0303" && text.contains("the pool is full")));
}
