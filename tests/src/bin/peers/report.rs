//! The table: medians of the rounds.
use crate::{
    measure::{Sample, Work},
    systems::Kind,
};

/// Prints a Markdown table: CPU that each request costs more than without anybody between, and latencies.
pub(crate) fn print(samples: &[Sample]) {
    println!("| | by weights: kept | closed | p99 | focused: kept | closed | p99 | memory |");
    println!("|---|---|---|---|---|---|---|---|");
    for kind in Kind::ALL {
        let of = |work: Work, field: fn(&Sample) -> f64| {
            let mut values: Vec<f64> =
                samples.iter().filter(|it| it.system == kind.name() && it.work == work).map(field).collect();
            median(&mut values)
        };
        if of(Work::SplitKept, |it| it.cpu_us).is_none() {
            continue;
        }
        let direct = |work: Work| {
            let same =
                if work == Work::SplitKept || work == Work::FocusedKept { Work::SplitKept } else { Work::SplitClosed };
            let mut values: Vec<f64> = samples
                .iter()
                .filter(|it| it.system == Kind::Direct.name() && it.work == same)
                .map(|it| it.cpu_us)
                .collect();
            median(&mut values)
        };
        let added = |work: Work| {
            let cpu = of(work, |it| it.cpu_us);
            match (cpu, direct(work)) {
                (None, _) => String::new(),
                (Some(cpu), Some(direct)) if kind != Kind::Direct => format!("{:.1} µs", cpu - direct),
                (Some(cpu), _) => format!("({cpu:.1} µs)"),
            }
        };
        let p99 = |work: Work| of(work, |it| it.p99_us).map_or_else(String::new, |it| format!("{it:.0} µs"));
        let memory = of(Work::SplitKept, |it| it.memory_mb).filter(|it| *it > 0.0);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            kind.name(),
            added(Work::SplitKept),
            added(Work::SplitClosed),
            p99(Work::SplitPaced),
            added(Work::FocusedKept),
            added(Work::FocusedClosed),
            p99(Work::FocusedPaced),
            memory.map_or_else(String::new, |it| format!("{it:.0} MB"))
        );
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
