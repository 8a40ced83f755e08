//! Against the vectors in `deploy/demo`, which another implementation made of the same weights.
//!
//! The model is where `make model` puts it, or where `CAIRN_MODEL` says; without it these tests say that they skipped.

use std::collections::BTreeMap;
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
    eprintln!("skipped: there is no model; run `make model`");
    None
}

fn load() -> Option<Local> {
    let entry = LocalEntry { directory: directory()?, ..Default::default() };
    Some(Local::new("embedders.local[0]", "local", &entry).unwrap())
}

fn lines(name: &str) -> Vec<Value> {
    let path = format!("{}/../deploy/demo/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts of the demo, each with its vector.
fn known() -> Vec<(String, Vec<f32>)> {
    let vector = |row: &Value| -> Vec<f32> {
        let bytes = BASE64_STANDARD.decode(row["f32"].as_str().unwrap()).unwrap();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
    let vectors: BTreeMap<_, _> = lines("vectors.jsonl").iter().map(|row| (id(row), vector(row))).collect();
    let memories =
        lines("memories.jsonl").into_iter().map(|row| (id(&row), row["content"].as_str().unwrap().to_owned()));
    let questions =
        lines("questions.jsonl").into_iter().map(|row| (id(&row), row["question"].as_str().unwrap().to_owned()));
    memories.chain(questions).map(|(id, text)| (text, vectors[&id].clone())).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[test]
fn vectors_equal_those_of_another_implementation() {
    let Some(local) = load() else { return };
    let known = known();
    assert!(known.len() > 300);
    let texts: Vec<&str> = known.iter().map(|(text, _)| text.as_str()).collect();
    let made = local.embed(&texts, 384, soon()).unwrap();
    let mut largest = 0.0_f32;
    for ((text, expected), vector) in known.iter().zip(&made) {
        assert_eq!(vector.len(), expected.len());
        let difference = vector.iter().zip(expected).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(difference < TOLERANCE, "{difference} in {text:?}");
        largest = largest.max(difference);
    }
    eprintln!("largest difference of {} vectors: {largest:e}", made.len());
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
