//! Commands that only look: get, status, history, version.
use std::{thread, time::Duration};

use crate::{
    agent::edit::is_named,
    api::dto::{EndpointV1, EntryV1, FlowV1, LeaveV1, ServiceV1, StatusV1, VersionInfoV1, VersionV1},
    cli::{
        Exit, Failure,
        args::{Format, GetArgs, HistoryArgs, Output, Resource},
        client::{Client, ClientError},
        output::{Paint, Screen, bytes},
    },
};

pub(super) fn get(client: &Client, screen: &mut Screen<'_>, args: &GetArgs, terminal: bool) -> Result<Exit, Failure> {
    loop {
        if args.watch && terminal {
            // Home, and clear to the end.
            write!(screen.out, "\x1b[H\x1b[J")?;
        }
        get_once(client, screen, args)?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        screen.out.flush()?;
        thread::sleep(Duration::from_secs(1));
    }
}

fn get_once(client: &Client, screen: &mut Screen<'_>, args: &GetArgs) -> Result<(), Failure> {
    let format = args.output.format;
    let wanted = |service: &str| args.name.as_deref().is_none_or(|name| is_named(service, name));
    match args.resource {
        Resource::Services => {
            let mut items: Vec<ServiceV1> = client.list("/v1/services")?;
            items.retain(|item| wanted(&item.service));
            screen.list(&items, format, "No services.")?;
        }
        Resource::Versions => {
            let mut items: Vec<VersionV1> = client.list("/v1/versions")?;
            items.retain(|item| wanted(&item.service));
            screen.list(&items, format, "No versions.")?;
        }
        Resource::Endpoints => {
            let mut items: Vec<EndpointV1> = client.list("/v1/endpoints")?;
            items.retain(|item| wanted(&item.service));
            screen.list(&items, format, "No endpoints.")?;
        }
        Resource::Flows => {
            let mut items: Vec<FlowV1> = client.list(&format!("/v1/flows?limit={}", args.limit))?;
            items.retain(|item| args.name.is_none() || item.service.as_deref().is_some_and(wanted));
            screen.list(&items, format, "No flows.")?;
        }
        Resource::Leaves => {
            let mut items: Vec<LeaveV1> = client.list("/v1/leaves")?;
            items.retain(|item| args.name.as_deref().is_none_or(|name| item.reason == name));
            screen.list(&items, format, "No packets were left alone.")?;
        }
    }
    Ok(())
}

pub(super) fn status(client: &Client, screen: &mut Screen<'_>, output: Output) -> Result<Exit, Failure> {
    let status: StatusV1 = client.get("/v1/status")?;
    // Ready is not enough: what is written must be in force, too.
    let erroneous = status.diagnostics.iter().any(|found| found.severity == "error");
    let well = status.phase == "ready" && status.not_enforced.is_empty() && !erroneous;
    let exit = if well { Exit::Done } else { Exit::Failed };
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
        "In force:    {} services, {} versions, {} endpoints",
        status.services, status.versions, status.endpoints
    ))?;
    let applied = status.applied_at.as_deref().unwrap_or("never");
    screen.line(format!(
        "Applied:     {applied} ({} map writes; {} passes, {} failed)",
        status.operations, status.passes, status.failures
    ))?;
    screen.line(format!("Memory:      {} in {} maps", bytes(status.map_bytes), status.maps.len()))?;
    if wide {
        for map in &status.maps {
            screen.line(format!("             {}: {} entries, {}", map.name, map.entries, bytes(map.bytes)))?;
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
