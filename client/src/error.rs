//! [`Error`]: what went wrong with a call, decoded from the status and its `google.rpc` details.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong; see [`Error::violations`].
    InvalidArgument,
    /// What the request names is not there.
    NotFound,
    /// What the request would make is there already.
    AlreadyExists,
    /// What the request would change has another version than expected: read it again.
    Conflict,
    /// The request is fine, the state of the space or cluster is not; see [`Error::reason`].
    FailedPrecondition,
    /// Beyond what is kept, such as an old position.
    OutOfRange,
    /// Too much at once or a quota; see [`Error::retry_after`].
    Overloaded,
    /// No node could answer, or the cluster has no leader.
    Unavailable,
    /// The deadline passed. A write may have happened all the same: repeat it with the same request id.
    DeadlineExceeded,
    /// The caller is not known.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The server does not do this yet.
    Unimplemented,
    /// The client was configured wrongly; nothing was sent.
    Configuration,
    /// A defect or damage on the server's side, or an answer that makes no sense.
    Internal,
}

/// A field of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `memories[17].vectors[0]`.
    pub field: String,
    /// What is wrong with it, with the limit.
    pub description: String,
}

/// What went wrong with a call.
///
/// It prints as one line: the server's message, and how often the call was tried where that was more than once.
#[derive(Clone)]
pub struct Error(Box<Inner>);

/// Boxed, so that results stay small.
#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
    violations: Vec<Violation>,
    resource: Option<(String, String)>,
    retry_after: Option<Duration>,
    endpoint: Option<String>,
    attempts: u32,
    transport: bool,
}

/// The key in `ErrorInfo.metadata`, and the name of the response header, under which a node says where the leader
/// takes client calls.
pub(crate) const LEADER_HINT: &str = "cairn-leader";

impl Error {
    /// The coarse class, to decide by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's message, without endpoint and attempts.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The reason from `google.rpc.ErrorInfo`, a stable word such as `SPACE_NOT_FOUND`, where the server gave one.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// A detail that belongs to the reason, from `google.rpc.ErrorInfo`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.0.metadata.get(key).map(String::as_str)
    }

    /// The fields that are wrong, from `google.rpc.BadRequest`, or what must be put right, from `PreconditionFailure`
    /// and `QuotaFailure`.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The type and name of what the error is about, from `google.rpc.ResourceInfo`, such as `("space", "notes")`.
    pub fn resource(&self) -> Option<(&str, &str)> {
        self.0.resource.as_ref().map(|(kind, name)| (kind.as_str(), name.as_str()))
    }

    /// How long to wait before the next try, where the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The endpoint that was asked last.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// How often the call was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Whether no answer came: the connection could not be made, or broke.
    pub fn is_transport(&self) -> bool {
        self.0.transport
    }

    /// Whether the same call may succeed later. The SDK has already tried until the deadline.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => true,
            // Without a time to wait, what is exhausted is a quota, and stays exhausted.
            ErrorKind::Overloaded => self.0.retry_after.is_some(),
            _ => false,
        }
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            reason: None,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            endpoint: None,
            attempts: 0,
            transport: false,
        }))
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// An answer that lacks what the API promises.
    pub(crate) fn malformed(what: &str) -> Self {
        Self::new(ErrorKind::Internal, format!("the server's answer lacks {what}"))
    }

    pub(crate) fn from_status(status: &Status) -> Self {
        // Statuses that the server sent have no source; those that tonic made from a broken connection do.
        let transport = std::error::Error::source(status).is_some();
        let details = status.get_error_details();
        let kind = if transport { ErrorKind::Unavailable } else { status.code().into() };
        let mut error = Self::new(kind, message_of(status, transport));
        error.0.transport = transport;
        error.0.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        error.0.violations = violations_of(&details);
        error.0.resource = details.resource_info().map(|info| (info.resource_type.clone(), info.resource_name.clone()));
        if let Some(info) = details.error_info() {
            error.0.reason = Some(info.reason.clone());
            error.0.metadata = info.metadata.clone().into_iter().collect();
        }
        error
    }

    /// Where the leader is, as the answering node believes.
    pub(crate) fn leader_hint(&self) -> Option<&str> {
        self.metadata(LEADER_HINT)
    }

    pub(crate) fn set_leader_hint(&mut self, address: &str) {
        self.0.metadata.insert(LEADER_HINT.to_owned(), address.to_owned());
    }

    pub(crate) fn at(mut self, endpoint: &str, attempts: u32) -> Self {
        self.0.endpoint = Some(endpoint.to_owned());
        self.0.attempts = attempts;
        self
    }
}

impl From<Code> for ErrorKind {
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidArgument => ErrorKind::InvalidArgument,
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::AlreadyExists,
            Code::Aborted => ErrorKind::Conflict,
            Code::FailedPrecondition => ErrorKind::FailedPrecondition,
            Code::OutOfRange => ErrorKind::OutOfRange,
            Code::ResourceExhausted => ErrorKind::Overloaded,
            Code::Unavailable => ErrorKind::Unavailable,
            // The server gives up by itself when the deadline that it was told has passed.
            Code::DeadlineExceeded | Code::Cancelled => ErrorKind::DeadlineExceeded,
            Code::Unauthenticated => ErrorKind::Unauthenticated,
            Code::PermissionDenied => ErrorKind::PermissionDenied,
            Code::Unimplemented => ErrorKind::Unimplemented,
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => ErrorKind::Internal,
        }
    }
}

/// tonic's own messages say "transport error" and keep what happened in the chain of sources.
fn message_of(status: &Status, transport: bool) -> String {
    if !transport {
        return match status.message() {
            "" => format!("{:?} without a message", status.code()),
            message => message.to_owned(),
        };
    }
    let mut deepest = std::error::Error::source(status);
    while let Some(next) = deepest.and_then(std::error::Error::source) {
        deepest = Some(next);
    }
    deepest.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn violations_of(details: &ErrorDetails) -> Vec<Violation> {
    let bad_request = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    let precondition = details.precondition_failure().into_iter().flat_map(|failure| &failure.violations);
    let quota = details.quota_failure().into_iter().flat_map(|failure| &failure.violations);
    bad_request
        .map(|violation| (&violation.field, &violation.description))
        .chain(precondition.map(|violation| (&violation.subject, &violation.description)))
        .chain(quota.map(|violation| (&violation.subject, &violation.description)))
        .map(|(field, description)| Violation { field: field.clone(), description: description.clone() })
        .collect()
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.endpoint, self.0.transport) {
            (Some(endpoint), true) => write!(formatter, "cannot reach {endpoint}: {}", self.0.message)?,
            _ => formatter.write_str(&self.0.message)?,
        }
        if self.0.attempts > 1 { write!(formatter, " ({} attempts)", self.0.attempts) } else { Ok(()) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_decoded() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("LIMIT_EXCEEDED", "cairn", [("limit".to_owned(), "1000".to_owned())])
            .add_bad_request_violation("memories", "at most 1,000")
            .set_resource_info("space", "notes", "", "")
            .set_retry_info(Some(Duration::from_millis(250)));
        let status = Status::with_error_details(Code::InvalidArgument, "memories: at most 1,000", details);
        let error = Error::from_status(&status);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.reason(), Some("LIMIT_EXCEEDED"));
        assert_eq!(error.metadata("limit"), Some("1000"));
        assert_eq!(error.resource(), Some(("space", "notes")));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        let violation = Violation { field: "memories".to_owned(), description: "at most 1,000".to_owned() };
        assert_eq!(error.violations(), [violation]);
        assert_eq!(error.to_string(), "memories: at most 1,000");
    }

    #[test]
    fn what_is_exhausted_is_retried_only_when_the_server_says_when() {
        let quota = Error::from_status(&Status::resource_exhausted("disk quota"));
        assert!(!quota.is_retryable());
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_millis(10)));
        let busy = Status::with_error_details(Code::ResourceExhausted, "queue full", details);
        assert!(Error::from_status(&busy).is_retryable());
    }

    #[test]
    fn garbage_in_the_details_is_ignored() {
        let status = Status::with_details(Code::NotFound, "gone", vec![0xff; 7].into());
        let error = Error::from_status(&status);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, None));
    }

    #[test]
    fn a_broken_connection_says_where_and_how_often() {
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let error = Error::from_status(&broken).at("http://127.0.0.1:1", 3);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "cannot reach http://127.0.0.1:1: connection reset (3 attempts)");
    }
}
