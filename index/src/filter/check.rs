//! Checks of a filter before it is used: its size, and whether each operand has a type that the field can have.

use super::{Condition, Field, Filter, Scalar, Test};
use crate::schema::{FieldType, Schema};

/// The most levels that a filter can have.
pub const MAX_DEPTH: usize = 16;
/// The most conditions that a filter can have.
pub const MAX_CONDITIONS: usize = 256;
/// The most operands of `in` and `nin`.
pub const MAX_OPERANDS: usize = 1_000;

/// Why a filter is refused, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FilterError {
    /// The way to the offending part in the terms of the public message, such as `all.filters[2].not.where.eq`. Empty: the
    /// filter as a whole.
    pub path: String,
    /// What is wrong, as a sentence without a full stop, naming field and limit.
    pub reason: String,
}

impl Filter {
    /// Checks depth, number of conditions and operands, and the operand types against the schema. A field that is not
    /// indexed can have values of any type.
    pub fn check(&self, schema: &Schema) -> Result<(), FilterError> {
        let mut checker = Checker { schema, path: Vec::new(), conditions: 0 };
        checker.filter(self, 1)
    }
}

struct Checker<'a> {
    schema: &'a Schema,
    path: Vec<String>,
    conditions: usize,
}

impl Checker<'_> {
    fn filter(&mut self, filter: &Filter, depth: usize) -> Result<(), FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels")));
        }
        match filter {
            Filter::All(filters) => self.list("all", filters, depth),
            Filter::Any(filters) => self.list("any", filters, depth),
            Filter::Not(inner) => self.within("not".into(), |checker| checker.filter(inner, depth + 1)),
            Filter::Where(condition) => self.within("where".into(), |checker| checker.condition(condition)),
        }
    }

    fn list(&mut self, name: &str, filters: &[Filter], depth: usize) -> Result<(), FilterError> {
        for (position, filter) in filters.iter().enumerate() {
            self.within(format!("{name}.filters[{position}]"), |checker| checker.filter(filter, depth + 1))?;
        }
        Ok(())
    }

    fn within(
        &mut self,
        step: String,
        check: impl FnOnce(&mut Self) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        self.path.push(step);
        check(self)?;
        self.path.pop();
        Ok(())
    }

    fn condition(&mut self, condition: &Condition) -> Result<(), FilterError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(self.error(format!("more than {MAX_CONDITIONS} conditions")));
        }
        let field = &condition.field;
        match &condition.test {
            Test::Eq(operand) => self.within("eq".into(), |checker| checker.operand(field, operand)),
            Test::Ne(operand) => self.within("ne".into(), |checker| checker.operand(field, operand)),
            Test::In(operands) => self.within("in".into(), |checker| checker.operands(field, operands)),
            Test::Nin(operands) => self.within("nin".into(), |checker| checker.operands(field, operands)),
            Test::Gt(operand) => self.within("gt".into(), |checker| checker.ordered(field, operand)),
            Test::Gte(operand) => self.within("gte".into(), |checker| checker.ordered(field, operand)),
            Test::Lt(operand) => self.within("lt".into(), |checker| checker.ordered(field, operand)),
            Test::Lte(operand) => self.within("lte".into(), |checker| checker.ordered(field, operand)),
            Test::Contains(_) => self.within("contains".into(), |checker| checker.type_of(field, FieldType::Keyword)),
            Test::Prefix(_) => self.within("prefix".into(), |checker| checker.type_of(field, FieldType::Keyword)),
            Test::Within(_) => self.type_of(field, FieldType::Keyword),
            Test::Exists(_) => Ok(()),
        }
    }

    fn operands(&mut self, field: &Field, operands: &[Scalar]) -> Result<(), FilterError> {
        if operands.is_empty() || operands.len() > MAX_OPERANDS {
            return Err(self.error(format!("{} values, but 1 to {MAX_OPERANDS} are allowed", operands.len())));
        }
        for (position, operand) in operands.iter().enumerate() {
            self.within(format!("values[{position}]"), |checker| checker.operand(field, operand))?;
        }
        Ok(())
    }

    fn ordered(&self, field: &Field, operand: &Scalar) -> Result<(), FilterError> {
        if matches!(operand, Scalar::Bool(_)) {
            return Err(self.error("booleans have no order".into()));
        }
        self.operand(field, operand)
    }

    fn operand(&self, field: &Field, operand: &Scalar) -> Result<(), FilterError> {
        match operand {
            Scalar::Double(value) if !value.is_finite() => Err(self.error("not a finite number".into())),
            Scalar::Bool(_) => self.type_of(field, FieldType::Bool),
            Scalar::Integer(_) | Scalar::Double(_) => self.type_of(field, FieldType::Float),
            Scalar::String(_) => self.type_of(field, FieldType::Keyword),
            Scalar::Timestamp(_) => self.type_of(field, FieldType::Datetime),
        }
    }

    /// Numbers of both kinds are allowed wherever one of them is.
    fn type_of(&self, field: &Field, operand: FieldType) -> Result<(), FilterError> {
        let Some(expected) = self.schema.type_of(field) else { return Ok(()) };
        let expected_kind = if expected == FieldType::Integer { FieldType::Float } else { expected };
        if expected_kind == operand {
            return Ok(());
        }
        Err(self.error(format!("`{field}` holds {}, not {}", describe(expected_kind), describe(operand))))
    }

    fn error(&self, reason: String) -> FilterError {
        FilterError { path: self.path.join("."), reason }
    }
}

fn describe(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Keyword => "strings",
        FieldType::Integer | FieldType::Float => "numbers",
        FieldType::Bool => "booleans",
        FieldType::Datetime => "timestamps",
    }
}

/// The field's name in the public API, such as `scope.agent_id` or `metadata.a.b`.
impl std::fmt::Display for Field {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::AgentId => "scope.agent_id",
            Self::UserId => "scope.user_id",
            Self::SessionId => "scope.session_id",
            Self::Namespace => "scope.namespace",
            Self::Kind => "kind",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::ExpiresAt => "expires_at",
            Self::Importance => "importance",
            Self::Metadata(path) => return write!(formatter, "metadata.{path}"),
        };
        formatter.write_str(name)
    }
}

impl Field {
    /// The field of this name in the public API; `None` where there is none. The opposite of `Display`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "scope.agent_id" => Self::AgentId,
            "scope.user_id" => Self::UserId,
            "scope.session_id" => Self::SessionId,
            "scope.namespace" => Self::Namespace,
            "kind" => Self::Kind,
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            "expires_at" => Self::ExpiresAt,
            "importance" => Self::Importance,
            _ => {
                let path = name.strip_prefix("metadata.")?;
                if path.split('.').any(str::is_empty) {
                    return None;
                }
                Self::Metadata(path.to_owned())
            }
        })
    }
}
