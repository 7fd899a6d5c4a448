//! Commands that only look: status, history, version.
use crate::{
    agent::edit::is_named,
    api::dto::{EntryV1, StatusV1, VersionInfoV1},
    cli::{
        Exit, Failure,
        args::{Format, HistoryArgs, Output, StatusArgs},
        client::{Client, ClientError},
        get::known_service,
        output::{Paint, Screen, bytes, count},
    },
};

pub(super) fn status(client: &Client, screen: &mut Screen<'_>, args: &StatusArgs) -> Result<Exit, Failure> {
    let status: StatusV1 = client.get("/v1/status")?;
    // Ready is not enough: what is written must be in force, too.
    let erroneous = status.diagnostics.iter().any(|found| found.severity == "error");
    let well = status.phase == "ready" && status.not_enforced.is_empty() && !erroneous;
    let good = if args.probe { status.was_ready } else { well };
    let exit = if good { Exit::Done } else { Exit::Failed };
    let output = args.output;
    match output.format {
        Format::Json | Format::Yaml => screen.document(&status, output.format)?,
        Format::Name => screen.line(&status.phase)?,
        Format::Table | Format::Wide => print_status(screen, &status, output.format == Format::Wide)?,
    }
    Ok(exit)
}

fn print_status(screen: &mut Screen<'_>, status: &StatusV1, wide: bool) -> Result<(), Failure> {
    let paint = match status.phase.as_str() {
        "ready" => Paint::Good,
        "starting" => Paint::Warn,
        _ => Paint::Bad,
    };
    let phase = screen.paint(&status.phase, paint);
    screen.line(format!("Agent:       {phase} since {} (version {})", status.since, status.version))?;
    if let Some(trouble) = &status.trouble {
        screen.line(format!("Trouble:     {}", trouble.message))?;
        screen.line(format!("             {}", trouble.remedy))?;
    }
    for (index, attached) in status.attached.iter().enumerate() {
        let title = if index == 0 { "Attached:" } else { "" };
        let adopted = if attached.adopted { ", adopted" } else { "" };
        screen.line(format!("{title:<12} {}:{} ({}{adopted})", attached.hook, attached.interface, attached.mode))?;
        if let Some(warning) = &attached.warning {
            screen.line(format!("             {warning}"))?;
        }
    }
    screen.line(format!(
        "In force:    {}, {}, {}",
        count(status.services, "service"),
        count(status.versions, "version"),
        count(status.endpoints, "endpoint")
    ))?;
    let applied = status.applied_at.as_deref().unwrap_or("never");
    screen.line(format!(
        "Applied:     {applied} ({}; {}, {} failed)",
        count(status.operations, "map write"),
        count(status.passes, "pass"),
        status.failures
    ))?;
    screen.line(format!("Memory:      {} in {}", bytes(status.map_bytes), count(status.maps.len(), "map")))?;
    if wide {
        for map in &status.maps {
            screen.line(format!("             {}: {}, {}", map.name, count(map.entries, "entry"), bytes(map.bytes)))?;
        }
    }
    for service in &status.not_enforced {
        let title = screen.paint("Not enforced", Paint::Bad);
        screen.line(format!("{title}: {}: {}", service.service, service.reason))?;
    }
    let worth_a_line = |found: &&crate::api::dto::DiagnosticV1| wide || found.severity != "info";
    let mut findings = status.diagnostics.iter().filter(worth_a_line).peekable();
    if findings.peek().is_some() {
        screen.line("Findings:")?;
    }
    for found in findings {
        super::diagnostic(screen, found, "  ")?;
    }
    Ok(())
}

pub(super) fn history(client: &Client, screen: &mut Screen<'_>, args: &HistoryArgs) -> Result<Exit, Failure> {
    let mut items: Vec<EntryV1> = client.list("/v1/history")?;
    if let Some(name) = &args.service {
        items.retain(|item| item.changes.iter().any(|change| is_named(&change.service, name)));
        if items.is_empty() {
            known_service(client, name)?;
        }
    }
    screen.list(&items, args.output.format, "No weights have been changed.")?;
    Ok(Exit::Done)
}

pub(super) fn version(client: &Client, screen: &mut Screen<'_>, output: Output) -> Result<Exit, Failure> {
    let agent = match client.get::<VersionInfoV1>("/v1/version") {
        Ok(info) => Some(info.version),
        // This program has a version with or without an agent.
        Err(ClientError::NoAgent { .. } | ClientError::Forbidden { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let own = env!("CARGO_PKG_VERSION");
    match output.format {
        format @ (Format::Json | Format::Yaml) => {
            screen.document(&serde_json::json!({"canary": own, "agent": agent}), format)?;
        }
        Format::Name | Format::Table | Format::Wide => {
            screen.line(format!("canary {own}"))?;
            screen.line(format!("agent {}", agent.as_deref().unwrap_or("not reached")))?;
        }
    }
    Ok(Exit::Done)
}
