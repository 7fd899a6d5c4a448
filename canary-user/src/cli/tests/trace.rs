//! `canary trace --http` against a whole agent with a proxy.
use std::fs;

use serde_json::Value;

use super::{Exit, Whole, canary};

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts: [helloworld]
  http:
  - name: jason
    match:
    - headers:
        cookie: {regex: '.*user=jason.*'}
    route:
    - destination: {host: helloworld, subset: v2}
  - match:
    - uri: {prefix: /gone}
    directResponse: {status: 410}
  - match:
    - uri: {prefix: /only}
    route:
    - destination: {host: helloworld, subset: v3}
  - match:
    - method: {exact: GET}
    route:
    - destination: {host: helloworld, subset: v1}
      weight: 90
    - destination: {host: helloworld, subset: v2}
      weight: 10
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: helloworld
spec:
  host: helloworld
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
";

fn proxied() -> Whole {
    let whole = Whole::proxied();
    fs::write(whole.config().join("route.yaml"), RULES).unwrap();
    whole.wait_for(|whole| canary(whole, "get versions").1.contains("jason"));
    whole
}

#[test]
fn a_request_is_explained_in_every_form() {
    let whole = proxied();
    let file = whole.config().join("route.yaml").display().to_string();
    let object = "VirtualService default/helloworld";
    let head = "GET /a → 10.96.0.10:5000\n  service   default/helloworld:5000/tcp\n";
    assert_eq!(
        canary(&whole, "trace --to 10.96.0.10:5000 --http /a"),
        (
            Exit::Done,
            format!(
                "{head}  not       jason (index 0; {object}, {file}:8): header `cookie` is missing, not all of `.*user=jason.*`\n  \
                 not       http[1] (index 1; {object}, {file}:14): path is `/a`, not with the prefix `/gone`\n  \
                 not       http[2] (index 2; {object}, {file}:17): path is `/a`, not with the prefix `/only`\n  \
                 rule      http[3] (index 3; {object}, {file}:21)\n  \
                 why       rule http[3] matches; its versions get their shares of such requests\n\
                 VERSION   WEIGHT   SHARE   ENDPOINTS\n\
                 v1        90       90%     3\n\
                 v2        10       10%     1\n"
            )
        )
    );
    let (_, wide) = canary(&whole, "trace --to 10.96.0.10:5000 --http /a -o wide");
    assert!(wide.ends_with("v2        10       10%     1           exact      10.244.2.1:5000\n"), "{wide}");
    let cookie = "trace --to 10.96.0.10:5000 --http /a -H cookie:user=jason";
    let names = (Exit::Done, "version/default/helloworld:5000/tcp/jason/v2\n".to_owned());
    assert_eq!(canary(&whole, &format!("{cookie} -o name")), names);
    let (_, text) = canary(&whole, &format!("{cookie} -o json"));
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((json["rule"]["name"].as_str(), json["rule"]["line"].as_u64()), (Some("jason"), Some(8)));
    assert_eq!((json["versions"][0]["share"].as_f64(), json["passed"].as_array().unwrap().len()), (Some(1.0), 0));
    let (_, yaml) = canary(&whole, &format!("{cookie} -o yaml"));
    assert!(yaml.contains("action: route\n") && yaml.contains("version: v2"), "{yaml}");
}

#[test]
fn what_no_endpoint_would_answer_is_a_failure() {
    let whole = proxied();
    for (what, exit, why) in [
        ("/gone/x", Exit::Done, "rule http[1] matches and answers 410"),
        ("/only", Exit::Failed, "rule http[2] matches, but no version of it has endpoints: 503 with UH"),
    ] {
        let (done, said) = canary(&whole, &format!("trace --to 10.96.0.10:5000 --http {what}"));
        assert!(done == exit && said.contains(why), "{what}: {said}");
    }
    let (exit, said) = canary(&whole, "trace --to 10.96.0.99:5000 --http /a");
    assert!(exit == Exit::Failed && said.contains("no service answers at this address"), "{said}");
    let flows = Whole::start();
    flows.wait_for(|flows| canary(flows, "get versions").1.contains("v2"));
    let (exit, said) = canary(&flows, "trace --to 10.96.0.10:5000 --http /a");
    assert!(exit == Exit::Failed && said.contains("the kernel splits its connections"), "{said}");
}

#[test]
fn shares_of_requests_are_listed_changed_and_taken_back() {
    let whole = proxied();
    let (_, listed) = canary(&whole, "get versions");
    assert!(listed.contains("http[3]   v2        10       10%     -       0          -"), "{listed}");
    let (exit, changed) = canary(&whole, "set-weight helloworld v1=50 v2=50 --rule http[3] --dry-run");
    assert!(exit == Exit::Done && changed.contains("90 → 50") && changed.contains("10% → 50%"), "{changed}");
    let (exit, changed) = canary(&whole, "set-weight helloworld v1=50 v2=50 --rule http[3]");
    assert_eq!(exit, Exit::Done, "{changed}");
    let (_, history) = canary(&whole, "history helloworld");
    assert!(history.contains("http[3]: v1=90 v2=10 → v1=50 v2=50"), "{history}");
    assert_eq!(canary(&whole, "undo").0, Exit::Done);
    let (_, listed) = canary(&whole, "get versions");
    assert!(listed.contains("http[3]   v2        10       10%"), "{listed}");
}
