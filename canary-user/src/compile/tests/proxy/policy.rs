//! Retries and the like: what the proxy is given.
use super::{codes, http, with_rules};
use crate::state::{HttpPolicy, Retries};

/// What differs from Istio's default.
pub(super) fn told(policy: &HttpPolicy) -> String {
    let mut text = String::new();
    match &policy.retries {
        None => text.push_str(" no-retries"),
        Some(default) if *default == Retries::default() => {}
        Some(retries) => text.push_str(&retried(retries)),
    }
    let Some(fault) = &policy.fault else { return text };
    if let Some(delay) = &fault.delay {
        text.push_str(&format!(" delay={}ms:{}", delay.fixed_ms, delay.percentage.millionths()));
    }
    if let Some(abort) = &fault.abort {
        text.push_str(&format!(" abort={:?}:{}", abort.with, abort.percentage.millionths()));
    }
    text
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
