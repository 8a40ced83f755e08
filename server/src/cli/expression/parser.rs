//! Makes a filter of an expression, by recursive descent; the grammar is in the [parent](super).

use cairn_client::{Condition, Filter, Test, Timestamp, Value};

use super::ExpressionError;
use super::lexer::{Token, TokenKind, tokens};

/// The server takes 16 levels; the limit here only keeps the recursion bounded.
const DEPTH_MAX: usize = 64;

/// Words that are not fields.
pub(super) const KEYWORDS: [&str; 13] =
    ["all", "and", "any", "contains", "exists", "false", "in", "not", "null", "or", "prefix", "timestamp", "true"];

type Result<T> = std::result::Result<T, ExpressionError>;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Filter> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    let filter = parser.or()?;
    match parser.peek().kind {
        TokenKind::End => Ok(filter),
        _ => parser.expected("`and`, `or` or the end"),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Ends with [`TokenKind::End`].
    tokens: Vec<Token>,
    /// Never beyond the last token.
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Filter> {
        self.chain("or", Self::and, Filter::Any)
    }

    fn and(&mut self) -> Result<Filter> {
        self.chain("and", Self::unary, Filter::All)
    }

    /// One operand as it is, or several with a keyword between them.
    fn chain(
        &mut self,
        keyword: &str,
        operand: fn(&mut Self) -> Result<Filter>,
        join: fn(Vec<Filter>) -> Filter,
    ) -> Result<Filter> {
        let first = operand(self)?;
        let mut filters = vec![first];
        while self.take_keyword(keyword) {
            filters.push(operand(self)?);
        }
        Ok(if filters.len() == 1 { filters.remove(0) } else { join(filters) })
    }

    fn unary(&mut self) -> Result<Filter> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("is nested too deeply");
        }
        let filter = if self.take_keyword("not") {
            Filter::Not(Box::new(self.unary()?))
        } else if self.take_symbol("(") {
            let inner = self.or()?;
            self.require_symbol(")")?;
            inner
        } else if self.take_keyword("all") {
            Filter::All(self.arguments()?)
        } else if self.take_keyword("any") {
            Filter::Any(self.arguments()?)
        } else {
            Filter::Where(self.condition()?)
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn arguments(&mut self) -> Result<Vec<Filter>> {
        self.require_symbol("(")?;
        let mut filters = Vec::new();
        if self.take_symbol(")") {
            return Ok(filters);
        }
        loop {
            filters.push(self.or()?);
            if self.take_symbol(")") {
                return Ok(filters);
            }
            self.require_symbol(",")?;
        }
    }

    fn condition(&mut self) -> Result<Condition> {
        let field = match &self.peek().kind {
            TokenKind::Quoted(name) => name.clone(),
            TokenKind::Word(word) if !is_keyword(word) => word.clone(),
            _ => return self.expected("a field, such as kind or metadata.topic"),
        };
        self.next += 1;
        let test = self.test(&field)?;
        Ok(Condition { field, test })
    }

    fn test(&mut self, field: &str) -> Result<Test> {
        if let TokenKind::Symbol(symbol) = self.peek().kind {
            let make = match symbol {
                "=" => Test::Eq,
                "!=" => Test::Ne,
                ">" => Test::Gt,
                ">=" => Test::Gte,
                "<" => Test::Lt,
                "<=" => Test::Lte,
                _ => return self.expected_test(field),
            };
            self.next += 1;
            return Ok(make(self.literal(field, symbol)?));
        }
        if self.take_keyword("in") {
            return Ok(Test::In(self.literals(field)?));
        }
        if self.take_keyword("contains") {
            return Ok(Test::Contains(self.string("contains")?));
        }
        if self.take_keyword("prefix") {
            return Ok(Test::Prefix(self.string("prefix")?));
        }
        if self.take_keyword("exists") {
            return Ok(Test::Exists(true));
        }
        if self.take_keyword("not") {
            if self.take_keyword("in") {
                return Ok(Test::Nin(self.literals(field)?));
            }
            if self.take_keyword("exists") {
                return Ok(Test::Exists(false));
            }
            return self.expected("`in` or `exists` after `not`");
        }
        self.expected_test(field)
    }

    fn literals(&mut self, field: &str) -> Result<Vec<Value>> {
        self.require_symbol("[")?;
        let mut values = vec![self.literal(field, "[")?];
        while !self.take_symbol("]") {
            self.require_symbol(",")?;
            values.push(self.literal(field, ",")?);
        }
        Ok(values)
    }

    fn literal(&mut self, field: &str, before: &str) -> Result<Value> {
        let value = match &self.peek().kind {
            TokenKind::Text(text) if holds_times(field) => Value::Timestamp(self.time(text)?),
            TokenKind::Text(text) => Value::String(text.clone()),
            TokenKind::Integer(integer) => Value::Integer(*integer),
            TokenKind::Double(double) => Value::Double(*double),
            TokenKind::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                "timestamp" => return self.timestamp(),
                _ => return self.fail(&format!("`{word}` is not a value; write \"{word}\" for the string")),
            },
            _ => return self.expected(&format!("a value after `{before}`")),
        };
        self.next += 1;
        Ok(value)
    }

    fn timestamp(&mut self) -> Result<Value> {
        self.next += 1;
        self.require_symbol("(")?;
        let TokenKind::Text(text) = &self.peek().kind else {
            return self.expected("a time in quotes");
        };
        let time = self.time(text)?;
        self.next += 1;
        self.require_symbol(")")?;
        Ok(Value::Timestamp(time))
    }

    fn time(&self, text: &str) -> Result<Timestamp> {
        text.parse().or_else(|error: cairn_client::ParseTimestampError| self.fail(&error.to_string()))
    }

    fn string(&mut self, before: &str) -> Result<String> {
        let TokenKind::Text(text) = &self.peek().kind else {
            return self.expected(&format!("a string after `{before}`"));
        };
        let text = text.clone();
        self.next += 1;
        Ok(text)
    }

    fn peek(&self) -> &Token {
        // `next` moves only past tokens that are not the end.
        &self.tokens[self.next]
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(&self.peek().kind, TokenKind::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek().kind, TokenKind::Symbol(other) if other == symbol);
        self.next += usize::from(found);
        found
    }

    fn require_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.take_symbol(symbol) { Ok(()) } else { self.expected(&format!("`{symbol}`")) }
    }

    fn expected_test<T>(&self, field: &str) -> Result<T> {
        self.expected(&format!(
            "a test after `{field}`: one of = != > >= < <=, in, not in, contains, prefix, exists, not exists"
        ))
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        let found = match &self.peek().kind {
            TokenKind::End => "the filter ends".to_owned(),
            _ => format!("found `{}`", self.peek().source),
        };
        self.fail(&format!("expected {what}, but {found}"))
    }

    fn fail<T>(&self, problem: &str) -> Result<T> {
        Err(ExpressionError::new(self.text, self.peek().position, problem.to_owned()))
    }
}

/// Whether a word can only be a field in backticks.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

fn holds_times(field: &str) -> bool {
    matches!(field, "created_at" | "updated_at" | "expires_at")
}
