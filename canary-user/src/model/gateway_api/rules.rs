//! One rule of a route, and the rule of a VirtualService that means the same.
use std::collections::BTreeMap;

use super::{
    super::{
        problem::Faults,
        raw,
        request::{HttpAction, HttpMatch, HttpRule, MirrorTo, NotFollowed, read_retries, read_timeout},
        route::{Destination, Route},
    },
    RouteKind,
    backends::Backend,
    filters::{self, Filters},
    matches::{self, Rank},
};
use crate::state::{HttpPolicy, RequestMatch, Retries};

/// Istio's conditions of a retry, beside which the codes of a rule are.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";

/// An entry of `rules[]`.
#[derive(Debug, Clone)]
pub(super) struct RouteRule {
    pub(super) name: Option<String>,
    /// `rules[0]`.
    pub(super) position: String,
    /// With their ranks; never empty, and of no use to rules for connections.
    pub(super) matches: Vec<(Rank, RequestMatch)>,
    pub(super) backends: Vec<Backend>,
    filters: Filters,
    timeout_ms: Option<u64>,
    retries: Option<Retries>,
    not_followed: Vec<NotFollowed>,
    /// Fields that only the proxy follows.
    proxied: Vec<String>,
}

impl RouteRule {
    pub(super) fn read(
        raw: raw::RouteRule,
        kind: RouteKind,
        index: usize,
        namespace: &str,
        faults: &mut Faults,
    ) -> Self {
        let position = format!("rules[{index}]");
        let path = format!("spec.{position}");
        let (mut not_followed, mut proxied) = (Vec::new(), Vec::new());
        for (at, _) in raw.filters.iter().enumerate() {
            proxied.push(format!("filters[{at}]"));
        }
        let given = [("timeouts", raw.timeouts.is_some()), ("retry", raw.retry.is_some())];
        proxied.extend(given.iter().filter(|(_, is_set)| *is_set).map(|(field, _)| (*field).to_owned()));
        if raw.session_persistence.is_some() {
            let why = "canary keeps no sessions; `canary.io/choosing: keyed-client` keeps a client's version";
            not_followed.push(NotFollowed { field: "sessionPersistence".into(), why });
            proxied.push("sessionPersistence".into());
        }
        let timeouts = raw.timeouts.unwrap_or_default();
        let mut timeout = |text: Option<String>, field: &str| {
            text.and_then(|text| read_timeout(&text, &format!("{path}.timeouts.{field}"), faults))
        };
        let (request, attempt) =
            (timeout(timeouts.request, "request"), timeout(timeouts.backend_request, "backendRequest"));
        let again = raw.retry.is_some();
        let retries = retries(raw.retry, &path, &mut not_followed, faults);
        // Without retries one attempt is all that there is.
        let timeout_ms = if again { request } else { attempt.into_iter().chain(request).min() };
        let retries = retries.map(|it| Retries { per_try_timeout_ms: attempt.filter(|_| again), ..it });
        let filters = filters::read(raw.filters, &path, namespace, &mut not_followed, faults);
        let backends = raw.backend_refs.into_iter().enumerate().filter_map(|(at, backend)| {
            let place = (path.as_str(), format!("backendRefs[{at}]"));
            Backend::read(backend, place, namespace, &mut not_followed, faults)
        });
        let backends: Vec<Backend> = backends.collect();
        proxied.extend(backends.iter().filter(|it| it.filtered).map(|it| format!("{}.filters", it.field)));
        Self {
            name: raw.name.filter(|name| !name.is_empty()),
            matches: matches::read(raw.matches, kind, &path, faults),
            position,
            backends,
            filters,
            timeout_ms,
            retries,
            not_followed,
            proxied,
        }
    }

    /// Backends of mirrors.
    pub(super) fn mirrors(&self) -> impl Iterator<Item = &Backend> {
        self.filters.mirrors.iter().map(|(backend, _)| backend)
    }

    /// A filter that canary does not know, by its path under the rule.
    pub(super) fn unknown_filter(&self) -> Option<&str> {
        self.filters.unknown.as_deref()
    }

    /// Whether what of the path matched is replaced.
    pub(super) fn replaces_prefix(&self) -> bool {
        let redirect = self.filters.redirect.as_ref().is_some_and(|to| to.prefix.is_some());
        redirect || self.filters.rewrite.uri.is_some()
    }

    /// The rule for requests, for these matches, with these destinations of its backends and mirrors.
    pub(super) fn http(
        &self,
        matches: Vec<HttpMatch>,
        to: Vec<Destination>,
        mirrors: Vec<Option<Destination>>,
    ) -> HttpRule {
        let Filters { headers, redirect, rewrite, cors, unknown, .. } = &self.filters;
        let failing = || HttpAction::Answer { status: 500, body: String::new() };
        let action = match redirect {
            _ if unknown.is_some() => failing(),
            Some(to) => HttpAction::Redirect(to.clone()),
            None => {
                let headers = self.backends.iter().map(|it| it.headers.clone()).collect();
                self.leads(to).map_or_else(failing, |route| HttpAction::Route {
                    route,
                    headers,
                    rewrite: rewrite.clone(),
                })
            }
        };
        let written = self.filters.mirrors.iter().zip(mirrors);
        let mirrors = written.filter_map(|((backend, percentage), to)| {
            Some(MirrorTo { destination: to?, percentage: *percentage, field: backend.field.clone() })
        });
        HttpRule {
            name: self.name.clone(),
            position: self.position.clone(),
            delegated: None,
            matches,
            cookies: BTreeMap::new(),
            action,
            headers: headers.clone(),
            timeout_ms: self.timeout_ms,
            proxied: self.proxied.clone(),
            not_followed: self.not_followed.clone(),
            policy: HttpPolicy { retries: self.retries.clone(), cors: cors.clone(), ..HttpPolicy::default() },
            mirrors: mirrors.filter(|mirror| mirror.percentage.millionths() > 0).collect(),
        }
    }

    /// Where the rule leads; `None`: nowhere, as nothing has a weight.
    pub(super) fn leads(&self, to: Vec<Destination>) -> Option<Route> {
        Route::of_backends(to.into_iter().zip(self.backends.iter().map(|it| it.weight)).collect())
    }
}

fn retries(
    raw: Option<raw::Retry>,
    path: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> Option<Retries> {
    let raw = raw.map(|raw| {
        let codes: Vec<String> = raw.codes.iter().map(ToString::to_string).collect();
        let retry_on = (!codes.is_empty()).then(|| format!("{RETRY_ON},{}", codes.join(",")));
        let attempts = raw.attempts.unwrap_or(i64::from(Retries::default().attempts));
        let retry_on = retry_on.filter(|_| attempts != 0);
        raw::HttpRetry { attempts: Some(attempts), retry_on, backoff: raw.backoff, ..raw::HttpRetry::default() }
    });
    read_retries(raw, path, not_followed, faults)
}
