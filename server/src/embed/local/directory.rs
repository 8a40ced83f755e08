//! What the files beside the weights say: how a text is cut, and what is done with the vectors of its tokens. Read as
//! sentence-transformers 6 reads them, in the forms that its versions have written since 2. What is asked for and is not
//! served is refused by name, since leaving it out would give other vectors in silence.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::{Tokenizer, TruncationParams};

/// The fewest tokens at which a text is cut.
const TOKENS_MIN: usize = 8;

/// How the vectors of tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    First,
}

/// `1_Pooling/config.json`: a flag for each pooling until version 5, then one name or several.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<Names>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

impl PoolingConfig {
    fn modes(self) -> Vec<String> {
        let flags = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_mean_tokens, "mean"),
            (self.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
            (self.pooling_mode_lasttoken, "lasttoken"),
        ];
        match self.pooling_mode {
            Some(Names::One(mode)) => vec![mode],
            Some(Names::Several(modes)) => modes,
            None => flags.into_iter().filter(|(set, _)| *set).map(|(_, mode)| mode.to_owned()).collect(),
        }
    }
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

/// `tokenizer_config.json`. Where nothing was said, some versions write a number beyond all integers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

/// `modules.json`: what a text goes through, in this order.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptConfig {
    default_prompt_name: Option<String>,
}

/// The pooling, where all that the directory asks for is served.
///
/// # Errors
/// The file, and what is wrong with it.
pub(super) fn pooling(directory: &Path) -> Result<Pooling, String> {
    let modules: Vec<Module> = optional_json(directory, "modules.json")?.unwrap_or_default();
    for module in modules {
        let kind = module.kind.rsplit('.').next().unwrap_or_default();
        // Vectors are brought to length 1 in any case: the metric cosine cannot tell, and other ones want it.
        if !matches!(kind, "Transformer" | "Pooling" | "Normalize") {
            return Err(format!("modules.json asks for a module {kind}, which is not served"));
        }
    }
    let prompts: PromptConfig = optional_json(directory, "config_sentence_transformers.json")?.unwrap_or_default();
    if let Some(name) = prompts.default_prompt_name {
        return Err(format!(
            "config_sentence_transformers.json puts the prompt {name:?} before every text, which is not served"
        ));
    }
    let config: PoolingConfig = optional_json(directory, "1_Pooling/config.json")?.unwrap_or_default();
    let modes = config.modes();
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        _ => Err(format!(
            "1_Pooling/config.json asks for the pooling {}; only mean or cls alone is served",
            modes.join(" and ")
        )),
    }
}

/// The tokenizer, which cuts texts where sentence-transformers does.
///
/// # Errors
/// The file, and what is wrong with it.
pub(super) fn tokenizer(directory: &Path, positions_max: usize) -> Result<Tokenizer, String> {
    let sentence: SentenceConfig = optional_json(directory, "sentence_bert_config.json")?.unwrap_or_default();
    if sentence.do_lower_case {
        return Err("sentence_bert_config.json asks for do_lower_case, which is not served".to_owned());
    }
    let tokens: TokenizerConfig = optional_json(directory, "tokenizer_config.json")?.unwrap_or_default();
    // A float becomes the nearest integer that there is.
    let asked = sentence.max_seq_length.or(tokens.model_max_length.map(|tokens| tokens as usize));
    let tokens_max = asked.unwrap_or(usize::MAX).min(positions_max);
    if tokens_max < TOKENS_MIN {
        return Err(format!("{tokens_max} tokens are no length of a text"));
    }
    let failed = |error: tokenizers::Error| format!("tokenizer.json: {error}");
    let mut tokenizer = Tokenizer::from_file(directory.join("tokenizer.json")).map_err(failed)?;
    // The file's own settings are those of its training.
    tokenizer
        .with_truncation(Some(TruncationParams { max_length: tokens_max, ..Default::default() }))
        .map_err(failed)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// A file that must be there.
///
/// # Errors
/// The file, and what is wrong with it.
pub(super) fn json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T, String> {
    optional_json(directory, name)?.ok_or_else(|| format!("there is no {name}; `make model` fetches a model"))
}

fn optional_json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, String> {
    match std::fs::read(directory.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("{name}: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
