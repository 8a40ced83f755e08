//! Messages that tonic refuses before a handler sees them, put into the form of all other refusals.
//!
//! tonic answers a message above the limit with OUT_OF_RANGE and bytes that are no message with INTERNAL, both without
//! details. To a caller both are a request to fix.

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};

use super::MESSAGE_BYTES_MAX;
use crate::error::Problem;

/// Replaces tonic's own refusals by ours; all other responses pass.
pub(crate) fn rewrite(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    match problem(&status) {
        Some(problem) => problem.into_status(None).into_http(),
        None => response,
    }
}

fn problem(status: &Status) -> Option<Problem> {
    let too_large = status.code() == Code::OutOfRange && status.message().contains("message length too large");
    if too_large {
        let limit = format!("a message holds at most {} MiB", MESSAGE_BYTES_MAX >> 20);
        return Some(Problem::invalid("request", limit));
    }
    let undecodable = status.code() == Code::Internal && status.message().contains("decode Protobuf");
    undecodable.then(|| Problem::invalid("request", "is not a message of this method"))
}
