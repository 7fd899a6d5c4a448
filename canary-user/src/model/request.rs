//! `http[]` of a VirtualService: which requests a rule is for, and what becomes of them.
use std::collections::BTreeMap;

use super::{
    delegate::Delegated,
    meta::Key,
    problem::{Faults, Problem},
    raw,
    route::{Route, read_port},
    traffic_policy::nanoseconds,
    virtual_service::SourceMatch,
};
use crate::state::{HeaderChanges, HttpPolicy, RequestMatch, Rewrite, Text};

mod answer;
pub(super) mod cookies;
mod cors;
mod fault;
mod headers;
mod mirror;
mod retries;
mod rewrite;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use answer::{RedirectPort, RedirectTo};
pub(crate) use cookies::COOKIES;
pub(super) use headers::{check_target, check_value, read_changes, read_tested as header_name};
pub(crate) use mirror::MirrorTo;
pub(super) use retries::read as read_retries;
use text::Place;
pub(super) use text::check_regex as regex;

/// An entry of `http[]`.
#[derive(Debug, Clone)]
pub(crate) struct HttpRule {
    pub(crate) name: Option<String>,
    /// Where it stands: `http[0]`, or `http[0].http[1]` for the second rule of the delegate of the first one.
    pub(crate) position: String,
    /// Where it is written, if that is in a delegate.
    pub(crate) delegated: Option<Delegated>,
    /// Empty matches everything.
    pub(crate) matches: Vec<HttpMatch>,
    /// Cookies that every match needs beside; from the annotation [`COOKIES`].
    pub(crate) cookies: BTreeMap<String, Text>,
    pub(crate) action: HttpAction,
    pub(crate) headers: HeaderChanges,
    pub(crate) timeout_ms: Option<u64>,
    /// Fields that only the proxy follows, by their names under the rule, such as `route[1].headers`.
    pub(crate) proxied: Vec<String>,
    /// Fields that nothing follows, of whose kind there are others that the proxy does, in the same way.
    pub(crate) not_followed: Vec<NotFollowed>,
    /// Without the mirrors.
    pub(crate) policy: HttpPolicy,
    pub(crate) mirrors: Vec<MirrorTo>,
}

/// A field of a rule that the proxy does not follow.
#[derive(Debug, Clone)]
pub(crate) struct NotFollowed {
    /// Its name under the rule.
    pub(crate) field: String,
    pub(crate) why: &'static str,
}

/// What an HTTP rule does.
#[derive(Debug, Clone)]
pub(crate) enum HttpAction {
    /// Sends the request on.
    Route {
        route: Route,
        /// Changes for each destination, in the order of the route's.
        headers: Vec<HeaderChanges>,
        rewrite: Rewrite,
    },
    Redirect(RedirectTo),
    Answer {
        status: u16,
        body: String,
    },
    /// Leaves it to the service itself, as if there were no rule: what canary adds for those whom no rule is for.
    Plain,
    /// Leaves it to this VirtualService. In the model only while that is not valid.
    Delegate(Key),
}

/// An entry of `http[].match[]`: everything in it must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpMatch {
    pub(crate) source: SourceMatch,
    pub(crate) port: Option<u16>,
    /// What the request must be like; sources and cookies are not filled in.
    pub(crate) request: RequestMatch,
}

impl HttpRule {
    pub(super) fn read(mut raw: raw::HttpRoute, path: &str, namespace: &str, faults: &mut Faults) -> Option<Self> {
        let goals =
            [!raw.route.is_empty(), raw.redirect.is_some(), raw.direct_response.is_some(), raw.delegate.is_some()];
        let found = goals.iter().filter(|is_set| **is_set).count();
        if found != 1 {
            let fields = "`route`, `redirect`, `directResponse` and `delegate`";
            faults.push(path, Problem::ExactlyOne { fields, found });
            return None;
        }
        for (first, is_set) in [("redirect", raw.redirect.is_some()), ("directResponse", raw.direct_response.is_some())]
        {
            if is_set && raw.rewrite.is_some() {
                faults.push(format!("{path}.rewrite"), Problem::Exclusive { first, second: "rewrite" });
            }
        }
        let matches = std::mem::take(&mut raw.matches).into_iter().enumerate();
        let matches =
            matches.filter_map(|(index, entry)| HttpMatch::read(entry, &format!("{path}.match[{index}]"), faults));
        let matches = matches.collect();
        let timeout_ms = raw.timeout.as_deref().and_then(|text| read_timeout(text, &format!("{path}.timeout"), faults));
        let mut proxied = Vec::new();
        let mut not_followed = Vec::new();
        let given = [
            ("headers", raw.headers.is_some()),
            ("timeout", raw.timeout.is_some()),
            ("retries", raw.retries.is_some()),
            ("fault", raw.fault.is_some()),
            ("corsPolicy", raw.cors_policy.is_some()),
            ("mirror", raw.mirror.is_some()),
            ("mirrors", !raw.mirrors.is_empty()),
        ];
        proxied.extend(given.iter().filter(|(_, is_set)| *is_set).map(|(field, _)| (*field).to_owned()));
        let mirrors = mirror::read(&mut raw, path, namespace, &mut not_followed, faults);
        let policy = read_policy(&mut raw, path, &mut not_followed, faults);
        let headers = read_changes(raw.headers.take(), path, "headers", &mut not_followed, faults);
        // Of a rule that leads to a delegate, too: what is wrong stands here, and not there.
        let rewrite = raw.rewrite.take().map(|raw| rewrite::read(raw, path, &mut proxied, faults));
        let action = if let Some(redirect) = raw.redirect {
            HttpAction::Redirect(RedirectTo::read(redirect, &format!("{path}.redirect"), faults)?)
        } else if let Some(response) = raw.direct_response {
            answer::read(response, &format!("{path}.directResponse"), faults)?
        } else if let Some(delegate) = raw.delegate {
            HttpAction::Delegate(read_delegate(delegate, path, namespace, faults)?)
        } else {
            let mut headers = Vec::with_capacity(raw.route.len());
            for (index, entry) in raw.route.iter_mut().enumerate() {
                let field = format!("route[{index}].headers");
                let given = entry.headers.take();
                if given.is_some() {
                    proxied.push(field.clone());
                }
                headers.push(read_changes(given, path, &field, &mut not_followed, faults));
            }
            let route = Route::read(raw.route, path, namespace, faults)?;
            HttpAction::Route { route, headers, rewrite: rewrite.unwrap_or_default() }
        };
        let name = raw.name.filter(|name| !name.is_empty());
        let position = path.strip_prefix("spec.").unwrap_or(path).to_owned();
        let (cookies, delegated) = (BTreeMap::new(), None);
        Some(Self {
            name,
            position,
            delegated,
            matches,
            cookies,
            action,
            headers,
            timeout_ms,
            proxied,
            not_followed,
            policy,
            mirrors,
        })
    }

    /// Whether it goes by this name or stands at this position (`http[0]`), itself or as a rule of a delegate.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.names().any(|it| it == name)
    }

    /// Whether it has filters of the Gateway API, which must not be left out where there is a proxy.
    pub(crate) fn has_filters(&self) -> bool {
        self.proxied.iter().any(|field| field.contains("filters"))
    }

    /// What it goes by, the most precise first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let root = self.delegated.as_ref().and_then(|it| it.root_field.as_ref()?.strip_prefix("spec."));
        self.name.as_deref().into_iter().chain([self.position.as_str()]).chain(root)
    }

    /// Its index in `spec.http`.
    pub(super) fn index(&self) -> Option<usize> {
        self.position.strip_prefix("http[")?.strip_suffix(']')?.parse().ok()
    }
}

impl HttpMatch {
    fn read(raw: raw::HttpMatch, path: &str, faults: &mut Faults) -> Option<Self> {
        let mut one = |text: Option<raw::StringMatch>, field: &str, place| {
            text.and_then(|text| text::read(text, &format!("{path}.{field}"), place, faults))
        };
        // Every request has a scheme, a method and an authority: that they are there is no test.
        let tests_something = |text: &Text| *text != Text::Present;
        let mut request = RequestMatch {
            uri: one(raw.uri, "uri", Place::Uri),
            scheme: one(raw.scheme, "scheme", Place::Other).filter(tests_something),
            method: one(raw.method, "method", Place::Other).filter(tests_something),
            authority: one(raw.authority, "authority", Place::Other).filter(tests_something),
            ..RequestMatch::default()
        };
        request.ignore_uri_case = raw.ignore_uri_case && request.uri.is_some();
        request.headers = text::read_all(raw.headers, &format!("{path}.headers"), headers::read_tested, faults);
        request.without_headers =
            text::read_all(raw.without_headers, &format!("{path}.withoutHeaders"), headers::read_tested, faults);
        let parameter = |name: &str| if name.is_empty() { Err(Problem::Empty) } else { Ok(name.to_owned()) };
        request.query = text::read_all(raw.query_params, &format!("{path}.queryParams"), parameter, faults);
        let port = match raw.port {
            Some(port) => Some(faults.take(&format!("{path}.port"), read_port(port))?),
            None => None,
        };
        let source = SourceMatch::new(&raw.gateways, raw.source_labels, raw.source_namespace);
        Some(Self { source, port, request })
    }

    /// The first field that only a request can answer.
    pub(crate) fn needs(&self) -> Option<&'static str> {
        let request = &self.request;
        let tests = [
            ("uri", request.uri.as_ref().is_some_and(|uri| !is_any(uri))),
            ("method", request.method.is_some()),
            ("authority", request.authority.is_some()),
            ("scheme", request.scheme.is_some()),
            ("headers", !request.headers.is_empty()),
            ("withoutHeaders", !request.without_headers.is_empty()),
            ("queryParams", !request.query.is_empty()),
        ];
        tests.iter().find(|(_, needed)| *needed).map(|(field, _)| *field)
    }
}

fn read_policy(
    raw: &mut raw::HttpRoute,
    path: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> HttpPolicy {
    for (first, is_set) in [("redirect", raw.redirect.is_some()), ("directResponse", raw.direct_response.is_some())] {
        if is_set && raw.fault.is_some() {
            faults.push(format!("{path}.fault"), Problem::Exclusive { first, second: "fault" });
        }
    }
    HttpPolicy {
        retries: retries::read(raw.retries.take(), path, not_followed, faults),
        fault: raw.fault.take().and_then(|fault| fault::read(fault, path, not_followed, faults)),
        mirrors: Vec::new(),
        cors: raw.cors_policy.take().map(|cors| cors::read(cors, path, faults)),
    }
}

/// Whether a test of the path holds for every request. It is no test then, but says what a rewrite replaces: all of it.
fn is_any(uri: &Text) -> bool {
    matches!(uri, Text::Regex(regex) if regex == ".*") || matches!(uri, Text::PathPrefix(path) if path.is_empty())
}

/// The VirtualService that a rule is left to.
fn read_delegate(raw: raw::Delegate, path: &str, namespace: &str, faults: &mut Faults) -> Option<Key> {
    let Some(name) = given(raw.name) else {
        faults.push(format!("{path}.delegate.name"), Problem::Missing);
        return None;
    };
    Some(Key::new(given(raw.namespace).unwrap_or_else(|| namespace.to_owned()), name))
}

/// Milliseconds; `None` for 0, which Istio has for "no timeout".
pub(super) fn read_timeout(text: &str, path: &str, faults: &mut Faults) -> Option<u64> {
    if nanoseconds(text) == Some(0.0) {
        return None;
    }
    faults.take(path, milliseconds(text))
}

/// Reads a duration, to the millisecond.
fn milliseconds(text: &str) -> Result<u64, Problem> {
    let milliseconds = nanoseconds(text).map_or(0.0, |length| length / 1e6);
    if !(1.0..1e15).contains(&milliseconds) {
        let expected = "a duration of at least 1ms, such as 3s";
        return Err(Problem::Value { value: text.into(), expected });
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 1e15, as checked above")]
    Ok(milliseconds.round() as u64)
}

/// In protobuf an empty text is none.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
