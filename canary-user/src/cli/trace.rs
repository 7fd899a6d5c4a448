//! `canary trace`: what would become of the first packet of a flow, or of a request.
use crate::{
    api::dto::{ListV1, TraceRequestV1, TraceV1},
    cli::{
        Exit, Failure,
        args::{Format, Proto, TraceArgs},
        client::Client,
        output::{Screen, percent},
    },
};

mod http;

pub(super) fn trace(client: &Client, screen: &mut Screen<'_>, args: &TraceArgs) -> Result<Exit, Failure> {
    let from = match (&args.http, args.from) {
        (Some(request), _) => return http::trace(client, screen, args, request),
        (None, Some(from)) => from,
        (None, None) => return Err(Failure::usage("give --from IP[:PORT], or --http 'METHOD PATH'")),
    };
    let protocol = match args.proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
    };
    let request = TraceRequestV1 {
        from: from.to_string(),
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
