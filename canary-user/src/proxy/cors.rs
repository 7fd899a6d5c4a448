//! Requests from other origins: what browsers are told about them.
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Bytes,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN,
    },
};

use super::{body::Body, matching::Test, own, telemetry::Tally};
use crate::state;

/// Whatever is asked for.
const ANY: &str = "*";

/// [`state::Cors`], ready to be asked.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<Test>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: bool,
    forward_unmatched: bool,
    /// Preflights that are answered here.
    pub(super) tally: std::sync::Arc<Tally>,
}

/// What CORS makes of a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A question before a request, which the proxy answers.
    Preflight(Box<Response<Body>>),
    /// It goes on, and the answer is for this origin.
    From(HeaderValue),
    /// It goes on, and is no matter of CORS.
    Pass,
}

impl Cors {
    pub(super) fn new(of: &state::Cors, tally: std::sync::Arc<Tally>) -> Self {
        let list = |items: &[String]| if items.is_empty() { None } else { items.join(",").parse().ok() };
        Self {
            origins: of.origins.iter().map(Test::new).collect(),
            methods: list(&of.methods),
            headers: list(&of.headers),
            expose: list(&of.expose),
            max_age: of.max_age_s.map(HeaderValue::from),
            credentials: of.credentials,
            forward_unmatched: of.forward_unmatched,
            tally,
        }
    }

    /// Looks at a request.
    pub(super) fn look(&self, method: &str, request: &HeaderMap) -> Verdict {
        let Some(origin) = request.get(ORIGIN).filter(|origin| !origin.is_empty()) else { return Verdict::Pass };
        let allowed = self.allows(origin);
        let wanted = request.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|wanted| !wanted.is_empty());
        match wanted.filter(|_| method == Method::OPTIONS.as_str()) {
            Some(_) if !allowed && self.forward_unmatched => Verdict::Pass,
            Some(wanted) => Verdict::Preflight(Box::new(self.preflight(origin, allowed, wanted, request))),
            None if allowed => Verdict::From(origin.clone()),
            None => Verdict::Pass,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().ok();
        // `*`, too, is an origin to Envoy: what matches it is for everybody.
        self.origins.iter().any(|test| test.holds(Some(ANY)) || test.holds(origin))
    }

    /// The answer, as Envoy's filter gives it: also to an origin that is not allowed, but without saying so.
    fn preflight(
        &self,
        origin: &HeaderValue,
        allowed: bool,
        method: &HeaderValue,
        request: &HeaderMap,
    ) -> Response<Body> {
        let mut answer = own::plain(StatusCode::OK, Bytes::new());
        let told = answer.headers_mut();
        if allowed {
            told.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        self.tell_credentials(told);
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let answers = [
            (ACCESS_CONTROL_ALLOW_METHODS, &self.methods, Some(method)),
            (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, asked),
            (ACCESS_CONTROL_MAX_AGE, &self.max_age, None),
        ];
        for (name, written, asked) in answers {
            tell(told, name, written.as_ref().and_then(|it| if it == ANY { asked } else { Some(it) }));
        }
        answer
    }

    /// Tells a browser that its page may have an answer.
    pub(super) fn tell(&self, origin: HeaderValue, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        self.tell_credentials(answer);
        tell(answer, ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.as_ref());
    }

    fn tell_credentials(&self, answer: &mut HeaderMap) {
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn tell(answer: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        answer.insert(name, value.clone());
    }
}
