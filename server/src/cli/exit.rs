//! Exit codes and error messages of the client verbs: the one place that decides them. Hints are in `hints.rs`.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | any other failure, such as a full disk |
//! | 2 | the arguments are wrong, or a file that they name: clap's own errors too |
//! | 3 | what was asked for is not there |
//! | 4 | conflict: it is there already, or has another version |
//! | 5 | the state of the space or cluster does not allow it |
//! | 6 | the server sheds load, or a quota is used up |
//! | 7 | no node could answer |
//! | 8 | the time was over; a write may have happened all the same |
//! | 130 | it was interrupted |

use std::fmt::Write;
use std::io;

use cairn_client::{Error, ErrorKind};

use super::hints::hint_of;
use crate::process::EXIT_INTERRUPTED;

/// The table above, for `cairn --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes of the client commands:
  0  done
  1  any other failure, such as a full disk
  2  the arguments are wrong, or a file that they name
  3  what was asked for is not there
  4  it is there already, or has another version
  5  the state of the space or cluster does not allow it
  6  the server sheds load, or a quota is used up
  7  no node could answer
  8  the time was over; a write may have happened all the same
  130  it was interrupted";

/// How a verb ended; see the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Precondition = 5,
    Overload = 6,
    Unavailable = 7,
    Deadline = 8,
    Interrupted = EXIT_INTERRUPTED,
}

/// Why a verb failed, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One line, or several where a place is pointed at.
    message: String,
    details: Vec<String>,
    hint: Option<String>,
}

/// The result of a verb.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), hint: None }
    }

    /// Wrong arguments: a file that cannot be read, or must not be made, is one too.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The system refuses what a command needs to begin with.
    pub(crate) fn cannot_start(error: &io::Error) -> Self {
        Self::new(Exit::Other, format!("cannot start: {error}"))
    }

    /// Standard output was closed; that ends a verb, and is no failure.
    pub(crate) fn closed_pipe() -> Self {
        Self::new(Exit::Other, "")
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.message.is_empty()
    }

    /// Without details and hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What is printed to standard error: `error: ..`, the violations, `hint: ..`.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for detail in &self.details {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "  {detail}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let violations = error.violations();
        // The server's message holds the first violation already.
        let message_says_all = violations.len() == 1 && error.message().contains(&violations[0].description);
        let details = match message_says_all {
            true => Vec::new(),
            false => violations.iter().map(|each| format!("{}: {}", each.field, each.description)).collect(),
        };
        Self { exit: exit_of(error.kind()), message: error.to_string(), details, hint: hint_of(&error) }
    }
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::Configuration => Exit::Usage,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => Exit::Conflict,
        ErrorKind::FailedPrecondition | ErrorKind::OutOfRange => Exit::Precondition,
        ErrorKind::Overloaded => Exit::Overload,
        ErrorKind::Unavailable => Exit::Unavailable,
        ErrorKind::DeadlineExceeded => Exit::Deadline,
        _ => Exit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_message_details_and_hint() {
        let failure = Failure {
            exit: Exit::Usage,
            message: "memories[0].id: is too long (and 1 more)".to_owned(),
            details: vec!["memories[0].id: is too long".to_owned(), "memories[1].kind: is too long".to_owned()],
            hint: Some("shorten them".to_owned()),
        };
        crate::cli::snapshot::check("error_report", &failure.report());
    }

    #[test]
    fn exit_codes_do_not_change() {
        let kinds = [
            (ErrorKind::Internal, 1),
            (ErrorKind::PermissionDenied, 1),
            (ErrorKind::Unimplemented, 1),
            (ErrorKind::InvalidArgument, 2),
            (ErrorKind::Configuration, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::AlreadyExists, 4),
            (ErrorKind::Conflict, 4),
            (ErrorKind::FailedPrecondition, 5),
            (ErrorKind::OutOfRange, 5),
            (ErrorKind::Overloaded, 6),
            (ErrorKind::Unavailable, 7),
            (ErrorKind::DeadlineExceeded, 8),
        ];
        for (kind, code) in kinds {
            assert_eq!(exit_of(kind) as u8, code, "{kind:?}");
        }
    }
}
