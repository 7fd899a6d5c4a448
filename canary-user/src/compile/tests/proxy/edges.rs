//! Where the proxy begins and ends: families, what is held, and canary's own match on cookies.
use super::{
    super::{codes, compile_for, join, only, reviews, route},
    ProxyAddresses, TO_PROXY, V1, V2, here, http, service,
};
use crate::{compile::PROXY_VERSION, state::State};

#[test]
fn cookies_by_annotation() {
    let annotated = |rules: &str, annotation: &str| {
        let vs = route(&format!("  http: [{}]", rules.replace("V1", V1).replace("V2", V2)));
        let vs = vs.replace(
            "{name: reviews}",
            &format!("{{name: reviews, annotations: {{canary.io/cookies: '{annotation}'}}}}"),
        );
        join(&[&reviews(), &vs])
    };
    let blog = r#"[{"rule": "http[0]", "match": {"email": {"regex": ".*@some-company-name.com"}}}]"#;
    let cases = [
        ("{V2}, {V1}", blog, "http[0]<cookie email~.*@some-company-name.com> {v2:1}; http[1] {v1:1}"),
        (
            "{name: b, match: [{uri: {exact: /a}}, {method: {exact: GET}}], V2}, {V1}",
            r#"[{"rule": "b", "match": {"a": {"exact": "1"}, "c": {}}}]"#,
            "b<uri=/a cookie a=1 cookie c+ | method=GET cookie a=1 cookie c+> {v2:1}; http[1] {v1:1}",
        ),
    ];
    for (rules, annotation, expected) in cases {
        let compiled = compile_for(&annotated(rules, annotation), &State::default(), &here());
        assert_eq!((codes(&compiled), http(&compiled)), (vec![], expected.to_owned()), "{annotation}");
    }
    let without = compile_for(&annotated("{V2}, {V1}", blog), &State::default(), &ProxyAddresses::default());
    assert_eq!(codes(&without), ["CAN0301 metadata.annotations.canary.io/cookies"]);
    let wrong = [
        ("[", "CAN0002", "EOF while parsing"),
        ("{}", "CAN0002", "expected a sequence"),
        (r#"[{"rule": "http[0]"}]"#, "CAN0002", "missing field `match`"),
        (r#"[{"rule": "http[0]", "match": {"a": {"regexp": "b"}}}]"#, "CAN0002", "unknown field `regexp`"),
        (r#"[{"rule": "http[0]", "match": {}}]"#, "CAN0001", "[0].match: must not be empty"),
        (r#"[{"rule": "http[9]", "match": {"a": {}}}]"#, "CAN0001", "[0].rule: no rule is called `http[9]`"),
        (
            r#"[{"rule": "http[0]", "match": {"a": {"regex": "("}}}]"#,
            "CAN0001",
            "[0].match.a.regex: `(` is not a regular",
        ),
        (r#"[{"rule": "http[0]", "match": {"a;": {}}}]"#, "CAN0001", "[0].match.a;: `a;` is not the name of a cookie"),
        (
            r#"[{"rule": "http[0]", "match": {"a": {}}}, {"rule": "http[0]", "match": {"b": {}}}]"#,
            "CAN0001",
            "[1].rule: `http[0]` appears twice",
        ),
    ];
    for (annotation, code, message) in wrong {
        let compiled = compile_for(&annotated("{V2}, {V1}", annotation), &State::default(), &here());
        let field = "metadata.annotations.canary.io/cookies";
        let found = compiled.diagnostics.iter().filter(|found| found.field == field).collect::<Vec<_>>();
        let [found] = found.as_slice() else { panic!("{annotation}: {:#?}", compiled.diagnostics) };
        assert!(found.code == code && found.message.contains(message), "{annotation}: {found:?}");
        assert!(compiled.state.services.is_empty(), "{annotation}");
    }
}

#[test]
fn a_held_service_follows_the_proxy_and_ends_with_it() {
    let good = join(&[&reviews(), &route(&format!("  http: [{{match: [{{uri: {{exact: /a}}}}], {V2}}}, {{{V1}}}]"))]);
    let last = compile_for(&good, &State::default(), &here()).state;
    let refused = good.replace("match: [{uri: {exact: /a}}]", "delegate: {name: b}, match: [{uri: {exact: /a}}]");
    let wrong = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec: {http: [{}]}";
    let delegate = join(&[&refused.replace(&format!("], {V2}"), "]"), wrong]);
    let invalid = good.replace("exact: /a", "exact: /a, prefix: /b");
    let elsewhere: ProxyAddresses = ["192.0.2.2:15001".parse().unwrap()].into_iter().collect();
    for broken in [delegate, invalid] {
        let held = compile_for(&broken, &last, &elsewhere);
        assert!(!held.services.values().next().unwrap().enforced);
        assert_eq!(http(&held), "http[0]<uri=/a> {v2:1}; http[1] {v1:1}");
        let endpoints = &service(&held).versions[PROXY_VERSION].endpoints;
        assert_eq!(endpoints.keys().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.2:15001"]);
        // Its rules are the proxy's: without one nobody can follow them.
        let gone = compile_for(&broken, &last, &ProxyAddresses::default());
        assert!(gone.state.services.is_empty(), "{gone:#?}");
    }
}

#[test]
fn each_family_has_its_proxy() {
    let dual = reviews().replace("clusterIP: 10.96.0.1", "clusterIP: 10.96.0.1\n  externalIPs: ['fd00::1']");
    let yaml = join(&[&dual, &route(&format!("  http: [{{match: [{{uri: {{exact: /a}}}}], {V2}}}, {{{V1}}}]"))]);
    let both: ProxyAddresses =
        ["192.0.2.1:15001", "[2001:db8::1]:15001"].map(|address| address.parse().unwrap()).into_iter().collect();
    let compiled = compile_for(&yaml, &State::default(), &both);
    let proxies: Vec<String> = compiled
        .state
        .services
        .values()
        .flat_map(|service| service.versions[PROXY_VERSION].endpoints.keys().map(ToString::to_string))
        .collect();
    assert_eq!(proxies, ["192.0.2.1:15001", "[2001:db8::1]:15001"]);
    let one = compile_for(&yaml, &State::default(), &here());
    assert_eq!(only(&one), TO_PROXY);
    assert!(codes(&one).contains(&"CAN0301 spec.http[0].match[0].uri".to_owned()));
}
