//! Istio's own samples compile to the weights that their text says; the blog's example runs as published.
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use super::{codes, compile_for, compiled, endpoints_of, only, pod, summary};
use crate::{
    compile::{ProxyAddresses, compile},
    model::Model,
    model::testing,
    state::{State, Text},
};

fn file(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sample(name: &str) -> String {
    file(&format!("tests/conformance/samples/{name}.yaml"))
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.3.1, selector: {{app: {name}}}, ports: [{port}]}}"
    )
}

#[test]
fn bookinfo() {
    let cases = [
        ("virtual-service-reviews-90-10", "http[0]{v1:90 v2:10}"),
        ("virtual-service-reviews-80-20", "http[0]{v1:80 v2:20}"),
        ("virtual-service-reviews-50-v3", "http[0]{v1:50 v3:50}"),
        ("virtual-service-reviews-v3", "http[0]{v3:1}"),
    ];
    let pods: Vec<String> = (1..=3).map(|n| pod("reviews", &format!("v{n}"), &format!("10.0.{n}.1"))).collect();
    let world = [service("reviews", "{name: http, port: 9080}"), pods.join("---"), sample("destination-rule-all")]
        .join("\n---\n");
    for (name, expected) in cases {
        let compiled = compiled(&[&world, &sample(name)]);
        assert_eq!(only(&compiled), expected, "{name}");
        assert_eq!(codes(&compiled), [""; 0], "{name}");
        assert_eq!(compiled.services.values().next().unwrap().rules[0].field, "spec.http[0]", "{name}");
    }
    let proxy: ProxyAddresses = ["192.0.2.1:15001".parse().unwrap()].into_iter().collect();
    for name in ["virtual-service-reviews-jason-v2-v3", "virtual-service-reviews-test-v2"] {
        let compiled = compiled(&[&world, &sample(name)]);
        assert!(compiled.state.services.is_empty(), "{name} needs the request");
        assert_eq!(codes(&compiled), ["CAN0301 spec.http[0].match[0].headers"], "{name}");
        let by_proxy = compile_for(&format!("{world}\n---\n{}", sample(name)), &State::default(), &proxy);
        assert_eq!((only(&by_proxy).as_str(), codes(&by_proxy)), ("proxy{(proxy):1}", vec![]), "{name}");
        let http = by_proxy.state.services.into_values().next().unwrap().http.unwrap();
        let user = BTreeMap::from([("end-user".to_owned(), Text::Exact("jason".into()))]);
        let tests: Vec<Vec<_>> =
            http.rules.iter().map(|rule| rule.matches.iter().map(|it| &it.headers).collect()).collect();
        assert_eq!(tests, [vec![&user], vec![]], "{name}");
    }
}

#[test]
fn helloworld_sample() {
    let world = sample("helloworld").replace(
        "  ports:\n  - port: 5000\n    name: http\n",
        "  clusterIP: 10.96.3.2\n  ports:\n  - port: 5000\n    name: http\n",
    );
    let compiled = compiled(&[&world, &pod("helloworld", "v1", "10.0.0.1"), &sample("helloworld-gateway")]);
    // Its VirtualService is for a gateway only: connections to the Service go to everybody.
    assert_eq!(summary(&compiled.state), "default/helloworld:5000/tcp default{default:1}");
    assert_eq!(endpoints_of(&compiled, "default"), "10.0.0.1:5000");
    let skipped: Vec<&str> = compiled.diagnostics.iter().map(|found| found.object.as_str()).collect();
    assert_eq!(
        skipped,
        ["Deployment default/helloworld-v1", "Deployment default/helloworld-v2", "Gateway default/helloworld-gateway"]
    );
}

#[test]
fn tcp_echo() {
    // Gateway and DestinationRule; the VirtualService in it is the one before the split, of the same name.
    let rules = sample("tcp-echo-all-v1");
    let (rules, _) = rules.rsplit_once("---").unwrap();
    let split = sample("tcp-echo-20-v2");
    let world = sample("tcp-echo-services")
        .replace("  ports:\n  - name: tcp\n", "  clusterIP: 10.96.3.3\n  ports:\n  - name: tcp\n");
    let by_gateway = compiled(&[&world, rules, &split]);
    let plain = "default/tcp-echo:9000/tcp default{default:1}\ndefault/tcp-echo:9001/tcp default{default:1}";
    assert_eq!(summary(&by_gateway.state), plain);
    // The same rules for the mesh and for the Service's own port.
    let split = split.replace("tcp-echo-gateway", "mesh").replace("\"*\"", "tcp-echo").replace("31400", "9000");
    let in_mesh = compiled(&[&world, rules, &split]);
    let expected = "default/tcp-echo:9000/tcp tcp[0]{v1:80 v2:20}\ndefault/tcp-echo:9001/tcp default{default:1}";
    assert_eq!(summary(&in_mesh.state), expected);
}

#[test]
fn the_blogs_example_runs_as_published() {
    let names = ["service", "virtual-service", "destination-rule", "pods-v1", "pods-v2"];
    let texts: Vec<String> =
        names.iter().map(|name| file(&format!("../docs/examples/helloworld/{name}.yaml"))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let compiled = compiled(&texts);
    assert_eq!(summary(&compiled.state), "default/helloworld:5000/tcp http[0]{v1:90 v2:10}");
    assert_eq!(endpoints_of(&compiled, "v1"), "10.244.1.11:5000 10.244.1.12:5000 10.244.1.13:5000");
    assert_eq!(endpoints_of(&compiled, "v2"), "10.244.2.21:5000");
    assert_eq!(compiled.diagnostics, []);
    let report = compiled.services.values().next().unwrap();
    let destinations: Vec<(&str, &str)> =
        report.rules[0].destinations.iter().map(|(name, field)| (name.as_str(), field.as_str())).collect();
    assert_eq!(destinations, [("v1", "spec.http[0].route[0]"), ("v2", "spec.http[0].route[1]")]);
}

#[test]
fn the_route_policy_of_the_reference_is_an_example_that_compiles() {
    let example = file("../docs/examples/route-policy/route-policy.yaml");
    let reference = file("../docs/reference-resources.md");
    let block = reference.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(example.ends_with(block), "{block}");
    let names = ["service", "destination-rule", "pods-v1", "pods-v2"];
    let texts = names.map(|name| file(&format!("../docs/examples/helloworld/{name}.yaml")));
    let compiled = compiled(&[&texts.join("\n---\n"), &example]);
    assert_eq!(only(&compiled), "office<192.0.2.0/24>{v1:50 v2:50} http[1]{v1:1}");
    assert_eq!(compiled.diagnostics, []);
}

#[test]
fn every_code_is_in_the_reference() {
    let reference = file("../docs/reference-resources.md");
    let sources = [
        "compile.rs",
        "compile/refusal.rs",
        "compile/rules.rs",
        "compile/rules/http.rs",
        "compile/service.rs",
        "compile/versions.rs",
    ];
    let more = ["model.rs", "model/fields.rs", "model/problem.rs"];
    let mut codes = 0;
    for name in sources.into_iter().chain(more) {
        for word in file(&format!("src/{name}")).split('"').filter(|word| word.len() == 7) {
            if word.starts_with("CAN0") || word.starts_with("IST0") {
                assert!(reference.contains(&format!("| `{word}` |")), "{name}: {word}");
                codes += 1;
            }
        }
    }
    assert!(codes >= 18, "{codes} codes found: is this test still looking at the right files?");
}

#[test]
fn the_blogs_mis_indented_service_is_diagnosed_and_not_guessed() {
    let (model, found) = testing::read(&file("../docs/examples/broken/service.yaml"));
    let text = |needed: &[&str]| {
        let said = found.iter().map(ToString::to_string).any(|text| needed.iter().all(|part| text.contains(part)));
        assert!(said, "{needed:?}: {found:#?}");
    };
    text(&["Service default/helloworld", "test.yaml:4", "`metadata`", "`name`", "`labels`", "top level", "indent"]);
    text(&["test.yaml:11", "`...` stands for something that was left out"]);
    assert_eq!(compile(&model, &State::default(), &ProxyAddresses::default()).state, State::default());
}

#[test]
fn validation_scores() {
    let (mut hits, mut misses, mut alarms, mut quiet) = (0, Vec::new(), Vec::new(), 0);
    for name in ["destinationrule-invalid", "destinationrule-valid", "serviceentry-invalid", "serviceentry-valid"] {
        let text = file(&format!("tests/conformance/validation/{name}.yaml"));
        // go-yaml takes a bare `001:db8::` before `]` as text; by YAML 1.2 its last `:` makes it a mapping.
        let text = text.replace("001:db8::", "'001:db8::'");
        for document in text.split("\n---\n") {
            let invalid = document.lines().any(|line| line.starts_with("_err"));
            let mut snapshot = testing::snapshot(document);
            let [object] = snapshot.objects.as_mut_slice() else { panic!("{name}: {document}") };
            // What is expected is no field of the object, and must not be what is found.
            Arc::make_mut(object).body.as_object_mut().unwrap().remove("_err");
            let object = object.clone();
            let (model, _) = Model::read(&snapshot);
            match (invalid, model.broken().len() == 1) {
                (true, true) => hits += 1,
                (true, false) => misses.push(object.id()),
                (false, true) => alarms.push(format!("{}: {:?}", object.id(), Model::read(&snapshot).1)),
                (false, false) => quiet += 1,
            }
        }
    }
    let (found, wanted) = (hits + alarms.len(), hits + misses.len());
    println!("validation: precision {hits}/{found}, recall {hits}/{wanted}, {quiet} valid accepted");
    assert_eq!((misses, alarms), (Vec::<String>::new(), Vec::<String>::new()));
}
