//! Text to vectors, on the server.
//!
//! A space names its embedder; the server looks it up here. The engine and the log see vectors only, so what is stored
//! never depends on an embedder that changes or goes away.

mod hash;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use hash::HashEmbedder;

/// Turns texts into vectors.
///
/// Calls may take long and block; they are made from threads for blocking work, never from an async worker. The same
/// text must give the same vector for as long as [`Embedder::name`] stays the same.
pub trait Embedder: Send + Sync {
    /// The name by which spaces choose it.
    fn name(&self) -> &'static str;

    /// One vector of `dimension` finite values for each text, in order; none is all zero.
    ///
    /// # Errors
    /// The embedder cannot serve this dimension, or cannot be reached.
    fn embed(&self, texts: &[&str], dimension: usize) -> Result<Vec<Vec<f32>>, EmbedError>;
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
}

/// The embedders of a node, by name.
#[derive(Clone)]
pub struct Embedders {
    by_name: BTreeMap<&'static str, Arc<dyn Embedder>>,
}

impl Embedders {
    /// The built-in ones: `hash`.
    #[must_use]
    pub fn built_in() -> Self {
        let mut embedders = Self { by_name: BTreeMap::new() };
        embedders.insert(Arc::new(HashEmbedder));
        embedders
    }

    /// Adds an embedder, or replaces the one of the same name.
    pub fn insert(&mut self, embedder: Arc<dyn Embedder>) {
        self.by_name.insert(embedder.name(), embedder);
    }

    /// The embedder of this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Embedder>> {
        self.by_name.get(name).cloned()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }
}
