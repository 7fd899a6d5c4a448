//! Where requests begin and end in the bytes of an HTTP/1 client.
//!
//! hyper's parser takes a lone LF for the end of a line, and `Transfer-Encoding` for the truth beside a
//! `Content-Length`. RFC 9112 permits both (§2.2, §6.3), and both are how a request is smuggled past a parser that reads
//! the same bytes otherwise. There is no switch for it, so the LF that completes such a line becomes a NUL, which no
//! parser takes: the answer is 400, and the connection is closed.

/// How much of a line is kept: the headers that matter are shorter.
const KEPT: usize = 256;

/// Follows the bytes from request to request.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Framing {
    at: At,
    /// The beginning of a line whose end is not there yet.
    line: Vec<u8>,
    /// Its last byte was CR.
    cr: bool,
    /// It was longer than what is kept.
    cut: bool,
    head: Head,
    heads: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a head, or before one.
    #[default]
    Head,
    /// So many bytes of a body are left.
    Body(u64),
    /// At the length of a chunk.
    Size,
    /// So many bytes of a chunk are left, with the CRLF after it.
    Chunk(u64),
    /// After the last chunk.
    Trailers,
    /// The parser ends the connection.
    Broken,
}

#[derive(Debug, Default)]
struct Head {
    lines: u32,
    length: Option<u64>,
    chunked: Option<bool>,
}

/// The line must not be.
struct Refused;

impl Framing {
    /// Part of a head is there.
    pub(in crate::proxy) fn in_head(&self) -> bool {
        self.at == At::Head && (self.head.lines > 0 || !self.line.is_empty() || self.cr)
    }

    /// Nothing of the next request is there.
    pub(in crate::proxy) fn between(&self) -> bool {
        self.at == At::Head && !self.in_head()
    }

    /// Heads that are complete.
    pub(in crate::proxy) fn heads(&self) -> u64 {
        self.heads
    }

    /// Follows bytes, and spoils what must not be parsed.
    pub(in crate::proxy) fn feed(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.at {
                At::Broken => return,
                At::Body(left) | At::Chunk(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = if matches!(self.at, At::Chunk(_)) { At::Size } else { At::Head };
                    }
                    taken
                }
                At::Head | At::Size | At::Trailers => match bytes.iter().position(|&byte| byte == b'\n') {
                    None => {
                        self.keep(bytes);
                        return;
                    }
                    Some(end) => {
                        self.keep(bytes.get(..end).unwrap_or_default());
                        if self.line_ends().is_err() {
                            self.at = At::Broken;
                            if let Some(lf) = bytes.get_mut(end) {
                                *lf = 0;
                            }
                            return;
                        }
                        self.line.clear();
                        (self.cr, self.cut) = (false, false);
                        end + 1
                    }
                },
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    /// Keeps part of a line. A CR at its end is not part of the line, if LF comes next.
    fn keep(&mut self, part: &[u8]) {
        let Some(&last) = part.last() else { return };
        if self.cr {
            self.push(b"\r");
        }
        self.cr = last == b'\r';
        let part = if self.cr { part.get(..part.len() - 1).unwrap_or_default() } else { part };
        self.push(part);
    }

    fn push(&mut self, part: &[u8]) {
        let room = KEPT - self.line.len().min(KEPT);
        self.cut |= part.len() > room;
        self.line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
    }

    fn line_ends(&mut self) -> Result<(), Refused> {
        if !self.cr {
            return Err(Refused);
        }
        match self.at {
            At::Size => {
                let size = chunk_size(&self.line).ok_or(Refused)?;
                self.at = if size == 0 { At::Trailers } else { At::Chunk(size.checked_add(2).ok_or(Refused)?) };
            }
            At::Trailers if self.line.is_empty() => self.at = At::Head,
            At::Head if self.line.is_empty() && self.head.lines == 0 => {} // RFC 9112 §2.2 wants it ignored.
            At::Head if self.line.is_empty() => {
                self.heads += 1;
                self.at = match std::mem::take(&mut self.head) {
                    Head { length: Some(_), chunked: Some(_), .. } => return Err(Refused),
                    Head { chunked: Some(true), .. } => At::Size,
                    Head { length: Some(length), .. } if length > 0 => At::Body(length),
                    _ => At::Head,
                };
            }
            At::Head => {
                if self.head.lines > 0 {
                    self.header()?;
                }
                self.head.lines += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn header(&mut self) -> Result<(), Refused> {
        let colon = self.line.iter().position(|&byte| byte == b':');
        let Some((name, value)) = colon.and_then(|at| self.line.split_at_checked(at)) else { return Ok(()) };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // A name with spaces around it is not one to the parser; to the next one it may be.
        let name = name.trim_ascii();
        let length = name.eq_ignore_ascii_case(b"content-length");
        if !length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(());
        }
        if self.cut {
            return Err(Refused);
        }
        if length {
            let value = number(value, 10).ok_or(Refused)?;
            if self.head.length.is_some_and(|before| before != value) {
                return Err(Refused);
            }
            self.head.length = Some(value);
        } else {
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            self.head.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        }
        Ok(())
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
    number(size.trim_ascii_end(), 16)
}

/// Digits only: no sign, no spaces.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let sound = !digits.is_empty() && digits.iter().all(u8::is_ascii_alphanumeric);
    let text = std::str::from_utf8(digits).ok().filter(|_| sound)?;
    u64::from_str_radix(text, radix).ok()
}
