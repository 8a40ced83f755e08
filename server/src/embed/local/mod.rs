//! `local`: a sentence model that runs in the server, from a directory as sentence-transformers keeps it. Compiled only
//! with the feature `local-embedder`.
//!
//! ```text
//! config.json, model.safetensors  -> bert.rs                    text -> tokens (at most max_seq_length)
//! tokenizer.json                  -> tokenizers                      -> batches of like length
//! the other files                 -> directory.rs                    -> one vector a token
//!                                                                    -> mean (or the first token) -> length 1
//! ```
//!
//! All computing runs in a pool of threads of its own, smaller than the machine, so that elections never wait for it.

mod bert;
mod directory;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use sha2::{Digest as _, Sha256};
use tokenizers::{Encoding, Tokenizer};

use self::bert::{Bert, BertConfig};
use self::directory::{Pooling, json, pooling, tokenizer};
use super::{EmbedError, Embedder};
use crate::config::{ConfigError, LocalEntry};

/// Tokens in one pass through the model, padding included: enough to keep the processor's units busy, and little memory.
const BATCH_TOKENS_MAX: usize = 4_096;

/// See the module.
pub(crate) struct Local {
    name: &'static str,
    model: String,
    dimension: usize,
    tokenizer: Tokenizer,
    bert: Bert,
    pooling: Pooling,
    pool: rayon::ThreadPool,
    threads: usize,
}

impl Local {
    /// The embedder that an entry of the configuration describes. `key` is its place there, for refusals. Reads the whole
    /// model, which takes about a second for each 100 MB.
    ///
    /// # Errors
    /// A file that is missing or is not of a model that can be served.
    pub(crate) fn new(key: &str, name: &'static str, entry: &LocalEntry) -> Result<Self, ConfigError> {
        let load = || -> Result<Self, String> {
            let directory = &entry.directory;
            let config: BertConfig = json(directory, "config.json")?;
            config.check().map_err(|problem| format!("config.json {problem}"))?;
            let pooling = pooling(directory)?;
            let tokenizer = tokenizer(directory, config.max_position_embeddings)?;

            let path = directory.join("model.safetensors");
            let failed = |error: &dyn std::fmt::Display| format!("model.safetensors: {error}");
            let bytes = std::fs::read(&path).map_err(|error| failed(&error))?;
            let weights =
                candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| failed(&error))?;
            let label = if entry.model.is_empty() {
                // Other weights are another model, whatever their directory is called.
                format!("sha256:{}", &hex::encode(Sha256::digest(&bytes))[..16])
            } else {
                entry.model.clone()
            };
            drop(bytes);
            let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
            let bert = Bert::new(&config, weights).map_err(|error| failed(&error))?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = if entry.threads == 0 { (cores / 2).max(1) } else { entry.threads };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "embed".to_owned());
            let pool = pool.build().map_err(|error| format!("its threads cannot be started: {error}"))?;
            Ok(Self { name, model: label, dimension: config.hidden_size, tokenizer, bert, pooling, pool, threads })
        };
        load().map_err(|problem| ConfigError::Invalid {
            key: format!("{key}.directory"),
            problem: format!("{}: {problem}", entry.directory.display()),
        })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> EmbedError {
        EmbedError::Unavailable { embedder: self.name, reason: error.to_string(), retry_after: Duration::from_secs(1) }
    }

    /// The vectors of texts that go through the model together.
    fn batch(&self, texts: &[&Encoding]) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = texts.iter().map(|text| text.get_ids().len()).max().unwrap_or_default();
        let padded = |take: fn(&Encoding) -> &[u32]| -> Vec<u32> {
            let rows = texts.iter().flat_map(|text| {
                let row = take(text);
                row.iter().copied().chain(std::iter::repeat_n(0, longest - row.len()))
            });
            rows.collect()
        };
        let shape = (texts.len(), longest);
        let ids = Tensor::from_vec(padded(Encoding::get_ids), shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(padded(Encoding::get_attention_mask), shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        let hidden = self.bert.forward(&ids, &mask)?;
        let pooled = match self.pooling {
            Pooling::First => hidden.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Mean => {
                let sums = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                sums.broadcast_div(&mask.sum_keepdim(1)?)?
            }
        };
        let lengths = pooled.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
        pooled.broadcast_div(&lengths)?.to_vec2()
    }
}

impl Embedder for Local {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn dimension(&self) -> Option<usize> {
        Some(self.dimension)
    }

    fn concurrency(&self) -> usize {
        self.threads
    }

    fn embed(&self, texts: &[&str], dimension: usize, until: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        if dimension != self.dimension {
            return Err(EmbedError::OtherDimension { embedder: self.name, made: self.dimension });
        }
        self.pool.install(|| {
            let encoded = texts.iter().map(|text| self.tokenizer.encode(*text, true)).collect::<Result<Vec<_>, _>>();
            let encoded = encoded.map_err(|error| self.failed(&error))?;
            let mut vectors = vec![Vec::new(); texts.len()];
            for places in batches(&encoded) {
                if Instant::now() >= until {
                    return Err(self.failed(&"the time of the call is over"));
                }
                let batch: Vec<&Encoding> = places.iter().map(|place| &encoded[*place]).collect();
                let made = self.batch(&batch).map_err(|error| self.failed(&error))?;
                for (place, vector) in places.into_iter().zip(made) {
                    vectors[place] = vector;
                }
            }
            Ok(vectors)
        })
    }
}

/// Puts texts of like length together, so that little is padded. Each batch is a list of places in `encoded`.
fn batches(encoded: &[Encoding]) -> Vec<Vec<usize>> {
    let tokens = |place: usize| encoded[place].get_ids().len();
    let mut order: Vec<usize> = (0..encoded.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(tokens(*place)));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for place in order {
        match batches.last_mut() {
            // The first text of a batch is its longest.
            Some(batch) if tokens(batch[0]) * (batch.len() + 1) <= BATCH_TOKENS_MAX => batch.push(place),
            _ => batches.push(vec![place]),
        }
    }
    batches
}
