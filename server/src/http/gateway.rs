//! `/v1/...`: the public API as JSON, for curl and browsers. The gRPC services answer; this only translates.
//!
//! ```text
//! request -> guard -> route -> JSON object of path, query and body -> encoded message -> call -> JSON, or a problem
//! ```

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use cairn_proto::v1;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde_json::{Map, Value};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, metadata};
use super::guard::Guard;
use super::refusal::Refusal;
use super::routes::{Input, Match, Output, PathValues, Route, Routes};
use super::{import, json, lines, request};
use crate::config::HttpSection;
use crate::error::{LEADER_METADATA, Problem};

/// Messages above this size are translated on a thread of their own, so that they hold up nobody.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// The description of the API. A test keeps it equal to the table of routes and to the `.proto` files.
const OPENAPI: &str = include_str!("openapi.json");

/// See the module.
pub(crate) struct Gateway {
    routes: Routes,
    guard: Guard,
    body_max: usize,
    calls: OnceLock<Calls>,
    /// Each call holds it shared; who stops takes it alone, so that new calls are refused and the last ones are waited for.
    open: Arc<RwLock<()>>,
    stopping: CancellationToken,
}

/// What a call holds from its beginning to the end of its answer.
pub(super) type Place = OwnedRwLockReadGuard<()>;

impl Gateway {
    /// A gateway that answers UNAVAILABLE until [`Gateway::serve`] is called.
    ///
    /// # Errors
    /// The RPC of the table that does not exist, or what is wrong with the embedded descriptors.
    pub(crate) fn new(section: &HttpSection, loopback: bool) -> Result<Self, String> {
        let pool = DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
        Ok(Self {
            routes: Routes::new(&pool).map_err(str::to_owned)?,
            guard: Guard::new(section, loopback),
            body_max: usize::try_from(section.body_max).unwrap_or(usize::MAX),
            calls: OnceLock::new(),
            open: Arc::default(),
            stopping: CancellationToken::new(),
        })
    }

    /// Passes calls on to these services from now on.
    pub(crate) fn serve(&self, services: tonic::service::Routes) {
        // A second call changes nothing.
        let _ = self.calls.set(Calls::new(services));
    }

    /// Refuses new calls, ends streams, and returns once all calls have ended.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        drop(self.open.write().await);
    }

    /// Answers a request for `/v1` or below.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let result = match self.guard.check(request.headers()) {
            Ok(()) => self.dispatch(request).await,
            Err(refusal) => Err(refusal),
        };
        let mut response = result.unwrap_or_else(Refusal::into_response);
        self.guard.mark(origin.as_ref(), &mut response);
        response
    }

    async fn dispatch(&self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path == "/v1/openapi.json" && parts.method == Method::GET {
            return Ok(json_response(OPENAPI));
        }
        match self.routes.find(parts.method.as_str(), path) {
            Match::Route(route, values) => self.call(route, values, &parts, body).await,
            Match::OtherMethods(mut methods) => {
                methods.push("OPTIONS");
                if parts.method == Method::OPTIONS {
                    return Ok(self.guard.preflight(&methods.join(", ")));
                }
                Err(Refusal::other_methods(parts.method.as_str(), &methods))
            }
            Match::Nothing => {
                let problem =
                    Problem::http("ROUTE_NOT_FOUND", format!("{path} is no path of this API; see /v1/openapi.json"));
                Err(Refusal::with_http(StatusCode::NOT_FOUND, problem))
            }
        }
    }

    async fn call(&self, route: &Route, values: PathValues, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        let calls = self.calls.get().ok_or_else(|| Problem::unavailable("NODE_STARTING", "the node is starting"))?;
        let place = Arc::clone(&self.open)
            .try_read_owned()
            .map_err(|_| Problem::unavailable("NODE_STOPPED", "the node is stopping"))?;
        let stop = self.stopping.clone().cancelled_owned();
        if route.rule.input == Input::Lines {
            return import::serve(calls, route, &values, parts, body, (place, stop)).await;
        }
        let message = self.message(route, values, parts, body).await?;
        if route.rule.output == Output::Lines {
            let messages = futures::stream::iter([message]);
            let responses = calls.streaming(&route.rpc, metadata(&parts.headers), messages).await?;
            return Ok(lines::response(responses.into_inner(), route.rpc.output(), (place, stop), lines::no_end()));
        }
        let response = calls.unary(&route.rpc, metadata(&parts.headers), message).await?;
        let leader = response.metadata().get(LEADER_METADATA).cloned();
        let (descriptor, message) = match route.rule.output {
            Output::Memory => one_memory(route, response.into_inner())?,
            _ => (route.rpc.output(), response.into_inner()),
        };
        let text = off_thread(message.len(), move || json::decode(&descriptor, message)).await?;
        drop(place);
        let mut response = json_response(text);
        if let Some(leader) = leader.and_then(|leader| HeaderValue::from_bytes(leader.as_bytes()).ok()) {
            response.headers_mut().insert(LEADER_METADATA, leader);
        }
        Ok(response)
    }

    /// The encoded request of a call.
    async fn message(&self, route: &Route, values: PathValues, parts: &Parts, body: Body) -> Result<Bytes, Refusal> {
        let descriptor = route.rpc.input();
        let query = parts.uri.query().unwrap_or_default();
        let body = match route.rule.input {
            Input::Body => {
                if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).next() {
                    return Err(Problem::invalid(&name, "belongs into the body of this request").into());
                }
                Some(self.body(parts, body).await?)
            }
            _ => None,
        };
        let (rule, query) = (route.rule, query.to_owned());
        let message = off_thread(body.as_ref().map_or(0, Bytes::len), move || {
            let mut object = match body {
                Some(body) => object(&body)?,
                None => request::query(&descriptor, &query)?,
            };
            request::complete(rule, &descriptor, &values, &mut object)?;
            json::encode(&descriptor, Value::Object(object))
        });
        Ok(message.await?)
    }

    /// The whole body of a request.
    async fn body(&self, parts: &Parts, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.body_max;
        let too_large = || {
            let problem = Problem::invalid("request", format!("a body holds at most {limit} bytes; see http.body_max"));
            Refusal::with_http(StatusCode::PAYLOAD_TOO_LARGE, problem)
        };
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: usize| length > limit) {
            return Err(too_large());
        }
        let bytes = axum::body::to_bytes(body, limit).await.map_err(|error| {
            let is_limit = std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit"));
            if is_limit {
                too_large()
            } else {
                Problem::invalid("request", format!("the body broke off: {error}")).into()
            }
        })?;
        let content_type =
            parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !bytes.is_empty() && !is_json(content_type) {
            let message = format!("content-type is {content_type:?}; send application/json (curl: --json)");
            let problem = Problem::http("UNSUPPORTED_MEDIA_TYPE", message);
            return Err(Refusal::with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
        }
        Ok(bytes)
    }
}

/// A web page can send other types without asking first, which is why they are refused.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

/// The object of a body; a body that is missing is an empty object.
fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match json::parse(body)? {
        Value::Object(object) => Ok(object),
        _ => Err(Problem::invalid("request", "must be a JSON object")),
    }
}

fn json_response(text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

/// A memory that was asked for by its path, in the form of `UpdateMemoryResponse`: the memory, and the position.
fn one_memory(route: &Route, response: Bytes) -> Result<(MessageDescriptor, Bytes), Problem> {
    let fault = || Problem::internal("the node failed; see its log");
    let mut found = v1::GetMemoriesResponse::decode(response).map_err(|_| fault())?;
    let Some(memory) = found.memories.pop() else {
        let id = found.missing_ids.pop().unwrap_or_default();
        return Err(cairn_engine::Error::not_found("memory", &id).into());
    };
    let pool = route.rpc.parent_pool();
    let descriptor = pool.get_message_by_name("cairn.v1.UpdateMemoryResponse").ok_or_else(fault)?;
    let message = v1::UpdateMemoryResponse { memory: Some(memory), position: found.position };
    Ok((descriptor, message.encode_to_vec().into()))
}

/// Runs work on `bytes` bytes: at once where that is quick, else on a thread of its own.
pub(super) async fn off_thread<T, F>(bytes: usize, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Problem> + Send + 'static,
{
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Problem::internal("the node failed; see its log")))
}
