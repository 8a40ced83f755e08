//! Refusals over HTTP: the `google.rpc.Status` of a call as `application/problem+json` (RFC 9457).
//!
//! ```json
//! {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "limit: at most 1000",
//!  "code": "INVALID_ARGUMENT", "reason": "INVALID_ARGUMENT", "domain": "cairn.dev", "metadata": {},
//!  "violations": [{"field": "limit", "description": "at most 1000"}]}
//! ```
//!
//! `code` and what follows are the status's own code and details; the HTTP status is the one that google.rpc.Code gives
//! each code. `resource`, `retry_after` and `quota` are there where the status has such a detail.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::{LEADER_METADATA, Problem, outcome};

/// The content type of refusals.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A call that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    http: StatusCode,
    status: Box<Status>,
    allow: Option<String>,
}

impl Refusal {
    /// A refusal whose HTTP status says more than its code.
    pub(super) fn with_http(http: StatusCode, problem: Problem) -> Self {
        Self { http, ..problem.into() }
    }

    /// A path that is there, with other methods.
    pub(super) fn other_methods(method: &str, allowed: &[&str]) -> Self {
        let allow = allowed.join(", ");
        let problem =
            Problem::http("METHOD_NOT_ALLOWED", format!("{method} is not served here; this path takes {allow}"));
        Self { allow: Some(allow), ..Self::with_http(StatusCode::METHOD_NOT_ALLOWED, problem) }
    }

    /// The refusal as JSON.
    pub(super) fn json(&self) -> Value {
        let details = self.status.get_error_details();
        let mut object = json!({
            "type": "about:blank",
            "title": self.http.canonical_reason().unwrap_or("Client Closed Request"),
            "status": self.http.as_u16(),
            "detail": self.status.message(),
            "code": outcome(self.status.code()).to_uppercase(),
        });
        let mut add = |name: &str, value: Value| {
            if let Some(object) = object.as_object_mut() {
                object.insert(name.to_owned(), value);
            }
        };
        if let Some(info) = details.error_info() {
            add("reason", info.reason.clone().into());
            add("domain", info.domain.clone().into());
            add("metadata", json!(info.metadata));
        }
        if let Some(bad) = details.bad_request() {
            let violations = bad.field_violations.iter();
            let list = violations.map(|one| json!({"field": one.field, "description": one.description}));
            add("violations", list.collect());
        }
        if let Some(resource) = details.resource_info() {
            add("resource", json!({"type": resource.resource_type, "name": resource.resource_name}));
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            add("retry_after", format!("{}s", delay.as_secs_f64()).into());
        }
        if let Some(quota) = details.quota_failure() {
            let violations = quota.violations.iter();
            let list = violations.map(|one| json!({"subject": one.subject, "description": one.description}));
            add("quota", list.collect());
        }
        object
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http: http_status(status.code()), status: Box::new(status), allow: None }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        problem.into_status(None).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.http;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        let details = self.status.get_error_details();
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            // The header knows whole seconds only, and 0 would mean at once.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs_f64().ceil().max(1.0) as u64));
        }
        if self.http == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if let Some(leader) = self.status.metadata().get(LEADER_METADATA)
            && let Ok(leader) = HeaderValue::from_bytes(leader.as_bytes())
        {
            headers.insert(LEADER_METADATA, leader);
        }
        response
    }
}

/// The HTTP status of a code, as `google/rpc/code.proto` gives it.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::LeaderHint;

    #[test]
    fn a_problem_says_what_the_status_says() {
        let refusal = Refusal::from(Problem::invalid("limit", "at most 1000"));
        assert_eq!(
            refusal.json(),
            json!({
                "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "limit: at most 1000",
                "code": "INVALID_ARGUMENT", "reason": "INVALID_ARGUMENT", "domain": "cairn.dev", "metadata": {},
                "violations": [{"field": "limit", "description": "at most 1000"}],
            })
        );
    }

    #[test]
    fn waiting_times_and_the_leader_are_headers_too() {
        let refusal = Refusal::from(Problem::overloaded("write", 8, Duration::from_millis(100)));
        assert_eq!(refusal.json()["retry_after"], "0.1s");
        assert_eq!(refusal.json()["quota"][0]["subject"], "write");
        let response = refusal.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);

        let leader = LeaderHint { client_address: "node2:7480".to_owned() };
        let status = Problem::unavailable("NO_LEADER", "m").into_status(Some(&leader));
        let response = Refusal::from(status).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LEADER_METADATA]),
            (503, &HeaderValue::from_static("node2:7480"))
        );
    }

    #[test]
    fn other_methods_are_named() {
        let response = Refusal::other_methods("PUT", &["GET", "POST"]).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::ALLOW]),
            (405, &HeaderValue::from_static("GET, POST"))
        );
    }
}
