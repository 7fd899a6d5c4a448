//! Retries and the like: what the proxy is given.
use super::{codes, http, service, text, with_rules};
use crate::state::{Cors, HttpPolicy, Retries};

/// What differs from Istio's default.
pub(super) fn told(policy: &HttpPolicy) -> String {
    let mut told = String::new();
    match &policy.retries {
        None => told.push_str(" no-retries"),
        Some(default) if *default == Retries::default() => {}
        Some(retries) => told.push_str(&retried(retries)),
    }
    let fault = policy.fault.iter();
    told.extend(
        fault
            .clone()
            .filter_map(|fault| fault.delay.as_ref())
            .map(|it| format!(" delay={}ms:{}", it.fixed_ms, it.percentage.millionths())),
    );
    told.extend(
        fault
            .filter_map(|fault| fault.abort.as_ref())
            .map(|it| format!(" abort={:?}:{}", it.with, it.percentage.millionths())),
    );
    told.extend(policy.mirrors.iter().map(|it| format!(" mirror={}:{}", it.version, it.percentage.millionths())));
    told.extend(policy.cors.iter().map(allowed));
    told
}

fn allowed(cors: &Cors) -> String {
    let Cors { origins, methods, headers, expose, max_age_s, credentials, forward_unmatched } = cors;
    let origins: Vec<String> = origins.iter().map(text).collect();
    let lists = [methods, headers, expose].map(|list| list.join(",")).join("|");
    let age = max_age_s.map(|age| format!(" {age}s")).unwrap_or_default();
    let marks = [(*credentials, " credentials"), (!forward_unmatched, " ignore")];
    let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
    format!(" cors=[{}]{lists}{age}{marks}", origins.join(" "))
}

/// Compiles a rule with these fields beside its route to v2.
fn check(cases: &[(&str, &str)]) {
    for (rule, expected) in cases {
        let compiled = with_rules(&format!("{{match: [{{uri: {{exact: /a}}}}], V2, {rule}}}, {{V1}}"), &[]);
        assert_eq!(codes(&compiled), [""; 0], "{rule}");
        assert_eq!(http(&compiled), format!("http[0]<uri=/a> {{v2:1}}{expected}; http[1] {{v1:1}}"), "{rule}");
    }
}

fn retried(retries: &Retries) -> String {
    let Retries { attempts, per_try_timeout_ms, on, statuses, explicit, avoid_previous, backoff_ms } = retries;
    let on: Vec<String> = on.iter().map(|on| format!("{on:?}")).chain(statuses.iter().map(u16::to_string)).collect();
    let explicit = if *explicit { on.join(",") } else { "default".into() };
    let per_try = per_try_timeout_ms.map(|ms| format!(" per-try={ms}ms")).unwrap_or_default();
    let same = if *avoid_previous { "" } else { " same-hosts" };
    format!(" retries={attempts} on={explicit}{per_try} backoff={backoff_ms}ms{same}")
}

#[test]
fn retries() {
    let cases = [
        ("retries: {attempts: 2}", ""),
        ("retries: {attempts: 0}", " no-retries"),
        ("retries: {}", " no-retries"),
        ("retries: {attempts: 5}", " retries=5 on=default backoff=25ms"),
        ("retries: {attempts: 2, retryOn: ''}", ""),
        (
            "retries: {attempts: 1, retryOn: '5xx, 409,retriable-status-codes'}",
            " retries=1 on=ServerError,409 backoff=25ms",
        ),
        (
            "retries: {attempts: 3, perTryTimeout: 2s, backoff: 10ms, retryIgnorePreviousHosts: false}",
            " retries=3 on=default per-try=2000ms backoff=10ms same-hosts",
        ),
        (
            "retries: {attempts: 3, retryOn: 'connect-failure,refused-stream,reset,reset-before-request,gateway-error,retriable-4xx'}",
            " retries=3 on=GatewayError,Reset,ResetBeforeRequest,ConnectFailure,Conflict,RefusedStream backoff=25ms",
        ),
        (
            "retries: {attempts: 3, retryOn: 'cancelled,deadline-exceeded,internal,resource-exhausted,unavailable,envoy-ratelimited'}",
            " retries=3 on=EnvoyRatelimited,Cancelled,DeadlineExceeded,ResourceExhausted,Internal,Unavailable backoff=25ms",
        ),
    ];
    check(&cases);
}

#[test]
fn faults() {
    check(&[
        ("fault: {delay: {fixedDelay: 5s, percentage: {value: 0.1}}}", " delay=5000ms:1000"),
        ("fault: {delay: {fixedDelay: 5s, percent: 10}}", " delay=5000ms:100000"),
        ("fault: {abort: {httpStatus: 503, percentage: {value: 100}}}", " abort=Http(503):1000000"),
        (
            "fault: {delay: {fixedDelay: 1ms, percentage: {value: 0.0003}}, abort: {grpcStatus: UNAVAILABLE, percentage: {}}}",
            " delay=1ms:3 abort=Grpc(14):0",
        ),
    ]);
}

#[test]
fn mirrors() {
    check(&[
        ("mirror: {host: reviews, subset: v1}", " mirror=v1:1000000"),
        ("mirror: {host: reviews}", " mirror=reviews:1000000"),
        (
            "mirror: {host: reviews, subset: v2, port: {number: 9080}}, mirrorPercentage: {value: 12.5}",
            " mirror=v2:125000",
        ),
        ("mirror: {host: reviews, subset: v2}, mirrorPercent: 10", " mirror=v2:100000"),
        ("mirror: {host: reviews, subset: v2}, mirror_percent: 10", " mirror=v2:100000"),
        ("mirror: {host: reviews, subset: v2}, mirrorPercentage: {}", ""),
        ("mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 0}", ""),
        (
            "mirrors: [{destination: {host: reviews, subset: v1}, percentage: {value: 1}}, {destination: {host: reviews, subset: v2}}]",
            " mirror=v1:10000 mirror=v2:1000000",
        ),
    ]);
}

#[test]
fn a_mirror_is_a_version_like_others() {
    let unknown = |mirror: &str| {
        let compiled = with_rules(&format!("{{match: [{{uri: {{exact: /a}}}}], V2, {mirror}}}, {{V1}}"), &[]);
        assert!(service(&compiled).versions["v9"].endpoints.is_empty());
        let report = compiled.services.values().next().unwrap();
        // No weight is written there.
        assert_eq!(report.rules[0].destinations, [("v2".to_owned(), "spec.http[0].route[0]".to_owned())]);
        codes(&compiled)
    };
    assert_eq!(unknown("mirror: {host: reviews, subset: v9}"), ["IST0101 spec.http[0].mirror.subset"]);
    assert_eq!(
        unknown("mirrors: [{destination: {host: reviews, subset: v9}}]"),
        ["IST0101 spec.http[0].mirrors[0].destination.subset"]
    );
    let nothing = with_rules("{match: [{uri: {exact: /a}}], redirect: {uri: /b}, mirror: {host: reviews}}, {V1}", &[]);
    assert_eq!(codes(&nothing), ["CAN0005 spec.http[0].mirror"]);
}

#[test]
fn cors() {
    check(&[
        ("corsPolicy: {}", " cors=[]||"),
        (
            "corsPolicy: {allowOrigins: [{exact: 'https://a'}, {prefix: 'https://b.'}, {regex: '.*c'}], allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}",
            " cors=[=https://a ^https://b. ~.*c]GET,PUT|x-a|x-b 86400s credentials ignore",
        ),
        ("corsPolicy: {allowOrigin: ['*'], unmatchedPreflights: FORWARD}", " cors=[=*]||"),
        ("corsPolicy: {allowOrigin: [a], allowOrigins: [{exact: b}]}", " cors=[=b]||"),
    ]);
}
