//! `local`: a sentence model that runs in the server, from a directory as sentence-transformers keeps it. Compiled only
//! with the feature `local-embedder`.
//!
//! ```text
//! config.json, model.safetensors  -> bert.rs                    text -> tokens (at most max_seq_length)
//! tokenizer.json                  -> tokenizers                      -> batches of like length
//! sentence_bert_config.json       -> longest text, in tokens         -> one vector a token
//! 1_Pooling/config.json           -> mean (or the first token)       -> pooled -> length 1
//! ```
//!
//! All computing runs in a pool of threads of its own, smaller than the machine, so that elections never wait for it.

mod bert;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use self::bert::{Bert, BertConfig};
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

/// How the vectors of tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    Mean,
    First,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
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
            let sentence: Option<SentenceConfig> = optional_json(directory, "sentence_bert_config.json")?;
            let asked = sentence.and_then(|sentence| sentence.max_seq_length).unwrap_or(usize::MAX);
            let tokenizer = tokenizer(directory, asked.min(config.max_position_embeddings))?;
            let pooling = pooling(optional_json(directory, "1_Pooling/config.json")?)?;

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

fn tokenizer(directory: &Path, tokens_max: usize) -> Result<Tokenizer, String> {
    let failed = |error: tokenizers::Error| format!("tokenizer.json: {error}");
    let mut tokenizer = Tokenizer::from_file(directory.join("tokenizer.json")).map_err(failed)?;
    if tokens_max < 8 {
        return Err(format!("{tokens_max} tokens are no length of a text"));
    }
    // The file's own settings are those of its training.
    tokenizer
        .with_truncation(Some(TruncationParams { max_length: tokens_max, ..Default::default() }))
        .map_err(failed)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn pooling(config: Option<PoolingConfig>) -> Result<Pooling, String> {
    match config {
        None | Some(PoolingConfig { pooling_mode_mean_tokens: true, pooling_mode_cls_token: false }) => {
            Ok(Pooling::Mean)
        }
        Some(PoolingConfig { pooling_mode_mean_tokens: false, pooling_mode_cls_token: true }) => Ok(Pooling::First),
        Some(_) => {
            Err("1_Pooling/config.json asks for a pooling other than mean or first token, which is not served"
                .to_owned())
        }
    }
}

fn json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T, String> {
    optional_json(directory, name)?.ok_or_else(|| format!("there is no {name}; `make model` fetches a model"))
}

fn optional_json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, String> {
    match std::fs::read(directory.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("{name}: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
