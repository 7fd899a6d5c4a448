//! Answers of the proxy's own, told from those of an endpoint by `server: canary`.
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SERVER},
};

use super::body::Body;

const FLAGS: HeaderName = HeaderName::from_static("x-canary-flags");

/// Why a request did not get an endpoint's answer. Names as in Envoy's access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// No rule matches.
    NR,
    /// The version has no endpoints.
    UH,
    /// The rule names a version that is not there.
    NC,
    /// The endpoint cannot be connected to.
    UF,
    /// The endpoint ended the connection before its answer.
    UC,
    /// The rule's time was over before the answer.
    UT,
    /// The client went away before the answer was complete.
    DC,
    /// What the client sends is no HTTP.
    DPE,
}

impl Flag {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NR => "NR",
            Self::UH => "UH",
            Self::NC => "NC",
            Self::UF => "UF",
            Self::UC => "UC",
            Self::UT => "UT",
            Self::DC => "DC",
            Self::DPE => "DPE",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NR => StatusCode::NOT_FOUND,
            Self::DPE => StatusCode::BAD_REQUEST,
            Self::UT => StatusCode::GATEWAY_TIMEOUT,
            Self::UH | Self::NC | Self::UF | Self::UC | Self::DC => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The answer in place of an endpoint's.
pub(super) fn failure(flag: Flag) -> Response<Body> {
    let mut answer = plain(flag.status(), Bytes::new());
    answer.headers_mut().insert(FLAGS, HeaderValue::from_static(flag.name()));
    answer
}

/// A status, perhaps with words.
pub(super) fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    let text = !body.is_empty();
    let mut answer = Response::new(Body::of(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(SERVER, HeaderValue::from_static("canary"));
    if text {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    answer
}

/// The address to ask instead.
pub(super) fn redirect(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut answer = plain(status, Bytes::new());
    answer.headers_mut().insert(LOCATION, location);
    answer
}
