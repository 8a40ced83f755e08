//! Prints a filter as an expression, so that it can be shown how a filter was understood.

use std::fmt::Write;

use cairn_client::{Condition, Filter, Test, Value};

use super::lexer::{begins_word, continues_word};
use super::parser::is_keyword;
use crate::cli::json;

/// The filter as an expression; reading it gives the same filter.
pub(crate) fn filter_to_text(filter: &Filter) -> String {
    let mut text = String::new();
    write_filter(&mut text, filter);
    text
}

fn write_filter(text: &mut String, filter: &Filter) {
    match filter {
        Filter::All(filters) if filters.len() > 1 => {
            // Only a chain of its own kind or a looser one needs parentheses.
            write_chain(text, filters, " and ", is_chain);
        }
        Filter::Any(filters) if filters.len() > 1 => {
            write_chain(text, filters, " or ", |inner| is_chain(inner) && matches!(inner, Filter::Any(_)));
        }
        Filter::All(filters) => write_call(text, "all", filters),
        Filter::Any(filters) => write_call(text, "any", filters),
        Filter::Not(inner) => {
            text.push_str("not ");
            write_operand(text, inner, is_chain(inner));
        }
        Filter::Where(condition) => write_condition(text, condition),
    }
}

fn is_chain(filter: &Filter) -> bool {
    matches!(filter, Filter::All(filters) | Filter::Any(filters) if filters.len() > 1)
}

fn write_chain(text: &mut String, filters: &[Filter], between: &str, parentheses: fn(&Filter) -> bool) {
    for (index, filter) in filters.iter().enumerate() {
        if index > 0 {
            text.push_str(between);
        }
        write_operand(text, filter, parentheses(filter));
    }
}

fn write_operand(text: &mut String, filter: &Filter, parentheses: bool) {
    if !parentheses {
        return write_filter(text, filter);
    }
    text.push('(');
    write_filter(text, filter);
    text.push(')');
}

fn write_call(text: &mut String, name: &str, filters: &[Filter]) {
    text.push_str(name);
    text.push('(');
    for (index, filter) in filters.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write_filter(text, filter);
    }
    text.push(')');
}

fn write_condition(text: &mut String, condition: &Condition) {
    write_field(text, &condition.field);
    match &condition.test {
        Test::Eq(value) => write_comparison(text, "=", value),
        Test::Ne(value) => write_comparison(text, "!=", value),
        Test::Gt(value) => write_comparison(text, ">", value),
        Test::Gte(value) => write_comparison(text, ">=", value),
        Test::Lt(value) => write_comparison(text, "<", value),
        Test::Lte(value) => write_comparison(text, "<=", value),
        Test::In(values) => write_list(text, "in", values),
        Test::Nin(values) => write_list(text, "not in", values),
        Test::Contains(part) => write_comparison(text, "contains", &Value::from(part)),
        Test::Prefix(prefix) => write_comparison(text, "prefix", &Value::from(prefix)),
        Test::Exists(true) => text.push_str(" exists"),
        Test::Exists(false) => text.push_str(" not exists"),
    }
}

fn write_field(text: &mut String, field: &str) {
    let plain = field.starts_with(begins_word) && field.chars().all(continues_word) && !is_keyword(field);
    if plain { text.push_str(field) } else { write_quoted(text, field, '`') }
}

fn write_comparison(text: &mut String, operator: &str, value: &Value) {
    text.push(' ');
    text.push_str(operator);
    text.push(' ');
    write_value(text, value);
}

fn write_list(text: &mut String, operator: &str, values: &[Value]) {
    text.push(' ');
    text.push_str(operator);
    text.push_str(" [");
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write_value(text, value);
    }
    text.push(']');
}

fn write_value(text: &mut String, value: &Value) {
    // Writing into a string cannot fail.
    let _ = match value {
        Value::Null => write!(text, "null"),
        Value::Bool(value) => write!(text, "{value}"),
        Value::Integer(value) => write!(text, "{value}"),
        Value::Double(value) => write!(text, "{value:?}"),
        Value::Timestamp(value) => write!(text, "timestamp(\"{value}\")"),
        Value::String(value) => {
            write_quoted(text, value, '"');
            Ok(())
        }
        // The grammar has no such operands, and the server takes none; only a filter from JSON can hold them.
        Value::List(_) | Value::Map(_) => write!(text, "{}", json::value_to_json(value)),
    };
}

fn write_quoted(text: &mut String, content: &str, quote: char) {
    text.push(quote);
    for character in content.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\\' => text.push_str("\\\\"),
            _ if character == quote => {
                text.push('\\');
                text.push(quote);
            }
            _ => text.push(character),
        }
    }
    text.push(quote);
}
