//! What is wrong in a rule of `http[]`, by field; what is right is seen in what `compile` makes of it.
use crate::model::testing::read;

/// `CODE field: message` of everything that is said about one rule beside its route to `a`.
fn said(rule: &str) -> Vec<String> {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{{{rule}}}]}}"
    );
    let (model, found) = read(&yaml);
    let said: Vec<String> = found.iter().map(|it| format!("{} {}: {}", it.code, it.field, it.message)).collect();
    assert_eq!(model.broken().len(), usize::from(!said.is_empty()), "{rule}: {said:#?}");
    said
}

fn check(cases: &[(&str, &str)], rule: impl Fn(&str) -> String) {
    for (written, expected) in cases {
        let said = said(&rule(written));
        match (said.as_slice(), *expected) {
            ([], "") => {}
            ([one], expected) if !expected.is_empty() => assert!(one.starts_with(expected), "{written}: {one}"),
            _ => panic!("{written}: {said:#?}"),
        }
    }
}

#[test]
fn matches() {
    let long = "a".repeat(1_025);
    let too_long = format!("uri: {{regex: {long}}}");
    let long_enough = format!("uri: {{regex: {}}}", &long[1..]);
    check(
        &[
            ("uri: {prefix: ''}", ""),
            ("headers: {a: {prefix: ''}}", "CAN0001 spec.http[0].match[0].headers.a.prefix: must not be empty"),
            ("method: {prefix: ''}", "CAN0001 spec.http[0].match[0].method.prefix: must not be empty"),
            ("uri: {regex: ''}", "CAN0001 spec.http[0].match[0].uri.regex: must not be empty"),
            (
                "uri: {regex: 'a('}",
                "CAN0001 spec.http[0].match[0].uri.regex: `a(` is not a regular expression: unclosed group",
            ),
            (
                "uri: {regex: 'a(?=b)'}",
                "CAN0001 spec.http[0].match[0].uri.regex: `a(?=b)` is not a regular expression: look-around",
            ),
            (
                "uri: {regex: 'a{1000}{1000}{1000}'}",
                "CAN0001 spec.http[0].match[0].uri.regex: `a{1000}{1000}{1000}` is not a regular expression: ",
            ),
            ("uri: {regex: '(?x)a # b'}", "CAN0001 spec.http[0].match[0].uri.regex: `(?x)a # b` is not a regular"),
            (
                "uri: {regex: '*'}",
                "CAN0001 spec.http[0].match[0].uri.regex: `*` is not a regular expression: repetition operator",
            ),
            (
                &too_long,
                "CAN0001 spec.http[0].match[0].uri.regex: the regular expression has 1025 characters, more than 1024",
            ),
            (&long_enough, ""),
            (
                "uri: {exact: /a, prefix: /b}",
                "CAN0001 spec.http[0].match[0].uri: exactly one of `exact`, `prefix` and `regex` is needed, 2 are set",
            ),
            (
                "uri: {exact: 5}",
                "CAN0002 spec.http[0].match[0].uri.exact: invalid type: integer `5`, expected a string",
            ),
            ("headers: {cookie: null}", "CAN0001 spec.http[0].match[0].headers.cookie: must not be empty"),
            (
                "withoutHeaders: {cookie: null}",
                "CAN0001 spec.http[0].match[0].withoutHeaders.cookie: must not be empty",
            ),
            ("queryParams: {a: null}", "CAN0001 spec.http[0].match[0].queryParams.a: must not be empty"),
            ("headers: null", ""),
            ("headers: {a: {exact: null}}", ""),
            ("headers: {'a b': {}}", "CAN0001 spec.http[0].match[0].headers.a b: `a b` is not the name of a header"),
            ("headers: {A: {}, a: {}}", "CAN0001 spec.http[0].match[0].headers.a: `a` appears twice"),
            ("headers: {'@request.auth.claims.group': {}}", ""),
            (
                "headers: {cookie: {regexp: a}}",
                "CAN0001 spec.http[0].match[0].headers.cookie.regexp: `regexp` is no field here",
            ),
            ("uri: {suffix: a}", "CAN0001 spec.http[0].match[0].uri.suffix: `suffix` is no field here"),
            ("port: 70000", "CAN0001 spec.http[0].match[0].port: 70000 is not a port"),
        ],
        |entry| format!("match: [{{{entry}}}], route: [{{destination: {{host: a}}}}]"),
    );
}

#[test]
fn answers() {
    check(
        &[
            ("redirect: {}", "CAN0001 spec.http[0].redirect: exactly one of `uri`"),
            (
                "redirect: {uri: /a, redirectCode: 305}",
                "CAN0001 spec.http[0].redirect.redirectCode: `305` is not 301, 302, 303, 307 or 308",
            ),
            ("redirect: {scheme: ftp}", "CAN0001 spec.http[0].redirect.scheme: `ftp` is not http or https"),
            ("redirect: {port: 0}", "CAN0001 spec.http[0].redirect.port: 0 is not a port"),
            (
                "redirect: {uri: /a, port: 1, derivePort: FROM_REQUEST_PORT}",
                "CAN0001 spec.http[0].redirect.derivePort: redirect.port and redirect.derivePort exclude",
            ),
            ("redirect: {uri: /a, derivePort: X}", "CAN0001 spec.http[0].redirect.derivePort: `X` is not FROM_"),
            ("redirect: {uri: '/a b'}", "CAN0001 spec.http[0].redirect.uri: `/a b` is not a path"),
            ("redirect: {uri: /a, url: /b}", "CAN0001 spec.http[0].redirect.url: `url` is no field here"),
            (
                "redirect: {uri: /a}, rewrite: {uri: /b}",
                "CAN0001 spec.http[0].rewrite: redirect and rewrite exclude each other",
            ),
            ("directResponse: {}", "CAN0001 spec.http[0].directResponse.status: required, but missing"),
            (
                "directResponse: {status: 199}",
                "CAN0001 spec.http[0].directResponse.status: `199` is not a status from 200 to 599",
            ),
            (
                "directResponse: {status: 200, body: {string: a, bytes: b}}",
                "CAN0001 spec.http[0].directResponse.body: exactly one of",
            ),
            (
                "directResponse: {status: 200, body: {bytes: '?'}}",
                "CAN0001 spec.http[0].directResponse.body.bytes: `?` is not Base64",
            ),
            (
                "directResponse: {status: 200, body: {bytes: _w}}",
                "CAN0001 spec.http[0].directResponse.body.bytes: `_w` is not Base64 of text",
            ),
            ("directResponse: {status: 200, body: {bytes: w7w}}", ""),
            (
                "directResponse: {status: 200, body: {text: a}}",
                "CAN0001 spec.http[0].directResponse.body.text: `text` is no field here",
            ),
        ],
        str::to_owned,
    );
}

#[test]
fn changes_of_requests() {
    check(
        &[
            ("timeout: soon", "CAN0001 spec.http[0].timeout: `soon` is not a duration of at least 1ms"),
            ("timeout: 10us", "CAN0001 spec.http[0].timeout: `10us` is not a duration of at least 1ms"),
            ("timeout: -1s", "CAN0001 spec.http[0].timeout: `-1s` is not a duration of at least 1ms"),
            ("timeout: 5", "CAN0002 spec.http[0].timeout: invalid type: integer `5`, expected a string"),
            ("rewrite: {}", "CAN0001 spec.http[0].rewrite: exactly one of `uri`"),
            ("rewrite: {uri: \"/\\n\"}", "CAN0001 spec.http[0].rewrite.uri: `/\\n` is not a path"),
            (
                "rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}",
                "CAN0001 spec.http[0].rewrite.uriRegexRewrite: rewrite.uri and",
            ),
            (
                "headers: {request: {set: {'a b': c}}}",
                "CAN0001 spec.http[0].headers.request.set.a b: `a b` is not the name of a header",
            ),
            (
                "headers: {request: {set: {a: \"b\\nc\"}}}",
                "CAN0001 spec.http[0].headers.request.set.a: `b\\nc` is not the value of a header",
            ),
            (
                "headers: {response: {remove: [':path']}}",
                "CAN0001 spec.http[0].headers.response.remove[0]: `:path` is not the name",
            ),
            (
                "headers: {request: {remove: [Host]}}",
                "CAN0001 spec.http[0].headers.request.remove[0]: `Host` is not the name",
            ),
            (
                "headers: {request: {add: {A: b, a: c}}}",
                "CAN0001 spec.http[0].headers.request.add.a: `a` appears twice",
            ),
            ("headers: {request: {sat: {a: b}}}", "CAN0001 spec.http[0].headers.request.sat: `sat` is no field here"),
            ("headers: {requests: {}}", "CAN0001 spec.http[0].headers.requests: `requests` is no field here"),
            ("headers: {request: {set: null}, response: null}", ""),
        ],
        |change| format!("{change}, route: [{{destination: {{host: a}}}}]"),
    );
    let both = "route: [{destination: {host: a}, headers: {request: {set: {'': b}}}}]";
    assert_eq!(said(both), ["CAN0001 spec.http[0].route[0].headers.request.set.: `` is not the name of a header"]);
}

#[test]
fn retries() {
    check(
        &[
            ("attempts: 3", ""),
            ("attempts: -1", "CAN0001 spec.http[0].retries.attempts: `-1` is not a number of attempts"),
            ("attempts: '3'", "CAN0002 spec.http[0].retries.attempts"),
            (
                "attempts: 0, retryOn: 5xx",
                "CAN0001 spec.http[0].retries.retryOn: `attempts: 0` is not possible with more",
            ),
            ("perTryTimeout: 1s", "CAN0001 spec.http[0].retries.attempts: required, but missing"),
            ("attempts: 1, perTryTimeout: 0s", "CAN0001 spec.http[0].retries.perTryTimeout: `0s` is not a duration"),
            ("attempts: 1, backoff: soon", "CAN0001 spec.http[0].retries.backoff: `soon` is not a duration"),
            (
                "attempts: 1, retryOn: '5xx,700'",
                "CAN0001 spec.http[0].retries.retryOn: `700` is not a status or a cond",
            ),
            ("attempts: 1, retryOn: 5XX", "CAN0001 spec.http[0].retries.retryOn: `5XX` is not a status or a condition"),
        ],
        |retries| format!("retries: {{{retries}}}, route: [{{destination: {{host: a}}}}]"),
    );
}

#[test]
fn faults() {
    let route = |fault: &str| format!("fault: {{{fault}}}, route: [{{destination: {{host: a}}}}]");
    check(
        &[
            ("delay: {fixedDelay: 5s, percentage: {value: 1.5}}", ""),
            ("", "CAN0001 spec.http[0].fault: exactly one of `delay` or `abort` (or both) is needed, 0 are set"),
            ("delay: {percentage: {value: 1}}", "CAN0001 spec.http[0].fault.delay.fixedDelay: required, but missing"),
            ("delay: {fixedDelay: 0s, percent: 1}", "CAN0001 spec.http[0].fault.delay.fixedDelay: `0s` is not a dur"),
            (
                "delay: {fixedDelay: 1s, percentage: {value: 101}}",
                "CAN0001 spec.http[0].fault.delay.percentage.value: `101` is not a percentage from 0 to 100",
            ),
            ("delay: {fixedDelay: 1s, percent: -1}", "CAN0001 spec.http[0].fault.delay.percent: `-1` is not a percen"),
            ("abort: {percent: 1}", "CAN0001 spec.http[0].fault.abort: exactly one of `httpStatus`, `grpcStatus`"),
            ("abort: {httpStatus: 100}", "CAN0001 spec.http[0].fault.abort.httpStatus: `100` is not a status from 200"),
            ("abort: {grpcStatus: down}", "CAN0001 spec.http[0].fault.abort.grpcStatus: `down` is not the name of a"),
        ],
        route,
    );
    check(
        &[
            ("redirect: {uri: /}", "CAN0001 spec.http[0].fault: redirect and fault exclude each other"),
            (
                "directResponse: {status: 200}",
                "CAN0001 spec.http[0].fault: directResponse and fault exclude each other",
            ),
        ],
        |action| format!("fault: {{abort: {{httpStatus: 500, percentage: {{value: 1}}}}}}, {action}"),
    );
}

#[test]
fn mirrors() {
    check(
        &[
            ("mirror: {host: b, subset: v1}", ""),
            ("mirrors: [{destination: {host: b}}]", ""),
            (
                "mirror: {host: b}, mirrors: [{destination: {host: b}}]",
                "CAN0001 spec.http[0].mirrors: mirror and mirrors exclude each other",
            ),
            ("mirror: {subset: v1}", "CAN0001 spec.http[0].mirror.host: required, but missing"),
            (
                "mirrors: [{percentage: {value: 1}}]",
                "CAN0001 spec.http[0].mirrors[0].destination: required, but missing",
            ),
            (
                "mirror: {host: b}, mirrorPercentage: {value: 100.5}",
                "CAN0001 spec.http[0].mirrorPercentage.value: `100.5` is not a percentage from 0 to 100",
            ),
            ("mirror: {host: b}, mirrorPercent: -1", "CAN0001 spec.http[0].mirrorPercent: `-1` is not a percentage"),
            (
                "mirrors: [{destination: {host: b}, percentage: {value: 101}}]",
                "CAN0001 spec.http[0].mirrors[0].percentage.value: `101` is not a percentage from 0 to 100",
            ),
        ],
        |mirror| format!("{mirror}, route: [{{destination: {{host: a}}}}]"),
    );
}

#[test]
fn cors() {
    check(
        &[
            ("allowOrigins: [{exact: a}]", ""),
            (
                "allowOrigins: [{regex: '('}]",
                "CAN0001 spec.http[0].corsPolicy.allowOrigins[0].regex: `(` is not a regular expression",
            ),
            (
                "allowMethods: [\"a\\nb\"]",
                "CAN0001 spec.http[0].corsPolicy.allowMethods[0]: `a\\nb` is not the value of",
            ),
            ("maxAge: 1500ms", "CAN0001 spec.http[0].corsPolicy.maxAge: `1500ms` is not a duration of whole seconds"),
            ("maxAge: long", "CAN0001 spec.http[0].corsPolicy.maxAge: `long` is not a duration of whole seconds"),
            (
                "unmatchedPreflights: DROP",
                "CAN0001 spec.http[0].corsPolicy.unmatchedPreflights: `DROP` is not FORWARD or IGNORE",
            ),
        ],
        |cors| format!("corsPolicy: {{{cors}}}, route: [{{destination: {{host: a}}}}]"),
    );
}

#[test]
fn rewrites_by_regex() {
    check(
        &[
            ("match: '(a)', rewrite: '/\\1\\\\'", ""),
            ("match: a", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.rewrite: required, but missing"),
            ("match: '', rewrite: b", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.match: required, but missing"),
            ("match: '(', rewrite: b", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.match: `(` is not a regular expr"),
            ("match: a, rewrite: 'b c'", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.rewrite: `b c` is not a path"),
            ("match: a, rewrite: '\\1'", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.rewrite: `\\1` is not possible"),
            ("match: a, rewrite: 'b\\'", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.rewrite: `b\\` is not possible"),
            ("match: a, rewrite: '\\x'", "CAN0001 spec.http[0].rewrite.uriRegexRewrite.rewrite: `\\x` is not possible"),
        ],
        |regex| format!("rewrite: {{uriRegexRewrite: {{{regex}}}}}, route: [{{destination: {{host: a}}}}]"),
    );
}

#[test]
fn what_would_widen_a_rule_is_no_rule() {
    let route = |more: &str| format!("route: [{{destination: {{host: a}}}}], {more}");
    check(
        &[
            ("corsPolicy: {allowOrigins: [{}]}", "CAN0001 spec.http[0].corsPolicy.allowOrigins[0]: must not be empty"),
            ("corsPolicy: {allowOrigins: [{regex: '*'}]}", ""),
            ("match: [{headers: {':path': {prefix: /a}, ':method': {exact: GET}, ':scheme': {exact: http}}}]", ""),
            ("match: [{headers: {':status': {exact: '200'}}}]", "CAN0001 spec.http[0].match[0].headers.:status: "),
        ],
        route,
    );
    check(
        &[
            (
                "directResponse: {status: 200}, rewrite: {uri: /}",
                "CAN0001 spec.http[0].rewrite: directResponse and rewrite exclude each other",
            ),
            (
                "delegate: {name: d}, rewrite: {uriRegexRewrite: {match: '(', rewrite: /}}",
                "CAN0001 spec.http[0].rewrite.uriRegexRewrite.match: `(` is not a regular expression",
            ),
        ],
        str::to_owned,
    );
    let misspelt = said(&route("corsPolicy: {allowOrigins: [{exct: 'https://a'}]}"));
    assert!(misspelt.iter().any(|it| it.contains("corsPolicy.allowOrigins[0].exct")), "{misspelt:?}");
}
