//! BERT's encoder (Devlin et al., 2018, arXiv:1810.04805), as far as sentence models use it: from token ids to one vector
//! for each token. Weights are in f32; names are those of Hugging Face's checkpoints.
//!
//! ```text
//! word + position + token type -> norm -> layers x { attention -> add & norm -> wide -> activation -> narrow -> add & norm }
//! ```

use candle_core::{Device, Result, Tensor};
use candle_nn::{Activation, Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops};
use serde::Deserialize;

/// What `config.json` says of a model, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BertConfig {
    pub(super) model_type: String,
    pub(super) hidden_size: usize,
    pub(super) max_position_embeddings: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Checks that this is a model that the code below computes.
    ///
    /// # Errors
    /// What it does not compute.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if self.model_type != "bert" || self.position_embedding_type != "absolute" {
            let Self { model_type, position_embedding_type, .. } = self;
            return Err(format!(
                "is a model of type {model_type} with {position_embedding_type} positions; only bert with absolute ones is served"
            ));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "{} dimensions do not divide into {} heads",
                self.hidden_size, self.num_attention_heads
            ));
        }
        self.activation().map(|_| ())
    }

    fn activation(&self) -> std::result::Result<Activation, String> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::NewGelu),
            "relu" => Ok(Activation::Relu),
            other => Err(format!("has the activation {other}, which is not served")),
        }
    }
}

/// The encoder.
pub(super) struct Bert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    joined: Linear,
    attention_norm: LayerNorm,
    wide: Linear,
    activation: Activation,
    narrow: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl Bert {
    /// The encoder with these weights.
    ///
    /// # Errors
    /// A weight is missing or has another shape.
    pub(super) fn new(config: &BertConfig, weights: VarBuilder<'_>) -> Result<Self> {
        // Checkpoints of models with a head keep the encoder one level deeper.
        let deeper = weights.contains_tensor("bert.embeddings.word_embeddings.weight");
        let weights = if deeper { weights.pp("bert") } else { weights };
        let (size, below) = (config.hidden_size, weights.pp("embeddings"));
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::new(config, &weights.pp(format!("encoder.layer.{layer}"))));
        Ok(Self {
            words: embedding(config.vocab_size, size, below.pp("word_embeddings"))?,
            positions: embedding(config.max_position_embeddings, size, below.pp("position_embeddings"))?,
            types: embedding(config.type_vocab_size, size, below.pp("token_type_embeddings"))?,
            norm: layer_norm(size, config.layer_norm_eps, below.pp("LayerNorm"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// One vector for each token: `[texts, tokens, dimension]`. `ids` and `mask` are `[texts, tokens]`; the mask is 1 where there is a
    /// token, and 0 where a text is shorter than the longest one.
    pub(super) fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, tokens) = ids.dims2()?;
        let positions = Tensor::arange(0, tokens as u32, &Device::Cpu)?;
        let embedded = self.words.forward(ids)?.broadcast_add(&self.positions.forward(&positions)?)?;
        let embedded = embedded.broadcast_add(&self.types.forward(&Tensor::zeros(
            1,
            candle_core::DType::U32,
            &Device::Cpu,
        )?)?)?;
        let mut hidden = self.norm.forward(&embedded)?;
        // 0 for tokens; for all else so low that nothing is left of it behind the softmax.
        let bias = ((mask - 1.0)? * 1e9)?.unsqueeze(1)?.unsqueeze(1)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &bias)?;
        }
        Ok(hidden)
    }
}

impl Layer {
    fn new(config: &BertConfig, weights: &VarBuilder<'_>) -> Result<Self> {
        let (size, wide, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let own = weights.pp("attention.self");
        Ok(Self {
            query: linear(size, size, own.pp("query"))?,
            key: linear(size, size, own.pp("key"))?,
            value: linear(size, size, own.pp("value"))?,
            joined: linear(size, size, weights.pp("attention.output.dense"))?,
            attention_norm: layer_norm(size, epsilon, weights.pp("attention.output.LayerNorm"))?,
            wide: linear(size, wide, weights.pp("intermediate.dense"))?,
            activation: config.activation().map_err(candle_core::Error::Msg)?,
            narrow: linear(wide, size, weights.pp("output.dense"))?,
            norm: layer_norm(size, epsilon, weights.pp("output.LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let attention = self.joined.forward(&self.attention(hidden, bias)?)?;
        let hidden = self.attention_norm.forward(&(hidden + attention)?)?;
        let wide = self.activation.forward(&self.wide.forward(&hidden)?)?;
        self.norm.forward(&(&hidden + self.narrow.forward(&wide)?)?)
    }

    fn attention(&self, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (texts, tokens, size) = hidden.dims3()?;
        let per_head = size / self.heads;
        let split = |part: &Linear| {
            part.forward(hidden)?.reshape((texts, tokens, self.heads, per_head))?.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scores = (query.matmul(&key.t()?.contiguous()?)? / (per_head as f64).sqrt())?;
        let shares = ops::softmax_last_dim(&scores.broadcast_add(bias)?.contiguous()?)?;
        shares.matmul(&value)?.transpose(1, 2)?.reshape((texts, tokens, size))
    }
}
