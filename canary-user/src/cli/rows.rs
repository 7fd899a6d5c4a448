//! The columns of everything that is listed.
use crate::{
    api::dto::{ChangeV1, EndpointV1, EntryV1, FlowV1, LeaveV1, RuleV1, ServiceV1, TraceV1, VersionV1, WeightV1},
    cli::output::{Cell, Paint, Row, percent, signed},
};

impl Row for ServiceV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["SERVICE", "ADDRESS", "SPLIT", "ENFORCED", "FLOWS"];
        if wide {
            titles.extend(["CHOOSING", "ROUTE", "REASON"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let (enforced, paint) = if self.enforced { ("yes", Paint::Good) } else { ("no", Paint::Bad) };
        let mut cells: Vec<Cell> = vec![
            self.service.clone().into(),
            dash(&self.addresses.join(",")).into(),
            dash(&self.rules.iter().map(|rule| split(rule, self.rules.len() > 1)).collect::<Vec<_>>().join("; "))
                .into(),
            Cell::painted(enforced, paint),
            self.flows.to_string().into(),
        ];
        if wide {
            let mut choosing: Vec<&str> = self.rules.iter().map(|rule| rule.choosing.as_str()).collect();
            choosing.dedup();
            cells.extend([
                dash(&choosing.join(",")).into(),
                dash(self.route.as_deref().unwrap_or_default()).into(),
                dash(self.reason.as_deref().unwrap_or_default()).into(),
            ]);
        }
        cells
    }
    fn name(&self) -> String {
        format!("service/{}", self.service)
    }
}

impl Row for VersionV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec![
            "SERVICE",
            "RULE",
            "VERSION",
            "WEIGHT",
            "SHARE",
            "FLOWS",
            "REQUESTS",
            "OBSERVED",
            "DEVIATION",
            "ENDPOINTS",
        ];
        if wide {
            titles.extend(["BOUND", "PROGRAMMED", "TOTAL", "PACKETS-IN", "BYTES-IN", "PACKETS-OUT", "BYTES-OUT"]);
            titles.extend(["OPEN", "FAILED", "HANDSHAKE", "RTT", "RETRANSMITS"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let outside = self.bound.is_some_and(|bound| self.deviation.abs() > bound);
        let mut cells: Vec<Cell> = vec![
            self.service.clone().into(),
            self.rule.clone().into(),
            self.version.clone().into(),
            self.weight.to_string().into(),
            percent(self.share).into(),
            self.requests.map_or_else(|| self.flows.to_string(), |_| "-".into()).into(),
            self.requests.map_or("-".into(), |requests| requests.to_string()).into(),
            self.observed_share.map_or("-".into(), percent).into(),
            Cell::painted(signed(self.deviation), if outside { Paint::Bad } else { Paint::Plain }),
            Cell::painted(
                self.endpoints.to_string(),
                if self.endpoints == 0 && self.weight > 0 { Paint::Warn } else { Paint::Plain },
            ),
        ];
        if wide {
            cells.extend([
                bound(self.bound).into(),
                self.programmed.map_or("-".into(), |weight| weight.to_string()).into(),
                self.total.flows.to_string().into(),
                self.total.packets_in.to_string().into(),
                self.total.bytes_in.to_string().into(),
                self.total.packets_out.to_string().into(),
                self.total.bytes_out.to_string().into(),
            ]);
            let of = self.connections.as_ref();
            let count = |of: Option<u64>| Cell::from(of.map_or("-".to_owned(), |count| count.to_string()));
            cells.extend([count(of.map(|it| it.open)), count(of.map(|it| it.failed))]);
            cells.extend([of.and_then(|it| it.handshake_micros), of.and_then(|it| it.rtt_micros)].map(micros));
            cells.push(count(of.map(|it| it.retransmits)));
        }
        cells
    }
    fn name(&self) -> String {
        format!("version/{}/{}/{}", self.service, self.rule, self.version)
    }
}

/// A short time, in microseconds or milliseconds.
fn micros(of: Option<u64>) -> Cell {
    match of {
        None => "-".into(),
        Some(micros) if micros < 10_000 => format!("{micros}µs").into(),
        Some(micros) => format!("{}ms", micros / 1_000).into(),
    }
}

impl Row for EndpointV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["SERVICE", "VERSION", "ENDPOINT", "STATE", "FLOWS"];
        if wide {
            titles.extend(["WEIGHT", "PACKETS-IN", "BYTES-IN", "PACKETS-OUT", "BYTES-OUT", "DIRECT"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let state = match self.drains_for_seconds {
            Some(seconds) => Cell::painted(format!("draining ({seconds}s)"), Paint::Warn),
            None => self.state.clone().into(),
        };
        let mut cells: Vec<Cell> = vec![
            self.service.clone().into(),
            self.version.clone().into(),
            self.endpoint.clone().into(),
            state,
            self.counts.flows.to_string().into(),
        ];
        if wide {
            let counts = &self.counts;
            cells.push(self.weight.to_string().into());
            cells.extend(
                [counts.packets_in, counts.bytes_in, counts.packets_out, counts.bytes_out]
                    .map(|count| Cell::from(count.to_string())),
            );
            cells.push(self.direct.clone().unwrap_or_else(|| "-".into()).into());
        }
        cells
    }
    fn name(&self) -> String {
        format!("endpoint/{}/{}/{}", self.service, self.version, self.endpoint)
    }
}

impl Row for FlowV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["CLIENT", "ADDRESS", "VERSION", "ENDPOINT", "STATE", "IDLE"];
        if wide {
            titles.push("SERVICE");
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let mut cells: Vec<Cell> = vec![
            self.client.clone().into(),
            self.frontend.clone().into(),
            dash(self.version.as_deref().unwrap_or_default()).into(),
            self.endpoint.clone().into(),
            self.state.clone().into(),
            format!("{}s", self.idle_seconds).into(),
        ];
        if wide {
            cells.push(dash(self.service.as_deref().unwrap_or_default()).into());
        }
        cells
    }
    fn name(&self) -> String {
        format!("flow/{}/{}", self.client, self.frontend)
    }
}

impl Row for LeaveV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["REASON", "PACKETS"];
        if wide {
            titles.extend(["VERDICT", "MEANING"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let mut cells: Vec<Cell> = vec![self.reason.clone().into(), self.packets.to_string().into()];
        if wide {
            cells.extend([self.verdict.clone().into(), self.meaning.clone().into()]);
        }
        cells
    }
    fn name(&self) -> String {
        format!("leave/{}", self.reason)
    }
}

impl Row for EntryV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["ENTRY", "WHEN", "BY", "ACTION", "WEIGHTS"];
        if wide {
            titles.extend(["UID", "UNDONE-BY"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let action = self.undoes.map_or_else(|| self.action.clone(), |entry| format!("{} {entry}", self.action));
        let changes: Vec<String> = self.changes.iter().map(change).collect();
        let mut cells: Vec<Cell> = vec![
            self.id.to_string().into(),
            self.at.clone().into(),
            self.by.clone().into(),
            action.into(),
            changes.join("; ").into(),
        ];
        if wide {
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
            cells.extend([number(self.uid.map(u64::from)).into(), number(self.undone_by).into()]);
        }
        cells
    }
    fn name(&self) -> String {
        format!("entry/{}", self.id)
    }
}

impl Row for TraceV1 {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["FROM", "SERVICE", "RULE", "VERSION", "ENDPOINT"];
        if wide {
            titles.extend(["DRAW", "WHY"]);
        }
        titles
    }
    fn cells(&self, wide: bool) -> Vec<Cell> {
        let text = |text: &Option<String>| Cell::from(dash(text.as_deref().unwrap_or_default()));
        let mut cells = vec![
            self.from.clone().into(),
            text(&self.service),
            text(&self.rule),
            text(&self.version),
            text(&self.endpoint),
        ];
        if wide {
            cells.push(self.draw.map_or("-".into(), |draw| draw.to_string()).into());
            cells.push(self.why.clone().into());
        }
        cells
    }
    fn name(&self) -> String {
        format!("version/{}", self.version.as_deref().unwrap_or("-"))
    }
}

/// `default/helloworld:5000/tcp http[0]: v1=90 v2=10 → v1=50 v2=50`.
#[must_use]
pub(super) fn change(change: &ChangeV1) -> String {
    let side = |side: &[WeightV1], absent: &str| if side.is_empty() { absent.into() } else { weights(side) };
    format!("{} {}: {} → {}", change.service, change.rule, side(&change.old, "(new)"), side(&change.new, "(gone)"))
}

/// `Kind namespace/name` as `kind/namespace/name`, which `canary delete` takes.
#[must_use]
pub(super) fn object_name(object: &str) -> String {
    match object.split_once(' ') {
        Some((kind, name)) => format!("{}/{name}", kind.to_lowercase()),
        None => object.to_owned(),
    }
}

/// A row for every version of a change: weight and share, before and after.
#[must_use]
pub(super) fn shares(change: &ChangeV1) -> Vec<Vec<Cell>> {
    let mut versions: Vec<&str> = change.old.iter().chain(&change.new).map(|one| one.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let weight =
        |side: &[WeightV1], name: &str| side.iter().find(|one| one.version == name).map_or(0, |one| one.weight);
    let share = |side: &[WeightV1], name: &str| {
        let sum: f64 = side.iter().map(|one| f64::from(one.weight)).sum();
        if sum > 0.0 { percent(f64::from(weight(side, name)) / sum) } else { "-".into() }
    };
    let row = |name: &str| -> Vec<Cell> {
        vec![
            change.service.clone().into(),
            change.rule.clone().into(),
            name.into(),
            format!("{} → {}", weight(&change.old, name), weight(&change.new, name)).into(),
            format!("{} → {}", share(&change.old, name), share(&change.new, name)).into(),
        ]
    };
    versions.into_iter().map(row).collect()
}

fn weights(weights: &[WeightV1]) -> String {
    weights.iter().map(|one| format!("{}={}", one.version, one.weight)).collect::<Vec<_>>().join(" ")
}

fn split(rule: &RuleV1, named: bool) -> String {
    let shares: Vec<String> =
        rule.versions.iter().map(|one| format!("{} {}", one.version, percent(one.share))).collect();
    let shares = shares.join(" / ");
    if named { format!("{}: {shares}", rule.name) } else { shares }
}

/// `±1`, or `-` where flows say nothing.
#[must_use]
pub(super) fn bound(bound: Option<f64>) -> String {
    bound.map_or("-".into(), |bound| format!("±{}", signed(bound).trim_start_matches('+')))
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}
