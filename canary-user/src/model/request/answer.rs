//! Answers without a destination: `redirect` and `directResponse`.
use super::{HttpAction, given, headers};
use crate::model::{
    problem::{Faults, Problem},
    raw,
    route::read_port,
};

/// As large a body may be, as in Istio.
const BODY_BYTES: usize = 1 << 20;

/// Where a client is sent instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedirectTo {
    pub(crate) code: u16,
    pub(crate) uri: Option<String>,
    /// In place of what of the path matched; the Gateway API's.
    pub(crate) prefix: Option<String>,
    pub(crate) authority: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) port: RedirectPort,
}

/// The port in the address that the client is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectPort {
    Number(u16),
    /// The one that the client addressed: `FROM_REQUEST_PORT`.
    OfRequest,
    /// None is written, so the scheme's: `FROM_PROTOCOL_DEFAULT`.
    OfScheme,
    /// This, or the scheme's if there is one, or the one that the client addressed; not written where it is the scheme's.
    /// The Gateway API's.
    Shortest(Option<u16>),
}

impl RedirectTo {
    pub(super) fn read(raw: raw::HttpRedirect, path: &str, faults: &mut Faults) -> Option<Self> {
        let (uri, authority, scheme) = (given(raw.uri), given(raw.authority), given(raw.scheme));
        if uri.is_none() && authority.is_none() && scheme.is_none() && raw.port.is_none() && raw.derive_port.is_none() {
            let fields = "`uri`, `authority`, `port`, `derivePort` or `scheme` (or more)";
            faults.push(path, Problem::ExactlyOne { fields, found: 0 });
        }
        let code = match raw.redirect_code.unwrap_or_default() {
            0 => Some(301),
            code @ (301 | 302 | 303 | 307 | 308) => u16::try_from(code).ok(),
            code => {
                let (value, expected) = (code.to_string(), "301, 302, 303, 307 or 308");
                faults.push(format!("{path}.redirectCode"), Problem::Value { value, expected });
                None
            }
        };
        if let Some(scheme) = scheme.as_ref().filter(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
            let (value, expected) = (scheme.clone(), "http or https");
            faults.push(format!("{path}.scheme"), Problem::Value { value, expected });
        }
        for (field, text) in [("uri", &uri), ("authority", &authority)] {
            if let Some(text) = text {
                faults.take(&format!("{path}.{field}"), headers::check_target(text));
            }
        }
        let port = match (raw.port, raw.derive_port.as_deref()) {
            (Some(_), Some(_)) => {
                let (first, second) = ("redirect.port", "redirect.derivePort");
                faults.push(format!("{path}.derivePort"), Problem::Exclusive { first, second });
                None
            }
            (Some(port), None) => faults.take(&format!("{path}.port"), read_port(port)).map(RedirectPort::Number),
            (None, Some("FROM_REQUEST_PORT")) => Some(RedirectPort::OfRequest),
            (None, None | Some("FROM_PROTOCOL_DEFAULT")) => Some(RedirectPort::OfScheme),
            (None, Some(other)) => {
                let (value, expected) = (other.to_owned(), "FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT");
                faults.push(format!("{path}.derivePort"), Problem::Value { value, expected });
                None
            }
        };
        Some(Self { code: code?, uri, prefix: None, authority, scheme, port: port? })
    }
}

/// Reads `directResponse`.
pub(super) fn read(raw: raw::DirectResponse, path: &str, faults: &mut Faults) -> Option<HttpAction> {
    let status = match raw.status {
        None => {
            faults.push(format!("{path}.status"), Problem::Missing);
            None
        }
        Some(status) => {
            let valid = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
            let (value, expected) = (status.to_string(), "a status from 200 to 599");
            faults.take(&format!("{path}.status"), valid.ok_or(Problem::Value { value, expected }))
        }
    };
    let body = raw.body.unwrap_or_default();
    let path = format!("{path}.body");
    let body = match (body.string, body.bytes) {
        (Some(_), Some(_)) => {
            faults.push(&path, Problem::ExactlyOne { fields: "`string` and `bytes`", found: 2 });
            None
        }
        (text, None) => Some(text.unwrap_or_default()),
        (None, Some(bytes)) => {
            let text = base64(&bytes).and_then(|bytes| String::from_utf8(bytes).ok());
            let expected = "Base64 of text in UTF-8";
            faults.take(&format!("{path}.bytes"), text.ok_or(Problem::Value { value: bytes, expected }))
        }
    };
    if body.as_ref().is_some_and(|body| body.len() > BODY_BYTES) {
        faults.push(&path, Problem::Value { value: "the body".into(), expected: "smaller than 1 MiB" });
    }
    Some(HttpAction::Answer { status: status?, body: body? })
}

/// Decodes Base64 in either alphabet, with or without padding, as protobuf's JSON does.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for c in text.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            let [.., byte] = (held >> bits).to_be_bytes();
            bytes.push(byte);
            held &= (1 << bits) - 1;
        }
    }
    // A single character more than whole bytes need stands for nothing.
    (bits < 6).then_some(bytes)
}
