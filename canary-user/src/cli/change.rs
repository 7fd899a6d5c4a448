//! Commands that change something, all by one answer of the agent: apply, delete, set-weight, undo.
use std::path::Path;

use crate::{
    agent::{edit::EditError, pass},
    api::{
        dto::{ApplyV1, DeleteV1, EditedV1, ObjectV1, SetWeightsV1, UndoV1, WeightV1},
        error::ApiError,
    },
    cli::{
        Exit, Failure,
        args::{ApplyArgs, DeleteArgs, Format, Output, SetWeightArgs, UndoArgs},
        client::{Client, ClientError},
        input::texts,
        output::{Paint, Screen, count},
        rows,
    },
    source,
};

pub(super) fn apply(client: &Client, screen: &mut Screen<'_>, args: &ApplyArgs) -> Result<Exit, Failure> {
    let files = texts(&args.files)?;
    let edited: EditedV1 = client.post("/v1/apply", &ApplyV1 { files, dry_run: args.dry_run })?;
    report(screen, &edited, args.output)
}

pub(super) fn delete(client: &Client, screen: &mut Screen<'_>, args: &DeleteArgs) -> Result<Exit, Failure> {
    let mut objects = Vec::new();
    let mut object = |kind: &str, name: &str| {
        let (namespace, name) = name.split_once('/').unwrap_or((&args.namespace, name));
        objects.push(ObjectV1 { kind: kind_of(kind).into(), namespace: namespace.into(), name: name.into() });
    };
    match &args.kind {
        // KIND/NAME KIND/NAME …, else KIND NAME NAME …
        Some(first) if first.contains('/') => {
            for one in std::iter::once(first).chain(&args.names) {
                let (kind, name) = one
                    .split_once('/')
                    .ok_or_else(|| Failure::usage(format!("`{one}` is not KIND/NAME, as `{first}` is")))?;
                object(kind, name);
            }
        }
        Some(kind) if args.names.is_empty() => {
            return Err(Failure::usage(format!("which {kind}? give `{kind} NAME` or `{kind}/NAME`")));
        }
        Some(kind) => args.names.iter().for_each(|name| object(kind, name)),
        None => {}
    }
    let mut diagnostics = Vec::new();
    for file in texts(&args.files)? {
        let parsed = source::parse(&file.text, Path::new(&file.name));
        diagnostics.extend(pass::errors(&parsed.diagnostics).cloned());
        objects.extend(parsed.objects.into_iter().map(|object| ObjectV1 {
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }));
    }
    // What cannot be read may name objects too: half of what was meant is not what was meant.
    if !diagnostics.is_empty() {
        let refused = ApiError::from(EditError::Invalid { diagnostics });
        return Err(ClientError::Refused(refused.body).into());
    }
    if objects.is_empty() {
        return Err(Failure::new(
            "there is no object in what was given",
            "name a kind and a name, or a file with objects",
        ));
    }
    let asked = DeleteV1 { objects, ignore_not_found: args.ignore_not_found, force: args.force, dry_run: args.dry_run };
    let edited: EditedV1 = client.post("/v1/delete", &asked)?;
    report(screen, &edited, args.output)
}

pub(super) fn set_weight(client: &Client, screen: &mut Screen<'_>, args: &SetWeightArgs) -> Result<Exit, Failure> {
    let weights =
        args.weights.iter().map(|(version, weight)| WeightV1 { version: version.clone(), weight: *weight }).collect();
    let asked = SetWeightsV1 { service: args.service.clone(), rule: args.rule.clone(), weights, dry_run: args.dry_run };
    let edited: EditedV1 = client.post("/v1/weights", &asked)?;
    report(screen, &edited, args.output)
}

pub(super) fn undo(client: &Client, screen: &mut Screen<'_>, args: &UndoArgs) -> Result<Exit, Failure> {
    let edited: EditedV1 = client.post("/v1/undo", &UndoV1 { entry: args.entry, dry_run: args.dry_run })?;
    report(screen, &edited, args.output)
}

/// What the agent did, or would do.
pub(super) fn report(screen: &mut Screen<'_>, edited: &EditedV1, output: Output) -> Result<Exit, Failure> {
    match output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(edited, format)?,
        Format::Name => {
            for object in &edited.objects {
                screen.line(rows::object_name(&object.object))?;
            }
        }
        format => print(screen, edited, format == Format::Wide)?,
    }
    // Written is not enough: who sets weights wants them in force, and whatever is left behind in order.
    let errors = edited.diagnostics.iter().any(|found| found.severity == "error");
    Ok(if edited.not_enforced.is_empty() && !errors { Exit::Done } else { Exit::Failed })
}

fn print(screen: &mut Screen<'_>, edited: &EditedV1, wide: bool) -> Result<(), Failure> {
    let dry = if edited.dry_run { " (dry run)" } else { "" };
    for object in &edited.objects {
        screen.line(format!("{} {}{dry}", object.object, object.outcome))?;
    }
    if edited.dry_run {
        effect(screen, edited)?;
    } else {
        edited.changes.iter().try_for_each(|change| screen.line(rows::change(change)))?;
    }
    for found in edited.diagnostics.iter().filter(|found| found.severity != "info") {
        super::diagnostic(screen, found, "")?;
    }
    for service in &edited.not_enforced {
        let title = screen.paint("not enforced", Paint::Bad);
        screen.line(format!("{title}: {}: {}", service.service, service.reason))?;
    }
    if let Some(plan) = edited.plan.as_ref().filter(|_| wide) {
        screen.line(format!("{}{}", count(plan.len(), "map write"), if plan.is_empty() { "." } else { ":" }))?;
        for operation in plan {
            screen.line(format!("  {operation}"))?;
        }
    }
    if let Some(operations) = edited.operations {
        let text = if edited.not_enforced.is_empty() {
            screen.paint("in force", Paint::Good)
        } else {
            screen.paint("written, but not in force as written", Paint::Bad)
        };
        // Undo sets weights: it brings no rule back.
        let undoable = edited.changes.iter().all(|change| !change.old.is_empty() && !change.new.is_empty());
        let entry = match edited.entry {
            Some(entry) if undoable => format!("; `canary undo {entry}` takes it back"),
            Some(entry) => format!("; entry {entry} of the history"),
            None => String::new(),
        };
        screen.line(format!("{text} ({}{entry})", count(operations, "map write")))?;
    }
    Ok(())
}

/// What a dry run would change for clients: shares and endpoints, before and after.
fn effect(screen: &mut Screen<'_>, edited: &EditedV1) -> Result<(), Failure> {
    let rows: Vec<_> = edited.changes.iter().flat_map(rows::shares).collect();
    if !rows.is_empty() {
        screen.table(&["SERVICE", "RULE", "VERSION", "WEIGHT", "SHARE"], &rows)?;
    }
    for one in &edited.endpoints {
        let (old, new) = (one.old, count(one.new, "endpoint"));
        let (service, version) = (&one.service, &one.version);
        screen.line(format!("{service} {version}: {old} → {new} (+{} -{})", one.added, one.removed))?;
    }
    if rows.is_empty() && edited.endpoints.is_empty() {
        screen.line("no share and no endpoint would change")?;
    }
    Ok(())
}

/// The kind that a user of kubectl means.
fn kind_of(text: &str) -> &str {
    let lower = text.to_lowercase();
    let lower = lower.split('.').next().unwrap_or_default();
    match lower {
        "vs" | "virtualservice" | "virtualservices" => "VirtualService",
        "dr" | "destinationrule" | "destinationrules" => "DestinationRule",
        "se" | "serviceentry" | "serviceentries" => "ServiceEntry",
        "we" | "workloadentry" | "workloadentries" => "WorkloadEntry",
        "svc" | "service" | "services" => "Service",
        "endpointslice" | "endpointslices" => "EndpointSlice",
        "po" | "pod" | "pods" => "Pod",
        "routepolicy" | "routepolicies" => "RoutePolicy",
        _ => text,
    }
}
