//! Commands that only look: get, status, history, verify, trace, version.
use std::{thread, time::Duration};

use crate::{
    agent::edit::is_named,
    api::dto::{
        EndpointV1, EntryV1, FlowV1, LeaveV1, ListV1, ServiceV1, SplitV1, StatusV1, TraceRequestV1, TraceV1, VerifyV1,
        VersionInfoV1, VersionV1,
    },
    cli::{
        Exit, Failure,
        args::{Format, GetArgs, HistoryArgs, Output, Proto, Resource, TraceArgs, VerifyArgs},
        client::{Client, ClientError},
        output::{Cell, Paint, Screen, bytes, percent, signed},
        rows,
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

pub(super) fn verify(client: &Client, screen: &mut Screen<'_>, args: &VerifyArgs) -> Result<Exit, Failure> {
    let mut verified: VerifyV1 = client.get("/v1/verify")?;
    if let Some(name) = &args.service {
        verified.splits.retain(|split| is_named(&split.service, name));
        if verified.splits.is_empty() {
            return Err(Failure::new(format!("there is no service `{name}`"), "`canary get services` lists them"));
        }
    }
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&verified, format)?,
        Format::Name => {
            for split in verified.splits.iter().filter(|split| !split.agrees) {
                screen.line(format!("split/{}/{}", split.service, split.rule))?;
            }
        }
        Format::Table | Format::Wide => print_verify(screen, &verified)?,
    }
    let agrees = verified.differences.is_empty() && verified.splits.iter().all(|split| split.agrees);
    Ok(if agrees { Exit::Done } else { Exit::Failed })
}

fn print_verify(screen: &mut Screen<'_>, verified: &VerifyV1) -> Result<(), Failure> {
    let titles =
        ["SERVICE", "RULE", "VERSION", "INTENDED", "PROGRAMMED", "FLOWS", "SHARE", "DEVIATION", "BOUND", "AGREES"];
    let rows: Vec<Vec<Cell>> = verified.splits.iter().flat_map(split_rows).collect();
    if !rows.is_empty() {
        screen.table(&titles, &rows)?;
    }
    for split in verified.splits.iter().filter(|split| split.unaccounted > 0) {
        screen.line(format!(
            "{} {}: {} flows were between their draw and their counter; bounds are wider by as much",
            split.service, split.rule, split.unaccounted
        ))?;
    }
    for difference in &verified.differences {
        let title = screen.paint("differs", Paint::Bad);
        screen.line(format!("{title}: {difference}"))?;
    }
    let wrong = verified.splits.iter().filter(|split| !split.agrees).count();
    let verdict = if wrong == 0 && verified.differences.is_empty() {
        let text = format!("{} splits: intended, programmed and observed agree.", verified.splits.len());
        screen.paint(&text, Paint::Good)
    } else {
        let text = format!(
            "{wrong} of {} splits disagree, {} differences in the maps.",
            verified.splits.len(),
            verified.differences.len()
        );
        screen.paint(&text, Paint::Bad)
    };
    screen.line(verdict)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn split_rows(split: &SplitV1) -> Vec<Vec<Cell>> {
    let weight = |weight: Option<u32>| weight.map_or("-".to_owned(), |weight| weight.to_string());
    split
        .versions
        .iter()
        .map(|one| {
            let fits = one.bound.is_none_or(|bound| one.deviation.abs() <= bound + 1e-6)
                && one.intended.unwrap_or(0) == one.programmed.unwrap_or(0);
            let (agrees, paint) = if fits { ("yes", Paint::Good) } else { ("no", Paint::Bad) };
            let share = if split.flows == 0 { "-".into() } else { percent(one.observed as f64 / split.flows as f64) };
            vec![
                split.service.clone().into(),
                split.rule.clone().into(),
                one.version.clone().into(),
                weight(one.intended).into(),
                weight(one.programmed).into(),
                one.observed.to_string().into(),
                share.into(),
                signed(one.deviation).into(),
                rows::bound(one.bound).into(),
                Cell::painted(agrees, paint),
            ]
        })
        .collect()
}

pub(super) fn trace(client: &Client, screen: &mut Screen<'_>, args: &TraceArgs) -> Result<Exit, Failure> {
    let protocol = match args.proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
    };
    let request = TraceRequestV1 {
        from: args.from.to_string(),
        to: args.to.to_string(),
        protocol: protocol.into(),
        count: args.count,
    };
    let traces: ListV1<TraceV1> = client.post("/v1/trace", &request)?;
    match (args.output.format, traces.items.as_slice()) {
        (Format::Table, [one]) => print_trace(screen, one, protocol)?,
        (format, items) => {
            screen.list(items, format, "No traces.")?;
            if matches!(format, Format::Table | Format::Wide) {
                print_tally(screen, items)?;
            }
        }
    }
    let left = traces.items.iter().any(|trace| trace.leave.is_some());
    Ok(if left { Exit::Failed } else { Exit::Done })
}

fn print_trace(screen: &mut Screen<'_>, trace: &TraceV1, protocol: &str) -> Result<(), Failure> {
    screen.line(format!("{} → {}/{protocol}", trace.from, trace.to))?;
    let fields = [
        ("service", &trace.service),
        ("rule", &trace.rule),
        ("version", &trace.version),
        ("endpoint", &trace.endpoint),
    ];
    for (title, text) in fields {
        if let Some(text) = text {
            screen.line(format!("  {title:<9} {text}"))?;
        }
    }
    screen.line(format!("  {:<9} {}", "why", trace.why))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn print_tally(screen: &mut Screen<'_>, traces: &[TraceV1]) -> Result<(), Failure> {
    let mut tally = std::collections::BTreeMap::<String, usize>::new();
    for trace in traces {
        let what = trace.leave.as_ref().map(|leave| format!("left alone ({leave})")).or_else(|| trace.version.clone());
        *tally.entry(what.unwrap_or_else(|| "-".into())).or_default() += 1;
    }
    for (what, count) in tally {
        screen.line(format!(
            "{what}: {count} of {} ({})",
            traces.len(),
            percent(count as f64 / traces.len() as f64)
        ))?;
    }
    Ok(())
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
