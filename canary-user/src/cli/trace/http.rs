//! `canary trace --http`: which rule and versions a request would meet, and why no rule before.
use crate::{
    api::dto::{HeaderV1, HttpTraceRequestV1, HttpTraceV1, PlacedRuleV1},
    cli::{
        Exit, Failure,
        args::{Format, HttpRequest, TraceArgs},
        client::Client,
        output::{Cell, Paint, Screen, percent},
    },
};

pub(super) fn trace(
    client: &Client,
    screen: &mut Screen<'_>,
    args: &TraceArgs,
    request: &HttpRequest,
) -> Result<Exit, Failure> {
    let header = |(name, value): &(String, String)| HeaderV1 { name: name.clone(), value: value.clone() };
    let asked = HttpTraceRequestV1 {
        from: args.from.map(|from| from.to_string()),
        to: args.to.to_string(),
        method: request.method.clone(),
        target: request.target.clone(),
        headers: args.headers.iter().map(header).collect(),
    };
    let trace: HttpTraceV1 = client.post("/v1/trace/http", &asked)?;
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&trace, format)?,
        Format::Name => names(screen, &trace)?,
        Format::Table => print(screen, &trace, false)?,
        Format::Wide => print(screen, &trace, true)?,
    }
    let served = trace.flags.is_none() && !matches!(trace.action.as_str(), "none" | "left" | "kernel");
    Ok(if served { Exit::Done } else { Exit::Failed })
}

fn names(screen: &mut Screen<'_>, trace: &HttpTraceV1) -> Result<(), Failure> {
    let service = trace.service.as_deref().unwrap_or("-");
    let rule = trace.rule.as_ref().map_or("-", |rule| rule.name.as_str());
    for version in trace.versions.iter().filter(|version| version.share > 0.0) {
        screen.line(format!("version/{service}/{rule}/{}", version.version))?;
    }
    Ok(())
}

fn print(screen: &mut Screen<'_>, trace: &HttpTraceV1, wide: bool) -> Result<(), Failure> {
    screen.line(format!("{} → {}", trace.request, trace.to))?;
    if let Some(service) = &trace.service {
        screen.line(format!("  {:<9} {service}", "service"))?;
    }
    for one in &trace.passed {
        screen.line(format!("  {:<9} {}: {}", "not", place(&one.rule), one.why))?;
    }
    if let Some(rule) = &trace.rule {
        screen.line(format!("  {:<9} {}", "rule", place(rule)))?;
    }
    screen.line(format!("  {:<9} {}", "why", trace.why))?;
    if trace.versions.is_empty() {
        return Ok(());
    }
    let mut titles = vec!["VERSION", "WEIGHT", "SHARE", "ENDPOINTS"];
    if wide {
        titles.extend(["CHOOSING", "ADDRESSES"]);
    }
    let rows = trace.versions.iter().map(|version| {
        let none = version.endpoints.is_empty() && version.share > 0.0;
        let endpoints = version.endpoints.len().to_string();
        let mut cells: Vec<Cell> = vec![
            version.version.clone().into(),
            version.weight.to_string().into(),
            percent(version.share).into(),
            Cell::painted(endpoints, if none { Paint::Warn } else { Paint::Plain }),
        ];
        if wide {
            cells.push(trace.choosing.clone().unwrap_or_default().into());
            cells.push(version.endpoints.join(",").into());
        }
        cells
    });
    screen.table(&titles, &rows.collect::<Vec<_>>())?;
    Ok(())
}

/// `http[1] (index 1; VirtualService default/reviews, reviews.yaml:14)`.
fn place(rule: &PlacedRuleV1) -> String {
    let PlacedRuleV1 { index, name, object, file, line, .. } = rule;
    match (object, file, line) {
        (Some(object), Some(file), Some(line)) => format!("{name} (index {index}; {object}, {file}:{line})"),
        _ => format!("{name} (index {index}; last good state)"),
    }
}
