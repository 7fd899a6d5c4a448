//! `mirror` and `mirrors`: who gets copies of requests.
use super::{NotFollowed, fault::percentage};
use crate::{
    model::{
        problem::{Faults, Problem},
        raw,
        route::{Destination, read_destination},
    },
    state::Percentage,
};

/// A destination that gets copies.
#[derive(Debug, Clone)]
pub(crate) struct MirrorTo {
    pub(crate) destination: Destination,
    pub(crate) percentage: Percentage,
    /// Its path under the rule.
    pub(crate) field: String,
}

/// Reads the mirrors of the rule at `path`. Without a percentage it is everything; one of 0 % is none.
pub(super) fn read(
    raw: &mut raw::HttpRoute,
    path: &str,
    namespace: &str,
    not_followed: &mut Vec<NotFollowed>,
    faults: &mut Faults,
) -> Vec<MirrorTo> {
    let (single, several) = (raw.mirror.take(), std::mem::take(&mut raw.mirrors));
    if single.is_some() && !several.is_empty() {
        let (first, second) = ("mirror", "mirrors");
        faults.push(format!("{path}.mirrors"), Problem::Exclusive { first, second });
        return Vec::new();
    }
    let name = if single.is_some() { "mirror" } else { "mirrors" };
    if raw.route.is_empty() && (single.is_some() || !several.is_empty()) {
        let why = "nothing is sent that could be copied: the rule has no `route`";
        not_followed.push(NotFollowed { field: name.into(), why });
        return Vec::new();
    }
    if single.is_none() {
        let given =
            [("mirrorPercentage", raw.mirror_percentage.is_some()), ("mirrorPercent", raw.mirror_percent.is_some())];
        for (field, _) in given.iter().filter(|(_, is_set)| *is_set) {
            let why = "it is for `mirror`, which is not there; entries of `mirrors` have a `percentage` each";
            not_followed.push(NotFollowed { field: (*field).into(), why });
        }
    }
    let mut written = Vec::new();
    if let Some(destination) = single {
        let share = match (&raw.mirror_percentage, raw.mirror_percent) {
            (Some(it), _) => Some((format!("{path}.mirrorPercentage.value"), it.read())),
            (None, Some(it)) => Some((format!("{path}.mirrorPercent"), percentage(it))),
            (None, None) => None,
        };
        written.push((Some(destination), share, "mirror".to_owned()));
    }
    for (index, mirror) in several.into_iter().enumerate() {
        let field = format!("mirrors[{index}]");
        let share = mirror.percentage.map(|it| (format!("{path}.{field}.percentage.value"), it.read()));
        written.push((mirror.destination, share, format!("{field}.destination")));
    }
    let read = written.into_iter().filter_map(|(destination, share, field)| {
        let destination = read_destination(destination, &format!("{path}.{field}"), namespace, faults);
        let percentage = match share {
            Some((at, share)) => faults.take(&at, share)?,
            None => Percentage::ALL,
        };
        Some(MirrorTo { destination: destination?, percentage, field })
    });
    read.filter(|mirror| mirror.percentage.millionths() > 0).collect()
}
