//! Port 7482: probes and metrics, and the public API as JSON.
//!
//! | file | what is in it |
//! |---|---|
//! | `probes.rs` | pages for orchestrators, Prometheus and people; no content |
//! | `gateway.rs` | `/v1/...`: from a request to an RPC and back |
//! | `routes.rs` | which path is which RPC |
//! | `request.rs`, `json.rs` | path, query and body to a message; a message to JSON |
//! | `lines.rs`, `import.rs` | streams, one JSON object a line |
//! | `calls.rs` | calls of the gRPC services in this process |
//! | `guard.rs` | which web pages may call |
//! | `refusal.rs` | failures as `application/problem+json` |
//! | `openapi.json` | the description of all that, made and checked by `openapi.rs` |

mod calls;
mod gateway;
mod guard;
mod import;
mod json;
mod lines;
#[cfg(test)]
mod openapi;
mod probes;
mod refusal;
mod request;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;

pub(crate) use self::gateway::Gateway;
use crate::monitor::Monitor;

/// Everything that the port serves; `gateway` is `None` where the API is not served over HTTP.
pub(crate) fn router(monitor: Arc<Monitor>, gateway: Option<Arc<Gateway>>) -> Router {
    let probes = probes::router(monitor);
    let Some(gateway) = gateway else { return probes };
    let answer = any(move |request: Request| async move { gateway.answer(request).await });
    probes.route("/v1", answer.clone()).route("/v1/{*rest}", answer)
}
