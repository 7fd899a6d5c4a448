//! `retries`: when a request is sent again.
use super::{NotFollowed, milliseconds};
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::{Retries, RetryOn},
};

/// Conditions of Envoy that cannot arise here.
const NEVER: &[(&str, &str)] = &[
    ("retriable-headers", "`retriable-headers` names no headers in a VirtualService, so it never holds"),
    ("http3-post-connect-failure", "canary speaks no HTTP/3, so `http3-post-connect-failure` never holds"),
];

/// Reads `retries` at `path`; without it Istio's default, with 0 attempts none.
pub(in crate::model) fn read(
    raw: Option<raw::HttpRetry>,
    path: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> Option<Retries> {
    let Some(raw) = raw else { return Some(Retries::default()) };
    let path = format!("{path}.retries");
    let attempts = raw.attempts.unwrap_or_default();
    let Ok(attempts) = u32::try_from(attempts) else {
        let (value, expected) = (attempts.to_string(), "a number of attempts");
        faults.push(format!("{path}.attempts"), Problem::Value { value, expected });
        return None;
    };
    let written = raw.retry_on.filter(|on| !on.is_empty());
    if raw.attempts.is_none() && (written.is_some() || raw.per_try_timeout.is_some()) {
        faults.push(format!("{path}.attempts"), Problem::Missing);
        return None;
    }
    if attempts == 0 {
        let given = [("perTryTimeout", raw.per_try_timeout.is_some()), ("retryOn", written.is_some())];
        for (field, _) in given.iter().filter(|(_, is_set)| *is_set) {
            let (value, expected) = ("attempts: 0".into(), "possible with more: it means no retries");
            faults.push(format!("{path}.{field}"), Problem::Value { value, expected });
        }
        return None;
    }
    let default = Retries::default();
    let mut duration = |text: Option<String>, field: &str| {
        text.and_then(|text| faults.take(&format!("{path}.{field}"), milliseconds(&text)))
    };
    let per_try_timeout_ms = duration(raw.per_try_timeout, "perTryTimeout");
    let backoff_ms = duration(raw.backoff, "backoff").unwrap_or(default.backoff_ms);
    let mut retries = Retries {
        attempts,
        per_try_timeout_ms,
        backoff_ms,
        avoid_previous: raw.retry_ignore_previous_hosts.unwrap_or(default.avoid_previous),
        ..default
    };
    if let Some(written) = written {
        retries.explicit = true;
        retries.on.clear();
        read_conditions(&written, &format!("{path}.retryOn"), &mut retries, not_followed, faults);
    }
    Some(retries)
}

fn read_conditions(
    written: &str,
    field: &str,
    retries: &mut Retries,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) {
    for name in written.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let status = name.parse().ok().filter(|status| (100..600).contains(status));
        if let Some(status) = status {
            retries.statuses.insert(status);
        } else if let Some(on) = RetryOn::by_name(name) {
            retries.on.insert(on);
        } else if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == name) {
            not_followed.push(NotFollowed { field: "retries.retryOn".into(), why });
        } else if name != "retriable-status-codes" {
            let (value, expected) = (name.to_owned(), "a status or a condition of Envoy's `retry_on`, such as 5xx");
            faults.push(field, Problem::Value { value, expected });
        }
    }
}
