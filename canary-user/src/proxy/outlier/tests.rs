//! What ejects, for how long, and what is forgotten.
use super::*;

fn policy() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_errors: 2,
        consecutive_local_failures: None,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 10,
        min_health_percent: 0,
    }
}

/// What each of `seen` comes to; `.` is nothing.
fn told(policy: &OutlierDetection, seen: &[Seen]) -> String {
    let health = Health::default();
    let said = seen.iter().map(|seen| match health.saw(policy, *seen) {
        None => ".",
        Some("answers 5xx") => "5",
        Some("gateway errors") => "g",
        Some(_) => "l",
    });
    said.collect()
}

#[test]
fn errors_count_one_after_another_and_by_their_kind() {
    let status = |codes: &[u16]| codes.iter().map(|code| Seen::Status(*code)).collect::<Vec<_>>();
    let split = OutlierDetection { consecutive_local_failures: Some(2), ..policy() };
    let off = OutlierDetection { consecutive_5xx: 0, consecutive_gateway_errors: 0, ..policy() };
    let (failed, late) = (Seen::Failed, Seen::TimedOut);
    let cases = [
        (policy(), status(&[500, 500, 500, 500]), "..5."),
        (policy(), status(&[500, 500, 404, 500, 500]), "....."),
        (policy(), status(&[503, 504]), ".g"),
        (policy(), status(&[503, 500, 502, 501]), "..5."),
        (policy(), vec![failed, late], ".g"),
        (off, status(&[500, 503, 503, 500, 500]), "....."),
        (split.clone(), vec![failed, late], ".l"),
        (split.clone(), vec![failed, Seen::Status(503), failed, Seen::Status(500), failed, failed], ".....l"),
        (split, vec![Seen::Status(503), failed, Seen::Status(503)], "..g"),
    ];
    for (policy, seen, wanted) in cases {
        assert_eq!(told(&policy, &seen), wanted, "{seen:?} {policy:?}");
    }
}

#[test]
fn an_ejection_is_as_long_as_there_were_some_before() {
    let (policy, health) = (policy(), Health::default());
    let mut now = 1_000;
    for n in 1..=12 {
        let length = health.eject(&policy, now);
        assert_eq!(length, (30_000 * n).min(300_000), "{n}");
        assert!(health.is_out(|| now) && health.is_out(|| now + length - 1));
        now += length;
        assert!(!health.is_out(|| now), "{n}");
    }
    assert_eq!(health.ejections(), 12);
    // Every interval without another one takes one off: of 11 there are 6 left.
    now += 5 * policy.interval_ms;
    assert_eq!(health.eject(&policy, now), 210_000);
    now += 210_000;
    assert!(!health.is_out(|| now));
    assert_eq!(health.eject(&policy, now + 100 * policy.interval_ms), 30_000);
}

#[test]
fn a_first_ejection_may_be_longer_than_the_longest() {
    let (policy, health) = (OutlierDetection { base_ejection_ms: 900_000, ..policy() }, Health::default());
    assert_eq!((health.eject(&policy, 1), health.eject(&policy, 2)), (900_000, 900_000));
}

#[test]
fn what_was_counted_before_an_ejection_is_forgotten_after_it() {
    let (policy, health) = (policy(), Health::default());
    health.eject(&policy, 0);
    assert_eq!(health.saw(&policy, Seen::Status(500)), None);
    assert_eq!(health.saw(&policy, Seen::Status(500)), None);
    assert!(!health.is_out(|| 30_000));
    assert_eq!(health.saw(&policy, Seen::Status(500)), None);
}
