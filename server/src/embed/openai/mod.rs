//! `openai`: any server that speaks OpenAI's `/v1/embeddings`: OpenAI itself, Ollama, TEI, vLLM and others.
//!
//! ```text
//! texts -> batches (by number and bytes, some at a time)
//!            -> circuit breaker -> request, with a timeout -> vectors, checked
//!                    ^                    | 429, 5xx, no answer: wait with jitter, or as long as the server says
//!                    +--------------------+
//! ```
//!
//! Nothing here outlives the deadline of the call: a wait that would pass it is not begun. What the server says of a
//! refusal goes to the caller, whose texts it may quote, and never into the log.

mod breaker;
mod http;
mod proxy;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::breaker::Breaker;
use self::http::{Answer, Http};
use super::{EmbedError, Embedder};
use crate::config::{ConfigError, OpenAiEntry};
use crate::monitor::Monitor;
use crate::telemetry::definitions;

/// Batches of one call that are under way at a time.
const BATCHES_AT_A_TIME: usize = 4;

/// The wait before the second attempt, on average; it doubles from there.
const WAIT_MIN: Duration = Duration::from_millis(200);

/// The longest wait that is of our own choice.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest part of a server's message that is passed on, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// See the module.
pub(crate) struct OpenAi {
    name: &'static str,
    entry: OpenAiEntry,
    http: Http,
    breaker: Mutex<Breaker>,
    monitor: Arc<Monitor>,
    runtime: Handle,
}

/// The body of a request.
#[derive(Serialize)]
struct Ask<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

/// The body of an answer, as far as it matters.
#[derive(Deserialize)]
struct Answered {
    data: Vec<Vector>,
}

/// One vector of an answer.
#[derive(Deserialize)]
struct Vector {
    /// The place of its text in the request. Servers that leave it out keep the order.
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// No answer in time.
    Timeout,
    /// No connection, or one that broke.
    Unreachable(String),
    /// 429.
    Overloaded(Option<Duration>),
    /// 5xx or 408.
    Failed(u16, Option<Duration>),
    /// Another status: the request or the key is not to the server's liking.
    Refused(u16, String),
    /// An answer that holds no vectors for these texts.
    Malformed(String),
    /// Vectors of another dimension.
    Dimension(usize),
}

impl Failure {
    /// The label `outcome` of the metrics.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Overloaded(_) => "overloaded",
            Self::Failed(..) => "failed",
            Self::Refused(..) => "refused",
            Self::Malformed(_) => "malformed",
            Self::Dimension(_) => "dimension",
        }
    }

    /// Whether the same request may succeed later.
    fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(..) | Self::Dimension(_))
    }

    /// How long the server wants to be left alone.
    fn asked_wait(&self) -> Option<Duration> {
        match self {
            Self::Overloaded(wait) | Self::Failed(_, wait) => *wait,
            _ => None,
        }
    }

    fn into_error(self, embedder: &'static str) -> EmbedError {
        let unavailable = |reason: String, wait: Option<Duration>| EmbedError::Unavailable {
            embedder,
            reason,
            retry_after: wait.unwrap_or(WAIT_MAX),
        };
        match self {
            Self::Timeout => unavailable("it did not answer in time".to_owned(), None),
            Self::Unreachable(reason) => unavailable(format!("it cannot be reached: {reason}"), None),
            Self::Overloaded(wait) => EmbedError::Overloaded { embedder, retry_after: wait.unwrap_or(WAIT_MAX) },
            Self::Failed(status, wait) => unavailable(format!("it answered {status}"), wait),
            Self::Malformed(reason) => unavailable(format!("its answer is no answer: {reason}"), None),
            Self::Refused(status, message) => EmbedError::Refused { embedder, status, message },
            Self::Dimension(made) => EmbedError::OtherDimension { embedder, made },
        }
    }
}

impl OpenAi {
    /// The embedder that an entry of the configuration describes. `key` is its place there, for refusals.
    ///
    /// # Errors
    /// The environment variable of the key is not set, or the system's certificates cannot be read.
    pub(crate) fn new(
        key: &str,
        name: &'static str,
        entry: OpenAiEntry,
        monitor: Arc<Monitor>,
    ) -> Result<Self, ConfigError> {
        let invalid = |field: &str, problem: String| ConfigError::Invalid { key: format!("{key}.{field}"), problem };
        let variable = &entry.api_key_environment;
        let secret = match variable.as_str() {
            "" => None,
            _ => match std::env::var(variable) {
                Ok(secret) if !secret.trim().is_empty() => Some(secret),
                _ => {
                    let problem =
                        format!("environment variable {variable} is not set; put the key there, or name none");
                    return Err(invalid("api_key_environment", problem));
                }
            },
        };
        let environment = |name: &str| std::env::var(name).ok();
        let http = Http::new(&entry.url, secret.as_deref(), entry.calls_max, environment);
        let http = http.map_err(|problem| invalid("url", problem))?;
        Ok(Self { name, entry, http, breaker: Mutex::new(Breaker::new()), monitor, runtime: Handle::current() })
    }

    /// The vectors of one batch, after as many attempts as are allowed and fit.
    async fn batch(&self, texts: &[&str], dimension: usize, until: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        let ask =
            Ask { model: &self.entry.model, input: texts, dimensions: self.entry.send_dimensions.then_some(dimension) };
        let body: bytes::Bytes = serde_json::to_vec(&ask)
            .map_err(|error| Failure::Malformed(error.to_string()).into_error(self.name))?
            .into();
        for attempt in 1.. {
            self.admit()?;
            let began = Instant::now();
            let time = self.entry.timeout.min(until.saturating_duration_since(began));
            let result = match timeout(time, self.http.post(body.clone())).await {
                Ok(Ok(answer)) => read(&answer, texts.len(), dimension),
                Ok(Err(reason)) => Err(Failure::Unreachable(reason)),
                Err(_) => Err(Failure::Timeout),
            };
            self.note(result.as_ref().err(), began);
            let failure = match result {
                Ok(vectors) => return Ok(vectors),
                Err(failure) => failure,
            };
            let wait = wait(attempt, failure.asked_wait(), rand::random());
            let too_late = Instant::now() + wait >= until;
            if !failure.is_passing() || attempt >= self.entry.attempts || too_late {
                return Err(failure.into_error(self.name));
            }
            tokio::time::sleep(wait).await;
        }
        Err(Failure::Timeout.into_error(self.name))
    }

    fn admit(&self) -> Result<(), EmbedError> {
        self.breaker.lock().admit(Instant::now()).map_err(|rest| {
            self.monitor.metrics().add(definitions::EMBED_REQUESTS, &[self.name, "circuit_open"], 1);
            let reason = "it has failed repeatedly, and is left alone for a moment".to_owned();
            EmbedError::Unavailable { embedder: self.name, reason, retry_after: rest }
        })
    }

    /// Counts an attempt, and tells the breaker.
    fn note(&self, failure: Option<&Failure>, began: Instant) {
        let metrics = self.monitor.metrics();
        metrics.add(definitions::EMBED_REQUESTS, &[self.name, failure.map_or("ok", Failure::outcome)], 1);
        metrics.observe(definitions::EMBED_DURATION, &[self.name], began.elapsed());
        let mut breaker = self.breaker.lock();
        let was_open = breaker.is_open();
        match failure {
            // A server that refuses a request has answered it.
            Some(failure) if failure.is_passing() => breaker.failed(Instant::now()),
            _ => breaker.succeeded(),
        }
        let is_open = breaker.is_open();
        drop(breaker);
        metrics.set(definitions::EMBED_CIRCUIT_OPEN, &[self.name], f64::from(u8::from(is_open)));
        if is_open != was_open {
            let outcome = failure.map_or("ok", Failure::outcome);
            tracing::warn!(embedder = self.name, outcome, is_open, "the circuit of an embedder has changed");
        }
    }
}

impl Embedder for OpenAi {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model(&self) -> &str {
        &self.entry.model
    }

    fn dimension(&self) -> Option<usize> {
        (self.entry.dimension > 0).then_some(self.entry.dimension as usize)
    }

    fn concurrency(&self) -> usize {
        self.entry.calls_max
    }

    fn embed(&self, texts: &[&str], dimension: usize, until: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.runtime.block_on(async {
            let batches = batches(texts, self.entry.batch_texts_max, self.entry.batch_bytes_max);
            let vectors = futures::stream::iter(batches)
                .map(|batch| self.batch(batch, dimension, until))
                .buffered(BATCHES_AT_A_TIME);
            vectors.try_concat().await
        })
    }
}

/// Cuts texts into runs of at most so many texts and bytes. A text that is larger stands alone.
fn batches<'a>(texts: &'a [&'a str], texts_max: usize, bytes_max: u64) -> Vec<&'a [&'a str]> {
    let (mut runs, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (position, text) in texts.iter().enumerate() {
        let size = text.len() as u64;
        let full = position - start >= texts_max || bytes + size > bytes_max;
        if full && position > start {
            runs.push(&texts[start..position]);
            (start, bytes) = (position, 0);
        }
        bytes += size;
    }
    if start < texts.len() {
        runs.push(&texts[start..]);
    }
    runs
}

/// How long to wait after this attempt: doubling, between half and one and a half of it by chance (0 to 1), so that callers who
/// failed together do not come back together; never less than the server asks for.
fn wait(attempt: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = WAIT_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(WAIT_MAX);
    let jittered = doubled.mul_f64(0.5 + chance);
    asked.map_or(jittered, |asked| asked.saturating_add(jittered.min(WAIT_MIN)))
}

/// The vectors in an answer, in the order of the texts.
fn read(answer: &Answer, texts: usize, dimension: usize) -> Result<Vec<Vec<f32>>, Failure> {
    match answer.status {
        200 => {}
        429 => return Err(Failure::Overloaded(answer.retry_after)),
        408 | 500.. => return Err(Failure::Failed(answer.status, answer.retry_after)),
        status => return Err(Failure::Refused(status, message(&answer.body))),
    }
    let malformed = |reason: String| Failure::Malformed(reason);
    let found: Answered = serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
    if found.data.len() != texts {
        return Err(malformed(format!("{} vectors for {texts} texts", found.data.len())));
    }
    let mut vectors = vec![Vec::new(); texts];
    for (position, vector) in found.data.into_iter().enumerate() {
        let place = vector.index.unwrap_or(position);
        let values = vector.embedding;
        if !values.is_empty() && values.len() != dimension {
            return Err(Failure::Dimension(values.len()));
        }
        if values.iter().any(|value| !value.is_finite()) || values.iter().all(|value| *value == 0.0) {
            return Err(malformed(format!("vector {position} is zero or not finite")));
        }
        match vectors.get_mut(place) {
            Some(slot) if slot.is_empty() => *slot = values,
            _ => return Err(malformed(format!("index {place} is out of range or comes twice"))),
        }
    }
    Ok(vectors)
}

/// What a server says of a refusal: `error.message` as OpenAI does, or else the beginning of the text.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = json.as_ref().and_then(|json| json.pointer("/error/message").or_else(|| json.get("error"))?.as_str());
    let text = told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let clean = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    clean.take(MESSAGE_CHARACTERS_MAX).collect::<String>().trim().to_owned()
}
