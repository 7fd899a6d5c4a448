//! What a request would meet, with the places where its rules are written.
use std::net::SocketAddr;

use super::choosing;
use crate::{
    agent::view::View,
    api::dto::{HttpTraceV1, PassedRuleV1, PlacedRuleV1, TracedVersionV1},
    proxy::{
        Flag,
        explain::{Choice, Explained, Outcome},
    },
    state::ServiceId,
};

/// One request of `POST /v1/trace/http`.
#[must_use]
pub fn explained(view: &View, from: SocketAddr, to: SocketAddr, request: String, explained: Explained) -> HttpTraceV1 {
    let Explained { service, rule, passed, outcome } = explained;
    let placed = |index| service.as_ref().and_then(|id| placed(view, id, index));
    let rule = rule.and_then(placed);
    let passed = passed.into_iter().enumerate();
    let passed = passed.filter_map(|(index, why)| Some(PassedRuleV1 { rule: placed(index)?, why })).collect();
    let name = rule.as_ref().map_or("", |rule| rule.name.as_str());
    let why = sentence(&outcome, name, service.as_ref());
    let mut trace = HttpTraceV1 {
        from: from.to_string(),
        to: to.to_string(),
        request,
        service: service.as_ref().map(ToString::to_string),
        action: action(&outcome).into(),
        flags: flag(&outcome).map(|flag| flag.name().into()),
        rule,
        passed,
        status: None,
        location: None,
        choosing: None,
        versions: Vec::new(),
        why,
    };
    match outcome {
        Outcome::NoService | Outcome::Kernel => {}
        Outcome::Unmatched => trace.status = Some(404),
        Outcome::Redirect { location: None, .. } => trace.status = Some(400),
        Outcome::Redirect { status, location } => (trace.status, trace.location) = (Some(status), location),
        Outcome::Answer { status } => trace.status = Some(status),
        Outcome::Versions(choice) => {
            trace.choosing = Some(choosing(choice.choosing).into());
            trace.versions = versions(&choice);
        }
    }
    trace
}

/// A rule and where it stands. What is held at its last good state may stand nowhere now.
fn placed(view: &View, id: &ServiceId, index: usize) -> Option<PlacedRuleV1> {
    let rule = view.in_force.services.get(id)?.http.as_ref()?.rules.get(index)?;
    let report = view.reports.get(id);
    let place = report.and_then(|report| report.rules.get(index)).filter(|place| place.rule == rule.name);
    let object = report.and_then(|report| report.virtual_service.as_ref()).filter(|_| place.is_some());
    Some(PlacedRuleV1 {
        index,
        name: rule.name.clone(),
        object: object.map(|decider| decider.object.clone()),
        field: place.map(|place| place.field.clone()),
        file: place.map(|place| place.origin.file.display().to_string()),
        line: place.map(|place| place.origin.line),
    })
}

fn action(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::NoService => "left",
        Outcome::Kernel => "kernel",
        Outcome::Unmatched => "none",
        Outcome::Versions(_) => "route",
        Outcome::Redirect { .. } => "redirect",
        Outcome::Answer { .. } => "answer",
    }
}

/// Why no endpoint would answer, as far as that is certain.
fn flag(outcome: &Outcome) -> Option<Flag> {
    match outcome {
        Outcome::Unmatched => Some(Flag::NR),
        Outcome::Versions(choice) if choice.versions.iter().all(|(_, weight, _)| *weight == 0) => Some(Flag::NC),
        Outcome::Versions(choice) => {
            let mut open = choice.versions.iter().filter(|(name, weight, _)| choice.may_be(name, *weight));
            open.all(|(_, _, endpoints)| endpoints.is_empty()).then_some(Flag::UH)
        }
        _ => None,
    }
}

fn versions(choice: &Choice) -> Vec<TracedVersionV1> {
    let sum: f64 = choice.versions.iter().map(|(_, weight, _)| f64::from(*weight)).sum();
    let share = |name: &str, weight: u32| match &choice.certain {
        Some(certain) => f64::from(u8::from(certain == name)),
        None if sum > 0.0 => f64::from(weight) / sum,
        None => 0.0,
    };
    let versions = choice.versions.iter().map(|(version, weight, endpoints)| TracedVersionV1 {
        version: version.clone(),
        weight: *weight,
        share: share(version, *weight),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
    });
    versions.collect()
}

fn sentence(outcome: &Outcome, rule: &str, service: Option<&ServiceId>) -> String {
    let service = service.map(ToString::to_string).unwrap_or_default();
    match outcome {
        Outcome::NoService => "no service answers at this address".into(),
        Outcome::Kernel => format!(
            "no rule of {service} needs the request: the kernel splits its connections; `canary trace --from IP --to IP:PORT` says how"
        ),
        Outcome::Unmatched => format!("no rule of {service} matches: 404 with {}", Flag::NR.name()),
        Outcome::Redirect { status, location: Some(location) } => {
            format!("rule {rule} matches and redirects to {location} ({status})")
        }
        Outcome::Redirect { location: None, .. } => {
            format!("rule {rule} matches, but what it puts together is no address: 400")
        }
        Outcome::Answer { status } => format!("rule {rule} matches and answers {status}"),
        Outcome::Versions(choice) => match (&choice.certain, flag(outcome)) {
            (_, Some(Flag::NC)) => format!("rule {rule} matches, but no version has a weight: 503 with NC"),
            (Some(version), Some(_)) => {
                format!("rule {rule} matches; this client's version is {version}, which has no endpoints: 503 with UH")
            }
            (Some(version), None) => format!("rule {rule} matches; this client's version is {version}"),
            (None, Some(_)) => format!("rule {rule} matches, but no version of it has endpoints: 503 with UH"),
            (None, None) => format!("rule {rule} matches; its versions get their shares of such requests"),
        },
    }
}
