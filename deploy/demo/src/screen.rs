//! [`Screen`]: where the demo writes. Tables and a progress bar on a terminal, plain lines elsewhere.

#![expect(clippy::print_stdout, reason = "the demo's only purpose is to be watched")]

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// The longest text in a cell of a table, in characters.
const CELL_CHARACTERS_MAX: usize = 88;

/// Standard output, as a terminal or as a pipe.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    terminal: bool,
}

impl Screen {
    /// Looks at standard output.
    #[must_use]
    pub fn standard() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }

    /// Begins a scene.
    pub fn heading(&self, text: &str) {
        if self.terminal {
            println!("\n\u{1b}[1m{text}\u{1b}[0m");
        } else {
            println!("== {text}");
        }
    }

    /// Says something.
    pub fn line(&self, text: &str) {
        println!("{text}");
    }

    /// Shows rows under a header: as a table, or one line a row with tabs between the cells.
    pub fn table(&self, header: &[&str], rows: &[Vec<String>]) {
        if !self.terminal {
            for row in rows {
                println!("{}", row.join("\t").trim_end());
            }
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header);
        for row in rows {
            table.add_row(row.iter().map(|cell| shortened(cell)));
        }
        println!("{table}");
    }

    /// A bar that counts to `total`; invisible in a pipe.
    #[must_use]
    pub fn progress(&self, total: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        match ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= CELL_CHARACTERS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(CELL_CHARACTERS_MAX - 1).collect();
    format!("{}…", start.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_are_cut_at_characters() {
        assert_eq!(shortened("kurz"), "kurz");
        let cut = shortened(&"ü".repeat(200));
        assert_eq!(cut.chars().count(), CELL_CHARACTERS_MAX);
        assert!(cut.ends_with('…'));
    }
}
