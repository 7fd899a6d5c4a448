//! Destinations and their shares: the one place where a weight gets its meaning.
use serde_json::Number;

use super::{
    names::Host,
    problem::{Faults, Problem},
    raw,
};

/// Where a share goes: a host, perhaps one port of it, perhaps one subset of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Destination {
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
    pub(crate) subset: Option<String>,
    /// The host as it is written.
    pub(crate) written: String,
    pub(crate) api: Api,
}

/// In whose words a destination is written, and so what becomes of one that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Api {
    Istio,
    Gateway,
    /// The Gateway API's, and not to be used: of another kind than a Service's, or without a grant. Said already.
    Refused,
}

impl Destination {
    /// The path of its host, under its own.
    pub(crate) const fn host_field(&self) -> &'static str {
        if matches!(self.api, Api::Istio) { "host" } else { "name" }
    }

    /// The path of its port, under its own.
    pub(crate) const fn port_field(&self) -> &'static str {
        if matches!(self.api, Api::Istio) { "port.number" } else { "port" }
    }
}

/// The destinations of one rule. Invariants: never empty; the weights' sum is 1..=`u32::MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    to: Vec<(Destination, u32)>,
    api: Api,
}

impl Route {
    /// Reads `route[]` at `path`.
    ///
    /// A single destination gets everything, whatever its weight. Among several a missing weight is 0, and 0 is nothing.
    pub(super) fn read(
        written: Vec<raw::RouteDestination>,
        path: &str,
        namespace: &str,
        faults: &mut Faults,
    ) -> Option<Self> {
        let single = written.len() == 1;
        let mut valid = true;
        let mut route = Vec::with_capacity(written.len());
        for (index, entry) in written.into_iter().enumerate() {
            let path = format!("{path}.route[{index}]");
            let destination = read_destination(entry.destination, &format!("{path}.destination"), namespace, faults);
            let weight = match entry.weight {
                Some(weight) => faults.take(&format!("{path}.weight"), read_weight(&weight)),
                None => Some(0),
            };
            match (destination, weight) {
                (Some(destination), Some(weight)) => route.push((destination, if single { 1 } else { weight })),
                _ => valid = false,
            }
        }
        if !valid {
            return None;
        }
        let sum: u64 = route.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let problem = if route.is_empty() {
            Problem::Empty
        } else if sum == 0 {
            Problem::WeightsAllZero
        } else if sum > u64::from(u32::MAX) {
            Problem::WeightsTooLarge { sum }
        } else {
            return Some(Self { to: route, api: Api::Istio });
        };
        faults.push(format!("{path}.route"), problem);
        None
    }

    /// The `backendRefs` of a rule of the Gateway API; `None` when they have no weight at all.
    pub(super) fn of_backends(to: Vec<(Destination, u32)>) -> Option<Self> {
        // Sixteen weights of up to a million.
        to.iter().any(|(_, weight)| *weight > 0).then_some(Self { to, api: Api::Gateway })
    }

    /// The path of an entry, under the rule's.
    pub(crate) fn entry(&self, index: usize) -> String {
        if self.api == Api::Istio { format!("route[{index}]") } else { format!("backendRefs[{index}]") }
    }

    /// The path of what an entry leads to, under the rule's.
    pub(crate) fn destination(&self, index: usize) -> String {
        let entry = self.entry(index);
        if self.api == Api::Istio { format!("{entry}.destination") } else { entry }
    }

    /// Destinations and weights, in the order in which they are written. A weight of 0 gets nothing.
    pub(crate) fn destinations(&self) -> impl ExactSizeIterator<Item = (&Destination, u32)> {
        self.to.iter().map(|(destination, weight)| (destination, *weight))
    }
}

/// Reads the destination at `path`.
pub(super) fn read_destination(
    raw: Option<raw::Destination>,
    path: &str,
    namespace: &str,
    faults: &mut Faults,
) -> Option<Destination> {
    let Some(raw) = raw else {
        faults.push(path, Problem::Missing);
        return None;
    };
    let written = raw.host.unwrap_or_default();
    if written.is_empty() {
        faults.push(format!("{path}.host"), Problem::Missing);
        return None;
    }
    let host = faults.take(&format!("{path}.host"), Host::read(&written, namespace));
    let port = match raw.port {
        Some(selector) => {
            if let Some(number) = selector.number {
                Some(faults.take(&format!("{path}.port.number"), read_port(number))?)
            } else {
                faults.push(format!("{path}.port.number"), Problem::Missing);
                return None;
            }
        }
        None => None,
    };
    Some(Destination {
        host: host?,
        port,
        subset: raw.subset.filter(|name| !name.is_empty()),
        written,
        api: Api::Istio,
    })
}

/// Reads a weight: a whole number, also in the form `10.0`.
pub(super) fn read_weight(weight: &Number) -> Result<u32, Problem> {
    if let Some(whole) = weight.as_u64() {
        return u32::try_from(whole).map_err(|_| Problem::WeightTooLarge { weight: weight.clone() });
    }
    let float = weight.as_f64().unwrap_or(f64::NAN);
    if float < 0.0 {
        return Err(Problem::WeightNegative { weight: weight.clone() });
    }
    if float.fract() != 0.0 || !float.is_finite() {
        return Err(Problem::WeightFraction { weight: weight.clone() });
    }
    if float > f64::from(u32::MAX) {
        return Err(Problem::WeightTooLarge { weight: weight.clone() });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and within u32, as checked above"
    )]
    Ok(float as u32)
}

/// Reads a port number.
pub(super) fn read_port(port: i64) -> Result<u16, Problem> {
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Problem::Port { port })
}
