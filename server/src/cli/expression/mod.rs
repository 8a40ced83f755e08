//! Filters as people write them: `kind = "fact" and metadata.topic in ["tea", "coffee"]`.
//!
//! ```text
//! or        = and { "or" and }
//! and       = unary { "and" unary }
//! unary     = "not" unary | "(" or ")" | ( "all" | "any" ) "(" [ or { "," or } ] ")" | condition
//! condition = field test
//! test      = ( "=" | "!=" | ">" | ">=" | "<" | "<=" ) literal
//!           | [ "not" ] "in" "[" literal { "," literal } "]"
//!           | ( "contains" | "prefix" ) string
//!           | [ "not" ] "exists"
//! literal   = string | number | "true" | "false" | "null" | "timestamp" "(" string ")"
//! ```
//!
//! A field is a plain word with dots, or stands in backticks. Strings stand in double or single quotes; beside
//! `created_at`, `updated_at` and `expires_at` they must be times, and need no `timestamp(..)`. Keywords are read in any
//! case. A text that begins with `{` is read as JSON instead; see [`super::json`].
//!
//! Files: `lexer` (text to tokens), `parser` (tokens to filter), `printer` (filter to text).

mod lexer;
mod parser;
mod printer;

#[cfg(test)]
mod tests;

use cairn_client::Filter;

use super::json;

pub(crate) use printer::filter_to_text;

/// An expression that cannot be read, with the place. It prints over three lines, the last with a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    /// The line of the expression in which the problem is.
    line: String,
    /// Characters of that line before the problem.
    column: usize,
    problem: String,
}

impl ExpressionError {
    /// The longest part of a line that is shown, in characters.
    const SHOWN_MAX: usize = 96;

    fn new(text: &str, position_bytes: usize, problem: String) -> Self {
        let before = text.get(..position_bytes).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        // A tab is as wide as a terminal likes; one blank for it keeps the caret in place.
        let line = line.replace('\t', " ");
        let column = before[line_start..].chars().count();
        // Of a long line, what is around the place.
        let first = if line.chars().count() > Self::SHOWN_MAX { column.saturating_sub(Self::SHOWN_MAX / 2) } else { 0 };
        let line = line.chars().skip(first).take(Self::SHOWN_MAX).collect();
        Self { line, column: column - first, problem }
    }
}

impl std::fmt::Display for ExpressionError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let indent = " ".repeat(self.column);
        write!(formatter, "filter: {}\n  {}\n  {indent}^", self.problem, self.line)
    }
}

impl std::error::Error for ExpressionError {}

/// Reads a filter, as an expression or as JSON.
///
/// # Errors
/// A message that says what is wrong, and where; several lines for an expression.
pub(crate) fn read_filter(text: &str) -> Result<Filter, String> {
    if text.trim().is_empty() {
        return Err("filter: is empty".to_owned());
    }
    if !text.trim_start().starts_with('{') {
        return parser::parse(text).map_err(|error| error.to_string());
    }
    let json = serde_json::from_str(text).map_err(|error| format!("filter: not JSON: {error}"))?;
    json::filter_from_json(json).map_err(|error| format!("filter: {error}"))
}
