//! Conditions, beside those that Istio's own test data expects.
use super::{
    super::{compile_for, join},
    proxy,
};
use crate::{
    compile::{self, ProxyAddresses},
    model::testing,
    source::cluster::Says,
    state::State,
};

/// What objects say of themselves.
pub(super) fn statuses(text: &str, proxy: &ProxyAddresses) -> Vec<(String, Says)> {
    let compiled = compile_for(text, &State::default(), proxy);
    compile::statuses(&testing::read(text).0, &compiled.services)
}

/// Conditions that Istio's test data expects: `Kind namespace/name`, the parent, the condition's type, status and reason.
fn conditions(object: &str, parents: &serde_json::Value, controller: &str) -> Vec<String> {
    let text =
        |of: &serde_json::Value, field: &str| of.get(field).and_then(|it| it.as_str()).unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for parent in parents.as_array().into_iter().flatten() {
        assert_eq!(text(parent, "controllerName"), controller);
        for condition in parent.get("conditions").and_then(|it| it.as_array()).into_iter().flatten() {
            let [kind, status, reason] = ["type", "status", "reason"].map(|field| text(condition, field));
            if matches!(kind.as_str(), "Accepted" | "ResolvedRefs") {
                let to = parent.get("parentRef").cloned().unwrap_or_default();
                found.push(format!("{object} {}/{} {kind}={status} {reason}", text(&to, "kind"), text(&to, "name")));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn statuses_are_those_of_istios_test_data() {
    let file = |name: &str| {
        let path =
            std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/gateway-api").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let mut compared = 0;
    for name in ["empty-backend-refs", "reference-policy-service", "tcp", "weighted", "route-precedence"] {
        let input = file(&format!("{name}.yaml"))
            .replace("istio.io/gateway-controller", "canary.io/gateway-controller")
            .replace("value: istio-ingressgateway\n    type: Hostname", "value: 192.0.2.1");
        let mut documents = vec![input.clone()];
        if !input.contains("kind: GatewayClass") {
            documents.push("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\nspec: {controllerName: canary.io/gateway-controller}".into());
        }
        // Istio's tests know these from elsewhere.
        for namespace in ["allowed-1", "allowed-2"] {
            documents.push(format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{istio.io/test-name-part: allowed}}}}"));
        }
        for namespace in ["default", "istio-system", "service", "allowed-1", "allowed-2"] {
            for service in [
                "httpbin",
                "httpbin-other",
                "httpbin-zero",
                "httpbin-alt",
                "foo-svc",
                "my-svc",
                "svc1",
                "svc2",
                "svc3",
                "svc4",
                "a-example",
                "b-example",
            ] {
                documents.push(format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: {namespace}}}\nspec: {{ports: [{{name: http, port: 80}}]}}"));
            }
        }
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let statuses = statuses(&join(&documents), &proxy());
        let expected = testing::snapshot(&file(&format!("{name}.status.yaml.golden")));
        for object in expected.objects.iter().filter(|object| object.kind.ends_with("Route")) {
            let wanted = object.body.pointer("/status/parents").cloned().unwrap_or_default();
            let wanted = conditions(&object.id(), &wanted, "istio.io/gateway-controller");
            let mine = statuses.iter().find(|(id, _)| *id == object.id()).map(|(_, says)| match says {
                Says::Parents(parents) => parents.clone().into(),
                Says::Fields(fields) => fields.clone(),
            });
            let mine = conditions(&object.id(), &mine.unwrap_or_default(), "canary.io/gateway-controller");
            assert_eq!(mine, wanted, "{name}");
            compared += wanted.len();
        }
    }
    println!("Gateway API: {compared} conditions are the same");
    assert!(compared >= 20, "{compared}");
}
