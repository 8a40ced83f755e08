//! `hash`: the built-in embedder. It is lexical only: texts are near when they share words or parts of words, not when
//! they mean the same. It needs no model, no network and no configuration, and follows the space's dimension.
//!
//! ```text
//! text -> lower-cased words -> features: each word, and its character trigrams between ^ and $
//!      -> weight: sqrt(occurrences), times the feature's share of its word
//!      -> hash -> dimension (high bits) and sign (lowest bit); add up; divide by the length
//! ```
//!
//! Feature hashing with signs keeps inner products unbiased (Weinberger et al., 2009, arXiv:0902.2206). Trigrams let
//! `remember` and `remembers` meet. Long words weigh more than short ones, which are mostly articles and pronouns.
//! Only operations that IEEE 754 rounds exactly are used, so that every machine makes the same bits. Stored vectors depend
//! on every constant here: a change needs a new name, and a test holds known vectors.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{EmbedError, Embedder};

/// What all trigrams of a word weigh together, next to the word itself.
const TRIGRAM_SHARE: f32 = 0.6;

/// Words longer than this many characters weigh no more.
const WORD_WEIGHT_CHARACTERS: usize = 8;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct HashEmbedder;

impl Embedder for HashEmbedder {
    fn name(&self) -> &'static str {
        "hash"
    }

    fn concurrency(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn embed(&self, texts: &[&str], dimension: usize, _until: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        if dimension == 0 {
            return Err(EmbedError::Dimension { embedder: self.name(), dimension });
        }
        Ok(texts.iter().map(|text| embed_one(text, dimension)).collect())
    }
}

fn embed_one(text: &str, dimension: usize) -> Vec<f32> {
    let mut words: BTreeMap<String, f32> = BTreeMap::new();
    for word in text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *words.entry(word.to_lowercase()).or_default() += 1.0;
    }
    // An ordered map, so that sums run in one order and results are the same to the bit everywhere.
    let mut features: BTreeMap<u64, f32> = BTreeMap::new();
    for (word, occurrences) in &words {
        add_word(word, occurrences.sqrt(), &mut features);
    }

    let mut sums = vec![0.0_f64; dimension];
    for (hash, weight) in features {
        let sign = if hash & 1 == 0 { 1.0 } else { -1.0 };
        sums[bucket(hash, dimension)] += sign * f64::from(weight);
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    if length < 1e-6 {
        // No words, or features that cancel each other: the whole text is the feature, so that no vector is zero.
        sums.fill(0.0);
        sums[bucket(hash(b"text:", text.as_bytes()), dimension)] = 1.0;
        return narrow(&sums, 1.0);
    }
    narrow(&sums, length)
}

/// Adds a word and its trigrams, each with its share of the word's weight.
fn add_word(word: &str, weight: f32, features: &mut BTreeMap<u64, f32>) {
    let characters: Vec<char> = std::iter::once('^').chain(word.chars()).chain(std::iter::once('$')).collect();
    let length = (characters.len() - 2).min(WORD_WEIGHT_CHARACTERS) as f32;
    let weight = weight * length.sqrt();
    *features.entry(hash(b"word:", word.as_bytes())).or_default() += weight;

    let trigrams = characters.windows(3);
    // Weights add up by their squares in the vector's length, hence the root.
    let share = weight * TRIGRAM_SHARE / (trigrams.len() as f32).sqrt();
    for trigram in trigrams {
        let text: String = trigram.iter().collect();
        *features.entry(hash(b"part:", text.as_bytes())).or_default() += share;
    }
}

/// At most 1 after the division; the cast rounds to nearest.
fn narrow(sums: &[f64], length: f64) -> Vec<f32> {
    sums.iter().map(|sum| (sum / length) as f32).collect()
}

/// The dimension of a feature: the high half of its hash, scaled without a division's bias.
fn bucket(hash: u64, dimension: usize) -> usize {
    (((hash >> 32) * dimension as u64) >> 32) as usize
}

/// FNV-1a over both parts, then the finalizer of SplitMix64, since FNV alone leaves its high bits poorly mixed.
fn hash(domain: &[u8], bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in domain.iter().chain(bytes) {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn embed(text: &str) -> Vec<f32> {
        embed_one(text, 384)
    }

    fn cosine(left: &[f32], right: &[f32]) -> f32 {
        left.iter().zip(right).map(|(l, r)| l * r).sum()
    }

    proptest! {
        #[test]
        fn every_text_gives_a_unit_vector(text in any::<String>(), dimension in 1_usize..600) {
            let vector = embed_one(&text, dimension);
            prop_assert_eq!(vector.len(), dimension);
            prop_assert!(vector.iter().all(|value| value.is_finite()));
            prop_assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-4);
            prop_assert_eq!(vector, embed_one(&text, dimension));
        }

        #[test]
        fn case_order_and_punctuation_do_not_matter(words in prop::collection::vec("[a-z]{1,12}", 1..20)) {
            let mut reversed = words.clone();
            reversed.reverse();
            let shouted = reversed.join(", ").to_uppercase() + "!";
            prop_assert_eq!(embed(&words.join(" ")), embed(&shouted));
        }
    }

    #[test]
    fn shared_words_bring_texts_together() {
        let query = embed("what does Maria like to drink");
        let near = embed("Maria likes to drink black coffee in the morning");
        let far = embed("the deployment failed because the disk was full");
        assert!(cosine(&query, &near) > 0.35, "{}", cosine(&query, &near));
        assert!(cosine(&query, &near) > cosine(&query, &far) + 0.3);
    }

    #[test]
    fn forms_of_a_word_are_near() {
        assert!(cosine(&embed("remember"), &embed("remembers")) > 0.15);
        assert!(cosine(&embed("remember"), &embed("coffee")) < 0.1);
    }

    #[test]
    fn known_vectors_stay() {
        // Stored vectors depend on these; see the module.
        let vector = embed_one("Hello, hello world", 8);
        let rounded: Vec<i32> = vector.iter().map(|value| (value * 1e4).round() as i32).collect();
        assert_eq!(rounded, KNOWN);
        assert_eq!(embed_one("", 4), embed_one("", 4));
    }

    const KNOWN: [i32; 8] = [0, -1319, 9712, 386, 0, -1706, 0, -933];
}
