//! Rules that need the request: what the proxy is given, and what the kernel then does.
use super::{ProxyAddresses, codes, compile_for, join, only, pod, reviews, route};
use crate::{
    compile::{Compiled, PROXY_VERSION},
    state::{HeaderChanges, HttpAction, HttpRule, RequestMatch, Service, State, Text},
};

mod edges;
mod policy;

const V1: &str = "route: [{destination: {host: reviews, subset: v1}}]";
const V2: &str = "route: [{destination: {host: reviews, subset: v2}}]";

pub(super) fn here() -> ProxyAddresses {
    ["192.0.2.1:15001".parse().unwrap()].into_iter().collect()
}

/// Compiles rules of `http[]` for `reviews`, with a proxy; `V1` and `V2` stand for routes.
fn with_rules(rules: &str, more: &[&str]) -> Compiled {
    let rules = rules.replace("V1", V1).replace("V2", V2);
    let world = [&reviews(), &route(&format!("  http: [{rules}]")), more.join("\n---\n").as_str()].map(str::to_owned);
    compile_for(&world.join("\n---\n"), &State::default(), &here())
}

fn service(compiled: &Compiled) -> &Service {
    compiled.state.services.values().next().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

/// Where the kernel sends everybody when the proxy follows the rules.
const TO_PROXY: &str = "proxy{(proxy):1}";

/// `name<match | match> action`, a rule each.
pub(super) fn http(compiled: &Compiled) -> String {
    let http = service(compiled).http.as_ref().unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    http.rules.iter().map(rule).collect::<Vec<_>>().join("; ")
}

pub(super) fn rule(rule: &HttpRule) -> String {
    let matches: Vec<String> = rule.matches.iter().map(matching).collect();
    let matches = if matches.is_empty() { String::new() } else { format!("<{}>", matches.join(" | ")) };
    let changes = changes(&rule.headers);
    let timeout = rule.timeout_ms.map(|ms| format!(" {ms}ms")).unwrap_or_default();
    let policy = policy::told(&rule.policy);
    format!("{}{matches} {}{changes}{timeout}{policy}", rule.name, action(&rule.action))
}

fn action(action: &HttpAction) -> String {
    match action {
        HttpAction::Route(route) => {
            let to = route.destinations.iter();
            let to: Vec<String> =
                to.map(|to| format!("{}:{}{}", to.version, to.weight, changes(&to.headers))).collect();
            let rewrite = [("uri", &route.rewrite.uri), ("authority", &route.rewrite.authority)];
            let rewrite = rewrite.iter().filter_map(|(name, text)| Some(format!(" {name}={}", text.as_ref()?)));
            let regex = route.rewrite.uri_regex.as_ref().map(|it| format!(" {}=>{:?}", it.pattern, it.rewrite));
            format!("{{{}}}{}{}", to.join(" "), rewrite.collect::<String>(), regex.unwrap_or_default())
        }
        HttpAction::Redirect(to) => {
            let port = to.port.map(|port| port.to_string());
            let parts = [("uri", &to.uri), ("authority", &to.authority), ("scheme", &to.scheme), ("port", &port)];
            let parts = parts.iter().filter_map(|(name, text)| Some(format!(" {name}={}", text.as_ref()?)));
            format!("{}{}", to.code, parts.collect::<String>())
        }
        HttpAction::Answer { status, body } => format!("{status} {body:?}"),
    }
}

fn changes(headers: &HeaderChanges) -> String {
    let mut text = String::new();
    for (side, operations) in [(">", &headers.request), ("<", &headers.response)] {
        text.extend(operations.remove.iter().map(|name| format!(" {side}-{name}")));
        text.extend(operations.set.iter().map(|(name, value)| format!(" {side}{name}={value}")));
        text.extend(operations.add.iter().map(|(name, value)| format!(" {side}+{name}={value}")));
    }
    text
}

fn matching(of: &RequestMatch) -> String {
    let mut parts: Vec<String> = of.sources.iter().map(ToString::to_string).collect();
    let case = if of.ignore_uri_case { "(any case)" } else { "" };
    let single = [("uri", &of.uri), ("scheme", &of.scheme), ("method", &of.method), ("authority", &of.authority)];
    parts.extend(single.iter().filter_map(|(name, test)| Some(format!("{name}{}", text(test.as_ref()?)))));
    parts.extend((!case.is_empty()).then(|| case.to_owned()));
    for (mark, tests) in [("", &of.headers), ("!", &of.without_headers), ("?", &of.query), ("cookie ", &of.cookies)] {
        parts.extend(tests.iter().map(|(name, test)| format!("{mark}{name}{}", text(test))));
    }
    parts.join(" ")
}

fn text(test: &Text) -> String {
    match test {
        Text::Exact(it) => format!("={it}"),
        Text::Prefix(it) => format!("^{it}"),
        Text::Regex(it) => format!("~{it}"),
        Text::Present => "+".to_owned(),
        Text::PathPrefix(path) => format!("{path}/*"),
        Text::Host(host) => format!("@{host}"),
    }
}

#[test]
fn every_field_of_a_match() {
    let cases = [
        ("uri: {exact: /a}", "uri=/a"),
        ("uri: {prefix: /a}", "uri^/a"),
        ("uri: {regex: '/a.*'}", "uri~/a.*"),
        ("uri: {exact: /A}, ignoreUriCase: true", "uri=/A (any case)"),
        ("scheme: {exact: https}", "scheme=https"),
        ("method: {exact: GET}", "method=GET"),
        ("method: {regex: GET|HEAD}", "method~GET|HEAD"),
        ("authority: {prefix: a.}", "authority^a."),
        ("headers: {X-User: {exact: a}, b: {regex: '.*'}}", "b~.* x-user=a"),
        ("headers: {a: {}}", "a+"),
        ("headers: {a: {regex: '*'}}", "a+"),
        ("headers: {':authority': {exact: a}}", "host=a"),
        ("headers: {a: {exact: ''}}", "a="),
        ("withoutHeaders: {A: {}, b: {exact: c}}", "!a+ !b=c"),
        ("queryParams: {V: {exact: '2'}, w: {}}", "?V=2 ?w+"),
        ("uri: {prefix: /}, method: {exact: PUT}", "method=PUT"),
        ("method: {exact: PUT}, port: 9080, gateways: [mesh], name: n, statPrefix: s", "method=PUT"),
        ("sourceLabels: {app: shop}, uri: {exact: /a}", "10.8.0.1/32 uri=/a"),
        ("uri: {exact: /a}}, {uri: {exact: /b}", "uri=/a | uri=/b"),
        ("uri: {exact: /a}}, {port: 1", "uri=/a"),
        ("uri: {exact: /a}}, {gateways: [other]", "uri=/a"),
        ("uri: {exact: /a}}, {sourceLabels: {app: none}", "uri=/a"),
        ("uri: {exact: /a}}, {sourceLabels: {app: shop}", "uri=/a | 10.8.0.1/32"),
        ("uri: {exact: /a}}, {sourceNamespace: default, sourceLabels: {app: shop}", "uri=/a | 10.8.0.1/32"),
    ];
    for (entry, expected) in cases {
        let compiled = with_rules(&format!("{{match: [{{{entry}}}], V2}}, {{V1}}"), &[&pod("shop", "v1", "10.8.0.1")]);
        assert_eq!(codes(&compiled), [""; 0], "{entry}");
        assert_eq!(http(&compiled), format!("http[0]<{expected}> {{v2:1}}; http[1] {{v1:1}}"), "{entry}");
        assert_eq!(only(&compiled), TO_PROXY, "{entry}");
    }
}

#[test]
fn every_action_and_change() {
    let cases = [
        ("redirect: {uri: /b}", "301 uri=/b"),
        (
            "redirect: {authority: b.example.com, scheme: https, port: 8443, redirectCode: 308}",
            "308 authority=b.example.com scheme=https port=8443",
        ),
        ("redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}", "301 scheme=https"),
        ("redirect: {uri: /, derivePort: FROM_REQUEST_PORT}", "301 uri=/ port=9080"),
        ("redirect: {uri: /b}, headers: {response: {set: {a: b}}}", "301 uri=/b <a=b"),
        ("directResponse: {status: 503}", "503 \"\""),
        ("directResponse: {status: 200, body: {string: hello}}", "200 \"hello\""),
        ("directResponse: {status: 200, body: {bytes: aGVsbG8=}}", "200 \"hello\""),
        ("V2, rewrite: {uri: /b, authority: b}", "{v2:1} uri=/b authority=b"),
        ("V2, rewrite: {authority: b}", "{v2:1} authority=b"),
        (
            "V2, rewrite: {uriRegexRewrite: {match: '/(a+)', rewrite: '/b\\1'}}",
            "{v2:1} /(a+)=>[Text(\"/b\"), Group(1)]",
        ),
        ("V2, timeout: 1.5s", "{v2:1} 1500ms"),
        ("V2, timeout: 1m1ms", "{v2:1} 60001ms"),
        ("V2, timeout: 0s", "{v2:1}"),
        (
            "V2, headers: {request: {set: {Host: a, B: '5%%'}, add: {c: d}, remove: [E]}, response: {remove: [server]}}",
            "{v2:1} >-e >b=5%% >host=a >+c=d <-server",
        ),
        ("route: [{destination: {host: reviews, subset: v2}, headers: {request: {set: {a: b}}}}]", "{v2:1 >a=b}"),
        (
            "route: [{destination: {host: reviews, subset: v2}, weight: 1}, {destination: {host: reviews, subset: v1}, weight: 3}, {destination: {host: reviews, subset: v2}, weight: 1}, {destination: {host: reviews, subset: v3}}]",
            "{v1:3 v2:2}",
        ),
        (
            "route: [{destination: {host: reviews, subset: v2}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 2, headers: {response: {add: {a: b}}}}]",
            "{v2:1 v2:2 <+a=b}",
        ),
    ];
    for (rule, expected) in cases {
        let compiled = with_rules(&format!("{{match: [{{uri: {{exact: /a}}}}], {rule}}}, {{V1}}"), &[]);
        assert_eq!(codes(&compiled), [""; 0], "{rule}");
        assert_eq!(http(&compiled), format!("http[0]<uri=/a> {expected}; http[1] {{v1:1}}"), "{rule}");
    }
}

#[test]
fn the_kernel_sends_everybody_to_the_proxy_and_knows_all_versions() {
    let compiled = with_rules("{match: [{uri: {exact: /a}}], V2}, {V1}", &[]);
    let service = service(&compiled);
    let names: Vec<&String> = service.versions.keys().collect();
    assert_eq!(names, [PROXY_VERSION, "v1", "v2"]);
    let proxy = &service.versions[PROXY_VERSION];
    assert_eq!(
        proxy.endpoints.iter().map(|(at, weight)| (at.to_string(), *weight)).collect::<Vec<_>>(),
        [("192.0.2.1:15001".to_owned(), 1)]
    );
    assert_eq!(proxy.drain_seconds, 300);
    let report = compiled.services.values().next().unwrap();
    assert!(report.enforced && report.reason.is_none());
    let rules: Vec<(&str, &str)> = report.rules.iter().map(|rule| (rule.rule.as_str(), rule.field.as_str())).collect();
    assert_eq!(rules, [("http[0]", "spec.http[0]"), ("http[1]", "spec.http[1]")]);
    assert_eq!(report.rules[0].destinations, [("v2".to_owned(), "spec.http[0].route[0]".to_owned())]);
}

#[test]
fn which_rules_make_it_a_matter_of_the_proxy() {
    let cases = [
        ("no test of the request", "{V1}, {V2}", None),
        ("a test behind a rule for everybody", "{V1}, {match: [{uri: {exact: /a}}], V2}", None),
        ("a redirect behind one", "{V1}, {redirect: {uri: /a}}", None),
        ("an answer behind one", "{match: [{uri: {prefix: /}}], V1}, {directResponse: {status: 200}}", None),
        ("a test for another port", "{match: [{port: 1, uri: {exact: /a}}], V2}, {V1}", None),
        ("that there is a method", "{match: [{method: {}, scheme: {regex: '*'}}], V2}, {V1}", None),
        ("an alternative without a test", "{match: [{uri: {exact: /a}}, {port: 9080}], V2}, {V1}", None),
        (
            "rules before and after the test",
            "{match: [{sourceLabels: {app: shop}}], V1}, {name: b, match: [{uri: {exact: /a}}], V2}, {V1}, {V2}",
            Some("http[0]<10.8.0.1/32> {v1:1}; b<uri=/a> {v2:1}; http[2] {v1:1}"),
        ),
        (
            "no rule for the rest: the proxy answers 404",
            "{match: [{uri: {exact: /a}}], V2}",
            Some("http[0]<uri=/a> {v2:1}"),
        ),
        ("any path is no test", "{match: [{uri: {regex: '.*'}}], V1}, {match: [{uri: {exact: /a}}], V2}", None),
        (
            "an alternative for everybody makes the others needless",
            "{match: [{uri: {exact: /a}}], V1}, {match: [{uri: {exact: /b}}, {uri: {regex: '.*'}}], V2}, {V1}",
            Some("http[0]<uri=/a> {v1:1}; http[1] {v2:1}"),
        ),
        (
            "but not where it matters what a rewrite replaces",
            "{match: [{uri: {exact: /a}}], V1}, {match: [{uri: {prefix: /b}}, {uri: {regex: '.*'}}], V2, rewrite: {uri: /c}}, {V1}",
            Some("http[0]<uri=/a> {v1:1}; http[1]<uri^/b | uri~.*> {v2:1} uri=/c"),
        ),
        (
            "nor for the whole path",
            "{match: [{uri: {exact: /a}}], V1}, {match: [{uri: {regex: '.*'}}], V2, rewrite: {uri: /c}}",
            Some("http[0]<uri=/a> {v1:1}; http[1]<uri~.*> {v2:1} uri=/c"),
        ),
        (
            "which / is not",
            "{match: [{uri: {exact: /a}}], V1}, {match: [{uri: {prefix: /}}], V2, rewrite: {uri: /c}}, {V1}",
            Some("http[0]<uri=/a> {v1:1}; http[1] {v2:1} uri=/c"),
        ),
        ("a redirect for everybody", "{redirect: {uri: /a}}, {V1}", Some("http[0] 301 uri=/a")),
        (
            "two rules of one name",
            "{name: a, match: [{uri: {exact: /a}}], V2}, {name: a, V1}",
            Some("a<uri=/a> {v2:1}; http[1] {v1:1}"),
        ),
    ];
    for (name, rules, expected) in cases {
        let compiled = with_rules(rules, &[&pod("shop", "v1", "10.8.0.1")]);
        assert_eq!(codes(&compiled), [""; 0], "{name}");
        match expected {
            Some(expected) => assert_eq!(http(&compiled), expected, "{name}"),
            None => assert!(service(&compiled).http.is_none() && only(&compiled) != TO_PROXY, "{name}"),
        }
    }
}

#[test]
fn without_a_proxy_of_the_family_nothing_changes() {
    let yaml = join(&[&reviews(), &route(&format!("  http: [{{match: [{{uri: {{exact: /a}}}}], {V2}}}, {{{V1}}}]"))]);
    let six: ProxyAddresses = ["[2001:db8::1]:15001".parse().unwrap()].into_iter().collect();
    for proxy in [ProxyAddresses::default(), six] {
        let compiled = compile_for(&yaml, &State::default(), &proxy);
        assert!(compiled.state.services.is_empty());
        assert_eq!(codes(&compiled), ["CAN0301 spec.http[0].match[0].uri"]);
        assert!(compiled.diagnostics[0].remedy.starts_with("start the agent with --proxy"), "{compiled:#?}");
    }
    // The proxy speaks TCP only.
    let udp = yaml.replace("name: http", "name: dns, protocol: UDP");
    let udp = udp.replace(
        "VirtualService\nmetadata: {name: reviews",
        "VirtualService\nmetadata: {name: reviews, annotations: {canary.io/udp: 'true'}",
    );
    let compiled = compile_for(&udp, &State::default(), &here());
    assert_eq!(codes(&compiled), ["CAN0301 spec.http[0].match[0].uri"]);
    assert!(!compiled.diagnostics[0].remedy.contains("--proxy"), "{compiled:#?}");
}

#[test]
fn what_the_proxy_does_is_reported_only_where_there_is_none() {
    let rest = "headers: {request: {set: {a: b}}}, rewrite: {uri: /b}, timeout: 3s";
    let to = "route: [{destination: {host: reviews, subset: v1}, headers: {response: {remove: [a]}}}]";
    let by_kernel = with_rules(&format!("{{{to}, {rest}}}"), &[]);
    let fields = ["headers", "rewrite", "route[0].headers", "timeout"];
    assert_eq!(codes(&by_kernel), fields.map(|field| format!("CAN0005 spec.http[0].{field}")));
    assert!(by_kernel.diagnostics[0].message.contains("port 9080 of reviews.default"), "{by_kernel:#?}");
    let by_proxy = with_rules(&format!("{{match: [{{method: {{exact: GET}}}}], V2}}, {{{to}, {rest}}}"), &[]);
    assert_eq!(codes(&by_proxy), [""; 0]);
    assert_eq!(http(&by_proxy), "http[0]<method=GET> {v2:1}; http[1] {v1:1 <-a} uri=/b >a=b 3000ms");
    // And what it does not do is, in any case.
    let cases = [
        ("retries: {attempts: 3, retryRemoteLocalities: true}", "retries.retryRemoteLocalities"),
        ("retries: {attempts: 3, retryOn: 'retriable-headers,5xx'}", "retries.retryOn"),
        ("fault: {delay: {fixedDelay: 5s}}", "fault.delay"),
        ("corsPolicy: {allowOrigin: ['*'], allowAll: true}", "corsPolicy.allowAll"),
        ("headers: {request: {set: {a: '%START_TIME%', c: d}}}", "headers.request.set.a"),
    ];
    for (extra, field) in cases {
        let compiled = with_rules(&format!("{{match: [{{uri: {{exact: /a}}}}], V2, {extra}}}, {{V1}}"), &[]);
        assert_eq!(codes(&compiled), [format!("CAN0005 spec.http[0].{field}")], "{extra}");
        assert_eq!(only(&compiled), TO_PROXY, "{extra}");
    }
}

#[test]
fn unknown_subsets_and_versions_without_endpoints_stay() {
    let to = "route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v9}, weight: 1}]";
    let compiled = with_rules(&format!("{{match: [{{uri: {{exact: /a}}}}], {to}}}, {{V1}}"), &[]);
    assert_eq!(codes(&compiled), ["IST0101 spec.http[0].route[1].destination.subset"]);
    assert_eq!(http(&compiled), "http[0]<uri=/a> {v1:1 v9:1}; http[1] {v1:1}");
    assert!(service(&compiled).versions["v9"].endpoints.is_empty());
}

#[test]
fn a_policy_is_for_the_proxys_rules_too() {
    use crate::state::{Choosing, DeadVersion};
    let policy = |rules: &str| {
        format!(
            "apiVersion: canary.io/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: p}}\nspec: {{targetRef: {{kind: VirtualService, name: reviews}}, drain: 10s, rules: [{rules}]}}"
        )
    };
    let settings = policy("{name: b, sources: [10.8.0.0/16], choosing: keyed-client, onNoEndpoints: spill}");
    let compiled = with_rules(
        "{name: b, match: [{uri: {exact: /a}}, {sourceLabels: {app: shop}}], V2}, {V1}",
        &[&settings, &pod("shop", "v1", "10.8.0.1"), "---", &pod("shop", "v1", "10.9.0.1")],
    );
    assert_eq!(http(&compiled), "b<10.8.0.0/16 uri=/a | 10.8.0.1/32> {v2:1}; http[1] {v1:1}");
    let service = service(&compiled);
    let HttpAction::Route(route) = &service.http.as_ref().unwrap().rules[0].action else { panic!() };
    assert_eq!((route.choosing, route.dead), (Choosing::KeyedClient, DeadVersion::Spill));
    assert_eq!((service.versions["v1"].drain_seconds, service.versions[PROXY_VERSION].drain_seconds), (10, 300));
    // A rule without matches has one then, and one for networks of the other family is for nobody.
    let only_some = policy("{name: 'http[1]', sources: [10.8.0.0/16]}, {name: 'http[2]', sources: ['fd00::/8']}");
    let compiled = with_rules("{match: [{uri: {exact: /a}}], V2}, {V1}, {V2}", &[&only_some]);
    assert_eq!(http(&compiled), "http[0]<uri=/a> {v2:1}; http[1]<10.8.0.0/16> {v1:1}");
}
