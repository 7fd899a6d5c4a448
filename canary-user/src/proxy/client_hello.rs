//! The server name in the first message of a TLS client, as the bytes come (RFC 8446 §4.1.2, RFC 6066 §3).
//!
//! Reads what it is given once, in whatever pieces, and keeps nothing but the message itself. As strict as the libraries
//! that the connection goes on to: what they could read in another way than this is no `ClientHello` here.

/// Most bytes before the message must be complete, as Envoy's `max_client_hello_size`.
pub(super) const MAX: usize = 16 << 10;
/// First byte of every TLS connection: a record of type `handshake`.
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;
/// Largest record that may come before anything is encrypted.
const RECORD_MAX: usize = 1 << 14;
/// The extension `server_name`, and its only type of name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest name in DNS.
const NAME_MAX: usize = 255;

/// What the bytes so far come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The message is not complete.
    More,
    /// A `ClientHello`, and the name that it asks for, in lower case.
    Hello(Option<String>),
    /// Something else.
    Other,
}

/// Reads a `ClientHello` in pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Header of the record that begins.
    header: Vec<u8>,
    /// Bytes that are left of the record.
    left: usize,
    /// The handshake message, without the headers of records.
    message: Vec<u8>,
    taken: usize,
    over: bool,
}

impl Reader {
    /// Goes on with the next bytes. What comes behind the message, or behind something else, is not looked at.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Progress {
        while !self.over && !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.wanted().min(bytes.len()));
            bytes = rest;
            self.taken = self.taken.saturating_add(piece.len());
            let progress = if self.taken > MAX { Progress::Other } else { self.take(piece) };
            if progress != Progress::More {
                self.over = true;
                return progress;
            }
        }
        if self.over { Progress::Other } else { Progress::More }
    }

    /// How many bytes make the next step, at least one.
    fn wanted(&self) -> usize {
        if self.left > 0 {
            // Of the message's header only that, so that it is known how long the message is.
            let missing = self.length().unwrap_or(MESSAGE_HEADER).saturating_sub(self.message.len());
            self.left.min(missing).max(1)
        } else {
            1 // The header, byte by byte: the first one may tell that it is no TLS.
        }
    }

    /// Length of the message with its header, once that is there.
    fn length(&self) -> Option<usize> {
        match *self.message.get(..MESSAGE_HEADER)? {
            [_, a, b, c] => Some(MESSAGE_HEADER + usize_of(&[a, b, c])),
            _ => None,
        }
    }

    fn take(&mut self, piece: &[u8]) -> Progress {
        if self.left == 0 {
            self.header.extend_from_slice(piece);
            return self.begin_record();
        }
        self.left -= piece.len().min(self.left);
        self.message.extend_from_slice(piece);
        if self.message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Progress::Other;
        }
        match self.length() {
            Some(length) if length > MAX => Progress::Other,
            Some(length) if self.message.len() >= length => hello(&self.message).unwrap_or(Progress::Other),
            _ => Progress::More,
        }
    }

    fn begin_record(&mut self) -> Progress {
        let expected = [HANDSHAKE, 3];
        if !self.header.iter().zip(expected).all(|(byte, expected)| *byte == expected) {
            return Progress::Other;
        }
        if let [_, _, _, high, low] = *self.header.as_slice() {
            self.left = usize_of(&[high, low]);
            self.header.clear();
            if self.left == 0 || self.left > RECORD_MAX {
                return Progress::Other;
            }
        }
        Progress::More
    }
}

fn usize_of(big_endian: &[u8]) -> usize {
    big_endian.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// Fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A vector behind its length in so many bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let len = usize_of(self.take(width)?);
        self.take(len)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name in a complete message; `None` when the message is not valid.
fn hello(message: &[u8]) -> Option<Progress> {
    let mut fields = Fields(message);
    fields.take(MESSAGE_HEADER)?;
    let (version, _random) = (fields.number()?, fields.take(32)?);
    let (session, ciphers, compression) = (fields.vector(1)?, fields.vector(2)?, fields.vector(1)?);
    let valid = version >> 8 == 3
        && session.len() <= 32
        && !ciphers.is_empty()
        && ciphers.len().is_multiple_of(2)
        && !compression.is_empty();
    if !valid {
        return None;
    }
    if fields.is_empty() {
        return Some(Progress::Hello(None)); // Clients of old have no extensions.
    }
    let mut extensions = Fields(fields.vector(2)?);
    if !fields.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.is_empty() {
        let (kind, body) = (extensions.number()?, extensions.vector(2)?);
        // Two would leave open which one counts.
        if kind == SERVER_NAME && name.replace(host_name(body)?).is_some() {
            return None;
        }
    }
    Some(Progress::Hello(name))
}

/// The one name of the extension.
fn host_name(extension: &[u8]) -> Option<String> {
    let mut fields = Fields(extension);
    let mut list = Fields(fields.vector(2)?);
    let (kind, name) = (list.byte()?, list.vector(2)?);
    let single = fields.is_empty() && list.is_empty() && kind == HOST_NAME;
    let readable = (1..=NAME_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    let text = str::from_utf8(name).ok().filter(|_| single && readable)?;
    Some(text.to_ascii_lowercase())
}
