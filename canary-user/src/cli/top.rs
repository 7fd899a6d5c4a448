//! `canary top`: versions, weights and flows, live.
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{
    DefaultTerminal, Frame,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::Line,
    widgets::{Block, Cell, Row, Sparkline, Table, TableState},
};

use crate::{
    api::dto::VersionV1,
    cli::{
        Exit, Failure,
        args::TopArgs,
        client::Client,
        output::{count, percent, signed},
        rows,
    },
};

/// Looks that the graph at the bottom goes back.
const LOOKS: usize = 240;

/// What is on the screen.
#[derive(Debug, Default)]
struct Top {
    versions: Vec<VersionV1>,
    /// Total flows at the look before, by version.
    before: BTreeMap<String, u64>,
    /// New flows a second, by version.
    rates: BTreeMap<String, f64>,
    /// New flows a second of all versions, oldest first.
    all: VecDeque<u64>,
    looked: Option<Instant>,
    trouble: Option<String>,
    table: TableState,
}

pub(super) fn run(client: &Client, args: &TopArgs) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::new(
            "`canary top` needs a terminal",
            "use `canary get versions`, or `-o json` for programs",
        ));
    }
    let mut top = Top::default();
    // Before the screen is taken over, so that an agent that is not there is an ordinary error.
    top.look(client.list("/v1/versions")?, Instant::now());
    let mut terminal = ratatui::init();
    let ended = live(&mut terminal, client, &mut top, Duration::from_secs(args.interval));
    ratatui::restore();
    ended?;
    Ok(Exit::Done)
}

fn live(terminal: &mut DefaultTerminal, client: &Client, top: &mut Top, interval: Duration) -> io::Result<()> {
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| top.draw(frame))?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()? {
                match key.code {
                    _ if key.kind == KeyEventKind::Release => {}
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Down | KeyCode::Char('j') => top.table.select_next(),
                    KeyCode::Up | KeyCode::Char('k') => top.table.select_previous(),
                    _ => {}
                }
            }
            continue;
        }
        due = Instant::now() + interval;
        match client.list("/v1/versions") {
            Ok(versions) => top.look(versions, Instant::now()),
            // The agent may be restarting; what was seen last stays on the screen.
            Err(error) => top.trouble = Some(error.to_string()),
        }
    }
}

impl Top {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates on a screen"
    )]
    fn look(&mut self, versions: Vec<VersionV1>, now: Instant) {
        let seconds = self.looked.map(|before| now.duration_since(before).as_secs_f64()).filter(|&time| time > 0.0);
        // A version in several rules has one total.
        let totals: BTreeMap<String, u64> =
            versions.iter().map(|one| (format!("{} {}", one.service, one.version), one.total.flows)).collect();
        if let Some(seconds) = seconds {
            let rate = |(key, total): (&String, &u64)| {
                // Counters begin anew with new maps.
                let more = total.saturating_sub(self.before.get(key).copied().unwrap_or(*total));
                (key.clone(), more as f64 / seconds)
            };
            self.rates = totals.iter().map(rate).collect();
            self.all.push_back(self.rates.values().sum::<f64>().round() as u64);
            let excess = self.all.len().saturating_sub(LOOKS);
            self.all.drain(..excess);
        }
        (self.before, self.versions, self.looked, self.trouble) = (totals, versions, Some(now), None);
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body, graph] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(6)]).areas(frame.area());
        let title = match &self.trouble {
            Some(trouble) => Line::from(format!(" {trouble} (showing the last answer)")).fg(Color::Red),
            None => Line::from(format!(" canary top: {}; q quits", count(self.versions.len(), "version"))),
        };
        frame.render_widget(title.bold(), head);

        let titles =
            ["SERVICE", "RULE", "VERSION", "WEIGHT", "SHARE", "FLOWS/S", "FLOWS", "OBSERVED", "DEVIATION", "BOUND"];
        let widths = [
            Constraint::Min(24),
            Constraint::Length(12),
            Constraint::Length(12),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(8),
        ];
        let rows = self.versions.iter().map(|one| self.row(one));
        let table = Table::new(rows, widths)
            .header(Row::new(titles).bold())
            .row_highlight_style(Style::new().reversed())
            .block(Block::bordered());
        frame.render_stateful_widget(table, body, &mut self.table);

        let width = usize::from(graph.width.saturating_sub(2));
        let shown: Vec<u64> = self.all.iter().skip(self.all.len().saturating_sub(width)).copied().collect();
        let now = self.all.back().copied().unwrap_or(0);
        let sparkline = Sparkline::default()
            .data(shown)
            .style(Style::new().fg(Color::Cyan))
            .block(Block::bordered().title(format!(" new flows a second: {now} ")));
        frame.render_widget(sparkline, graph);
    }

    fn row(&self, one: &VersionV1) -> Row<'static> {
        let rate = self.rates.get(&format!("{} {}", one.service, one.version));
        let outside = one.bound.is_some_and(|bound| one.deviation.abs() > bound);
        let deviation = Cell::from(signed(one.deviation));
        Row::new([
            Cell::from(one.service.clone()),
            Cell::from(one.rule.clone()),
            Cell::from(one.version.clone()),
            Cell::from(one.weight.to_string()),
            Cell::from(percent(one.share)),
            Cell::from(rate.map_or("-".into(), |rate| format!("{rate:.1}"))),
            Cell::from(one.flows.to_string()),
            Cell::from(one.observed_share.map_or("-".into(), percent)),
            if outside { deviation.fg(Color::Red) } else { deviation },
            Cell::from(rows::bound(one.bound)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::api::dto::CountsV1;

    fn version(name: &str, flows: u64) -> VersionV1 {
        VersionV1 {
            service: "default/helloworld:5000/tcp".into(),
            rule: "http[0]".into(),
            version: name.into(),
            weight: 50,
            programmed: Some(50),
            share: 0.5,
            flows,
            requests: None,
            observed_share: Some(0.5),
            deviation: 0.0,
            bound: Some(1.0),
            endpoints: 1,
            total: CountsV1 { flows, ..CountsV1::default() },
            connections: None,
        }
    }

    #[test]
    fn it_shows_versions_and_rates() {
        let start = Instant::now();
        let mut top = Top::default();
        top.look(vec![version("v1", 100), version("v2", 100)], start);
        top.look(vec![version("v1", 120), version("v2", 110)], start + Duration::from_secs(2));
        assert_eq!(top.all, [15]);
        let mut terminal = Terminal::new(TestBackend::new(130, 14)).unwrap();
        terminal.draw(|frame| top.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for part in ["canary top: 2 versions", "v1", "10.0", "5.0", "50%", "±1", "new flows a second: 15"] {
            assert!(screen.contains(part), "{part} is missing in\n{screen}");
        }
    }

    #[test]
    fn counters_that_begin_anew_are_no_rate() {
        let start = Instant::now();
        let mut top = Top::default();
        top.look(vec![version("v1", 100)], start);
        top.look(vec![version("v1", 3)], start + Duration::from_secs(1));
        assert_eq!(top.all, [0]);
    }
}
