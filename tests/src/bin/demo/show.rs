//! What the demo prints: progress and a table for people, one document for programs.
use std::time::Duration;

use anyhow::Result;
use canary_tests::{
    story::Hook,
    tally::{Tally, Weights},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Progress and a table for each step.
    Table,
    /// One JSON document at the end.
    Json,
}

/// One step and what it came to.
#[derive(Debug)]
pub(crate) struct Step {
    title: String,
    done: String,
    weights: Weights,
    pub(crate) tally: Tally,
    took: Duration,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Step {
    pub(crate) fn new(
        title: &str,
        done: &str,
        weights: Weights,
        tally: Tally,
        took: Duration,
        verdict: Result<()>,
    ) -> Self {
        let problems = verdict.err().map(|error| format!("{error:#}")).into_iter().collect();
        Self { title: title.to_owned(), done: done.to_owned(), weights, tally, took, notes: Vec::new(), problems }
    }

    /// Something else that must hold in this step.
    pub(crate) fn also(&mut self, verdict: Result<String>) {
        match verdict {
            Ok(note) => self.notes.push(note),
            Err(error) => self.problems.push(format!("{error:#}")),
        }
    }

    fn table(&self, number: usize) -> String {
        let mut lines = vec![
            format!("\n{number}. {} — {}", self.title, self.done),
            format!("   {:<8}{:>8}{:>13}{:>10}{:>11}  pods", "version", "weight", "connections", "share", "deviation"),
        ];
        for version in ["v1", "v2"] {
            let pods = self.tally.versions.get(version).map(|pods| {
                pods.iter().map(|(pod, count)| format!("{}:{count}", short(pod))).collect::<Vec<_>>().join(" ")
            });
            lines.push(format!(
                "   {version:<8}{:>8}{:>13}{:>9.2}%{:>+11.1}  {}",
                self.weights.of(version),
                self.tally.of(version),
                self.percent(version),
                self.weights.deviation(version, &self.tally),
                pods.unwrap_or_default()
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("   {note}")));
        if self.problems.is_empty() {
            lines.push(format!("   ok: within one connection of the weights ({:.1} s)", self.took.as_secs_f64()));
        }
        lines.extend(self.problems.iter().map(|problem| format!("   FAILED: {problem}")));
        lines.join("\n")
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
    fn percent(&self, version: &str) -> f64 {
        let all = self.tally.answers();
        if all == 0 { 0.0 } else { 100.0 * self.tally.of(version) as f64 / all as f64 }
    }

    fn json(&self) -> Value {
        let versions = ["v1", "v2"].map(|version| {
            json!({
                "version": version,
                "weight": self.weights.of(version),
                "connections": self.tally.of(version),
                "sharePercent": self.percent(version),
                "deviation": self.weights.deviation(version, &self.tally),
                "pods": self.tally.versions.get(version),
            })
        });
        json!({
            "title": self.title,
            "done": self.done,
            "versions": versions,
            "failed": self.tally.failed,
            "seconds": self.took.as_secs_f64(),
            "notes": self.notes,
            "ok": self.problems.is_empty(),
            "problems": self.problems,
        })
    }
}

/// `helloworld-v1-2` → `v1-2`.
fn short(pod: &str) -> &str {
    pod.strip_prefix("helloworld-").unwrap_or(pod)
}

/// Prints the steps as they come.
#[derive(Debug)]
pub(crate) struct Show {
    output: Output,
    hook: Hook,
    ipv6: bool,
    steps: Vec<Step>,
}

impl Show {
    pub(crate) fn new(output: Output, hook: Hook, ipv6: bool) -> Self {
        Self { output, hook, ipv6, steps: Vec::new() }
    }

    /// Tells people what happens; programs get the document only.
    pub(crate) fn say(&self, what: &str) {
        if self.output == Output::Table {
            eprintln!("{what}");
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        if self.output == Output::Table {
            println!("{}", step.table(self.steps.len() + 1));
        }
        self.steps.push(step);
    }

    /// A progress bar with the split as it grows, if there is a terminal to draw it on.
    pub(crate) fn bar(&self, connections: u32, title: &str) -> Bar {
        let bar =
            if self.output == Output::Table { ProgressBar::new(connections.into()) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("   {prefix:10} {wide_bar} {pos}/{len}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        Bar(bar)
    }

    /// Says how it ended: true when every step kept its guarantee.
    pub(crate) fn finish(self, ended: Result<()>) -> Result<bool> {
        let ok = ended.is_ok() && self.steps.iter().all(|step| step.problems.is_empty());
        match self.output {
            Output::Json => {
                let document = json!({
                    "attach": self.hook.name(),
                    "family": if self.ipv6 { "ipv6" } else { "ipv4" },
                    "steps": self.steps.iter().map(Step::json).collect::<Vec<_>>(),
                    "ok": ok,
                    "error": ended.as_ref().err().map(|error| format!("{error:#}")),
                });
                println!("{}", serde_json::to_string_pretty(&document)?);
            }
            Output::Table if ok => {
                println!("\nEvery step kept its weights: {} steps, {} connections.", self.steps.len(), self.sum());
            }
            Output::Table => {
                println!();
                for (number, step) in (1..).zip(&self.steps).filter(|(_, step)| !step.problems.is_empty()) {
                    println!("Step {number} ({}) failed: {}", step.title, step.problems.join("; "));
                }
            }
        }
        ended.map(|()| ok)
    }

    fn sum(&self) -> u64 {
        self.steps.iter().map(|step| step.tally.answers()).sum()
    }
}

/// The progress of one step.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn update(&self, tally: &Tally) {
        self.0.set_position(tally.answers() + tally.failed);
        self.0.set_message(format!("v1 {}  v2 {}  failed {}", tally.of("v1"), tally.of("v2"), tally.failed));
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;
    use canary_tests::{server::Hello, tally::Tally};

    use super::{Step, Weights};

    #[test]
    fn a_step_shows_its_numbers_and_what_is_wrong() {
        let mut tally = Tally::default();
        for version in ["v1", "v1", "v1", "v2"] {
            tally.answered(Hello { version: version.into(), instance: format!("helloworld-{version}-1") });
        }
        let took = Duration::from_millis(400);
        let weights = Weights { v1: 3, v2: 1 };
        let mut step = Step::new("a canary", "as written", weights, tally, took, Ok(()));
        let expected = "\n1. a canary — as written
   version   weight  connections     share  deviation  pods
   v1             3            3    75.00%       +0.0  v1-1:3
   v2             1            1    25.00%       +0.0  v2-1:1
   ok: within one connection of the weights (0.4 s)";
        assert_eq!(step.table(1), expected);
        step.also(Ok("fine".to_owned()));
        step.also(Err(anyhow!("not fine")));
        assert!(step.table(1).ends_with("v2-1:1\n   fine\n   FAILED: not fine"), "{}", step.table(1));
        assert_eq!(step.json()["ok"], false);
    }
}
