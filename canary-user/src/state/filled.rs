//! Values of headers with parts that are filled in, in the format of Envoy's command operators: `%PROTOCOL%`,
//! `%REQ(x-user?x-client):16%`; `%%` is a percent sign.

/// The message whose headers are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request.
    Request,
    /// An answer.
    Response,
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// Of the client or of the virtual address: both, `address:port`; or one of them.
    Address(End, Piece),
    /// The client's version of HTTP: `HTTP/1.1`.
    Protocol,
    /// The first of these headers that the message has, in lower case, and at most so many bytes of it.
    Header(Vec<String>, Option<usize>),
    /// The status of the answer.
    Status,
}

/// An end of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client.
    Client,
    /// The virtual address.
    Frontend,
}

/// What is said of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// `address:port`.
    Both,
    /// The address.
    Address,
    /// The port.
    Port,
}

/// The parts of a value; `None` when it asks for something that canary does not fill in.
#[must_use]
pub fn parts(value: &str, side: Side) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once('%') {
        text.push_str(before);
        if let Some(behind) = behind.strip_prefix('%') {
            text.push('%');
            rest = behind;
            continue;
        }
        let (operator, behind) = behind.split_once('%')?;
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part(operator, side)?);
        rest = behind;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Some(parts)
}

fn part(operator: &str, side: Side) -> Option<Part> {
    use End::{Client, Frontend};
    Some(match operator {
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Part::Address(Client, Piece::Both),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Part::Address(Client, Piece::Address)
        }
        "DOWNSTREAM_REMOTE_PORT" | "DOWNSTREAM_DIRECT_REMOTE_PORT" => Part::Address(Client, Piece::Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => Part::Address(Frontend, Piece::Both),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Part::Address(Frontend, Piece::Address),
        "DOWNSTREAM_LOCAL_PORT" => Part::Address(Frontend, Piece::Port),
        "PROTOCOL" => Part::Protocol,
        "RESPONSE_CODE" if side == Side::Response => Part::Status,
        _ => {
            let own = if side == Side::Request { "REQ" } else { "RESP" };
            let (names, longest) = operator.strip_prefix(own)?.strip_prefix('(')?.split_once(')')?;
            let longest = match longest {
                "" => None,
                longest => Some(longest.strip_prefix(':')?.parse().ok()?),
            };
            let names: Vec<String> = names.split('?').map(str::to_ascii_lowercase).collect();
            let known = |name: &String| match name.strip_prefix(':') {
                Some(pseudo) => side == Side::Request && ["method", "path", "authority"].contains(&pseudo),
                None => !name.is_empty(),
            };
            let valid = (1..=2).contains(&names.len()) && names.iter().all(known);
            valid.then_some(Part::Header(names, longest))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_read_and_what_is_not_filled_in_is_nothing() {
        let header = |names: &[&str], longest| Part::Header(names.iter().map(|&it| it.into()).collect(), longest);
        let text = |it: &str| Part::Text(it.into());
        let client = |piece| Part::Address(End::Client, piece);
        let cases = [
            ("", Some(vec![])),
            ("plain", Some(vec![text("plain")])),
            ("100%%", Some(vec![text("100%")])),
            ("%%PROTOCOL%%", Some(vec![text("%PROTOCOL%")])),
            ("%PROTOCOL%", Some(vec![Part::Protocol])),
            (
                "for=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%;proto=%PROTOCOL%",
                Some(vec![text("for="), client(Piece::Address), text(";proto="), Part::Protocol]),
            ),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", Some(vec![client(Piece::Both)])),
            ("%REQ(X-User)%", Some(vec![header(&["x-user"], None)])),
            ("%REQ(:path?X-Path):8%!", Some(vec![header(&[":path", "x-path"], Some(8)), text("!")])),
            ("50%", None),
            ("%REQ(x)", None),
            ("%REQ()%", None),
            ("%REQ(a?b?c)%", None),
            ("%REQ(a):b%", None),
            ("%RESP(x)%", None),
            ("%RESPONSE_CODE%", None),
            ("%START_TIME%", None),
            ("%REQ(:scheme)%", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parts(value, Side::Request), expected, "{value}");
        }
        assert_eq!(parts("%RESP(x)%%RESPONSE_CODE%", Side::Response), Some(vec![header(&["x"], None), Part::Status]));
        assert_eq!(parts("%RESP(:status)%", Side::Response), None);
        assert_eq!(parts("%REQ(x)%", Side::Response), None, "an answer does not know the request's headers");
    }
}
