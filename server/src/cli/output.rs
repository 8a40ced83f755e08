//! Where results and notes go, and in which form: tables for terminals, tab-separated lines for pipes, JSON on request.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use cairn_client::Timestamp;
use comfy_table::{Attribute, Cell as TableCell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table};

use super::args::OutputForm;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Aligned columns of at most this many characters in all.
    Table { width: u16, styled: bool },
    /// Tab-separated fields without a header, complete and escaped.
    Lines,
    /// One JSON document a line.
    Json,
}

/// As wide as a table gets where there is no terminal to ask.
const DEFAULT_WIDTH: u16 = 120;
/// Narrower tables are no use.
const WIDTH_MIN: u16 = 40;
/// A text in fewer columns is hard to read.
const WRAPPED_WIDTH_MIN: u16 = 40;
/// Before each line of a text that stands below its row.
const CARD_INDENT: &str = "    ";

impl Form {
    /// The form that was asked for, or the one that fits where standard output goes.
    pub(crate) fn choose(asked: Option<OutputForm>) -> Self {
        let stdout = io::stdout();
        match (asked, stdout.is_terminal()) {
            (Some(OutputForm::Json), _) => Self::Json,
            (None, false) => Self::Lines,
            _ => {
                let width = Table::new().width().unwrap_or(DEFAULT_WIDTH).max(WIDTH_MIN);
                // The stream's own choice knows NO_COLOR, CLICOLOR and dumb terminals.
                let styled = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
                Self::Table { width, styled }
            }
        }
    }
}

/// The two streams of a verb.
pub(crate) struct Output {
    pub(crate) form: Form,
    /// Whether results go to somebody who watches.
    pub(crate) on_terminal: bool,
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
}

impl Output {
    /// The streams of the process.
    pub(crate) fn new(form: Form) -> Self {
        let on_terminal = io::stdout().is_terminal();
        let stdout = io::BufWriter::new(io::stdout());
        Self { form, on_terminal, stdout: Box::new(stdout), stderr: Box::new(io::stderr()) }
    }

    /// Prints a result.
    pub(crate) fn result(&mut self, text: impl Display) -> io::Result<()> {
        write!(self.stdout, "{text}")
    }

    /// Prints a JSON document on a line of its own.
    pub(crate) fn json(&mut self, document: &serde_json::Value) -> io::Result<()> {
        writeln!(self.stdout, "{document}")
    }

    /// Prints rows as a table or as lines; a caller that prints JSON does so itself.
    pub(crate) fn listing(&mut self, listing: &Listing) -> io::Result<()> {
        let text = match self.form {
            Form::Table { width, styled } => listing.to_table(width, styled),
            Form::Lines | Form::Json => listing.to_lines(),
        };
        self.result(text)
    }

    /// Prints a remark that is not a result.
    pub(crate) fn note(&mut self, text: impl Display) {
        // Nobody can be told where standard error is closed.
        let _ = self.stdout.flush();
        let _ = writeln!(self.stderr, "{text}");
    }

    /// Asks on the terminal. None where there is nobody to ask.
    pub(crate) fn ask(&mut self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let _ = self.stdout.flush();
        write!(self.stderr, "{question} [y/N] ").and_then(|()| self.stderr.flush()).ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Writes out what is held back.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// One value, as people and as programs want it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    people: String,
    programs: String,
    right: bool,
}

impl Cell {
    /// The same for both.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { people: text.clone(), programs: text, right: false }
    }

    /// A number: with separators for people, and to the right.
    pub(crate) fn number(number: u64) -> Self {
        Self { people: grouped(number), programs: number.to_string(), right: true }
    }

    /// Different for both.
    pub(crate) fn both(people: impl Into<String>, programs: impl Into<String>) -> Self {
        Self { people: people.into(), programs: programs.into(), right: false }
    }

    /// A time: to the second for people.
    pub(crate) fn time(time: Option<Timestamp>) -> Self {
        time.map_or_else(Self::default, |time| Self::both(time_for_people(time), time.to_string()))
    }

    /// Puts it at the right of its column.
    pub(crate) fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

/// Rows under a header.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// The column that gives way when the terminal is narrow, and how many lines of it a row may take.
    wrapped: Option<(usize, usize)>,
}

impl Listing {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), ..Self::default() }
    }

    /// The column with this name takes the room that the others leave, over several lines.
    pub(crate) fn wrapping(mut self, name: &str, lines: usize) -> Self {
        self.wrapped = self.header.iter().position(|header| *header == name).map(|column| (column, lines));
        self
    }

    /// Adds a row with a cell for each header.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len(), "a row has a cell for each header");
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned columns; those that are empty in all rows are left out. Where the wrapped column would get too little
    /// room it stands below its row instead of beside it.
    pub(crate) fn to_table(&self, width: u16, styled: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let shown = |column: &usize| self.rows.iter().any(|row| !row[*column].people.is_empty());
        let mut columns: Vec<usize> = (0..self.header.len()).filter(shown).collect();
        let Some((wrapped, lines)) = self.wrapped.filter(|(column, _)| shown(column)) else {
            return text_of(&self.table(&columns, width, styled));
        };
        let others: Vec<usize> = columns.iter().copied().filter(|column| *column != wrapped).collect();
        let taken: u16 =
            self.table(&others, width, styled).column_max_content_widths().iter().map(|width| width + 2).sum();
        if width.saturating_sub(taken) < WRAPPED_WIDTH_MIN {
            return self.to_cards(&others, wrapped, lines, width, styled);
        }
        columns.retain(|column| *column != wrapped);
        columns.push(wrapped);
        text_of(&self.table(&columns, width, styled))
    }

    fn table(&self, columns: &[usize], width: u16, styled: bool) -> Table {
        let mut table = empty_table(width, styled);
        table.set_header(columns.iter().map(|column| self.header_cell(*column)));
        for row in &self.rows {
            let mut cells = Row::from(columns.iter().map(|column| row[*column].to_table_cell()).collect::<Vec<_>>());
            if let Some((_, lines)) = self.wrapped {
                cells.max_height(lines);
            }
            table.add_row(cells);
        }
        for (index, column) in columns.iter().enumerate() {
            let Some(target) = table.column_mut(index) else { continue };
            target.set_padding(if index == 0 { (0, 1) } else { (1, 1) });
            // Ids are there to be copied: only the wrapped column gives way.
            if self.wrapped.is_none_or(|(wrapped, _)| wrapped != *column) {
                target.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }

    /// A header stands where its values do.
    fn header_cell(&self, column: usize) -> TableCell {
        let right = self.rows.iter().any(|row| row[column].right);
        let alignment = if right { CellAlignment::Right } else { CellAlignment::Left };
        TableCell::new(self.header[column]).add_attribute(Attribute::Bold).set_alignment(alignment)
    }

    /// Each row as a line of the other columns, with the wrapped one below it.
    fn to_cards(&self, others: &[usize], wrapped: usize, lines: usize, width: u16, styled: bool) -> String {
        let table = text_of(&self.table(others, u16::MAX, styled));
        let mut heads = table.lines();
        let mut text = String::new();
        let mut push = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        push(heads.next().unwrap_or_default());
        for (head, row) in heads.zip(&self.rows) {
            push(head);
            let mut body = empty_table(width.saturating_sub(CARD_INDENT.len() as u16), false);
            let mut cells = Row::from(vec![row[wrapped].to_table_cell()]);
            cells.max_height(lines);
            body.add_row(cells);
            if let Some(column) = body.column_mut(0) {
                column.set_padding((0, 0));
            }
            for line in text_of(&body).lines().filter(|line| !line.is_empty()) {
                push(&format!("{CARD_INDENT}{line}"));
            }
        }
        text
    }

    /// Tab-separated fields without a header.
    pub(crate) fn to_lines(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                if index > 0 {
                    text.push('\t');
                }
                text.push_str(&escaped(&cell.programs));
            }
            text.push('\n');
        }
        text
    }
}

impl Cell {
    fn to_table_cell(&self) -> TableCell {
        let alignment = if self.right { CellAlignment::Right } else { CellAlignment::Left };
        TableCell::new(printable(&self.people)).set_alignment(alignment)
    }
}

fn empty_table(width: u16, styled: bool) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_truncation_indicator("…");
    if styled {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table
}

/// comfy-table pads the last column; trailing blanks are no use to anybody.
fn text_of(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Name and value, one a line: a table without a header for people, tab-separated for programs.
#[derive(Debug, Default)]
pub(crate) struct Details {
    rows: Vec<(&'static str, Cell)>,
}

impl Details {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a line; one without a value is left out for people.
    pub(crate) fn add(&mut self, name: &'static str, cell: Cell) -> &mut Self {
        self.rows.push((name, cell));
        self
    }

    /// As the form says.
    pub(crate) fn to_text(&self, form: Form) -> String {
        let mut text = String::new();
        let Form::Table { styled, .. } = form else {
            for (name, cell) in &self.rows {
                text.push_str(&format!("{name}\t{}\n", escaped(&cell.programs)));
            }
            return text;
        };
        let shown = || self.rows.iter().filter(|(_, cell)| !cell.people.is_empty());
        let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, cell) in shown() {
            let label = format!("{name:width$}");
            let label = if styled { format!("\u{1b}[1m{label}\u{1b}[0m") } else { label };
            // Lines of a text stand below each other.
            let value = printable(&cell.people).replace('\n', &format!("\n{:1$}", "", width + 2));
            text.push_str(&format!("{label}  {value}\n"));
        }
        text
    }
}

/// A field of a line: tabs, line ends and other control characters as escapes, so that a line stays a line.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\t' | '\n' | '\r' => out.extend(character.escape_default()),
            _ if character.is_control() => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// What a terminal may show. What agents remember comes from anywhere; it must not be able to steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            '\r' => {}
            _ if character.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            _ => out.push(character),
        }
    }
    out
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a binary unit and at most four digits.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `2025-06-01 12:30:05Z`.
pub(crate) fn time_for_people(time: Timestamp) -> String {
    let seconds = Timestamp::from_micros(time.as_micros().div_euclid(1_000_000).saturating_mul(1_000_000));
    seconds.to_string().replace('T', " ")
}

/// The largest two units, such as `1d2h`.
pub(crate) fn duration_for_people(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts.iter().skip(first).take(2).enumerate();
    shown
        .filter(|(index, (count, _))| *index == 0 || *count > 0)
        .map(|(_, (count, unit))| format!("{count}{unit}"))
        .collect()
}

/// `1 memory`, `2 memories`.
pub(crate) fn memories(count: u64) -> String {
    if count == 1 { "1 memory".to_owned() } else { format!("{} memories", grouped(count)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines_and_lose_nothing() {
        let mut listing = Listing::new(&["A", "B"]);
        listing.row(vec![Cell::text("a\tb\\n"), Cell::text("x\ny\u{1b}[31m")]);
        assert_eq!(listing.to_lines(), "a\\tb\\\\n\tx\\ny\\u{1b}[31m\n");
    }

    #[test]
    fn terminals_are_not_steered_by_memories() {
        let mut listing = Listing::new(&["A"]);
        listing.row(vec![Cell::text("\u{1b}[2Jgone\u{9b}31m")]);
        let table = listing.to_table(80, false);
        assert!(!table.contains(['\u{1b}', '\u{9b}']), "{table:?}");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 1_023, 1_024, 1_536, 200 << 20, 3 << 40].map(bytes_for_people);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "200 MiB", "3.0 TiB"]);
        let durations = [0, 5, 65, 3_725, 86_400, 90_061, -1].map(duration_for_people);
        assert_eq!(durations, ["0s", "5s", "1m5s", "1h2m", "1d", "1d1h", "0s"]);
        assert_eq!(time_for_people("2025-06-01T12:30:05.75Z".parse().unwrap()), "2025-06-01 12:30:05Z");
    }
}
