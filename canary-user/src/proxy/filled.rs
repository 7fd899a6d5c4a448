//! Fills values of headers in.
use std::{fmt::Write, net::SocketAddr};

use hyper::{HeaderMap, StatusCode, Version, header::HeaderValue};

use super::rule::Ends;
use crate::state::{End, Part, Piece, Side, parts};

/// A value of a header, ready to be set.
#[derive(Debug)]
pub(super) enum Value {
    /// The same for every message.
    Plain(HeaderValue),
    /// To be filled in.
    Filled(Vec<Part>),
}

/// What is known of a message whose headers are changed.
#[derive(Debug)]
pub struct Facts<'a> {
    ends: Ends,
    version: Version,
    /// Of an answer.
    status: Option<StatusCode>,
    /// Of a request: what HTTP/2 has as headers, too.
    pseudo: &'a [(&'a str, &'a str)],
}

impl<'a> Facts<'a> {
    pub(super) const fn of_request(ends: Ends, version: Version, pseudo: &'a [(&'a str, &'a str)]) -> Self {
        Self { ends, version, status: None, pseudo }
    }

    pub(super) const fn of_answer(ends: Ends, version: Version, status: StatusCode) -> Self {
        Self { ends, version, status: Some(status), pseudo: &[] }
    }
}

impl Value {
    /// `None` for what no header can have, or what nobody fills in: validation leaves it out before.
    pub(super) fn new(written: &str, side: Side) -> Option<Self> {
        let parts = parts(written, side)?;
        Some(match parts.as_slice() {
            [] => Self::Plain(HeaderValue::from_static("")),
            [Part::Text(text)] => Self::Plain(text.parse().ok()?),
            _ => Self::Filled(parts),
        })
    }

    /// The value for a message with these headers. `None`: there is nothing to be filled in, or what there is makes no
    /// value; then the header is left as it is, as with Envoy.
    pub(super) fn of(&self, headers: &HeaderMap, facts: &Facts<'_>) -> Option<HeaderValue> {
        let parts = match self {
            Self::Plain(value) => return Some(value.clone()),
            Self::Filled(parts) => parts,
        };
        let mut filled = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Part::Address(End::Client, piece) => say(&mut filled, facts.ends.client, *piece),
                Part::Address(End::Frontend, piece) => say(&mut filled, facts.ends.frontend, *piece),
                Part::Protocol => filled.extend_from_slice(protocol(facts.version).as_bytes()),
                Part::Status => filled.extend(facts.status.iter().flat_map(|it| it.as_str().bytes())),
                Part::Header(names, longest) => {
                    let value = names.iter().find_map(|name| look_up(name, headers, facts)).unwrap_or_default();
                    filled.extend(value.iter().take(longest.unwrap_or(usize::MAX)));
                }
            }
        }
        if filled.is_empty() { None } else { HeaderValue::from_bytes(&filled).ok() }
    }
}

fn look_up<'a>(name: &str, headers: &'a HeaderMap, facts: &Facts<'a>) -> Option<&'a [u8]> {
    let pseudo = facts.pseudo.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
    pseudo.or_else(|| Some(headers.get(name)?.as_bytes()))
}

fn say(to: &mut Vec<u8>, address: SocketAddr, piece: Piece) {
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = match piece {
        Piece::Both => write!(text, "{address}"),
        Piece::Address => write!(text, "{}", address.ip()),
        Piece::Port => write!(text, "{}", address.port()),
    };
    to.extend_from_slice(text.as_bytes());
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
