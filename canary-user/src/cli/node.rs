//! `canary kube check`: what a node has, for people and for scripts.
use crate::{
    cli::{
        Exit, Failure,
        args::{Format, KubeCheckArgs},
        output::{Cell, Paint, Screen},
    },
    node::{self, Options, Outcome, Report},
};

pub(super) fn check(screen: &mut Screen<'_>, args: &KubeCheckArgs) -> Result<Exit, Failure> {
    let KubeCheckArgs { host_root, kube_proxy, pin, output } = args;
    let report = node::check(&Options { host_root: host_root.clone(), kube_proxy: *kube_proxy, pin: pin.clone() });
    show(screen, &report, output.format)?;
    Ok(if report.works { Exit::Done } else { Exit::Failed })
}

/// The report in a form; names are the places to attach to.
pub(super) fn show(screen: &mut Screen<'_>, report: &Report, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Yaml => screen.document(report, format)?,
        Format::Name => report.places.iter().try_for_each(|it| screen.line(&it.attach))?,
        Format::Table | Format::Wide => table(screen, report)?,
    }
    Ok(())
}

fn table(screen: &mut Screen<'_>, report: &Report) -> Result<(), Failure> {
    let rows = report.checks.iter().map(|it| {
        let (word, paint) = word(it.outcome);
        vec![it.check.into(), Cell::painted(word, paint), it.found.as_str().into()]
    });
    screen.table(&["CHECK", "OUTCOME", "FOUND"], &rows.collect::<Vec<_>>())?;
    let remedies: Vec<_> = report.checks.iter().filter(|it| !it.remedy.is_empty()).collect();
    if !remedies.is_empty() {
        screen.line("")?;
    }
    for it in remedies {
        let (word, paint) = word(it.outcome);
        let word = screen.paint(word, paint);
        screen.line(format!("{word}: {}: {}", it.check, it.remedy))?;
    }
    if !report.places.is_empty() {
        screen.line("")?;
        let rows = report.places.iter().map(|it| vec![format!("--attach={}", it.attach).into(), it.traffic.into()]);
        screen.table(&["ARGUMENT", "FOR"], &rows.collect::<Vec<_>>())?;
    }
    screen.line("")?;
    let end = if report.works {
        screen.paint("canary works here.", Paint::Good)
    } else {
        screen.paint("canary does not work here as it is.", Paint::Bad)
    };
    Ok(screen.line(end)?)
}

fn word(outcome: Outcome) -> (&'static str, Paint) {
    match outcome {
        Outcome::Ok => ("ok", Paint::Good),
        Outcome::Note => ("note", Paint::Plain),
        Outcome::Warning => ("warning", Paint::Warn),
        Outcome::Missing => ("missing", Paint::Bad),
    }
}
