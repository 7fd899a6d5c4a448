//! `canary verify`: whether what should happen does.
use crate::{
    agent::edit::is_named,
    api::dto::{SplitV1, VerifyV1},
    cli::{
        Exit, Failure,
        args::{Format, VerifyArgs},
        client::Client,
        get::known_service,
        output::{Cell, Paint, Screen, count, percent, signed},
        rows,
    },
};

pub(super) fn verify(client: &Client, screen: &mut Screen<'_>, args: &VerifyArgs) -> Result<Exit, Failure> {
    let mut verified: VerifyV1 = client.get("/v1/verify")?;
    if let Some(name) = &args.service {
        verified.splits.retain(|split| is_named(&split.service, name));
        verified.not_enforced.retain(|one| is_named(&one.service, name));
        verified.without_endpoints.retain(|one| is_named(&one.service, name));
        if verified.splits.is_empty() && verified.not_enforced.is_empty() {
            known_service(client, name)?;
        }
    }
    match args.output.format {
        format @ (Format::Json | Format::Yaml) => screen.document(&verified, format)?,
        Format::Name => {
            for split in verified.splits.iter().filter(|split| !split.agrees) {
                screen.line(format!("split/{}/{}", split.service, split.rule))?;
            }
            for one in &verified.not_enforced {
                screen.line(format!("service/{}", one.service))?;
            }
            for one in &verified.without_endpoints {
                screen.line(format!("version/{}/{}/{}", one.service, one.rule, one.version))?;
            }
        }
        Format::Table | Format::Wide => print_verify(screen, &verified)?,
    }
    let agrees = verified.differences.is_empty() && verified.splits.iter().all(|split| split.agrees);
    let served = verified.not_enforced.is_empty() && verified.without_endpoints.is_empty();
    Ok(if agrees && served { Exit::Done } else { Exit::Failed })
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
            "{} {}: {} between draw and counter; the bounds are wider by as much",
            split.service,
            split.rule,
            count(split.unaccounted, "flow")
        ))?;
    }
    for difference in &verified.differences {
        let title = screen.paint("differs", Paint::Bad);
        screen.line(format!("{title}: {difference}"))?;
    }
    for one in &verified.not_enforced {
        let title = screen.paint("not enforced", Paint::Bad);
        screen.line(format!("{title}: {}: {}", one.service, one.reason))?;
    }
    for one in &verified.without_endpoints {
        let title = screen.paint("no endpoints", Paint::Bad);
        screen.line(format!("{title}: {} {}: {} has {}", one.service, one.rule, one.version, percent(one.share)))?;
    }
    let (text, paint) = verdict(verified);
    screen.line(screen.paint(&text, paint))?;
    Ok(())
}

/// The last line: all is well, or what is not.
fn verdict(verified: &VerifyV1) -> (String, Paint) {
    let wrong = verified.splits.iter().filter(|split| !split.agrees).count();
    if wrong > 0 || !verified.differences.is_empty() {
        let (all, differences) = (verified.splits.len(), verified.differences.len());
        let text = format!("splits that disagree: {wrong} of {all}; differences in the maps: {differences}.");
        return (text, Paint::Bad);
    }
    let splits = count(verified.splits.len(), "split");
    let agree = format!("{splits}: intended, programmed and observed agree");
    let mut but = Vec::new();
    if !verified.not_enforced.is_empty() {
        but.push(format!("{} not enforced as written", count(verified.not_enforced.len(), "service")));
    }
    if !verified.without_endpoints.is_empty() {
        but.push(format!("{} with a share but without endpoints", count(verified.without_endpoints.len(), "version")));
    }
    if but.is_empty() {
        (format!("{agree}."), Paint::Good)
    } else {
        (format!("{agree}; but {}.", but.join(", ")), Paint::Bad)
    }
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
