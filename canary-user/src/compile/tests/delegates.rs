//! Rules that a VirtualService leaves to another one: what both together come to, and what is said when they do not fit.
use super::{
    codes, compile_for, join, only, pod,
    proxy::{here, http, rule},
    reviews,
};
use crate::{compile::Compiled, state::State};

/// A VirtualService with this spec; `V1`, `V2` stand for routes.
fn vs(name: &str, spec: &str) -> String {
    let route = |name: &str| format!("route: [{{destination: {{host: reviews, subset: {name}}}}}]");
    let spec = spec.replace("V1", &route("v1")).replace("V2", &route("v2"));
    format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}")
}

/// A root with these rules and its delegate `d` with those, with a proxy.
fn both(root: &str, delegate: &str) -> Compiled {
    let root = vs("reviews", &format!("hosts: [reviews], http: [{root}]"));
    let delegate = vs("d", &format!("http: [{delegate}]"));
    compile_for(&join(&[&reviews(), &root, &delegate]), &State::default(), &here())
}

const TO_D: &str = "delegate: {name: d}";

#[test]
fn root_and_delegate_are_one() {
    let cases = [
        (
            "both matches",
            "{match: [{uri: {prefix: /a}}], TO_D}, {V1}",
            "{match: [{uri: {prefix: /a/b}}], V2}, {V1}",
            "http[0].http[0]<uri^/a/b> {v2:1}; http[0].http[1]<uri^/a> {v1:1}; http[1] {v1:1}",
        ),
        (
            "of different things",
            "{match: [{uri: {prefix: /a}, headers: {a: {exact: x}}}], TO_D}, {V1}",
            "{match: [{method: {exact: GET}, headers: {b: {regex: '.*'}}, queryParams: {q: {exact: z}}, withoutHeaders: {c: {}}}], V2}",
            "http[0].http[0]<uri^/a method=GET a=x b~.* !c+ ?q=z> {v2:1}; http[1] {v1:1}",
        ),
        (
            "alternatives of both",
            "{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}, {method: {exact: PUT}}], TO_D}",
            "{match: [{uri: {exact: /a/x}}, {uri: {exact: /b/y}}], V2}",
            "http[0].http[0]<uri=/a/x | uri=/a/x method=PUT | uri=/b/y | uri=/b/y method=PUT> {v2:1}",
        ),
        (
            "names",
            "{name: r, match: [{uri: {prefix: /a}}], TO_D}",
            "{name: l, V2, match: [{uri: {exact: /a}}]}, {V1}",
            "r-l<uri=/a> {v2:1}; r<uri^/a> {v1:1}",
        ),
        (
            "what the delegate does not say is the root's",
            "{match: [{uri: {prefix: /a}}], TO_D, timeout: 3s, rewrite: {uri: /r}, headers: {request: {set: {x: root}}}}",
            "{V2, timeout: 1s, match: [{uri: {exact: /a}}]}, {V1, headers: {}, rewrite: {uri: /l}}, {redirect: {uri: /x}}",
            "http[0].http[0]<uri=/a> {v2:1} uri=/r >x=root 1000ms; http[0].http[1]<uri^/a> {v1:1} uri=/l 3000ms; http[0].http[2]<uri^/a> 301 uri=/x >x=root 3000ms",
        ),
        (
            "one rule that leads to it in two places",
            "{match: [{uri: {exact: /a}}], TO_D}, {match: [{uri: {exact: /b}}], TO_D}",
            "{V2}",
            "http[0].http[0]<uri=/a> {v2:1}; http[1].http[0]<uri=/b> {v2:1}",
        ),
        (
            "ports",
            "{match: [{port: 9080, uri: {exact: /a}}, {port: 1}], TO_D}, {V1}",
            "{match: [{port: 9080}], V2}",
            "http[0].http[0]<uri=/a> {v2:1}; http[1] {v1:1}",
        ),
    ];
    for (name, root, delegate, expected) in cases {
        let compiled = both(&root.replace("TO_D", TO_D), delegate);
        assert_eq!((codes(&compiled), http(&compiled).as_str()), (vec![], expected), "{name}");
    }
}

#[test]
fn the_kernel_follows_delegates_too() {
    let compiled = both(&format!("{{{TO_D}}}"), "{match: [{sourceLabels: {app: shop}}], V2}, {V1}");
    assert_eq!((only(&compiled).as_str(), codes(&compiled)), ("http[0].http[1]{v1:1}", vec![]));
    let report = compiled.services.values().next().unwrap();
    assert_eq!(report.delegates[0].object, "VirtualService default/d");
    assert_eq!(report.rules[0].field, "spec.http[0].http[1]");
    let shop = pod("shop", "v1", "10.8.0.1");
    let spec = format!("hosts: [reviews], http: [{{match: [{{sourceLabels: {{app: shop}}}}], {TO_D}}}, {{V1}}]");
    let world = [reviews(), shop, vs("reviews", &spec), vs("d", "http: [{V2}]")].join("\n---\n");
    let compiled = compile_for(&world, &State::default(), &here());
    assert_eq!(only(&compiled), "http[0].http[0]<10.8.0.1/32>{v2:1} http[1]{v1:1}");
}

#[test]
fn what_contradicts_the_root_is_left_out_and_said() {
    let cases = [
        ("uri: {prefix: /a}", "uri: {prefix: /b}"),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}"),
        ("uri: {exact: /a}", "uri: {prefix: /a}"),
        ("uri: {regex: /a}", "uri: {regex: /a}"),
        ("uri: {prefix: /a}", "uri: {regex: '/a.*'}"),
        ("uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a}"),
        ("method: {exact: GET}", "method: {exact: PUT}"),
        ("headers: {a: {exact: x}}", "headers: {A: {exact: y}}"),
        ("headers: {a: {}}", "headers: {a: {exact: y}}"),
        ("withoutHeaders: {a: {exact: x}}", "withoutHeaders: {a: {exact: y}}"),
        ("queryParams: {a: {exact: x}}", "queryParams: {a: {exact: y}}"),
        ("port: 9080", "port: 9081"),
        ("sourceLabels: {app: a}", "sourceLabels: {app: b}"),
        ("sourceNamespace: a", "uri: {exact: /a}"),
    ];
    for (root, leaf) in cases {
        let delegate = format!("{{match: [{{{leaf}}}], V1}}, {{V2}}");
        let compiled = both(&format!("{{match: [{{{root}}}], {TO_D}}}, {{V1}}"), &delegate);
        let found = compiled.diagnostics.iter().find(|found| found.code == "CAN0315").unwrap();
        let said = (found.object.as_str(), found.field.as_str());
        assert_eq!(said, ("VirtualService default/d", "spec.http[0]"), "{root} {leaf}");
        assert!(found.message.contains("`spec.http[0]` of VirtualService default/reviews"), "{found}");
        let service = compiled.state.services.values().next().unwrap();
        let names = service.http.iter().flat_map(|http| &http.rules).map(rule).collect::<Vec<_>>().join("; ");
        assert!(!names.contains("http[0].http[0]") && !only(&compiled).contains("http[0].http[0]"), "{root} {leaf}");
    }
}

#[test]
fn a_delegate_that_is_not_there_takes_only_its_own_rule_with_it() {
    let root = |to: &str| vs("reviews", &format!("hosts: [reviews], http: [{{{to}}}, {{V2}}]"));
    let hidden = vs("d", "exportTo: [other], http: [{V1}]");
    let hosts = vs("d", "hosts: [other], http: [{V1}]");
    let elsewhere = vs("d", "http: [{V1}]").replace("name: d", "name: d, namespace: other");
    let cases = [
        (TO_D, "", "is not known"),
        (TO_D, hidden.as_str(), "is not exported"),
        (TO_D, hosts.as_str(), "has `hosts`"),
        (TO_D, elsewhere.as_str(), "default/d is not known"),
    ];
    for (to, delegate, expected) in cases {
        let compiled = compile_for(&join(&[&reviews(), &root(to), delegate]), &State::default(), &here());
        let found = compiled.diagnostics.iter().find(|found| found.code == "IST0101").unwrap();
        assert_eq!((found.field.as_str(), only(&compiled).as_str()), ("spec.http[0].delegate", "http[1]{v2:1}"));
        assert!(found.message.contains(expected), "{found}");
    }
    let there = join(&[&reviews(), &root("delegate: {name: d, namespace: other}"), &elsewhere]);
    let there = there.replace("{host: reviews, subset: v1}", "{host: reviews.default.svc.cluster.local, subset: v1}");
    let compiled = compile_for(&there, &State::default(), &here());
    assert_eq!((only(&compiled).as_str(), codes(&compiled)), ("http[0].http[0]{v1:1}", vec![]));
    let nothing = vs("reviews", &format!("hosts: [reviews], http: [{{{TO_D}}}]"));
    let compiled = compile_for(&join(&[&reviews(), &nothing]), &State::default(), &here());
    assert_eq!(codes(&compiled), ["IST0101 spec.http[0].delegate"]);
    assert_eq!(only(&compiled), "default{default:1}");
}

#[test]
fn what_is_wrong_with_a_delegate_is_said_where_it_is_written() {
    let compiled = both(
        &format!("{{{TO_D}, timeout: 1s}}"),
        "{headers: {request: {set: {a: b}}}, route: [{destination: {host: reviews, subset: v9}}]}",
    );
    let mut said: Vec<_> = compiled.diagnostics.iter().map(|it| (it.object.as_str(), it.field.as_str())).collect();
    said.sort_unstable();
    let (root, delegate) = ("VirtualService default/reviews", "VirtualService default/d");
    assert_eq!(
        said,
        [
            (delegate, "spec.http[0].headers"),
            (delegate, "spec.http[0].route[0].destination.subset"),
            (root, "spec.http[0].timeout")
        ]
    );
    let lines: Vec<u32> = compiled.diagnostics.iter().map(|found| found.origin.line).collect();
    assert!(lines.iter().all(|line| *line > 0), "{lines:?}");
}

#[test]
fn an_invalid_delegate_keeps_the_last_good_state() {
    let good = both(&format!("{{{TO_D}}}"), "{V1}").state;
    let root = vs("reviews", &format!("hosts: [reviews], http: [{{{TO_D}}}]"));
    let wrong = [
        ("http: [{delegate: {name: e}}]", "CAN0001 spec.http[0].delegate"),
        ("gateways: [g], http: [{V2}]", "CAN0001 spec.gateways"),
        ("http: [{V2}], tcp: [{V2}]", "CAN0001 spec.tcp"),
        ("http: [{V2}], tls: [{V2, match: [{sniHosts: [a]}]}]", "CAN0001 spec.tls"),
        ("http: [{route: []}]", "CAN0001 spec.http[0]"),
    ];
    for (spec, code) in wrong {
        let compiled = compile_for(&join(&[&reviews(), &root, &vs("d", spec)]), &good, &here());
        assert_eq!(only(&compiled), "http[0].http[0]{v1:1}", "{spec}");
        assert!(codes(&compiled).contains(&code.to_owned()), "{spec}: {:?}", codes(&compiled));
        let held = compiled.diagnostics.iter().find(|found| found.code == "CAN0302").unwrap();
        assert_eq!(held.object, "VirtualService default/d");
    }
    let nameless = vs("reviews", "hosts: [reviews], http: [{delegate: {}}]");
    let compiled = compile_for(&join(&[&reviews(), &nameless]), &State::default(), &here());
    assert!(codes(&compiled).contains(&"CAN0001 spec.http[0].delegate.name".to_owned()));
}

#[test]
fn policies_and_cookies_of_the_root_hold_for_its_delegates_rules() {
    let policy = "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p}\nspec: {targetRef: {kind: VirtualService, name: reviews}, rules: [{name: 'http[0]', sources: [10.8.0.0/16]}]}";
    let cookies = r#"[{"rule": "http[0]", "match": {"c": {"exact": "1"}}}]"#;
    let root = vs("reviews", &format!("hosts: [reviews], http: [{{{TO_D}}}, {{V1}}]"))
        .replace("{name: reviews}", &format!("{{name: reviews, annotations: {{canary.io/cookies: '{cookies}'}}}}"));
    let compiled =
        compile_for(&join(&[&reviews(), &root, &vs("d", "http: [{V2}]"), policy]), &State::default(), &here());
    assert_eq!(http(&compiled), "http[0].http[0]<10.8.0.0/16 cookie c=1> {v2:1}; http[1] {v1:1}");
    assert_eq!(codes(&compiled), [""; 0]);
}

#[test]
fn what_is_inherited_means_what_it_means_in_the_root() {
    let root = "{match: [{uri: {prefix: /a}}], TO, mirror: {host: reviews, subset: v3}, headers: {request: {set: {host: reviews}}}}, {match: [{uri: {prefix: /b}}], TO, mirrors: [{destination: {host: nobody}}]}";
    let root = root.replace("TO", "delegate: {name: d, namespace: other}");
    let delegate = vs("d", "http: [{V1}]").replace("name: d", "name: d, namespace: other");
    let delegate = delegate.replace("host: reviews", "host: reviews.default.svc.cluster.local");
    let world = join(&[&reviews(), &vs("reviews", &format!("hosts: [reviews], http: [{root}]")), &delegate]);
    let compiled = compile_for(&world, &State::default(), &here());
    let (first, _) = http(&compiled).split_once("; ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(first.starts_with("http[0].http[0]<uri^/a> {v1:1} >host=reviews"), "{first}");
    let rules = &compiled.state.services.values().next().unwrap().http.as_ref().unwrap().rules;
    assert_eq!(rules[0].policy.mirrors[0].version, "v3");
    let [unknown] = compiled.diagnostics.as_slice() else { panic!("{:#?}", compiled.diagnostics) };
    assert_eq!((unknown.object.as_str(), unknown.code), ("VirtualService default/reviews", "IST0101"));
    assert_eq!(unknown.field, "spec.http[1].mirrors[0].destination.host");
    assert!(unknown.message.contains("`nobody.default.svc.cluster.local`"), "{unknown}");
}

#[test]
fn settings_of_a_delegate_are_reported() {
    let policy = "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p}\nspec: {targetRef: {kind: VirtualService, name: d}, rules: [{name: 'http[0]', sources: [10.8.0.0/16]}]}";
    let root = vs("reviews", &format!("hosts: [reviews], http: [{{{TO_D}}}]"));
    let delegate = vs("d", "http: [{V2}]").replace("{name: d}", "{name: d, annotations: {canary.io/drain: 9s}}");
    let compiled = compile_for(&join(&[&reviews(), &root, &delegate, policy]), &State::default(), &here());
    assert_eq!(codes(&compiled), ["CAN0005 metadata.annotations", "CAN0005 spec.targetRef"]);
    assert_eq!(only(&compiled), "http[0].http[0]{v2:1}");
}

#[test]
fn without_a_proxy_the_reference_is_what_cannot_be_followed() {
    let root = vs("reviews", &format!("hosts: [reviews], http: [{{{TO_D}}}]"));
    let delegate = vs("d", "http: [{match: [{uri: {exact: /a}}], V1}]");
    let compiled = super::compiled(&[&reviews(), &root, &delegate]);
    assert_eq!(codes(&compiled), ["CAN0301 spec.http[0].delegate"]);
    assert!(compiled.diagnostics[0].message.contains("the match on `uri`"), "{:?}", compiled.diagnostics);
}
