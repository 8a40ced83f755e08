//! What to do about an error: the command or the setting to try next.
//!
//! The server's reason decides, a stable word such as `SPACE_NOT_FOUND`; where there is none, the kind of the error. A
//! verb that knows more says it in place of what is said here.

use std::time::Duration;

use cairn_client::{Error, ErrorKind};

/// What an error tells about its cause.
#[derive(Debug, Clone, Copy)]
struct Cause<'a> {
    kind: ErrorKind,
    reason: Option<&'a str>,
    /// What it is about.
    name: Option<&'a str>,
    retry_after: Option<Duration>,
    /// Whether no answer came.
    is_transport: bool,
}

/// The hint for an error, where there is anything to do.
pub(crate) fn hint_of(error: &Error) -> Option<String> {
    hint_for(Cause {
        kind: error.kind(),
        reason: error.reason(),
        name: error.resource().map(|(_, name)| name),
        retry_after: error.retry_after(),
        is_transport: error.is_transport(),
    })
}

fn hint_for(cause: Cause<'_>) -> Option<String> {
    if cause.is_transport {
        return Some("start a node with `cairn dev`, or name a running one with --endpoint or --context".to_owned());
    }
    let reason = cause.reason.unwrap_or_default();
    let named = of_name(reason, cause.name).or_else(|| of_space(reason).map(str::to_owned));
    let known = named.or_else(|| of_vectors(reason).or_else(|| of_cluster(reason)).map(str::to_owned));
    known.or_else(|| of_kind(cause))
}

/// Things that are there or not.
fn of_name(reason: &str, name: Option<&str>) -> Option<String> {
    let or = |otherwise: &'static str| name.unwrap_or(otherwise);
    let hint = match reason {
        "SPACE_NOT_FOUND" => {
            format!("list the spaces with `cairn space ls`, or make one with `cairn space create {}`", or("NAME"))
        }
        "SPACE_ALREADY_EXISTS" => format!("look at it with `cairn space get {}`", or("NAME")),
        "ALIAS_NOT_FOUND" => "see the aliases of all spaces with `cairn space ls`".to_owned(),
        "EMBEDDING_NOT_FOUND" => "look at the space with `cairn space get NAME`".to_owned(),
        "MEMORY_NOT_FOUND" => "list the memories with `cairn ls`, of another space with --space NAME".to_owned(),
        "MEMORY_ALREADY_EXISTS" => {
            format!("see it with `cairn get {}`; without --insert it is replaced", or("ID"))
        }
        "NODE_NOT_FOUND" => "list the members with `cairn node ls`".to_owned(),
        "NODE_ALREADY_EXISTS" => {
            "see the ids and addresses in use with `cairn node ls`, and take others for a new node".to_owned()
        }
        "NODE_ID_RETIRED" => "give the new node an id that was never used, and an empty data directory".to_owned(),
        _ => return None,
    };
    Some(hint)
}

/// States of a space, and what it can hold.
fn of_space(reason: &str) -> Option<&'static str> {
    let hint = match reason {
        "VERSION_MISMATCH" => {
            "see the version of a memory with `cairn get ID` and name it with --expect; that of a space with `cairn space get NAME` and --if-version"
        }
        "NOT_A_MAP" => "see the metadata with `cairn get ID`; `--clear metadata.KEY` takes a value away",
        "POSITION_NOT_KEPT" => {
            "begin anew: `cairn export FILE` has all there is, and tells the position for `cairn watch --after`"
        }
        "ANSWER_TOO_LARGE" => "ask for less at a time: fewer ids, a smaller -n, or no --include-vectors",
        "REQUEST_TOO_LARGE" => "send less at a time; `cairn import FILE` makes calls of the right size",
        "TOO_MANY_SPACES" => "see them with `cairn space ls`, and delete one with `cairn space rm NAME`",
        "TOO_MANY_ALIASES" => "remove one with `cairn space alias ALIAS --remove`",
        _ => return None,
    };
    Some(hint)
}

/// Vectors, what makes them, and what finds them.
fn of_vectors(reason: &str) -> Option<&'static str> {
    let hint = match reason {
        "VECTOR_NEEDED" => "bring one with --vector or --vector-file, or take the old one away with `--clear vector`",
        "MODEL_MISMATCH" => {
            "look at the space's model with `cairn space get NAME`, and at `embedders` in the configuration of the nodes"
        }
        "EMBEDDER_REFUSED" => {
            "look at the model and the key of `embedders` in the configuration of the nodes, or send shorter texts"
        }
        "EMBEDDER_UNAVAILABLE" => {
            "bring a vector with --vector or --vector-file, or try again when the embedder's server is back"
        }
        "EMBEDDER_CHANGED" => "the space was given another embedder meanwhile: run the command again",
        "EMBEDDER_DIMENSION" => {
            "look at the space's dimension with `cairn space get NAME`, and at `dimension` of `embedders` in the configuration of the nodes"
        }
        "UNKNOWN_EMBEDDER" => {
            "name it under `embedders` in the configuration of the nodes (a model: `cairn dev --model DIR`), choose another for the space with --embedder, or bring a vector with --vector"
        }
        "NO_EMBEDDER" => {
            "bring a vector with --vector or --vector-file, or use a space made with `cairn space create NAME --embedder hash`"
        }
        "NO_INDEX" => {
            "list its memories with `cairn ls`; to search them, export them and import them into a space with an index"
        }
        _ => return None,
    };
    Some(hint)
}

/// Nodes and their members.
fn of_cluster(reason: &str) -> Option<&'static str> {
    let hint = match reason {
        "NODE_NOT_CAUGHT_UP" => "see how far the members are with `cairn node ls`, and try again when it has caught up",
        "CHANGE_REFUSED" => "look at the members, their roles and which can be reached with `cairn node ls`",
        "CLUSTER_VERSION" => "see which members run an older version with `cairn status`, and update them",
        "CLOCK_REFUSED" => "compare the clocks of the nodes with `cairn doctor`",
        "NO_LEADER" | "NODE_STOPPED" | "NODE_STARTING" | "UNAVAILABLE" => {
            "look at the members with `cairn status`, or for causes with `cairn doctor`"
        }
        "DISK_LOW" => {
            "make room on the disks of the nodes, or delete memories, which is still allowed; see the disks with `cairn doctor`"
        }
        "INDEX_MEMORY" => {
            "raise `storage.index_memory` in the configuration of the nodes, or take less: `cairn space get NAME` tells what an index takes"
        }
        "NOT_SERVED_YET" => "compare the versions of the nodes, in `cairn status`, with `cairn --version`",
        "INTERNAL" | "DATA_LOSS" => "look at the log of the node, or for causes with `cairn doctor`",
        _ => return None,
    };
    Some(hint)
}

/// What can be said without a reason, or of all reasons of a kind.
fn of_kind(cause: Cause<'_>) -> Option<String> {
    match cause.kind {
        ErrorKind::Unavailable => {
            Some("look at the members with `cairn status`, or for causes with `cairn doctor`".to_owned())
        }
        ErrorKind::DeadlineExceeded => Some("give it more time with --timeout 60s".to_owned()),
        ErrorKind::Overloaded => {
            let wait = cause.retry_after?.as_millis().max(1);
            Some(format!("try again in {wait} ms, or give it more time with --timeout"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::error::tests::reasons;

    /// Those of the engine, whose errors name their reason themselves.
    const OF_THE_ENGINE: [(Code, &str); 9] = [
        (Code::FailedPrecondition, "ANSWER_TOO_LARGE"),
        (Code::FailedPrecondition, "EMBEDDER_CHANGED"),
        (Code::FailedPrecondition, "NOT_A_MAP"),
        (Code::FailedPrecondition, "NO_INDEX"),
        (Code::FailedPrecondition, "TOO_MANY_ALIASES"),
        (Code::FailedPrecondition, "TOO_MANY_SPACES"),
        (Code::FailedPrecondition, "VECTOR_NEEDED"),
        (Code::NotFound, "MEMORY_NOT_FOUND"),
        (Code::NotFound, "ALIAS_NOT_FOUND"),
    ];

    fn cause(code: Code, reason: &str) -> Cause<'_> {
        let retry_after = (code == Code::ResourceExhausted).then_some(Duration::from_secs(1));
        Cause { kind: code.into(), reason: Some(reason), name: None, retry_after, is_transport: false }
    }

    #[test]
    fn every_reason_has_its_hint() {
        let mut all: Vec<(Code, String)> = reasons();
        let of_the_engine = OF_THE_ENGINE.iter().map(|(code, reason)| (*code, (*reason).to_owned()));
        let others = ["SPACE_ALREADY_EXISTS", "EMBEDDING_NOT_FOUND", "NODE_STARTING"].map(str::to_owned);
        let codes = [Code::AlreadyExists, Code::NotFound, Code::Unavailable];
        all.extend(of_the_engine.chain(codes.into_iter().zip(others)));
        all.sort_by(|one, other| one.1.cmp(&other.1));
        all.dedup();
        let mut text = String::new();
        for (code, reason) in &all {
            let hint = hint_for(cause(*code, reason)).unwrap_or_else(|| "none".to_owned());
            text.push_str(&format!("{reason}\n    {hint}\n"));
        }
        crate::cli::snapshot::check("hints", &text);
        // What is wrong with an argument is said by field; there is no command that helps.
        let without = all.iter().filter(|(code, reason)| hint_for(cause(*code, reason)).is_none());
        let without: Vec<&str> = without.map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(without, ["INVALID_ARGUMENT"]);
    }

    #[test]
    fn a_hint_names_what_the_error_is_about() {
        let notes = Cause { name: Some("notes"), ..cause(Code::NotFound, "SPACE_NOT_FOUND") };
        assert!(hint_for(notes).unwrap().ends_with("`cairn space create notes`"));
        let nobody = Cause { is_transport: true, reason: None, ..cause(Code::Unavailable, "") };
        assert!(hint_for(nobody).unwrap().contains("cairn dev"));
        let over = Cause { reason: None, ..cause(Code::DeadlineExceeded, "") };
        assert!(hint_for(over).unwrap().contains("--timeout"));
        let quota = Cause { retry_after: None, ..cause(Code::ResourceExhausted, "QUOTA") };
        assert_eq!(hint_for(quota), None);
    }
}
