//! Properties: pure, whatever the order of objects, and the weights never depend on endpoints.
use proptest::prelude::*;

use super::{pod, summary};
use crate::{
    compile::{Compiled, ProxyAddresses},
    model::{Model, testing},
    source::Snapshot,
    state::{HttpAction, State},
};

fn compile(model: &Model, last: &State) -> Compiled {
    let proxy: ProxyAddresses = ["192.0.2.1:15001".parse().unwrap()].into_iter().collect();
    crate::compile::compile(model, last, &proxy)
}

/// Services, splits between their subsets, and Pods of them.
fn world() -> impl Strategy<Value = Vec<String>> {
    let service = (0_u8..3, 1_u32..1_000, 0_u32..1_000, proptest::collection::vec(0_u8..4, 0..4), any::<bool>());
    proptest::collection::vec(service, 1..6).prop_map(|services| {
        let mut documents = Vec::new();
        for (number, (port, v1, v2, pods, routed)) in services.into_iter().enumerate() {
            let port = ["http", "tcp", "web"][usize::from(port)];
            documents.push(format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\nspec: {{clusterIP: 10.96.0.{number}, selector: {{app: s{number}}}, ports: [{{name: {port}, port: 80}}]}}"));
            documents.push(format!("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s{number}}}\nspec: {{host: s{number}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}"));
            if routed {
                // Some need the request, and so the proxy.
                let first = if v1 % 3 == 0 { format!("{{match: [{{method: {{exact: GET}}}}], route: [{{destination: {{host: s{number}, subset: v2}}}}]}}, ") } else { String::new() };
                documents.push(format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s{number}}}\nspec: {{hosts: [s{number}], http: [{first}{{route: [{{destination: {{host: s{number}, subset: v1}}, weight: {v1}}}, {{destination: {{host: s{number}, subset: v2}}, weight: {v2}}}]}}]}}"));
            }
            documents.extend(pods.iter().enumerate().map(|(index, version)| {
                pod(&format!("s{number}"), &format!("v{version}"), &format!("10.1.{number}.{index}"))
            }));
        }
        documents
    })
}

fn snapshot(documents: &[String]) -> Snapshot {
    // One by one, so that the order does not change lines.
    Snapshot::merge(documents.iter().map(|document| testing::snapshot(document)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_objects_does_not_matter((documents, shuffled) in world().prop_flat_map(|documents| {
        (Just(documents.clone()), Just(documents).prop_shuffle())
    })) {
        let (model, found) = Model::read(&snapshot(&documents));
        let (other, also) = Model::read(&snapshot(&shuffled));
        prop_assert_eq!(compile(&model, &State::default()), compile(&other, &State::default()));
        prop_assert_eq!(found, also);
    }

    #[test]
    fn compiling_again_changes_nothing(documents in world()) {
        let (model, _) = Model::read(&snapshot(&documents));
        let once = compile(&model, &State::default());
        prop_assert_eq!(&compile(&model, &once.state), &once);
    }

    #[test]
    fn shares_do_not_depend_on_the_number_of_endpoints(documents in world(), more in 1_usize..9) {
        let before = compile(&Model::read(&snapshot(&documents)).0, &State::default());
        let mut scaled = documents.clone();
        scaled.extend((0..more).map(|index| pod("s0", "v1", &format!("10.2.0.{index}"))));
        let after = compile(&Model::read(&snapshot(&scaled)).0, &State::default());
        prop_assert_eq!(summary(&before.state), summary(&after.state));
        prop_assert_ne!(before.state, after.state, "the endpoints did change");
    }

    #[test]
    fn every_state_is_closed(documents in world()) {
        let state = compile(&Model::read(&snapshot(&documents)).0, &State::default()).state;
        for id in state.frontends.values() {
            prop_assert!(state.services.contains_key(id));
        }
        for service in state.services.values() {
            prop_assert!(service.rules.last().is_some_and(|rule| rule.sources.is_empty()));
            for rule in service.http.iter().flat_map(|http| &http.rules) {
                let HttpAction::Route(route) = &rule.action else { continue };
                prop_assert!(route.destinations.iter().all(|to| to.weight > 0 && service.versions.contains_key(&to.version)));
            }
            for rule in &service.rules {
                let sum: u64 = rule.split.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
                prop_assert!((1..=u64::from(u32::MAX)).contains(&sum));
                prop_assert!(rule.split.weights.windows(2).all(|pair| pair[0].0 < pair[1].0));
                prop_assert!(rule.split.weights.iter().all(|(name, weight)| *weight > 0 && service.versions.contains_key(name)));
            }
        }
    }

    #[test]
    fn no_text_makes_the_model_panic(text in "[a-z0-9.*:@ -]{0,12}", number in any::<i64>()) {
        let documents = [
            format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: ['{text}'], http: [{{name: '{text}', match: [{{port: {number}}}], route: [{{destination: {{host: '{text}', subset: '{text}'}}, weight: {number}}}]}}], tls: [{{match: [{{sniHosts: ['{text}']}}]}}], tcp: [{{match: [{{destinationSubnets: ['{text}']}}]}}]}}"),
            format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: b, annotations: {{canary.io/cookies: '[{{\"rule\": \"http[0]\", \"match\": {{\"{text}\": {{\"regex\": \"{text}\"}}}}}}]'}}}}\nspec: {{hosts: [b], http: [{{match: [{{uri: {{regex: '{text}'}}, headers: {{'{text}': {{prefix: '{text}'}}}}}}], timeout: '{text}', headers: {{request: {{set: {{'{text}': '%{text}'}}}}}}, directResponse: {{status: {number}, body: {{bytes: '{text}'}}}}}}, {{redirect: {{uri: '{text}', port: {number}, redirectCode: {number}}}}}]}}"),
            format!("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec: {{hosts: ['{text}'], addresses: ['{text}'], ports: [{{name: '{text}', number: {number}}}], resolution: STATIC, endpoints: [{{address: '{text}', weight: {number}}}]}}"),
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{canary.io/drain: '{text}'}}}}\nspec: {{clusterIP: '{text}', ports: [{{port: {number}, targetPort: '{text}'}}]}}"),
        ];
        let (model, _) = Model::read(&snapshot(&documents));
        let _ = compile(&model, &State::default());
    }
}
