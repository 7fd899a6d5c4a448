//! First messages of TLS clients of all kinds, whole and in pieces.
use proptest::prelude::*;

use crate::proxy::client_hello::{MAX, Progress, Reader};

fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&len[4 - width..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), vector(2, body).as_slice()].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0], vector(2, name).as_slice()].concat()))
}

/// A message with these extensions; `None`: without the field.
fn hello(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(vector(1, &[1; 32]));
    body.extend(vector(2, &[0x13, 1, 0x13, 2]));
    body.extend(vector(1, &[0]));
    body.extend(extensions.map(|it| vector(2, it)).unwrap_or_default());
    [&[1], vector(3, &body).as_slice()].concat()
}

/// A message in records of at most so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [&[22, 3, 1], vector(2, piece).as_slice()].concat()).collect()
}

/// What a client says that asks for this name, or for none.
pub(super) fn asking(name: Option<&str>) -> Vec<u8> {
    let extensions = name.map(|name| server_name(name.as_bytes())).unwrap_or_default();
    records(&hello(Some(&extensions)), 16_384)
}

fn read(bytes: &[u8]) -> Progress {
    Reader::default().feed(bytes)
}

fn named(name: &str) -> Progress {
    Progress::Hello(Some(name.to_owned()))
}

#[test]
fn the_name_is_found() {
    let other = extension(43, &[2, 3, 4]);
    let cases = [
        ("alone", server_name(b"a.example.com"), named("a.example.com")),
        ("in capitals", server_name(b"A.Example.COM"), named("a.example.com")),
        ("behind another extension", [other.clone(), server_name(b"a.b")].concat(), named("a.b")),
        ("before another one", [server_name(b"a.b"), other.clone()].concat(), named("a.b")),
        ("none", other, Progress::Hello(None)),
        ("no extensions at all", vec![], Progress::Hello(None)),
        ("255 bytes", server_name(&[b'a'; 255]), named(&"a".repeat(255))),
    ];
    for (what, extensions, expected) in cases {
        let message = hello(Some(&extensions));
        for size in [1, 3, 50, 16_384] {
            assert_eq!(read(&records(&message, size)), expected, "{what}, records of {size}");
        }
    }
    assert_eq!(read(&records(&hello(None), 100)), Progress::Hello(None), "as clients of old say it");
}

#[test]
fn what_is_no_client_hello() {
    let name = server_name(b"a.b");
    let twice = [name.clone(), name.clone()].concat();
    let list = |bytes: &[u8]| extension(0, &vector(2, bytes));
    let message = |extensions: &[u8]| records(&hello(Some(extensions)), 16_384);
    let with = |at: usize, byte: u8| {
        let mut bytes = message(&name);
        bytes[at] = byte;
        bytes
    };
    let mut trailing = hello(Some(&name));
    trailing.push(0);
    trailing[3] += 1;
    let cases = [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("an alert", with(0, 21)),
        ("another major version", with(1, 2)),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a record that is too long", vec![22, 3, 1, 0x40, 1]),
        ("a ServerHello", with(5, 2)),
        ("a message that is too long", vec![22, 3, 1, 1, 0, 1, 0, 0x40, 0]),
        ("the version in the message", with(9, 2)),
        ("a session that is too long", with(43, 33)),
        ("another record in between", [&records(&hello(None), 20)[..25], &[23, 3, 3, 0, 1, 0]].concat()),
        ("two extensions of that kind", message(&twice)),
        ("an empty name", message(&server_name(b""))),
        ("a name of 256 bytes", message(&server_name(&[b'a'; 256]))),
        ("a name with a NUL", message(&server_name(b"a\0b"))),
        ("a name with a space", message(&server_name(b"a b"))),
        ("a name beyond ASCII", message(&server_name("ä".as_bytes()))),
        ("an empty list", message(&list(b""))),
        ("two names", message(&list(&[0, 0, 1, b'a', 0, 0, 1, b'b']))),
        ("a name of another kind", message(&list(&[1, 0, 1, b'a']))),
        ("an extension that goes beyond its end", message(&[0, 0, 0, 9, 1])),
        ("bytes behind the extensions", records(&trailing, 16_384)),
    ];
    for (what, bytes) in cases {
        assert_eq!(read(&bytes), Progress::Other, "{what}");
    }
}

#[test]
fn it_may_be_long_but_not_without_end() {
    let sized = |padding: usize| {
        let extensions = [extension(21, &vec![0; padding]), server_name(b"a.b")].concat();
        records(&hello(Some(&extensions)), 16_384)
    };
    let overhead = sized(0).len();
    assert_eq!(read(&sized(MAX - overhead)), named("a.b"));
    assert_eq!(read(&sized(MAX - overhead + 1)), Progress::Other);
    let tiny = records(&hello(Some(&extension(21, &[0; 4_000]))), 1);
    assert_eq!(read(&tiny), Progress::Other, "records of one byte count with their headers");
}

#[test]
fn it_asks_for_more_until_the_last_byte() {
    let bytes = records(&hello(Some(&server_name(b"a.b"))), 40);
    for end in 0..bytes.len() {
        assert_eq!(read(&bytes[..end]), Progress::More, "{end} bytes");
    }
    assert_eq!(read(&[&bytes[..], b"early data"].concat()), named("a.b"));
}

/// Reads the bytes in pieces, up to the answer.
fn in_pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Progress {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut reader, mut begin) = (Reader::default(), 0);
    for end in ends {
        let progress = reader.feed(&bytes[begin..end]);
        if progress != Progress::More {
            return progress;
        }
        begin = end;
    }
    Progress::More
}

/// Bytes that are nearly a `ClientHello`, or not at all.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let nearly = (
        proptest::collection::vec(any::<u8>(), 0..40),
        "[a-zA-Z0-9.-]{1,40}",
        1_usize..300,
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        any::<prop::sample::Index>(),
    );
    let nearly = nearly.prop_map(|(other, name, size, changes, end)| {
        let extensions = [extension(43, &other), server_name(name.as_bytes())].concat();
        let mut bytes = records(&hello(Some(&extensions)), size);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() * 4).max(1));
        bytes
    });
    prop_oneof![nearly, proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pieces_are_the_whole(bytes in bytes(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let whole = read(&bytes);
        prop_assert_eq!(in_pieces(&bytes, &cuts), whole.clone());
        let mut reader = Reader::default();
        let one_by_one = bytes.iter().map(|byte| reader.feed(&[*byte])).find(|progress| *progress != Progress::More);
        prop_assert_eq!(one_by_one.unwrap_or(Progress::More), whole);
    }

    #[test]
    fn every_name_in_records_of_any_size_is_found(name in "[a-z0-9.-]{1,255}", size in 1_usize..400) {
        let message = hello(Some(&server_name(name.as_bytes())));
        prop_assert_eq!(read(&records(&message, size)), named(&name));
    }
}
