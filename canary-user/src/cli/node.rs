//! `canary kube check`: what is on this node, and what would be used. Without an agent.
use crate::{
    cli::{
        Exit, Failure,
        args::{CheckArgs, Format},
        output::{Cell, Paint, Screen},
    },
    node::{self, Node, Report, Verdict},
};

pub(super) fn check(screen: &mut Screen<'_>, args: &CheckArgs) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = Node::here(&args.host_root, runtime.block_on(node::mode())).report();
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&report, format)?,
        Format::Name => report.places.iter().try_for_each(|place| screen.line(&place.attach))?,
        Format::Table | Format::Wide => table(screen, &report)?,
    }
    Ok(if report.works() { Exit::Done } else { Exit::Failed })
}

fn table(screen: &mut Screen<'_>, report: &Report) -> Result<(), Failure> {
    let (mut rows, mut remedies) = (Vec::new(), Vec::new());
    for check in &report.checks {
        let (word, paint) = match check.verdict {
            Verdict::Fine => ("fine", Paint::Good),
            Verdict::Limited => ("limited", Paint::Warn),
            Verdict::Missing => ("missing", Paint::Bad),
        };
        rows.push(vec![Cell::from(check.name), Cell::painted(word, paint), check.found.clone().into()]);
        if check.verdict != Verdict::Fine {
            remedies.push(format!("{}: {}", screen.paint(check.name, paint), check.remedy));
        }
    }
    screen.table(&["CHECK", "VERDICT", "FOUND"], &rows)?;
    if !remedies.is_empty() {
        screen.line("")?;
        remedies.into_iter().try_for_each(|remedy| screen.line(remedy))?;
    }
    screen.line("")?;
    let places: Vec<Vec<Cell>> = report
        .places
        .iter()
        .map(|place| vec![Cell::from(format!("--attach={}", place.attach)), place.traffic.into()])
        .collect();
    screen.table(&["WOULD BE USED", "FOR"], &places)?;
    Ok(())
}
