//! Tests of `compile`: worlds of a few objects, and what becomes of their service in one line of text.
use std::fmt::Write as _;

use super::{Compiled, ProxyAddresses, compile};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::testing,
    state::{Service, State},
};

mod addresses;
mod conformance;
mod delegates;
mod endpoints;
mod gateway_api;
mod held;
mod matching;
mod names;
mod properties;
mod proxy;
mod reach;
mod settings;
mod tls;
mod traffic;
mod weights;

/// A Service `reviews` at 10.96.0.1:9080, Pods of v1 (two), v2 and v3, and their subsets.
const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  clusterIP: 10.96.0.1
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
";

/// A Pod of an application.
fn pod(app: &str, version: &str, address: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {app}-{version}-{name}, labels: {{app: {app}, version: {version}}}}}
status: {{podIP: '{address}'}}
",
        name = address.replace(['.', ':'], "-")
    )
}

/// [`REVIEWS`] with its Pods.
fn reviews() -> String {
    let pods = [("v1", "10.0.1.1"), ("v1", "10.0.1.2"), ("v2", "10.0.2.1"), ("v3", "10.0.3.1")];
    let pods: Vec<String> = pods.iter().map(|(version, address)| pod("reviews", version, address)).collect();
    join(&[REVIEWS, &pods.join("---")])
}

/// A VirtualService for `reviews`, given the rest of its spec.
fn route(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n{spec}"
    )
}

fn join(documents: &[&str]) -> String {
    documents.join("\n---\n")
}

/// Compiles a text without a proxy; diagnostics of both stages together.
fn compile_text(yaml: &str, last: &State) -> Compiled {
    compile_for(yaml, last, &ProxyAddresses::default())
}

fn compile_for(yaml: &str, last: &State, proxy: &ProxyAddresses) -> Compiled {
    let (model, found) = testing::read(yaml);
    let mut compiled = compile(&model, last, proxy);
    compiled.diagnostics.extend(found);
    compiled
}

fn compiled(documents: &[&str]) -> Compiled {
    compile_text(&join(documents), &State::default())
}

/// `id rule<sources>{version:weight …} …`, a service a line.
fn summary(state: &State) -> String {
    let lines: Vec<String> = state.services.iter().map(|(id, service)| format!("{id} {}", rules(service))).collect();
    lines.join("\n")
}

fn rules(service: &Service) -> String {
    let mut text = String::new();
    for rule in &service.rules {
        let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
        let sources = if sources.is_empty() { String::new() } else { format!("<{}>", sources.join(",")) };
        let weights: Vec<String> = rule.split.weights.iter().map(|(name, weight)| format!("{name}:{weight}")).collect();
        let gap = if text.is_empty() { "" } else { " " };
        write!(text, "{gap}{}{sources}{{{}}}", rule.name, weights.join(" ")).unwrap();
    }
    text
}

/// The rules of the only service.
fn only(compiled: &Compiled) -> String {
    let services: Vec<&Service> = compiled.state.services.values().collect();
    match services.as_slice() {
        [service] => rules(service),
        other => panic!("{} services: {:#?}", other.len(), compiled.diagnostics),
    }
}

/// Endpoints of a version of the only service, as text.
fn endpoints_of(compiled: &Compiled, version: &str) -> String {
    let service = compiled.state.services.values().next().expect("a service");
    let version = service.versions.get(version).unwrap_or_else(|| panic!("no version {version}: {service:#?}"));
    let endpoints = version.endpoints.iter().map(|(address, weight)| match weight {
        1 => address.to_string(),
        weight => format!("{address}*{weight}"),
    });
    endpoints.collect::<Vec<_>>().join(" ")
}

/// `CODE field` of everything that is at least a warning.
fn codes(compiled: &Compiled) -> Vec<String> {
    let loud = compiled.diagnostics.iter().filter(|diagnostic| diagnostic.severity > Severity::Info);
    loud.map(|Diagnostic { code, field, .. }| format!("{code} {field}")).collect()
}
