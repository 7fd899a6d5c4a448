//! Commands without an agent: analyze and compile read files and say what they come to.
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    agent::view::View,
    analyze,
    api::{
        convert,
        dto::{DiagnosticV1, RuleV1, ServiceV1},
    },
    cli::{
        Exit, Failure,
        args::{FilesArgs, Format},
        input,
        output::{Screen, count},
        rows,
    },
    compile::{self, Compiled},
    dataplane::Counters,
    diagnostic::{Diagnostic, Severity},
    model::Model,
    source::Snapshot,
    state::State,
};

mod proxy;

use proxy::Proxy;

pub(super) fn analyze(screen: &mut Screen<'_>, args: &FilesArgs) -> Result<Exit, Failure> {
    let snapshot = input::snapshot(&args.files)?;
    let found = findings(&snapshot, &Proxy::of(args)?);
    let items: Vec<DiagnosticV1> = found.iter().map(DiagnosticV1::from).collect();
    let of = |severity: Severity| found.iter().filter(|found| found.severity == severity).count();
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => {
            screen.document(&Findings { items: &items, objects: snapshot.objects.len() }, format)?;
        }
        Format::Name => {
            let objects: BTreeSet<&str> = items.iter().map(|found| found.object.as_str()).collect();
            objects.into_iter().try_for_each(|object| screen.line(rows::object_name(object)))?;
        }
        Format::Table | Format::Wide => {
            for found in &items {
                super::diagnostic(screen, found, "")?;
            }
            screen.line(format!(
                "{}: {}, {}, {}.",
                count(snapshot.objects.len(), "object"),
                count(of(Severity::Error), "error"),
                count(of(Severity::Warning), "warning"),
                count(of(Severity::Info), "note")
            ))?;
        }
    }
    Ok(match (of(Severity::Error), of(Severity::Warning)) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Warnings,
        _ => Exit::Failed,
    })
}

/// What the analyzers find, and what reading and compiling find that they do not.
fn findings(snapshot: &Snapshot, proxy: &Proxy) -> Vec<Diagnostic> {
    let (_, compiled) = compiled(snapshot, proxy);
    let mut found = analyze::analyze(snapshot);
    let key = |found: &Diagnostic| (found.code, found.object.clone(), found.field.clone());
    let known: BTreeSet<_> = found.iter().map(key).collect();
    found.extend(compiled.into_iter().filter(|more| !known.contains(&key(more))));
    found.sort_by(|a, b| (&a.origin, b.severity, a).cmp(&(&b.origin, a.severity, b)));
    found.dedup();
    found
}

fn compiled(snapshot: &Snapshot, proxy: &Proxy) -> (Compiled, Vec<Diagnostic>) {
    let (model, read) = Model::read(snapshot);
    let compiled = compile::compile(&model, &State::default(), &proxy.addresses);
    let mut diagnostics = snapshot.diagnostics.clone();
    diagnostics.extend(read);
    diagnostics.extend(compiled.diagnostics.iter().cloned());
    diagnostics.extend(proxy.notes(&compiled));
    (compiled, diagnostics)
}

pub(super) fn compile(screen: &mut Screen<'_>, args: &FilesArgs) -> Result<Exit, Failure> {
    let snapshot = input::snapshot(&args.files)?;
    let (compiled, mut diagnostics) = compiled(&snapshot, &Proxy::of(args)?);
    diagnostics.sort();
    diagnostics.dedup();
    let errors = diagnostics.iter().any(|found| found.severity == Severity::Error);
    let state = std::sync::Arc::new(compiled.state);
    let view = View { intended: state.clone(), in_force: state.clone(), reports: compiled.services, ..View::default() };
    let services = convert::services(&view, &Counters::default());
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => {
            let services = services.iter().map(|service| service_of(service, &state)).collect();
            let diagnostics = diagnostics.iter().map(DiagnosticV1::from).collect();
            screen.document(&CompiledV1 { services, diagnostics }, format)?;
        }
        format => {
            screen.list(&services, format, "No services.")?;
            let worth_a_line = |found: &&Diagnostic| {
                found.severity != Severity::Info || found.code == proxy::NEEDED || format == Format::Wide
            };
            for found in diagnostics.iter().filter(worth_a_line) {
                super::diagnostic(screen, &DiagnosticV1::from(found), "")?;
            }
        }
    }
    Ok(if errors { Exit::Failed } else { Exit::Done })
}

#[derive(Serialize)]
struct Findings<'a> {
    items: &'a [DiagnosticV1],
    objects: usize,
}

/// What files come to. In order of names throughout, so that two of them can be compared line by line.
#[derive(Serialize)]
struct CompiledV1 {
    services: Vec<CompiledServiceV1>,
    diagnostics: Vec<DiagnosticV1>,
}

#[derive(Serialize)]
struct CompiledServiceV1 {
    service: String,
    addresses: Vec<String>,
    route: Option<String>,
    enforced: bool,
    reason: Option<String>,
    rules: Vec<RuleV1>,
    versions: BTreeMap<String, CompiledVersionV1>,
}

#[derive(Serialize)]
struct CompiledVersionV1 {
    drain_seconds: u32,
    /// Address → weight inside the version.
    endpoints: BTreeMap<String, u32>,
}

fn service_of(service: &ServiceV1, state: &State) -> CompiledServiceV1 {
    let in_force = state.services.iter().find(|(id, _)| id.to_string() == service.service).map(|(_, service)| service);
    let versions = in_force.into_iter().flat_map(|service| &service.versions).map(|(name, version)| {
        let endpoints = version.endpoints.iter().map(|(endpoint, weight)| (endpoint.to_string(), *weight)).collect();
        (name.clone(), CompiledVersionV1 { drain_seconds: version.drain_seconds, endpoints })
    });
    CompiledServiceV1 {
        service: service.service.clone(),
        addresses: service.addresses.clone(),
        route: service.route.clone(),
        enforced: service.enforced,
        reason: service.reason.clone(),
        rules: service.rules.clone(),
        versions: versions.collect(),
    }
}
