//! Output: columns as kubectl prints them, JSON, YAML or names; colour only where it is wanted.
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::args::{Colour, Format};

/// Colour of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// Something is well.
    Good,
    /// Something wants attention.
    Warn,
    /// Something is wrong.
    Bad,
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A cell in a colour.
    pub fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

/// How an item is shown in a list.
pub trait Row {
    /// Titles of the columns.
    fn titles(wide: bool) -> Vec<&'static str>;
    /// Cells, one for each title.
    fn cells(&self, wide: bool) -> Vec<Cell>;
    /// `kind/name`.
    fn name(&self) -> String;
}

/// Where output goes and how it looks.
pub struct Screen<'a> {
    /// The stream.
    pub out: &'a mut dyn Write,
    /// Where remarks go that are no part of the output.
    pub err: &'a mut dyn Write,
    /// Escape sequences are welcome.
    pub colour: bool,
}

impl std::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("colour", &self.colour).finish_non_exhaustive()
    }
}

impl Screen<'_> {
    /// A list in the wanted form. `empty` is said instead of a table without rows.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn list<T: Row + Serialize>(&mut self, items: &[T], format: Format, empty: &str) -> io::Result<()> {
        match format {
            Format::Json | Format::Yaml => self.document(&Items { items }, format),
            Format::Name => items.iter().try_for_each(|item| writeln!(self.out, "{}", item.name())),
            Format::Table | Format::Wide if items.is_empty() => writeln!(self.out, "{empty}"),
            Format::Table | Format::Wide => {
                let wide = format == Format::Wide;
                self.table(&T::titles(wide), &items.iter().map(|item| item.cells(wide)).collect::<Vec<_>>())
            }
        }
    }

    /// One document as YAML, or else as JSON.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn document(&mut self, content: &impl Serialize, format: Format) -> io::Result<()> {
        if format == Format::Yaml {
            return self.out.write_all(serde_norway::to_string(content).map_err(io::Error::other)?.as_bytes());
        }
        serde_json::to_writer_pretty(&mut self.out, content)?;
        writeln!(self.out)
    }

    /// Columns, three spaces apart, without trailing spaces.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn table(&mut self, titles: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        let header: Vec<Cell> = titles.iter().map(|&title| title.into()).collect();
        let width = |column: usize| {
            std::iter::once(&header)
                .chain(rows)
                .filter_map(|row| row.get(column))
                .map(|cell| cell.text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        for row in std::iter::once(&header).chain(rows) {
            let mut gap = 0;
            for (cell, width) in row.iter().zip(&widths) {
                if cell.text.is_empty() {
                    gap += width + 3;
                    continue;
                }
                write!(self.out, "{:gap$}{}", "", self.paint(&cell.text, cell.paint))?;
                gap = width - cell.text.chars().count() + 3;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// A line.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", text.as_ref())
    }

    /// Text in a colour, where colour is wanted.
    #[must_use]
    pub fn paint(&self, text: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Plain => return text.into(),
            _ if !self.colour => return text.into(),
            Paint::Good => 32,
            Paint::Warn => 33,
            Paint::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

/// Whether to use colour on `stream`. `var` is the environment.
pub fn colour(wanted: Colour, stream: &impl IsTerminal, var: impl Fn(&str) -> Option<String>) -> bool {
    let refused = || var("NO_COLOR").is_some_and(|value| !value.is_empty()) || var("TERM").as_deref() == Some("dumb");
    match wanted {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => stream.is_terminal() && !refused(),
    }
}

/// `12.5%`: two digits where there is something after the point.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `+0.5`, `-1`, `0`.
#[must_use]
pub fn signed(number: f64) -> String {
    let text = format!("{number:+.1}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if matches!(text, "+" | "-" | "+0" | "-0") { "0".into() } else { text.into() }
}

/// `1 split`, `2 splits`, `2 passes`, `2 entries`.
#[must_use]
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let nouns = match noun.strip_suffix('y') {
        _ if number == 1 => noun.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None if noun.ends_with('s') => format!("{noun}es"),
        None => format!("{noun}s"),
    };
    format!("{number} {nouns}")
}

/// `1.5 MiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0.0, 0.1, 1.0, 0.333_333, 0.012_5].map(percent), ["0%", "10%", "100%", "33.33%", "1.25%"]);
        assert_eq!([0.0, 0.04, -0.04, 0.5, -1.0, 10.0].map(signed), ["0", "0", "0", "+0.5", "-1", "+10"]);
        assert_eq!([0, 1, 2].map(|number: u64| count(number, "split")), ["0 splits", "1 split", "2 splits"]);
        assert_eq!(
            [count(1_usize, "pass"), count(3_usize, "pass"), count(2_u32, "entry")],
            ["1 pass", "3 passes", "2 entries"]
        );
        assert_eq!([0, 1023, 1536, 20 << 20, 3 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "20 MiB", "3.0 TiB"]);
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!colour(Colour::Auto, &file, |_| None));
        assert!(colour(Colour::Always, &file, |_| Some("1".into())));
        assert!(!colour(Colour::Never, &file, |_| None));
    }

    #[test]
    fn tables_have_columns_and_no_trailing_spaces() {
        let mut out = Vec::new();
        let mut screen = Screen { out: &mut out, err: &mut Vec::new(), colour: true };
        let rows = [
            vec!["a".into(), Cell::painted("long one", Paint::Bad), "".into()],
            vec!["bb".into(), "".into(), "x".into()],
        ];
        screen.table(&["ONE", "TWO", "THREE"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ONE   TWO        THREE\na     \x1b[31mlong one\x1b[0m\nbb               x\n"
        );
    }
}
