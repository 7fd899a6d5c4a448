//! `fault`: requests that wait or fail on purpose.
use super::{NotFollowed, milliseconds};
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
    },
    state::{Abort, AbortWith, Delay, Fault, Percentage},
};

/// gRPC's statuses, by their numbers.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads `fault` at `path`.
pub(super) fn read(
    raw: raw::HttpFault,
    path: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> Option<Fault> {
    let path = format!("{path}.fault");
    if raw.delay.is_none() && raw.abort.is_none() {
        faults.push(path, Problem::ExactlyOne { fields: "`delay` or `abort` (or both)", found: 0 });
        return None;
    }
    let mut unset = |part: &str, percentage: &Option<Percentage>| {
        if percentage.is_none() {
            let why = "without `percentage` it is for no request, as in Istio";
            not_followed.push(NotFollowed { field: format!("fault.{part}"), why });
        }
    };
    let delay = raw.delay.and_then(|raw| {
        let (percentage, fixed_ms) = read_delay(raw, &format!("{path}.delay"), faults)?;
        unset("delay", &percentage);
        Some(Delay { percentage: percentage?, fixed_ms })
    });
    let abort = raw.abort.and_then(|raw| {
        let (percentage, with) = read_abort(raw, &format!("{path}.abort"), faults)?;
        unset("abort", &percentage);
        Some(Abort { percentage: percentage?, with })
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn read_delay(raw: raw::FaultDelay, path: &str, faults: &mut Faults) -> Option<(Option<Percentage>, u64)> {
    let Some(fixed) = raw.fixed_delay else {
        if raw.exponential_delay.is_none() {
            faults.push(format!("{path}.fixedDelay"), Problem::Missing);
        }
        return None; // An exponential delay is reported with the object.
    };
    let fixed_ms = faults.take(&format!("{path}.fixedDelay"), milliseconds(&fixed));
    let percentage = match raw.percentage {
        Some(it) => Some(faults.take(&format!("{path}.percentage.value"), it.read())?),
        None => match raw.percent {
            Some(it) => Some(faults.take(&format!("{path}.percent"), percentage(it))?),
            None => None,
        },
    };
    Some((percentage, fixed_ms?))
}

fn read_abort(raw: raw::FaultAbort, path: &str, faults: &mut Faults) -> Option<(Option<Percentage>, AbortWith)> {
    let found = [raw.http_status.is_some(), raw.grpc_status.is_some(), raw.http2_error.is_some()];
    let found = found.iter().filter(|is_set| **is_set).count();
    if found != 1 {
        faults.push(path, Problem::ExactlyOne { fields: "`httpStatus`, `grpcStatus` and `http2Error`", found });
        return None;
    }
    let with = if let Some(status) = raw.http_status {
        let valid = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
        let (value, expected) = (status.to_string(), "a status from 200 to 599");
        let valid = valid.map(AbortWith::Http).ok_or(Problem::Value { value, expected });
        Some(faults.take(&format!("{path}.httpStatus"), valid)?)
    } else if let Some(name) = raw.grpc_status {
        let code = GRPC.iter().position(|it| *it == name).and_then(|code| u16::try_from(code).ok());
        let expected = "the name of a gRPC status, such as UNAVAILABLE";
        let valid = code.map(AbortWith::Grpc).ok_or(Problem::Value { value: name, expected });
        Some(faults.take(&format!("{path}.grpcStatus"), valid)?)
    } else {
        None // Reported with the object.
    };
    let percentage = match raw.percentage {
        Some(it) => Some(faults.take(&format!("{path}.percentage.value"), it.read())?),
        None => None,
    };
    Some((percentage, with?))
}

impl raw::Percent {
    /// Reads a percentage; without a value it is 0, as protobuf has it.
    pub(super) fn read(&self) -> Result<Percentage, Problem> {
        percentage(self.value.unwrap_or_default())
    }
}

/// Reads a percentage, as fine as Envoy counts.
pub(super) fn percentage(value: f64) -> Result<Percentage, Problem> {
    if !(0.0..=100.0).contains(&value) {
        return Err(Problem::Value { value: value.to_string(), expected: "a percentage from 0 to 100" });
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100, as checked above")]
    Ok(Percentage::from_millionths((value * 1e4).round() as u32))
}
