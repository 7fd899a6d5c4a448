//! What rules can ask of a request: its parts, read only when a rule asks.
use std::{borrow::Cow, net::IpAddr};

use hyper::{
    HeaderMap,
    header::{COOKIE, HeaderValue},
};

/// The parts of a request that rules test.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Authority as sent, with its port.
    pub authority: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// Headers, without `host`.
    pub headers: &'a HeaderMap,
    /// The client's address; never an IPv4 address in IPv6 clothes.
    pub client: IpAddr,
}

impl<'a> RequestView<'a> {
    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// A header by its name in lower case, its values joined by commas, cookies as RFC 9113 §8.2.3 has it; pseudo headers
    /// by theirs.
    pub(crate) fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            ":method" => Some(self.method.into()),
            ":scheme" => Some(self.scheme.into()),
            ":path" => Some(self.target.into()),
            // As in Envoy, for which both are one.
            ":authority" | "host" => Some(self.authority.into()),
            // HTTP/2 may send each cookie in a header of its own.
            "cookie" => joined(self.headers, name, "; "),
            _ => joined(self.headers, name, ","),
        }
    }

    /// The first value of a query parameter, decoded; one without `=` is empty.
    pub(crate) fn query(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value))
        })
    }

    /// The value of the first cookie of a name.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let all = self.header(COOKIE.as_str())?;
        all.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    }
}

fn joined<'a>(headers: &'a HeaderMap, name: &str, separator: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = text(values.next()?);
    let Some(second) = values.next() else { return Some(first) };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push_str(separator);
        all.push_str(&text(value));
    }
    Some(all.into())
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Percent-decoded; what is not a code stays as it is, and so does `+`.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().filter(|_| first == b'%');
        let byte = code.and_then(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
        out.push(byte.unwrap_or(first));
        rest = after.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    match String::from_utf8(out) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
