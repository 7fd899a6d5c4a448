//! The table: medians of the rounds.
use crate::{
    measure::{Sample, Work},
    systems::Kind,
};

/// Prints a Markdown table: CPU that each request costs more than without anybody between, and latencies.
pub(crate) fn print(samples: &[Sample]) {
    println!("| | by weights: kept | closed | p99 | focused: kept | closed | p99 | memory |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in Kind::ALL.iter().filter_map(|kind| row(samples, *kind)) {
        println!("{row}");
    }
}

fn row(samples: &[Sample], kind: Kind) -> Option<String> {
    let cpu = |kind, work| median(samples, kind, work, |it| it.cpu_us);
    cpu(kind, Work::SplitKept)?;
    let added = |work, alone| match (cpu(kind, work), cpu(Kind::Direct, alone)) {
        (None, _) => String::new(),
        (Some(cpu), Some(direct)) if kind != Kind::Direct => format!("{:.1} µs", cpu - direct),
        (Some(cpu), _) => format!("({cpu:.1} µs)"),
    };
    let p99 = |work| median(samples, kind, work, |it| it.p99_us).map_or_else(String::new, |it| format!("{it:.0} µs"));
    let memory = median(samples, kind, Work::SplitKept, |it| it.memory_mb).filter(|it| *it > 0.0);
    Some(format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        kind.name(),
        added(Work::SplitKept, Work::SplitKept),
        added(Work::SplitClosed, Work::SplitClosed),
        p99(Work::SplitPaced),
        added(Work::FocusedKept, Work::SplitKept),
        added(Work::FocusedClosed, Work::SplitClosed),
        p99(Work::FocusedPaced),
        memory.map_or_else(String::new, |it| format!("{it:.0} MB"))
    ))
}

fn median(samples: &[Sample], kind: Kind, work: Work, field: fn(&Sample) -> f64) -> Option<f64> {
    let mut values: Vec<f64> =
        samples.iter().filter(|it| it.system == kind.name() && it.work == work).map(field).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_medians_beyond_those_without_anybody_between() {
        let sample = |kind: Kind, work, cpu_us| Sample {
            system: kind.name(),
            work,
            requests: 1.0,
            errors: 0,
            seconds: 1.0,
            cpu_us,
            process_us: 0.0,
            p50_us: 0.0,
            p99_us: 99.0,
            memory_mb: 14.2,
        };
        let samples = [
            sample(Kind::Direct, Work::SplitKept, 14.0),
            sample(Kind::Canary, Work::SplitKept, 90.0),
            sample(Kind::Canary, Work::SplitKept, 20.0),
            sample(Kind::Canary, Work::SplitKept, 22.5),
            sample(Kind::Canary, Work::FocusedKept, 54.0),
            sample(Kind::Canary, Work::FocusedPaced, f64::NAN),
        ];
        assert_eq!(row(&samples, Kind::Canary).unwrap(), "| canary | 8.5 µs |  |  | 40.0 µs |  | 99 µs | 14 MB |");
        assert_eq!(row(&samples, Kind::Envoy), None);
    }
}
