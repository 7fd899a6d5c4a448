//! Requests through the proxy, as Istio's users query them.
use std::collections::BTreeMap;

use super::{DURATION, Page, REQUESTS, RETRIES, ROUTED, host, istio};
use crate::{
    proxy::{
        answers::{Answers, BOUNDS_MS},
        counts::{Count, CountKey, MIRROR},
    },
    state::ServiceId,
};

/// Writes the series of requests. Istio's know no rules: those of a version are one.
pub(super) fn fill(page: &mut Page, requests: &[(CountKey, Count, Answers)]) {
    let mut versions: BTreeMap<(&ServiceId, &str), Answers> = BTreeMap::new();
    for (key, count, answers) in requests {
        let service = key.service.to_string();
        let labels = [("service", service.as_str()), ("rule", &key.rule), ("version", &key.version)];
        page.count(ROUTED, &labels, count.requests);
        page.count(RETRIES, &labels, count.retries);
        if !key.rule.ends_with(MIRROR) {
            versions.entry((&key.service, &key.version)).or_default().add(answers);
        }
    }
    for ((id, version), mut answers) in versions {
        if version.is_empty() && answers == Answers::default() {
            continue; // No version answers; that nobody asked yet says nothing of a rollout.
        }
        let host = host(id);
        let version = if version.is_empty() { "unknown" } else { version };
        answers.codes.entry((200, None)).or_default();
        for ((status, flag), count) in &answers.codes {
            let flag = flag.map_or("-", |flag| flag.name());
            let status = status.to_string();
            let labels = [&istio(id, &host, version, "http", flag)[..], &[("response_code", &status)]].concat();
            page.count(REQUESTS, &labels, *count);
        }
        histogram(page, &istio(id, &host, version, "http", "-"), &answers);
    }
}

fn histogram(page: &mut Page, labels: &[(&str, &str)], answers: &Answers) {
    let mut below = 0;
    let bounds = BOUNDS_MS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(answers.buckets) {
        below += count;
        page.part(DURATION, "_bucket", &[labels, &[("le", &bound)]].concat(), &below.to_string());
    }
    page.part(DURATION, "_sum", labels, &(answers.took.as_secs_f64() * 1e3).to_string());
    page.part(DURATION, "_count", labels, &below.to_string());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::Flag;

    fn key(rule: &str, version: &str) -> CountKey {
        let service = ServiceId { namespace: "shop".into(), ..ServiceId::tcp("web", 80) };
        CountKey { service, rule: rule.into(), version: version.into() }
    }

    fn answers(codes: &[((u16, Option<Flag>), u64)], bucket: usize) -> Answers {
        let mut answers = Answers { codes: codes.iter().copied().collect(), ..Answers::default() };
        answers.buckets[bucket] = codes.iter().map(|(_, count)| count).sum();
        answers.took = Duration::from_millis(7);
        answers
    }

    #[test]
    fn rules_of_a_version_are_one_series_and_copies_are_none() {
        let mut page = Page::default();
        let count = Count { requests: 5, retries: 1, ..Count::default() };
        fill(
            &mut page,
            &[
                (key("http[0]", "v2"), count, answers(&[((200, None), 3), ((503, Some(Flag::UH)), 2)], 2)),
                (key("http[1]", "v2"), count, answers(&[((200, None), 4)], 19)),
                (key("http[1] (mirror)", "v2"), count, answers(&[((200, None), 100)], 0)),
                (key("http[1]", "v1"), Count::default(), Answers::default()),
                (key("", ""), Count::default(), Answers::default()),
            ],
        );
        let text = page.finish();
        let with = |name: &str, parts: &[&str], value: &str| {
            let fits = |line: &str| {
                line.starts_with(name) && parts.iter().all(|it| line.contains(it)) && line.ends_with(value)
            };
            assert_eq!(text.lines().filter(|line| fits(line)).count(), 1, "{name} {parts:?} {value}\n{text}");
        };
        let v2 = "destination_version=\"v2\"";
        with("istio_requests_total{", &[v2, "response_code=\"200\"", "response_flags=\"-\""], " 7");
        with("istio_requests_total{", &[v2, "response_code=\"503\"", "response_flags=\"UH\""], " 2");
        with("istio_requests_total{", &["destination_version=\"v1\"", "response_code=\"200\""], " 0");
        with("istio_request_duration_milliseconds_bucket{", &[v2, "le=\"1\""], " 0");
        with("istio_request_duration_milliseconds_bucket{", &[v2, "le=\"5\""], " 5");
        with("istio_request_duration_milliseconds_bucket{", &[v2, "le=\"+Inf\""], " 9");
        with("istio_request_duration_milliseconds_count{", &[v2], " 9");
        with("istio_request_duration_milliseconds_sum{", &[v2], " 14");
        with("canary_requests_total{", &["rule=\"http[0]\"", "version=\"v2\""], " 5");
        with("canary_request_retries_total{", &["rule=\"http[1] (mirror)\""], " 1");
        assert!(!text.contains("unknown\",destination_version=\"unknown"), "{text}");
        assert_eq!(
            text.matches("destination_service=\"web.shop.svc.cluster.local\"").count(),
            text.matches("istio_r").count() - 4,
            "{text}"
        );
    }
}
