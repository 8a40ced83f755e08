//! Every failure that a client sees, as a `google.rpc.Status`. This is the only file that chooses codes and details.
//!
//! Each status carries an `ErrorInfo` with domain `cairn.dev` and a reason for programs; the code says what to do:
//!
//! | code | the caller | details beside ErrorInfo |
//! |---|---|---|
//! | INVALID_ARGUMENT | fixes the request | BadRequest: each field and its limit |
//! | NOT_FOUND, ALREADY_EXISTS | names something else | ResourceInfo |
//! | FAILED_PRECONDITION | changes the state first | |
//! | ABORTED | reads again, then retries | |
//! | OUT_OF_RANGE | starts over | |
//! | RESOURCE_EXHAUSTED | waits, then retries with the same request id | RetryInfo, QuotaFailure |
//! | UNAVAILABLE | retries with the same request id, on another node too | RetryInfo; leader where known |
//! | DEADLINE_EXCEEDED | retries with the same request id | |
//! | UNIMPLEMENTED | does without | |
//! | INTERNAL, DATA_LOSS | tells the operator | |

use std::collections::HashMap;
use std::time::Duration;

use cairn_engine::{Error as EngineError, ErrorKind, Violation};
use cairn_proto::v1;
use cairn_raft::{MembershipError, ProposeError, ReadError};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, QuotaViolation, StatusExt as _};

use crate::embed::EmbedError;

/// The domain of every reason.
pub(crate) const DOMAIN: &str = "cairn.dev";

/// Where a node that does not lead names the leader's client address: in the response's metadata and in the metadata of
/// ErrorInfo. The client SDK looks for the same word.
pub(crate) const LEADER_METADATA: &str = "cairn-leader";

/// How long a caller waits that met a node without a leader: about half an election.
const UNAVAILABLE_RETRY: Duration = Duration::from_millis(500);

/// The leader, as a hint for the caller of a node that does not lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    /// Where clients reach it.
    pub(crate) client_address: String,
}

/// A failure on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem(Box<Details>);

/// Boxed, so that results stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    code: Code,
    reason: String,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<Violation>,
    resource: Option<(String, String)>,
    retry_after: Option<Duration>,
    quota: Option<&'static str>,
}

impl Problem {
    fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            reason: reason.into(),
            message: message.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            quota: None,
        }))
    }

    /// A field that breaks a rule.
    pub(crate) fn invalid(field: &str, description: impl Into<String>) -> Self {
        EngineError::invalid(field, description).into()
    }

    /// Text for a space whose embedder is none or unknown.
    pub(crate) fn no_embedder(space: &str, embedder: &str, known: &str) -> Self {
        let problem = if embedder.is_empty() {
            let message = format!("space {space} has no embedder: send a vector in place of text");
            Self::new(Code::FailedPrecondition, "NO_EMBEDDER", message)
        } else {
            let message = format!("space {space} names embedder {embedder:?}, this node has: {known}");
            Self::new(Code::FailedPrecondition, "UNKNOWN_EMBEDDER", message)
        };
        problem.with("space", space).with("embedder", embedder)
    }

    /// Text for a space whose vectors are of another model than its embedder makes now.
    pub(crate) fn other_model(space: &str, own: &v1::Embedding, makes: &str) -> Self {
        let v1::Embedding { embedder, model, .. } = own;
        let message =
            format!("space {space} holds vectors of model {model:?}; embedder {embedder:?} makes those of {makes:?}");
        let problem = Self::new(Code::FailedPrecondition, "MODEL_MISMATCH", message);
        problem.with("space", space).with("embedder", embedder).with("model", model)
    }

    /// More calls of a kind than the node takes on.
    pub(crate) fn overloaded(pool: &'static str, limit: usize, retry_after: Duration) -> Self {
        let message = format!("{limit} {pool}s are under way, which is this node's limit");
        Self::exhausted("OVERLOADED", message, pool, retry_after).with("limit", &limit.to_string())
    }

    /// The time that the client gave is over. A write may still happen.
    pub(crate) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed before the node could answer")
    }

    /// A client that does not read what it asked for.
    pub(crate) fn slow_reader(stalled: Duration) -> Self {
        let message = format!(
            "the stream was left unread for {} s and was shed; go on from the last position that arrived",
            stalled.as_secs_f64()
        );
        Self::exhausted("SLOW_READER", message, "stream", UNAVAILABLE_RETRY)
    }

    /// Something bounded is full; `subject` names it.
    fn exhausted(reason: &str, message: impl Into<String>, subject: &'static str, retry_after: Duration) -> Self {
        let mut problem = Self::new(Code::ResourceExhausted, reason, message);
        problem.0.retry_after = Some(retry_after);
        problem.0.quota = Some(subject);
        problem
    }

    /// A thing that is not there, or is there already.
    fn resource(code: Code, what: &str, message: String, resource_type: String, resource_name: String) -> Self {
        let mut problem = Self::new(code, resource_reason(&resource_type, what), message);
        problem.0.resource = Some((resource_type, resource_name));
        problem
    }

    /// The node is not serving.
    pub(crate) fn unavailable(reason: &str, message: impl Into<String>) -> Self {
        let mut problem = Self::new(Code::Unavailable, reason, message);
        problem.0.retry_after = Some(UNAVAILABLE_RETRY);
        problem
    }

    /// A request over HTTP that is of no method of the API, or in no form that is taken.
    pub(crate) fn http(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// A caller that may not call at all.
    pub(crate) fn denied(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, reason, message)
    }

    /// Something that cannot happen did, such as a panic in a read. Details are for the log, not for the client.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, "INTERNAL", message)
    }

    /// The engine answered a write with the outcome of another kind of write.
    pub(crate) fn mismatch() -> Self {
        tracing::error!("the outcome of a write is not of its kind");
        Self::internal("the node failed; see its log")
    }

    /// The same failure with another name for a field, where a call is made on behalf of another.
    pub(crate) fn rename_field(mut self, from: &str, to: &str) -> Self {
        for violation in self.0.violations.iter_mut().filter(|violation| violation.field == from) {
            to.clone_into(&mut violation.field);
            self.0.message = format!("{to}: {}", violation.description);
        }
        self
    }

    /// The same failure with its fields named below `parent`.
    pub(crate) fn below(mut self, parent: &str) -> Self {
        for violation in &mut self.0.violations {
            violation.field = format!("{parent}: {}", violation.field);
        }
        self.0.message = format!("{parent}: {}", self.0.message);
        self
    }

    /// The same failure with all its fields named anew.
    pub(crate) fn rename_fields(mut self, rename: impl Fn(&str) -> String) -> Self {
        for violation in &mut self.0.violations {
            let renamed = rename(&violation.field);
            if let Some(rest) = self.0.message.strip_prefix(&violation.field) {
                self.0.message = format!("{renamed}{rest}");
            }
            violation.field = renamed;
        }
        self
    }

    /// How long a caller that is refused for want of room should wait.
    pub(crate) fn overload_wait(&self) -> Option<Duration> {
        self.0.retry_after.filter(|_| self.0.code == Code::ResourceExhausted)
    }

    /// The same failure with an entry in the metadata of its ErrorInfo.
    fn with(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The label `outcome` of the metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        outcome(self.0.code)
    }

    /// The gRPC code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The reason in its ErrorInfo.
    pub(crate) fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Whether the operator must look: the failure is not the caller's.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self.0.code, Code::Internal | Code::DataLoss | Code::Unknown)
    }

    /// The failure for the wire, with the leader where that helps the caller.
    pub(crate) fn into_status(self, leader: Option<&LeaderHint>) -> Status {
        let hint = leader.filter(|_| matches!(self.0.code, Code::Unavailable | Code::DeadlineExceeded));
        let problem = match hint {
            Some(hint) => *self.with(LEADER_METADATA, &hint.client_address).0,
            None => *self.0,
        };
        let mut details = ErrorDetails::new();
        details.set_error_info(problem.reason, DOMAIN, problem.metadata);
        if !problem.violations.is_empty() {
            let violations = problem.violations.into_iter();
            details.set_bad_request(
                violations
                    .map(|violation| FieldViolation::new(violation.field, violation.description))
                    .collect::<Vec<_>>(),
            );
        }
        if let Some((resource_type, resource_name)) = problem.resource {
            details.set_resource_info(resource_type, resource_name, "", "");
        }
        if let Some(delay) = problem.retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some(subject) = problem.quota {
            details.set_quota_failure(vec![QuotaViolation::new(subject, problem.message.clone())]);
        }
        let mut status = Status::with_error_details(problem.code, problem.message, details);
        if let Some(hint) = hint {
            hint.add_to(status.metadata_mut());
        }
        status
    }
}

impl LeaderHint {
    /// Names the leader in the metadata of a response.
    pub(crate) fn add_to(&self, metadata: &mut MetadataMap) {
        if let Ok(value) = MetadataValue::try_from(&self.client_address) {
            metadata.insert(LEADER_METADATA, value);
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

/// A code as the label `outcome` of the metrics.
pub(crate) fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// `memory` and `NOT_FOUND` make `MEMORY_NOT_FOUND`.
fn resource_reason(resource_type: &str, what: &str) -> String {
    format!("{}_{what}", resource_type.to_uppercase().replace([' ', '-'], "_"))
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error.kind().clone() {
            ErrorKind::InvalidArgument { violations } => {
                let mut problem = Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", message);
                problem.0.violations = violations;
                problem
            }
            ErrorKind::NotFound { resource_type, resource_name } => {
                Self::resource(Code::NotFound, "NOT_FOUND", message, resource_type, resource_name)
            }
            ErrorKind::AlreadyExists { resource_type, resource_name } => {
                Self::resource(Code::AlreadyExists, "ALREADY_EXISTS", message, resource_type, resource_name)
            }
            ErrorKind::Aborted => Self::new(Code::Aborted, "VERSION_MISMATCH", message),
            ErrorKind::FailedPrecondition { reason } => Self::new(Code::FailedPrecondition, reason, message),
            ErrorKind::ResourceExhausted { retry_after } => {
                Self::exhausted("RESOURCE_EXHAUSTED", message, "engine", retry_after)
            }
            ErrorKind::IndexMemory { retry_after } => {
                let message = format!("{message}; `storage.index_memory` in the node's configuration sets the limit");
                Self::exhausted("INDEX_MEMORY", message, "index", retry_after)
            }
            ErrorKind::OutOfRange => Self::new(Code::OutOfRange, "POSITION_NOT_KEPT", message),
            ErrorKind::Unimplemented => Self::new(Code::Unimplemented, "NOT_SERVED_YET", message),
            ErrorKind::Unavailable => Self::unavailable("UNAVAILABLE", message),
            ErrorKind::Corruption => {
                tracing::error!(error = %Chain(&error), "stored bytes are damaged");
                Self::new(Code::DataLoss, "DATA_LOSS", "stored bytes are damaged; see the log of the node")
            }
            kind => {
                tracing::error!(?kind, error = %Chain(&error), "a call failed inside the node");
                Self::internal("the node failed; see its log")
            }
        }
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::Overloaded { retry_after } => Self::exhausted("OVERLOADED", message, "write", retry_after),
            ProposeError::DiskLow { retry_after, .. } => Self::exhausted("DISK_LOW", message, "disk", retry_after),
            ProposeError::Unavailable { .. } => Self::unavailable("NO_LEADER", message),
            ProposeError::VersionTooNew { .. } => Self::new(Code::FailedPrecondition, "CLUSTER_VERSION", message),
            ProposeError::TooLarge { .. } => Self::new(Code::InvalidArgument, "REQUEST_TOO_LARGE", message),
            ProposeError::ClockRefused { .. } => Self::unavailable("CLOCK_REFUSED", message),
            ProposeError::Stopped { .. } => Self::unavailable("NODE_STOPPED", message),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::Overloaded { retry_after } => Self::exhausted("OVERLOADED", message, "read", retry_after),
            ReadError::Unavailable { .. } => Self::unavailable("NO_LEADER", message),
            ReadError::UnknownGroup { .. } => Self::invalid("consistency.at_least", message),
            ReadError::Stopped { .. } => Self::unavailable("NODE_STOPPED", message),
        }
    }
}

impl From<MembershipError> for Problem {
    fn from(error: MembershipError) -> Self {
        let message = error.to_string();
        match error {
            MembershipError::NotFound { node_id } => {
                Self::resource(Code::NotFound, "NOT_FOUND", message, "node".to_owned(), node_id.to_string())
            }
            MembershipError::AlreadyExists(_) => Self::new(Code::AlreadyExists, "NODE_ALREADY_EXISTS", message),
            MembershipError::Retired { .. } => Self::new(Code::FailedPrecondition, "NODE_ID_RETIRED", message),
            MembershipError::NotCaughtUp(_) => Self::new(Code::FailedPrecondition, "NODE_NOT_CAUGHT_UP", message),
            MembershipError::Refused(_) => Self::new(Code::FailedPrecondition, "CHANGE_REFUSED", message),
            MembershipError::NotLeader { .. } | MembershipError::Unavailable(_) => {
                Self::unavailable("NO_LEADER", message)
            }
        }
    }
}

impl From<EmbedError> for Problem {
    fn from(error: EmbedError) -> Self {
        let message = error.to_string();
        match error {
            EmbedError::Dimension { .. } | EmbedError::OtherDimension { .. } => {
                Self::new(Code::FailedPrecondition, "EMBEDDER_DIMENSION", message)
            }
            EmbedError::Refused { .. } => Self::new(Code::FailedPrecondition, "EMBEDDER_REFUSED", message),
            EmbedError::Overloaded { retry_after, .. } => {
                Self::exhausted("EMBEDDER_OVERLOADED", message, "embedder", retry_after)
            }
            EmbedError::Unavailable { retry_after, .. } => {
                let mut problem = Self::unavailable("EMBEDDER_UNAVAILABLE", message);
                problem.0.retry_after = Some(retry_after);
                problem
            }
        }
    }
}

/// An error with its causes, for the log.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each failure, the code that it must have, its reason, and the detail that it must carry.
    fn table() -> Vec<(Problem, Code, &'static str, &'static str)> {
        let kind = |kind| Problem::from(EngineError::new(kind, "message"));
        let text = || "x".to_owned();
        vec![
            (Problem::invalid("a.b", "at most 3"), Code::InvalidArgument, "INVALID_ARGUMENT", "bad_request"),
            (EngineError::not_found("space", "x").into(), Code::NotFound, "SPACE_NOT_FOUND", "resource"),
            (
                EngineError::already_exists("memory", "x").into(),
                Code::AlreadyExists,
                "MEMORY_ALREADY_EXISTS",
                "resource",
            ),
            (kind(ErrorKind::Aborted), Code::Aborted, "VERSION_MISMATCH", ""),
            (
                EngineError::failed_precondition("MODEL_MISMATCH", "m").into(),
                Code::FailedPrecondition,
                "MODEL_MISMATCH",
                "",
            ),
            (
                kind(ErrorKind::ResourceExhausted { retry_after: SECOND }),
                Code::ResourceExhausted,
                "RESOURCE_EXHAUSTED",
                "retry",
            ),
            (kind(ErrorKind::IndexMemory { retry_after: SECOND }), Code::ResourceExhausted, "INDEX_MEMORY", "retry"),
            (kind(ErrorKind::OutOfRange), Code::OutOfRange, "POSITION_NOT_KEPT", ""),
            (kind(ErrorKind::Unimplemented), Code::Unimplemented, "NOT_SERVED_YET", ""),
            (kind(ErrorKind::Unavailable), Code::Unavailable, "UNAVAILABLE", "retry"),
            (kind(ErrorKind::Refused), Code::Internal, "INTERNAL", ""),
            (kind(ErrorKind::Corruption), Code::DataLoss, "DATA_LOSS", ""),
            (kind(ErrorKind::Internal), Code::Internal, "INTERNAL", ""),
            (ProposeError::Overloaded { retry_after: SECOND }.into(), Code::ResourceExhausted, "OVERLOADED", "retry"),
            (
                ProposeError::DiskLow { nodes: vec![1, 2], reserved_bytes: 1, retry_after: SECOND }.into(),
                Code::ResourceExhausted,
                "DISK_LOW",
                "retry",
            ),
            (ProposeError::Unavailable { reason: text() }.into(), Code::Unavailable, "NO_LEADER", "retry"),
            (
                ProposeError::VersionTooNew { needed: 2, current: 1 }.into(),
                Code::FailedPrecondition,
                "CLUSTER_VERSION",
                "",
            ),
            (ProposeError::TooLarge { bytes: 2, limit: 1 }.into(), Code::InvalidArgument, "REQUEST_TOO_LARGE", ""),
            (ProposeError::ClockRefused { reason: text() }.into(), Code::Unavailable, "CLOCK_REFUSED", "retry"),
            (ProposeError::Stopped { reason: text() }.into(), Code::Unavailable, "NODE_STOPPED", "retry"),
            (ReadError::Overloaded { retry_after: SECOND }.into(), Code::ResourceExhausted, "OVERLOADED", "retry"),
            (ReadError::Unavailable { reason: text() }.into(), Code::Unavailable, "NO_LEADER", "retry"),
            (ReadError::UnknownGroup { group: 7 }.into(), Code::InvalidArgument, "INVALID_ARGUMENT", "bad_request"),
            (ReadError::Stopped { reason: text() }.into(), Code::Unavailable, "NODE_STOPPED", "retry"),
            (MembershipError::NotFound { node_id: 4 }.into(), Code::NotFound, "NODE_NOT_FOUND", "resource"),
            (MembershipError::AlreadyExists(text()).into(), Code::AlreadyExists, "NODE_ALREADY_EXISTS", ""),
            (MembershipError::Retired { node_id: 4 }.into(), Code::FailedPrecondition, "NODE_ID_RETIRED", ""),
            (MembershipError::NotCaughtUp(text()).into(), Code::FailedPrecondition, "NODE_NOT_CAUGHT_UP", ""),
            (MembershipError::Refused(text()).into(), Code::FailedPrecondition, "CHANGE_REFUSED", ""),
            (MembershipError::NotLeader { leader_id: None }.into(), Code::Unavailable, "NO_LEADER", "retry"),
            (MembershipError::Unavailable(text()).into(), Code::Unavailable, "NO_LEADER", "retry"),
            (Problem::overloaded("write", 3, SECOND), Code::ResourceExhausted, "OVERLOADED", "retry"),
            (Problem::slow_reader(SECOND), Code::ResourceExhausted, "SLOW_READER", "retry"),
            (Problem::deadline(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", ""),
        ]
    }

    /// As [`table`], of embedders.
    fn table_of_embedders() -> Vec<(Problem, Code, &'static str, &'static str)> {
        let (embedder, model) = ("hash", v1::Embedding::default());
        let refused = EmbedError::Refused { embedder, status: 401, message: "x".to_owned() };
        let overloaded = EmbedError::Overloaded { embedder, retry_after: SECOND };
        let unavailable = EmbedError::Unavailable { embedder, reason: "x".to_owned(), retry_after: SECOND };
        let dimension = EmbedError::Dimension { embedder, dimension: 0 };
        let other_dimension = EmbedError::OtherDimension { embedder, made: 3 };
        vec![
            (Problem::no_embedder("s", "", "hash"), Code::FailedPrecondition, "NO_EMBEDDER", ""),
            (Problem::no_embedder("s", "gpt", "hash"), Code::FailedPrecondition, "UNKNOWN_EMBEDDER", ""),
            (Problem::other_model("s", &model, "new"), Code::FailedPrecondition, "MODEL_MISMATCH", ""),
            (dimension.into(), Code::FailedPrecondition, "EMBEDDER_DIMENSION", ""),
            (other_dimension.into(), Code::FailedPrecondition, "EMBEDDER_DIMENSION", ""),
            (refused.into(), Code::FailedPrecondition, "EMBEDDER_REFUSED", ""),
            (overloaded.into(), Code::ResourceExhausted, "EMBEDDER_OVERLOADED", "retry"),
            (unavailable.into(), Code::Unavailable, "EMBEDDER_UNAVAILABLE", "retry"),
        ]
    }

    /// Every code and reason of the tables.
    pub(crate) fn reasons() -> Vec<(Code, String)> {
        let problems = table().into_iter().chain(table_of_embedders());
        problems.map(|(problem, ..)| (problem.code(), problem.reason().to_owned())).collect()
    }

    #[test]
    fn every_failure_has_its_code_reason_and_details() {
        for (problem, code, reason, detail) in table().into_iter().chain(table_of_embedders()) {
            let label = format!("{problem:?}");
            let status = problem.into_status(None);
            assert_eq!(status.code(), code, "{label}");
            assert!(!status.message().is_empty(), "{label}");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN), "{label}");
            assert_eq!(details.bad_request().is_some(), detail == "bad_request", "{label}");
            assert_eq!(details.resource_info().is_some(), detail == "resource", "{label}");
            assert_eq!(details.retry_info().is_some(), detail == "retry", "{label}");
            assert_eq!(details.quota_failure().is_some(), code == Code::ResourceExhausted, "{label}");
        }
    }

    #[test]
    fn all_violations_arrive() {
        let violation = |field: &str| Violation { field: field.to_owned(), description: "at most 1".to_owned() };
        let error = EngineError::invalid_all(vec![violation("memories[0].id"), violation("memories[17].kind")]);
        let status = Problem::from(error).into_status(None);
        let details = status.get_error_details();
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["memories[0].id", "memories[17].kind"]);
    }

    #[test]
    fn the_leader_is_named_where_another_node_can_help() {
        let leader = LeaderHint { client_address: "node2:7480".to_owned() };
        let status = Problem::unavailable("NO_LEADER", "m").into_status(Some(&leader));
        assert_eq!(status.metadata().get(LEADER_METADATA).unwrap(), "node2:7480");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata[LEADER_METADATA], "node2:7480");

        let status = Problem::invalid("a", "b").into_status(Some(&leader));
        assert!(status.metadata().get(LEADER_METADATA).is_none());
    }

    #[test]
    fn insides_stay_inside() {
        let error = EngineError::internal("/secret/path failed");
        assert!(!Problem::from(error).into_status(None).message().contains("secret"));
    }
}
