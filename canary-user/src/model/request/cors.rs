//! `corsPolicy`: which pages of other origins may use a service.
use super::{headers::check_value, milliseconds, text};
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::{Cors, Text},
};

/// Reads `corsPolicy` at `path`.
pub(super) fn read(raw: raw::CorsPolicy, path: &str, faults: &mut Faults) -> Cors {
    let path = format!("{path}.corsPolicy");
    let origins = raw.allow_origins.into_iter().enumerate().filter_map(|(index, origin)| {
        let field = format!("{path}.allowOrigins[{index}]");
        // One that says nothing would let every page in, whatever was meant.
        if origin.exact.is_none() && origin.prefix.is_none() && origin.regex.is_none() {
            faults.push(field, Problem::Empty);
            return None;
        }
        text::read(origin, &field, text::Place::Other, faults)
    });
    let mut origins: Vec<Text> = origins.collect();
    if origins.is_empty() {
        // The old field, which Istio looks at only without the new one.
        origins.extend(raw.allow_origin.into_iter().map(Text::Exact));
    }
    let lists = [
        ("allowMethods", &raw.allow_methods),
        ("allowHeaders", &raw.allow_headers),
        ("exposeHeaders", &raw.expose_headers),
    ];
    for (field, list) in lists {
        for (index, item) in list.iter().enumerate() {
            faults.take(&format!("{path}.{field}[{index}]"), check_value(item));
        }
    }
    let max_age = raw.max_age.and_then(|text| faults.take(&format!("{path}.maxAge"), seconds(&text)));
    let forward_unmatched = match raw.unmatched_preflights.as_deref() {
        None | Some("UNSPECIFIED" | "FORWARD") => true,
        Some("IGNORE") => false,
        Some(other) => {
            let (value, expected) = (other.to_owned(), "FORWARD or IGNORE");
            faults.push(format!("{path}.unmatchedPreflights"), Problem::Value { value, expected });
            true
        }
    };
    Cors {
        origins,
        methods: raw.allow_methods,
        headers: raw.allow_headers,
        expose: raw.expose_headers,
        max_age_s: max_age,
        credentials: raw.allow_credentials.unwrap_or_default(),
        forward_unmatched,
    }
}

/// Whole seconds, as Istio asks for.
fn seconds(text: &str) -> Result<u64, Problem> {
    let expected = "a duration of whole seconds, such as 24h";
    let whole = milliseconds(text).ok().filter(|ms| ms.is_multiple_of(1_000));
    whole.map(|ms| ms / 1_000).ok_or(Problem::Value { value: text.into(), expected })
}
