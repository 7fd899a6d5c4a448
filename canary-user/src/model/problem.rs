//! Why an object is not valid: the field, the reason and the remedy, as data.
use thiserror::Error;

use crate::{
    diagnostic::{Diagnostic, Severity},
    source::Object,
};

/// What is wrong with one field.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    #[error("{source}")]
    Shape { source: serde_json::Error },
    #[error("required, but missing")]
    Missing,
    #[error("must not be empty")]
    Empty,
    #[error("exactly one of {fields} is needed, {found} are set")]
    ExactlyOne { fields: &'static str, found: usize },
    #[error("{first} and {second} exclude each other")]
    Exclusive { first: &'static str, second: &'static str },
    #[error("`{field}` is no field here")]
    UnknownField { field: String, remedy: String },
    #[error("weight {weight} is negative")]
    WeightNegative { weight: serde_json::Number },
    #[error("weight {weight} is not a whole number")]
    WeightFraction { weight: serde_json::Number },
    #[error("weight {weight} is larger than {}", u32::MAX)]
    WeightTooLarge { weight: serde_json::Number },
    #[error("total destination weight = 0")]
    WeightsAllZero,
    #[error("the weights add up to {sum}, more than {}", u32::MAX)]
    WeightsTooLarge { sum: u64 },
    #[error("{port} is not a port: it must be between 1 and 65535")]
    Port { port: i64 },
    #[error("`{value}` appears twice")]
    Duplicate { value: String },
    #[error("host `{host}` is not a valid name")]
    HostInvalid { host: String },
    #[error("host `{host}`: `*` may only stand at the beginning")]
    WildcardNotFirst { host: String },
    #[error("host `*` is not possible here")]
    WildcardAlone,
    #[error("hosts `{first}` and `{second}` overlap: duplicate hosts in virtual service")]
    HostsOverlap { first: String, second: String },
    #[error("`{value}` is not {expected}")]
    Value { value: String, expected: &'static str },
    #[error("{what} is not a regular expression: {why}")]
    Regex { what: String, why: String },
    #[error("the regular expression has {length} characters, more than {limit}")]
    RegexLong { length: usize, limit: usize },
    #[error("`{name}` is not the name of a header")]
    HeaderName { name: String },
    #[error("no rule is called `{name}`")]
    UnknownRule { name: String },
    #[error("{at}: {problem}")]
    Inside { at: String, problem: Box<Problem> },
    #[error("wildcard is not supported in selector")]
    SelectorWildcard,
    #[error("CIDR addresses are allowed only for NONE/STATIC resolution types")]
    CidrNeedsStatic,
    #[error("{resolution} mode cannot {what}")]
    Resolution { resolution: &'static str, what: &'static str },
    #[error("port `{name}` is not one of `spec.ports`")]
    UnknownPortName { name: String },
    #[error("a VirtualService without `hosts` is a delegate, which has no `{what}`")]
    InDelegate { what: &'static str },
    #[error("SNI `{sni}` is not covered by any of `spec.hosts`")]
    SniOutsideHosts { sni: String },
}

impl Problem {
    /// What to do about it; empty when the message says it all.
    fn remedy(&self) -> String {
        match self {
            Self::Missing => "add the field".into(),
            Self::ExactlyOne { found: 0, .. } => "write one of them".into(),
            Self::ExactlyOne { .. } => "keep one of them".into(),
            Self::Exclusive { .. } => "remove one of them".into(),
            Self::WeightNegative { .. } | Self::WeightFraction { .. } | Self::WeightTooLarge { .. } => {
                format!("write a whole number from 0 to {}", u32::MAX)
            }
            Self::WeightsAllZero => "give at least one destination a weight above 0".into(),
            Self::WeightsTooLarge { .. } => "divide all weights by a common factor".into(),
            Self::Duplicate { .. } | Self::HostsOverlap { .. } => "remove one of the two".into(),
            Self::HostInvalid { .. } => {
                "write a DNS name, such as `reviews` or `reviews.default.svc.cluster.local`".into()
            }
            Self::WildcardNotFirst { .. } => "write `*.example.com`".into(),
            Self::WildcardAlone => "name the hosts".into(),
            Self::SelectorWildcard => "write the label's value".into(),
            Self::CidrNeedsStatic => "write single addresses, or `resolution: STATIC`".into(),
            Self::UnknownPortName { .. } => "use the name of a port in `spec.ports`".into(),
            Self::InDelegate { .. } => "remove it, or name the hosts".into(),
            Self::SniOutsideHosts { .. } => "add it to `spec.hosts`, or correct it".into(),
            Self::Regex { .. } => {
                "write it in the syntax of RE2, which has no look-around and no back-references".into()
            }
            Self::HeaderName { .. } => "write letters, digits and `-`".into(),
            Self::UnknownRule { .. } => "use the `name` of a rule, or its position, such as `http[0]`".into(),
            Self::Inside { problem, .. } => problem.remedy(),
            Self::UnknownField { remedy, .. } => remedy.clone(),
            // Only the library's text tells which types they are.
            Self::Shape { source } => {
                let text = source.to_string();
                let number = ["number", "i64", "u16", "u32", "integer"].iter().any(|it| {
                    text.contains(&format!("expected {it}"))
                        || text.contains(&format!("expected a {it}"))
                        || text.contains(&format!("expected a JSON {it}"))
                });
                if text.starts_with("invalid type: string") && number {
                    "write the number without quotes".into()
                } else if (text.starts_with("invalid type: integer") || text.starts_with("invalid type: boolean"))
                    && text.contains("expected a string")
                {
                    "put it in quotes".into()
                } else {
                    String::new()
                }
            }
            Self::Empty | Self::RegexLong { .. } | Self::Port { .. } | Self::Value { .. } | Self::Resolution { .. } => {
                String::new()
            }
        }
    }

    /// `CAN0002` for the wrong type, `CAN0001` for a wrong value.
    const fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "CAN0002",
            _ => "CAN0001",
        }
    }
}

/// A [`Problem`] and the path of the field that has it.
#[derive(Debug)]
pub(crate) struct Invalid {
    pub(crate) field: String,
    pub(crate) problem: Problem,
}

/// Collects everything that is wrong with one object, so that the author sees all of it at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Invalid>);

impl Faults {
    /// Notes a problem.
    pub(crate) fn push(&mut self, field: impl Into<String>, problem: Problem) {
        self.0.push(Invalid { field: field.into(), problem });
    }

    /// `value` if nothing was noted.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, Vec<Invalid>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// Unwraps `result`, noting its error at `field`.
    pub(crate) fn take<T>(&mut self, field: &str, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.push(field, problem)).ok()
    }
}

/// The diagnostic for one problem of `object`.
pub(crate) fn diagnose(object: &Object, invalid: &Invalid) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: invalid.problem.code(),
        object: object.id(),
        field: invalid.field.clone(),
        origin: object.origin_of(&invalid.field),
        message: invalid.problem.to_string(),
        remedy: invalid.problem.remedy(),
    }
}
