//! Against vectors that other implementations made of the same weights: sentence-transformers itself (testdata), and the
//! numpy reading of the demo (`deploy/demo`).
//!
//! The model is where `make model` puts it, or where `CAIRN_MODEL` says; without it these tests say that they skipped, or
//! fail where `CAIRN_MODEL_REQUIRED` is set, as `make test-model` does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::*;

/// The largest difference in any value.
const TOLERANCE: f32 = 1e-3;

fn directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let found = set("CAIRN_MODEL").or_else(|| Some(cache()?.join("cairn/models/all-MiniLM-L6-v2")))?;
    if found.join("model.safetensors").exists() {
        return Some(found);
    }
    let missing = format!("there is no model in {}; `make model` fetches it", found.display());
    assert!(std::env::var_os("CAIRN_MODEL_REQUIRED").is_none(), "{missing}");
    // Past what the test harness keeps to itself of a test that passes.
    writeln!(std::io::stderr(), "SKIPPED a test of the embedder `local`: {missing}").unwrap();
    None
}

fn load() -> Option<Local> {
    let entry = LocalEntry { directory: directory()?, ..Default::default() };
    Some(Local::new("embedders.local[0]", "local", &entry).unwrap())
}

fn lines(name: &str) -> Vec<Value> {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn vector(row: &Value) -> Vec<f32> {
    let bytes = BASE64_STANDARD.decode(row["f32"].as_str().unwrap()).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Some texts of the demo, each with its vector.
fn known() -> Vec<(String, Vec<f32>)> {
    let lines = |name: &str| lines(&format!("../deploy/demo/{name}"));
    let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
    let vectors: BTreeMap<_, _> = lines("vectors.jsonl").iter().map(|row| (id(row), vector(row))).collect();
    let memories =
        lines("memories.jsonl").into_iter().map(|row| (id(&row), row["content"].as_str().unwrap().to_owned()));
    let questions =
        lines("questions.jsonl").into_iter().map(|row| (id(&row), row["question"].as_str().unwrap().to_owned()));
    memories.chain(questions).step_by(5).map(|(id, text)| (text, vectors[&id].clone())).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

/// Holds the vectors that `local` makes of the texts to the known ones.
fn assert_equal(local: &Local, known: &[(String, Vec<f32>)]) {
    let texts: Vec<&str> = known.iter().map(|(text, _)| text.as_str()).collect();
    let made = local.embed(&texts, 384, soon()).unwrap();
    let mut largest = 0.0_f32;
    for ((text, expected), vector) in known.iter().zip(&made) {
        assert_eq!(vector.len(), expected.len());
        let difference = vector.iter().zip(expected).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(difference < TOLERANCE, "{difference} in {text:?}");
        largest = largest.max(difference);
    }
    println!("largest difference of {} vectors: {largest:e}", made.len());
}

#[test]
fn vectors_equal_those_of_sentence_transformers() {
    let Some(local) = load() else { return };
    let rows = lines("src/embed/local/testdata/sentence_transformers.jsonl");
    let (made_by, rows) = rows.split_first().unwrap();
    let weights = std::fs::read(directory().unwrap().join("model.safetensors")).unwrap();
    assert_eq!(hex::encode(Sha256::digest(weights)), made_by["weights_sha256"], "other weights have other vectors");
    let known: Vec<_> = rows.iter().map(|row| (row["text"].as_str().unwrap().to_owned(), vector(row))).collect();
    assert!(known.len() >= 40);
    assert_equal(&local, &known);
}

#[test]
fn vectors_equal_those_of_the_demo() {
    let Some(local) = load() else { return };
    let known = known();
    assert!(known.len() > 60);
    assert_equal(&local, &known);
}

#[test]
fn a_text_has_the_same_vector_alone_and_among_others() {
    let Some(local) = load() else { return };
    let long = "memory ".repeat(400);
    let texts = ["short", long.as_str(), "", "a text of middling length, for a change"];
    let together = local.embed(&texts, 384, soon()).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = local.embed(&[text], 384, soon()).unwrap().remove(0);
        let difference = alone.iter().zip(vector).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{difference} in {text:?}");
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-4);
    }
    // Only the first 256 tokens count.
    let longer = "memory ".repeat(900);
    assert_eq!(
        local.embed(&[longer.as_str()], 384, soon()).unwrap(),
        local.embed(&[long.as_str()], 384, soon()).unwrap()
    );
}

#[test]
fn other_dimensions_and_late_calls_are_refused() {
    let Some(local) = load() else { return };
    assert_eq!(local.embed(&["x"], 385, soon()), Err(EmbedError::OtherDimension { embedder: "local", made: 384 }));
    assert!(matches!(local.embed(&["x"], 384, Instant::now()), Err(EmbedError::Unavailable { .. })));
    assert_eq!(local.dimension(), Some(384));
    assert!(local.model().starts_with("sha256:"), "{}", local.model());
}

#[test]
fn directories_that_hold_no_such_model_are_refused_by_file() {
    let directory = tempfile::tempdir().unwrap();
    let entry = LocalEntry { directory: directory.path().to_owned(), ..Default::default() };
    let refusal = || Local::new("embedders.local[0]", "local", &entry).err().unwrap().to_string();
    assert!(
        refusal().starts_with("embedders.local[0].directory: ") && refusal().contains("no config.json"),
        "{}",
        refusal()
    );
    let config = |model: &str, activation: &str| {
        format!(
            r#"{{"model_type": "{model}", "hidden_size": 8, "max_position_embeddings": 16, "num_hidden_layers": 1, "vocab_size": 4,
               "num_attention_heads": 2, "intermediate_size": 8, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "{activation}"}}"#
        )
    };
    for (text, says) in [
        (config("roberta", "gelu"), "roberta"),
        (config("bert", "swish"), "swish"),
        ("{".to_owned(), "config.json: "),
        (config("bert", "gelu"), "tokenizer.json"),
    ] {
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        assert!(refusal().contains(says), "{says}: {}", refusal());
    }
}

/// A directory with these files, and what is read from them.
fn reads(files: &[(&str, &str)]) -> (Result<Pooling, String>, Result<usize, String>) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let words = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "truncation": null, "padding": null}"#;
    std::fs::write(directory.path().join("tokenizer.json"), words).unwrap();
    let tokens = tokenizer(directory.path(), 512)
        .map(|tokenizer| tokenizer.encode("word ".repeat(600), true).unwrap().get_ids().len());
    (pooling(directory.path()), tokens)
}

#[test]
fn both_forms_of_the_settings_are_read() {
    let modules = |last: &str| {
        format!(
            r#"[{{"idx": 0, "type": "sentence_transformers.models.Transformer"}}, {{"idx": 1, "type": "sentence_transformers.models.Pooling"}},
               {{"idx": 2, "type": "sentence_transformers.base.modules.{last}"}}]"#
        )
    };
    let old = [
        ("modules.json", &*modules("normalize.Normalize")),
        ("sentence_bert_config.json", r#"{"max_seq_length": 256, "do_lower_case": false}"#),
        ("tokenizer_config.json", r#"{"model_max_length": 512}"#),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#),
    ];
    assert_eq!(reads(&old), (Ok(Pooling::First), Ok(256)));
    let new = [
        ("sentence_bert_config.json", r#"{"transformer_task": "feature-extraction"}"#),
        ("tokenizer_config.json", r#"{"model_max_length": 128}"#),
        ("config_sentence_transformers.json", r#"{"default_prompt_name": null, "prompts": {"query": ""}}"#),
        ("1_Pooling/config.json", r#"{"embedding_dimension": 384, "pooling_mode": "mean", "include_prompt": true}"#),
    ];
    assert_eq!(reads(&new), (Ok(Pooling::Mean), Ok(128)));
    assert_eq!(reads(&[]), (Ok(Pooling::Mean), Ok(512)));
    let endless = [("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#)];
    assert_eq!(reads(&endless).1, Ok(512));
}

#[test]
fn what_would_change_the_vectors_and_is_not_served_is_refused() {
    let says = |name: &str, text: &str, told: &str| {
        let (pooling, tokens) = reads(&[(name, text)]);
        let refusal = pooling.map(drop).and(tokens.map(drop)).unwrap_err();
        assert!(refusal.contains(name) && refusal.contains(told), "{refusal}");
    };
    let both = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#;
    says("1_Pooling/config.json", both, "max and mean");
    says("1_Pooling/config.json", r#"{"pooling_mode": ["mean", "lasttoken"]}"#, "mean and lasttoken");
    says("modules.json", r#"[{"type": "sentence_transformers.models.Dense"}]"#, "Dense");
    says("config_sentence_transformers.json", r#"{"default_prompt_name": "query"}"#, "\"query\"");
    says("sentence_bert_config.json", r#"{"do_lower_case": true}"#, "do_lower_case");
    says("tokenizer_config.json", "[", "tokenizer_config.json");
}
