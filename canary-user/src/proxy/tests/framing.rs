//! What a watcher of bytes sees: heads, lengths, chunks, and what must not be passed on.
use proptest::prelude::*;

use crate::proxy::wire::framing::Framing;

/// What becomes of bytes that come in pieces.
fn fed(bytes: &[u8], piece: usize) -> (Vec<u8>, Framing) {
    let (mut bytes, mut framing) = (bytes.to_vec(), Framing::default());
    for part in bytes.chunks_mut(piece) {
        framing.feed(part);
    }
    (bytes, framing)
}

const SOUND: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\nc",
    "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 2\r\ncontent-length:2\r\n\r\n\n\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA \r\n0123456\n89\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nx: a\rb\r\n\r\n",
];

#[test]
fn sound_requests_pass_unchanged() {
    let all = SOUND.concat();
    for piece in 1..=all.len() {
        let (bytes, framing) = fed(all.as_bytes(), piece);
        assert_eq!(String::from_utf8_lossy(&bytes), all, "in pieces of {piece}");
        assert!(framing.between() && framing.heads() == SOUND.len() as u64);
    }
}

#[test]
fn what_two_parsers_may_read_otherwise_is_spoilt() {
    let unsound = [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length : 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: 1\n\r\n",
    ];
    for bad in unsound {
        for before in ["", SOUND[2], SOUND[5]] {
            let all = format!("{before}{bad}");
            for piece in 1..=all.len() {
                let (bytes, _) = fed(all.as_bytes(), piece);
                assert_eq!(bytes.split(|byte| *byte == 0).count(), 2, "{all:?} in pieces of {piece}");
            }
        }
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(bytes in "(GET / HTTP/1.1|[Cc]ontent-[Ll]ength: ?[0-9]|Transfer-Encoding: chunked|\r|\n|\r\n|[0-3]|x){0,20}", piece in 1..9_usize) {
        let (whole, at_once) = fed(bytes.as_bytes(), usize::MAX);
        let (parts, by_pieces) = fed(bytes.as_bytes(), piece);
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(
            (at_once.in_head(), at_once.between(), at_once.heads()),
            (by_pieces.in_head(), by_pieces.between(), by_pieces.heads())
        );
    }
}
