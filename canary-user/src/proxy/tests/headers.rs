//! Changes of headers, and those that end at each hop.
use std::collections::BTreeMap;

use hyper::{HeaderMap, StatusCode, Version, header::HeaderName};

use crate::{
    proxy::{
        filled::Facts,
        headers::{CompiledOperations, forwarded, strip_hop_by_hop, upgrade},
        matching::Matched,
        rule::Ends,
        target::location,
        view::RequestView,
    },
    state::{HeaderOperations, Redirect, Side},
};

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

#[test]
fn operations_remove_then_set_then_add() {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    };
    let operations = HeaderOperations {
        remove: vec!["gone".into(), "again".into(), "host".into()],
        set: pairs(&[("set", "1"), ("again", "2"), ("bad name", "x"), (":authority", "other")]),
        add: pairs(&[("set", "3"), ("bad", "\n"), ("bad", "50%")]),
    };
    let operations = CompiledOperations::new(&operations, Side::Request);
    let mut headers = map(&[("gone", "1"), ("again", "1"), ("set", "0"), ("set", "00"), ("kept", "1")]);
    operations.apply(&mut headers, &Facts::of_request(ends(), Version::HTTP_11, &[]));
    let wanted = map(&[("again", "2"), ("set", "1"), ("set", "3"), ("kept", "1")]);
    assert_eq!(headers, wanted);
    assert_eq!(operations.authority().unwrap(), "other");
}

fn ends() -> Ends {
    Ends { client: "192.0.2.1:40000".parse().unwrap(), frontend: "[2001:db8::1]:80".parse().unwrap() }
}

#[test]
fn values_are_filled_in_from_the_message_and_its_connection() {
    let fill = |side, value: &str| {
        let set = [("x".to_owned(), value.to_owned())].into();
        let operations = CompiledOperations::new(&HeaderOperations { set, ..HeaderOperations::default() }, side);
        let mut headers = map(&[("x", "before"), ("user", "ada"), ("user", "eve")]);
        let pseudo = [(":path", "/hello?a=b"), (":authority", "web")];
        let facts = match side {
            Side::Request => Facts::of_request(ends(), Version::HTTP_2, &pseudo),
            Side::Response => Facts::of_answer(ends(), Version::HTTP_11, StatusCode::NOT_FOUND),
        };
        operations.apply(&mut headers, &facts);
        headers["x"].to_str().unwrap().to_owned()
    };
    for (side, value, expected) in [
        (Side::Request, "100%%", "100%"),
        (Side::Request, "%DOWNSTREAM_REMOTE_ADDRESS%", "192.0.2.1:40000"),
        (Side::Request, "for=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%;%PROTOCOL%", "for=192.0.2.1;HTTP/2"),
        (Side::Request, "%DOWNSTREAM_LOCAL_ADDRESS%", "[2001:db8::1]:80"),
        (Side::Request, "%DOWNSTREAM_LOCAL_PORT%", "80"),
        (Side::Request, "%REQ(User)%", "ada"),
        (Side::Request, "%REQ(none?USER):2%!", "ad!"),
        (Side::Request, "%REQ(:authority)%%REQ(:path)%", "web/hello?a=b"),
        (Side::Request, "%REQ(none)%", "before"), // Nothing to set.
        (Side::Response, "%RESPONSE_CODE% by %RESP(user)%", "404 by ada"),
        (Side::Response, "%RESP(none)%", "before"),
    ] {
        assert_eq!(fill(side, value), expected, "{value}");
    }
}

#[test]
fn hop_by_hop_headers_end_here() {
    let mut headers = map(&[
        ("connection", "close, X-Secret"),
        ("connection", "te"),
        ("x-secret", "1"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("te", "gzip, Trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x-sum"),
        ("x", "1"),
    ]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("te", "trailers"), ("trailer", "x-sum"), ("x", "1")]));
}

#[test]
fn upgrades_are_meant_and_carry_no_http() {
    let table: [(&[(&str, &str)], bool); 7] = [
        (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], true),
        (&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")], true),
        (&[("upgrade", "websocket")], false),
        (&[("connection", "upgrade")], false),
        (&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket, TLS/1.0")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], false),
    ];
    for (headers, wanted) in table {
        assert_eq!(upgrade(&map(headers)).is_some(), wanted, "{headers:?}");
    }
}

#[test]
fn the_client_is_the_last_that_is_forwarded_for() {
    let mut headers = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
    forwarded(&mut headers, "10.0.0.1".parse().unwrap(), "http");
    assert_eq!(headers, map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.1"), ("x-forwarded-proto", "http")]));
    let mut headers = map(&[("x-forwarded-proto", "https")]);
    forwarded(&mut headers, "::1".parse().unwrap(), "http");
    assert_eq!(headers, map(&[("x-forwarded-for", "::1"), ("x-forwarded-proto", "https")]));
}

#[test]
fn redirects_replace_what_they_name() {
    let headers = HeaderMap::new();
    let none = Redirect { code: 301, uri: None, prefix: None, authority: None, scheme: None, port: None, bare: false };
    let table = [
        ("a:80", none.clone(), "http://a:80/p?q=1"),
        ("a:80", Redirect { scheme: Some("https".into()), ..none.clone() }, "https://a/p?q=1"),
        ("a:81", Redirect { scheme: Some("https".into()), ..none.clone() }, "https://a:81/p?q=1"),
        ("a:8080", Redirect { scheme: Some("https".into()), bare: true, ..none.clone() }, "https://a/p?q=1"),
        ("a:80", Redirect { port: Some(8443), ..none.clone() }, "http://a:8443/p?q=1"),
        ("[::1]", Redirect { port: Some(1), ..none.clone() }, "http://[::1]:1/p?q=1"),
        ("a:80", Redirect { authority: Some("b:9".into()), ..none.clone() }, "http://b:9/p?q=1"),
        ("a:80", Redirect { authority: Some("b".into()), port: Some(2), ..none.clone() }, "http://b:2/p?q=1"),
        ("a", Redirect { uri: Some("/x".into()), ..none.clone() }, "http://a/x?q=1"),
        ("a", Redirect { uri: Some("/x?y".into()), ..none }, "http://a/x?y"),
    ];
    for (authority, redirect, wanted) in table {
        let view = RequestView {
            method: "GET",
            scheme: "http",
            authority,
            target: "/p?q=1",
            headers: &headers,
            client: "10.0.0.1".parse().unwrap(),
        };
        assert_eq!(location(&redirect, &view, Matched::Whole).unwrap(), wanted);
    }
}
