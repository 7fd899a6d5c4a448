//! Answers of the proxy's own, told from those of an endpoint by `server: canary`.
use std::fmt;

use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SERVER},
};

use super::body::Body;

const FLAGS: HeaderName = HeaderName::from_static("x-canary-flags");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

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
    /// All attempts that the rule allows have failed; beside the reason of the last one.
    URX,
    /// The rule's fault delayed the request, which then went on.
    DI,
    /// The rule's fault answered.
    FI,
    /// The version has as many requests or connections as its policy allows, or a mirror as many copies as it may.
    UO,
    /// What the client sends is no HTTP.
    DPE,
}

impl Flag {
    const ALL: [Self; 12] = [
        Self::NR,
        Self::UH,
        Self::NC,
        Self::UF,
        Self::UC,
        Self::UT,
        Self::DC,
        Self::URX,
        Self::DI,
        Self::FI,
        Self::UO,
        Self::DPE,
    ];

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
            Self::URX => "URX",
            Self::DI => "DI",
            Self::FI => "FI",
            Self::UO => "UO",
            Self::DPE => "DPE",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NR => StatusCode::NOT_FOUND,
            Self::DPE => StatusCode::BAD_REQUEST,
            Self::UT => StatusCode::GATEWAY_TIMEOUT,
            Self::UH | Self::NC | Self::UF | Self::UC | Self::DC | Self::URX | Self::DI | Self::FI | Self::UO => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// All flags of one request. As text they are joined as Envoy does it: `-`, `UF`, `UF,URX`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u16);

impl Flags {
    /// Nothing to say.
    pub const NONE: Self = Self(0);

    /// These and one more.
    #[must_use]
    pub const fn and(self, flag: Flag) -> Self {
        Self(self.0 | 1 << flag as u16)
    }

    /// These and others.
    #[must_use]
    pub(super) const fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These but one.
    #[must_use]
    pub(super) const fn without(self, flag: Flag) -> Self {
        Self(self.0 & !(1 << flag as u16))
    }

    /// Whether one is among them.
    #[must_use]
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u16 != 0
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        Self::NONE.and(flag)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("-");
        }
        for (n, flag) in Flag::ALL.into_iter().filter(|flag| self.has(*flag)).enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { "," }, flag.name())?;
        }
        Ok(())
    }
}

/// The answer in place of an endpoint's.
pub(super) fn failure(flag: Flag) -> Response<Body> {
    flagged(plain(flag.status(), Bytes::new()), flag)
}

/// An answer that says why it is none of an endpoint.
pub(super) fn flagged(mut answer: Response<Body>, flag: Flag) -> Response<Body> {
    answer.headers_mut().insert(FLAGS, HeaderValue::from_static(flag.name()));
    answer
}

/// Says that a failure is the last one of all attempts that there may be.
pub(super) fn exhausted(failure: &mut Response<Body>) {
    let flags = failure.headers().get(FLAGS).and_then(|flag| flag.to_str().ok());
    if let Some(flags) = flags.and_then(|flag| HeaderValue::from_str(&format!("{flag},{}", Flag::URX.name())).ok()) {
        failure.headers_mut().insert(FLAGS, flags);
    }
}

/// Says that a policy's limit is reached, as Envoy does.
pub(super) fn overloaded(failure: &mut Response<Body>) {
    failure.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
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
