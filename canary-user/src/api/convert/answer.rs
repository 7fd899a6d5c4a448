//! Answers to requests that change or try something.
use crate::{
    agent::{
        edit::{Edited, Outcome, Scaled},
        history::{Action, Change, History},
        view::View,
    },
    api::dto::{
        ChangeV1, DiagnosticV1, EditedV1, EndpointsChangeV1, EntryV1, NotEnforcedV1, ObjectOutcomeV1, TraceV1, WeightV1,
    },
    dataplane::{Probe, Trace},
    state::{Choosing, Rule},
    telemetry::time,
};

/// The answer to a change.
#[must_use]
pub fn edited(edited: &Edited, dry_run: bool) -> EditedV1 {
    EditedV1 {
        dry_run,
        objects: edited
            .objects
            .iter()
            .map(|(object, outcome)| ObjectOutcomeV1 {
                object: object.clone(),
                outcome: match outcome {
                    Outcome::Created => "created",
                    Outcome::Configured => "configured",
                    Outcome::Unchanged => "unchanged",
                    Outcome::Deleted => "deleted",
                }
                .into(),
            })
            .collect(),
        files: edited.files.iter().map(|file| file.display().to_string()).collect(),
        changes: edited.changes.iter().map(ChangeV1::from).collect(),
        endpoints: edited.scaled.iter().map(EndpointsChangeV1::from).collect(),
        not_enforced: edited
            .not_enforced
            .iter()
            .map(|(service, reason)| NotEnforcedV1 { service: service.to_string(), reason: reason.clone() })
            .collect(),
        diagnostics: edited.diagnostics.iter().map(DiagnosticV1::from).collect(),
        plan: edited.plan.clone(),
        operations: edited.applied.as_ref().map(|applied| applied.operations),
        entry: edited.entry,
    }
}

/// `GET /v1/history`, newest first.
#[must_use]
pub fn history(history: &History) -> Vec<EntryV1> {
    let undone_by = |id| history.entries.iter().find(|later| later.undoes == Some(id)).map(|later| later.id);
    history
        .entries
        .iter()
        .rev()
        .map(|entry| EntryV1 {
            id: entry.id,
            at: time::rfc3339(entry.at),
            by: entry.author.name.clone(),
            uid: entry.author.uid,
            action: match entry.action {
                Action::SetWeight => "set-weight",
                Action::Apply => "apply",
                Action::Delete => "delete",
                Action::Undo => "undo",
                Action::Files => "files",
            }
            .into(),
            undoes: entry.undoes,
            undone_by: undone_by(entry.id),
            changes: entry.changes.iter().map(ChangeV1::from).collect(),
        })
        .collect()
}

/// One flow of `POST /v1/trace`.
#[must_use]
pub fn trace(view: &View, probe: Probe, trace: &Trace) -> TraceV1 {
    let service = trace.service.as_ref().and_then(|id| view.in_force.services.get(id));
    let rule = trace.rule.and_then(|index| service?.rules.get(index));
    TraceV1 {
        from: probe.from.to_string(),
        to: probe.to.to_string(),
        service: trace.service.as_ref().map(ToString::to_string),
        rule: rule.map(|rule| rule.name.clone()).or_else(|| trace.rule.map(|index| format!("#{index}"))),
        version: trace.version.clone(),
        endpoint: trace.endpoint.map(|endpoint| endpoint.to_string()),
        draw: trace.draw,
        known: trace.known,
        leave: trace.leave.map(str::to_owned),
        why: why(trace, rule),
    }
}

fn why(trace: &Trace, rule: Option<&Rule>) -> String {
    if let Some(leave) = trace.leave {
        return match &trace.service {
            Some(service) => format!("left alone: {leave} (service {service})"),
            None => format!("left alone: {leave}"),
        };
    }
    if trace.known {
        return "the flow is known and keeps its endpoint".into();
    }
    let Some(rule) = rule else { return "new flow".into() };
    let who = if rule.sources.is_empty() {
        "matches everybody".to_owned()
    } else {
        let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
        format!("matches clients of {}", sources.join(", "))
    };
    let of = |version: &String| {
        let weight = rule.split.weights.iter().find(|(name, _)| name == version).map_or(0, |(_, weight)| *weight);
        let sum: u64 = rule.split.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        format!("weight {weight} of {sum}")
    };
    let weight = trace.version.as_ref().map(of).unwrap_or_default();
    let how = match (rule.split.choosing, trace.draw) {
        (Choosing::Exact, Some(draw)) => format!("draw {draw} of the sequence"),
        (Choosing::Exact, None) => "the sequence".into(),
        (Choosing::KeyedFlow, _) => "the hash of the 5-tuple".into(),
        (Choosing::KeyedClient, _) => "the hash of the client's address".into(),
    };
    format!("rule {} {who}; {how} falls to this version ({weight})", rule.name)
}

impl From<&Change> for ChangeV1 {
    fn from(change: &Change) -> Self {
        let weights = |weights: &[(String, u32)]| {
            weights.iter().map(|(version, weight)| WeightV1 { version: version.clone(), weight: *weight }).collect()
        };
        Self {
            service: change.service.to_string(),
            rule: change.rule.clone(),
            old: weights(&change.old),
            new: weights(&change.new),
        }
    }
}

impl From<&Scaled> for EndpointsChangeV1 {
    fn from(scaled: &Scaled) -> Self {
        Self {
            service: scaled.service.to_string(),
            version: scaled.version.clone(),
            old: scaled.old,
            new: scaled.new,
            added: scaled.added,
            removed: scaled.removed,
        }
    }
}
