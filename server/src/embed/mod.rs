//! Text to vectors, on the server.
//!
//! A space names its embedder; the server looks it up here. The engine and the log see vectors only, so what is stored
//! never depends on an embedder that changes or goes away.
//!
//! | name | what it is |
//! |---|---|
//! | `hash` | built in, lexical: `hash.rs` |
//! | those of `embedders.openai` | a server that speaks OpenAI's API: `openai/` |
//! | those of `embedders.local` | a model that runs in this process, where it is compiled in: `local/` |

mod hash;
#[cfg(feature = "local-embedder")]
mod local;
mod openai;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use hash::HashEmbedder;

use self::openai::OpenAi;
use crate::config::{ConfigError, EmbeddersSection, LocalEntry};
use crate::monitor::Monitor;
use crate::service::Workers;

/// Turns texts into vectors.
///
/// Calls may take long and block; they are made from threads for blocking work, never from an async worker. The same
/// text must give the same vector, but for rounding, for as long as [`Embedder::name`] and [`Embedder::model`] stay the same.
pub trait Embedder: Send + Sync {
    /// The name by which spaces choose it.
    fn name(&self) -> &'static str;

    /// The model that makes the vectors, which must be the one that a space names; empty: not said.
    fn model(&self) -> &str {
        ""
    }

    /// The only dimension of its vectors; `None`: it makes several, or does not know.
    fn dimension(&self) -> Option<usize> {
        None
    }

    /// How many calls of [`Embedder::embed`] may be under way at a time; each has a thread.
    fn concurrency(&self) -> usize;

    /// One vector of `dimension` finite values for each text, in order; none is all zero. Returns soon after `until`.
    ///
    /// # Errors
    /// The embedder cannot serve this dimension, refuses the texts, or cannot be reached.
    fn embed(&self, texts: &[&str], dimension: usize, until: Instant) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// Texts that could not be turned into vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Vectors of this dimension cannot be made.
    #[error("embedder {embedder} makes no vectors of dimension {dimension}")]
    Dimension {
        /// The embedder's name.
        embedder: &'static str,
        /// The dimension that was asked for.
        dimension: usize,
    },
    /// The vectors have another dimension than the space.
    #[error("embedder {embedder} makes vectors of dimension {made}, which is not the space's")]
    OtherDimension {
        /// The embedder's name.
        embedder: &'static str,
        /// The dimension of its vectors.
        made: usize,
    },
    /// The server behind it refuses the request: the texts are too long, the key or the model is not known.
    #[error("embedder {embedder}: its server refused the texts with {status}: {message}")]
    Refused {
        /// The embedder's name.
        embedder: &'static str,
        /// The HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// The server behind it has too much to do.
    #[error("embedder {embedder}: its server has too much to do")]
    Overloaded {
        /// The embedder's name.
        embedder: &'static str,
        /// How long to wait.
        retry_after: Duration,
    },
    /// There is no answer.
    #[error("embedder {embedder} does not serve: {reason}")]
    Unavailable {
        /// The embedder's name.
        embedder: &'static str,
        /// Why not.
        reason: String,
        /// How long to wait.
        retry_after: Duration,
    },
}

/// The version of the program, and which kinds of embedders are compiled in.
pub const VERSION: &str = if cfg!(feature = "local-embedder") {
    concat!(env!("CARGO_PKG_VERSION"), "\nembedders: hash, openai, local")
} else {
    concat!(env!("CARGO_PKG_VERSION"), "\nembedders: hash, openai")
};

/// The embedders of a node, by name. Each has threads of its own, so that a slow one holds up nobody else.
#[derive(Clone)]
pub struct Embedders {
    by_name: BTreeMap<&'static str, (Arc<dyn Embedder>, Workers)>,
}

impl Embedders {
    /// The built-in ones: `hash`.
    #[must_use]
    pub fn built_in() -> Self {
        let mut embedders = Self { by_name: BTreeMap::new() };
        embedders.insert(Arc::new(HashEmbedder));
        embedders
    }

    /// The built-in ones, and those of the configuration. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The key of the configuration that cannot be followed, such as an environment variable that is not set.
    pub(crate) fn of(section: &EmbeddersSection, monitor: &Arc<Monitor>) -> Result<Self, ConfigError> {
        let mut embedders = Self::built_in();
        for (position, entry) in section.openai.iter().enumerate() {
            let key = format!("embedders.openai[{position}]");
            // Labels of metrics live as long as the process, as does the configuration that these names come from.
            let name: &'static str = entry.name.clone().leak();
            embedders.insert(Arc::new(OpenAi::new(&key, name, entry.clone(), Arc::clone(monitor))?));
        }
        for (position, entry) in section.local.iter().enumerate() {
            embedders.insert(local_embedder(&format!("embedders.local[{position}]"), entry)?);
        }
        Ok(embedders)
    }

    /// Adds an embedder, or replaces the one of the same name.
    pub fn insert(&mut self, embedder: Arc<dyn Embedder>) {
        let workers = Workers::new(embedder.concurrency());
        self.by_name.insert(embedder.name(), (embedder, workers));
    }

    /// The embedder of this name and its threads, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<(Arc<dyn Embedder>, Workers)> {
        self.by_name.get(name).cloned()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }
}

#[cfg(feature = "local-embedder")]
fn local_embedder(key: &str, entry: &LocalEntry) -> Result<Arc<dyn Embedder>, ConfigError> {
    // As above.
    let name: &'static str = entry.name.clone().leak();
    Ok(Arc::new(local::Local::new(key, name, entry)?))
}

#[cfg(not(feature = "local-embedder"))]
fn local_embedder(key: &str, _entry: &LocalEntry) -> Result<Arc<dyn Embedder>, ConfigError> {
    let problem =
        "this program is built without models: released ones have them, and `make run` builds one after `make model`"
            .to_owned();
    Err(ConfigError::Invalid { key: key.to_owned(), problem })
}
