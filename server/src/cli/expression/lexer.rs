//! Cuts an expression into tokens.

use super::ExpressionError;

/// A token and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) position: usize,
    /// As it stands in the text, to quote it in messages.
    pub(super) source: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A keyword or a plain field.
    Word(String),
    /// A field in backticks.
    Quoted(String),
    /// A string.
    Text(String),
    Integer(i64),
    Double(f64),
    /// `=`, `!=`, `>`, `>=`, `<`, `<=`, `(`, `)`, `[`, `]` or `,`.
    Symbol(&'static str),
    /// Behind the last token.
    End,
}

/// Longer ones first, since they begin like shorter ones.
const SYMBOLS: [&str; 12] = ["==", "!=", ">=", "<=", "=", ">", "<", "(", ")", "[", "]", ","];

/// Whether a word may begin with this character.
pub(super) fn begins_word(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

/// Whether a word may hold this character.
pub(super) fn continues_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.')
}

/// Cuts the text into tokens; the last one is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut position = 0;
    while let Some(character) = text[position..].chars().next() {
        if character.is_whitespace() {
            position += character.len_utf8();
            continue;
        }
        let (kind, length) = token(&text[position..], character)
            .map_err(|(offset, problem)| ExpressionError::new(text, position + offset, problem))?;
        let source = text[position..position + length].to_owned();
        tokens.push(Token { kind, position, source });
        position += length;
    }
    tokens.push(Token { kind: TokenKind::End, position: text.len(), source: String::new() });
    Ok(tokens)
}

/// What is wrong, and how many bytes behind the token's beginning.
type Problem = (usize, String);

/// The token at the beginning of `rest`, which is not empty, and its length in bytes.
fn token(rest: &str, first: char) -> Result<(TokenKind, usize), Problem> {
    if matches!(first, '"' | '\'' | '`') {
        let (content, length) = quoted(rest, first)?;
        let kind = if first == '`' { TokenKind::Quoted(content) } else { TokenKind::Text(content) };
        return Ok((kind, length));
    }
    if first.is_ascii_digit() || matches!(first, '-' | '+') {
        return number(rest);
    }
    if begins_word(first) {
        let length = rest.find(|character| !continues_word(character)).unwrap_or(rest.len());
        return Ok((TokenKind::Word(rest[..length].to_owned()), length));
    }
    match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        Some("==") => Ok((TokenKind::Symbol("="), 2)),
        Some(symbol) => Ok((TokenKind::Symbol(symbol), symbol.len())),
        None if matches!(first, '&' | '|' | '!') => Err((0, "write `and`, `or`, `not`".to_owned())),
        None => Err((0, format!("`{first}` means nothing here"))),
    }
}

/// A token in quotes, with its escapes resolved, and its length with both quotes.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), Problem> {
    let mut content = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((position, character)) = characters.next() {
        if character == quote {
            return Ok((content, position + quote.len_utf8()));
        }
        if character != '\\' {
            content.push(character);
            continue;
        }
        match characters.next() {
            Some((_, 'n')) => content.push('\n'),
            Some((_, 't')) => content.push('\t'),
            Some((_, 'r')) => content.push('\r'),
            Some((_, escaped @ ('\\' | '"' | '\'' | '`'))) => content.push(escaped),
            _ => return Err((position, "after `\\` comes one of n, t, r, \\ or a quote".to_owned())),
        }
    }
    Err((0, format!("the {quote} is never closed")))
}

fn number(rest: &str) -> Result<(TokenKind, usize), Problem> {
    let belongs = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '+' | '.');
    let length = rest.find(|character| !belongs(character)).unwrap_or(rest.len());
    let text = &rest[..length];
    if text.contains(['.', 'e', 'E']) {
        return match text.parse::<f64>() {
            Ok(double) if double.is_finite() => Ok((TokenKind::Double(double), length)),
            Ok(_) => Err((0, format!("{text} is too large"))),
            Err(_) => Err((0, not_a_number(text))),
        };
    }
    match text.parse::<i64>() {
        Ok(integer) => Ok((TokenKind::Integer(integer), length)),
        Err(error) => match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                Err((0, format!("{text} does not fit into 64 bits")))
            }
            _ => Err((0, not_a_number(text))),
        },
    }
}

fn not_a_number(text: &str) -> String {
    format!("`{text}` is not a number; a string or a time stands in quotes")
}
