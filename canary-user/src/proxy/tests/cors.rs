//! What browsers are told about other origins.
use super::fixture::{Proxy, Raw, at, proxy, route, rule, server, state, text};
use crate::{
    proxy::Flag,
    state::{Abort, AbortWith, Cors, Fault, Percentage, Text},
};

fn policy() -> Cors {
    Cors {
        origins: vec![Text::Exact("https://a".into()), Text::Regex("https://.*[.]b".into())],
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["x-a".into()],
        expose: vec!["x-b".into()],
        max_age_s: Some(60),
        credentials: true,
        forward_unmatched: true,
    }
}

async fn with(cors: Cors, fault: Option<Fault>) -> Proxy {
    let endpoint = server(false, |_| async {
        let mut answer = text("v1");
        answer.headers_mut().insert("access-control-allow-origin", "https://endpoint".parse().unwrap());
        answer
    });
    let mut rule = rule(route(&[("v1", 1)]));
    rule.policy.cors = Some(cors);
    rule.policy.fault = fault;
    proxy(&state(vec![rule], &[("v1", at(endpoint.await))])).await
}

async fn ask(proxy: &Proxy, method: &str, headers: &str) -> String {
    let mut client = Raw::to(proxy).await;
    client.say(format!("{method} / HTTP/1.1\r\nHost: web\r\n{headers}Connection: close\r\n\r\n")).await;
    client.hear_all().await
}

/// The headers of CORS in an answer.
fn told(answer: &str) -> Vec<&str> {
    let mut told: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("access-control-")).collect();
    told.sort_unstable();
    told
}

const PREFLIGHT: &str = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-z\r\n";

#[tokio::test]
async fn preflights_are_answered_for_origins_that_are_allowed() {
    let proxy = with(policy(), None).await;
    for origin in ["https://a", "https://shop.b"] {
        let answer = ask(&proxy, "OPTIONS", &format!("Origin: {origin}\r\n{PREFLIGHT}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("server: canary"), "{answer}");
        let expected = [
            "allow-credentials: true",
            "allow-headers: x-a",
            "allow-methods: GET,PUT",
            &format!("allow-origin: {origin}"),
            "max-age: 60",
        ];
        assert_eq!(told(&answer), expected);
    }
    // The others, and what is no preflight, are the endpoint's.
    let unmatched = format!("Origin: https://b\r\n{PREFLIGHT}");
    for headers in [unmatched.as_str(), PREFLIGHT, ""] {
        let answer = ask(&proxy, "OPTIONS", headers).await;
        assert!(answer.ends_with("\r\n\r\nv1"), "{answer}");
        assert_eq!(told(&answer), ["allow-origin: https://endpoint"]);
    }
    let counts = proxy.table.borrow().counts();
    let of = |version: &str| {
        counts.iter().find(|(key, _)| key.rule == "http[0]" && key.version == version).unwrap().1.clone()
    };
    assert_eq!((of("").requests, of("").classes(), of("v1").requests), (2, [0, 2, 0, 0, 0], 3));
}

#[tokio::test]
async fn what_is_any_and_what_is_ignored() {
    let any = Cors {
        origins: vec![Text::Exact("*".into())],
        methods: vec!["*".into()],
        headers: vec!["*".into()],
        max_age_s: None,
        credentials: false,
        ..policy()
    };
    let proxy = with(any, None).await;
    let answer = ask(&proxy, "OPTIONS", &format!("Origin: https://x\r\n{PREFLIGHT}")).await;
    assert_eq!(told(&answer), ["allow-headers: x-z", "allow-methods: PUT", "allow-origin: https://x"]);

    let proxy = with(Cors { forward_unmatched: false, ..policy() }, None).await;
    let answer = ask(&proxy, "OPTIONS", &format!("Origin: https://x\r\n{PREFLIGHT}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("server: canary"), "{answer}");
    assert!(!told(&answer).iter().any(|it| it.starts_with("allow-origin")), "{answer}");
}

#[tokio::test]
async fn answers_say_for_whom_they_are() {
    let expected = ["allow-credentials: true", "allow-origin: https://a", "expose-headers: x-b"];
    let proxy = with(policy(), None).await;
    let answer = ask(&proxy, "GET", "Origin: https://a\r\n").await;
    assert!(answer.ends_with("\r\n\r\nv1"), "{answer}");
    assert_eq!(told(&answer), expected);
    for headers in ["Origin: https://x\r\n", "Origin: \r\n", ""] {
        assert_eq!(told(&ask(&proxy, "GET", headers).await), ["allow-origin: https://endpoint"]);
    }
    // The proxy's own answers, too: a page could not read the status otherwise.
    let abort = Abort { percentage: Percentage::ALL, with: AbortWith::Http(503) };
    let proxy = with(policy(), Some(Fault { delay: None, abort: Some(abort) })).await;
    let answer = ask(&proxy, "GET", "Origin: https://a\r\n").await;
    assert!(answer.contains(Flag::FI.name()), "{answer}");
    assert_eq!(told(&answer), expected);
}
