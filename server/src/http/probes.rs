//! Probes for orchestrators, metrics for Prometheus, a summary for people. No content passes here.
//!
//! | page | answer |
//! |---|---|
//! | `/livez` | 200 while the loop ticks; needs no leader and no quorum |
//! | `/readyz` | 200 while a leader is known, the lag is bounded and the node is not stopping |
//! | `/startupz` | 200 once the node has come up |
//! | `/health` | as `/readyz`, with a JSON summary |
//! | `/metrics`, `/metrics/json` | all metrics |

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;

use crate::monitor::Monitor;
use crate::vitals::Answer;

/// All pages.
pub(super) fn router(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/livez", get(|State(monitor): State<Arc<Monitor>>| async move { probe(&monitor.live()) }))
        .route("/readyz", get(|State(monitor): State<Arc<Monitor>>| async move { probe(&monitor.ready()) }))
        .route("/startupz", get(|State(monitor): State<Arc<Monitor>>| async move { probe(&monitor.started()) }))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/metrics/json", get(metrics_json))
        .with_state(monitor)
}

fn code(answer: &Answer) -> StatusCode {
    match answer {
        Answer::Yes => StatusCode::OK,
        Answer::No(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn probe(answer: &Answer) -> Response {
    let text = match answer {
        Answer::Yes => "ok\n".to_owned(),
        Answer::No(reason) => format!("no: {reason}\n"),
    };
    (code(answer), text).into_response()
}

async fn health(State(monitor): State<Arc<Monitor>>) -> Response {
    (code(&monitor.ready()), Json(monitor.summary())).into_response()
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (format, monitor.metrics().render()).into_response()
}

async fn metrics_json(State(monitor): State<Arc<Monitor>>) -> Response {
    Json(monitor.metrics().render_json()).into_response()
}
