//! The engine's one error type. Its kind says what the caller can do: fix the request, try again, or stop.

use std::time::Duration;

use cairn_proto::storage::{Failure, FailureCode, FieldViolation};

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// A field of a request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path, such as `memories[17].vectors[0].dense.values`.
    pub field: String,
    /// What is wrong, with the limit.
    pub description: String,
}

/// What sort of failure it is, and what the caller needs to react to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is at fault, whatever the state.
    InvalidArgument {
        /// At least one.
        violations: Vec<Violation>,
    },
    /// Something that the request names is not there.
    NotFound {
        /// The sort of thing, such as `space`.
        resource_type: String,
        /// Its name.
        resource_name: String,
    },
    /// Something that the request would make is there already.
    AlreadyExists {
        /// The sort of thing, such as `memory`.
        resource_type: String,
        /// Its name.
        resource_name: String,
    },
    /// An expected version did not hold; read again and retry.
    Aborted,
    /// The state does not allow the request.
    FailedPrecondition {
        /// A word in UPPER_SNAKE_CASE for programs.
        reason: String,
    },
    /// A bounded table or buffer is full.
    ResourceExhausted {
        /// When to try again.
        retry_after: Duration,
    },
    /// The indexes have no memory left on this node.
    IndexMemory {
        /// When to try again.
        retry_after: Duration,
    },
    /// A position that is no longer kept.
    OutOfRange,
    /// Not served by this version.
    Unimplemented,
    /// This node cannot answer now; another one may.
    Unavailable,
    /// The options or the data directory do not fit; nothing was opened.
    Refused,
    /// Stored bytes are not what was written. The node must stop.
    Corruption,
    /// The file system or RocksDB failed, or an invariant does not hold. The node must stop.
    Internal,
}

/// An error with its kind, a message for people, and what caused it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with a message for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether every replica that applies the same command at the same state fails in this way. If not, the node
    /// must stop rather than go on with another state than its peers.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        !matches!(
            self.kind,
            ErrorKind::IndexMemory { .. }
                | ErrorKind::Refused
                | ErrorKind::Corruption
                | ErrorKind::Internal
                | ErrorKind::Unavailable
        )
    }

    /// INVALID_ARGUMENT for one field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_all(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// INVALID_ARGUMENT for several fields; `violations` must not be empty.
    #[must_use]
    pub fn invalid_all(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is invalid".to_string(),
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => format!("{}: {} (and {} more)", first.field, first.description, rest.len()),
        };
        Self::new(ErrorKind::InvalidArgument { violations }, message)
    }

    /// NOT_FOUND.
    #[must_use]
    pub fn not_found(resource_type: &str, resource_name: &str) -> Self {
        let kind = ErrorKind::NotFound { resource_type: resource_type.into(), resource_name: resource_name.into() };
        Self::new(kind, format!("{resource_type} {resource_name:?} is not there"))
    }

    /// ALREADY_EXISTS.
    #[must_use]
    pub fn already_exists(resource_type: &str, resource_name: &str) -> Self {
        let kind =
            ErrorKind::AlreadyExists { resource_type: resource_type.into(), resource_name: resource_name.into() };
        Self::new(kind, format!("{resource_type} {resource_name:?} is there already"))
    }

    /// FAILED_PRECONDITION with a reason in UPPER_SNAKE_CASE.
    pub fn failed_precondition(reason: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition { reason: reason.into() }, message)
    }

    /// UNIMPLEMENTED: `what` is not served by this version.
    #[must_use]
    pub fn unimplemented(what: &str) -> Self {
        Self::new(ErrorKind::Unimplemented, format!("{what} is not served by this version"))
    }

    /// The options or the data directory do not fit.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// Stored bytes are not what was written.
    pub fn corruption(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// The machine failed, or an invariant does not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The failure of an outcome as an error.
    #[must_use]
    pub fn from_failure(failure: &Failure) -> Self {
        let resource_type = failure.resource_type.clone();
        let resource_name = failure.resource_name.clone();
        let kind = match failure.code() {
            FailureCode::InvalidArgument => ErrorKind::InvalidArgument {
                violations: failure
                    .violations
                    .iter()
                    .map(|v| Violation { field: v.field.clone(), description: v.description.clone() })
                    .collect(),
            },
            FailureCode::NotFound => ErrorKind::NotFound { resource_type, resource_name },
            FailureCode::AlreadyExists => ErrorKind::AlreadyExists { resource_type, resource_name },
            FailureCode::Aborted => ErrorKind::Aborted,
            FailureCode::FailedPrecondition => ErrorKind::FailedPrecondition { reason: failure.reason.clone() },
            FailureCode::ResourceExhausted => {
                ErrorKind::ResourceExhausted { retry_after: Duration::from_millis(failure.retry_after_millis) }
            }
            FailureCode::Unimplemented => ErrorKind::Unimplemented,
            FailureCode::Unspecified => ErrorKind::Internal,
        };
        Self::new(kind, failure.message.clone())
    }

    /// A deterministic error as the failure of an outcome; the error itself where it is not deterministic.
    pub(crate) fn into_failure(self) -> Result<Failure> {
        let mut failure = Failure { message: self.message.clone(), ..Failure::default() };
        let code = match &self.kind {
            ErrorKind::InvalidArgument { violations } => {
                failure.violations = violations
                    .iter()
                    .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                    .collect();
                FailureCode::InvalidArgument
            }
            ErrorKind::NotFound { resource_type, resource_name } => {
                failure.resource_type.clone_from(resource_type);
                failure.resource_name.clone_from(resource_name);
                FailureCode::NotFound
            }
            ErrorKind::AlreadyExists { resource_type, resource_name } => {
                failure.resource_type.clone_from(resource_type);
                failure.resource_name.clone_from(resource_name);
                FailureCode::AlreadyExists
            }
            ErrorKind::Aborted => FailureCode::Aborted,
            ErrorKind::FailedPrecondition { reason } => {
                failure.reason.clone_from(reason);
                FailureCode::FailedPrecondition
            }
            ErrorKind::ResourceExhausted { retry_after } => {
                failure.retry_after_millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                FailureCode::ResourceExhausted
            }
            ErrorKind::Unimplemented => FailureCode::Unimplemented,
            ErrorKind::IndexMemory { .. }
            | ErrorKind::OutOfRange
            | ErrorKind::Unavailable
            | ErrorKind::Refused
            | ErrorKind::Corruption
            | ErrorKind::Internal => return Err(self),
        };
        failure.set_code(code);
        Ok(failure)
    }
}

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        if error.kind() == rocksdb::ErrorKind::Corruption {
            Self::corruption("the store holds bytes that were not written by it").with_source(error)
        } else {
            Self::internal("the store failed").with_source(error)
        }
    }
}
