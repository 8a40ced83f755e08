//! [`Sample`]: the memories and questions of `deploy/demo`, with the vectors that `scripts/embed_demo.py` made.
//!
//! The files are part of the program, so that it runs from anywhere. `cairn add --file` reads `memories.jsonl` as well.

use std::collections::BTreeMap;

use base64::Engine as _;
use cairn_client::{Memory, Scope, Timestamp, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Failure;

const MEMORIES: &str = include_str!("../memories.jsonl");
const QUESTIONS: &str = include_str!("../questions.jsonl");
const VECTORS: &str = include_str!("../vectors.jsonl");

/// How many values a vector has.
pub const DIMENSION: u32 = 384;
/// The model that made the vectors.
pub const MODEL: &str = "all-MiniLM-L6-v2";

/// A question in words, as a vector, and what should be found.
#[derive(Debug, Clone)]
pub struct Question {
    /// The words.
    pub text: String,
    /// The words as a vector of [`DIMENSION`] values.
    pub vector: Vec<f32>,
    /// Ids of memories of which at least one should be among the first.
    pub expected: Vec<String>,
}

/// All memories and questions.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The memories with their vectors, in the order of the file.
    pub memories: Vec<Memory>,
    /// The questions, in the order of the file.
    pub questions: Vec<Question>,
}

#[derive(Deserialize)]
struct MemoryLine {
    id: String,
    scope: ScopeLine,
    kind: String,
    content: String,
    metadata: BTreeMap<String, serde_json::Value>,
    importance: f32,
    created_at: String,
}

#[derive(Deserialize)]
struct ScopeLine {
    agent_id: String,
    user_id: String,
    session_id: String,
    namespace: String,
}

#[derive(Deserialize)]
struct QuestionLine {
    id: String,
    question: String,
    expected: Vec<String>,
}

#[derive(Deserialize)]
struct VectorLine {
    id: String,
    f32: String,
}

impl Sample {
    /// Reads the files that were built in.
    ///
    /// # Errors
    /// A line that is not what it should be.
    pub fn load() -> Result<Self, Failure> {
        let mut vectors = BTreeMap::new();
        for line in lines::<VectorLine>("vectors.jsonl", VECTORS)? {
            let vector = decode(&line.f32).ok_or_else(|| bad("vectors.jsonl", format!("{} is no vector", line.id)))?;
            vectors.insert(line.id, vector);
        }
        let mut vector_of =
            |id: &str| vectors.remove(id).ok_or_else(|| bad("vectors.jsonl", format!("{id} is missing")));
        let mut memories = Vec::new();
        for line in lines::<MemoryLine>("memories.jsonl", MEMORIES)? {
            let vector = vector_of(&line.id)?;
            memories.push(line.into_memory(vector)?);
        }
        let mut questions = Vec::new();
        for line in lines::<QuestionLine>("questions.jsonl", QUESTIONS)? {
            let vector = vector_of(&line.id)?;
            questions.push(Question { text: line.question, vector, expected: line.expected });
        }
        Ok(Self { memories, questions })
    }
}

impl MemoryLine {
    fn into_memory(self, vector: Vec<f32>) -> Result<Memory, Failure> {
        let scope = Scope::new()
            .agent(self.scope.agent_id)
            .user(self.scope.user_id)
            .session(self.scope.session_id)
            .namespace(self.scope.namespace);
        let mut memory = Memory::new(self.content)
            .id(self.id)
            .kind(self.kind)
            .scope(scope)
            .importance(self.importance)
            .created_at(time(&self.created_at)?)
            .vector(vector);
        for (key, value) in self.metadata {
            memory = memory.metadata(key, from_json(value)?);
        }
        Ok(memory)
    }
}

fn bad(file: &str, problem: impl Into<String>) -> Failure {
    Failure::Sample { file: file.to_owned(), problem: problem.into() }
}

fn time(text: &str) -> Result<Timestamp, Failure> {
    text.parse().map_err(|_| bad("memories.jsonl", format!("{text:?} is no time")))
}

fn lines<T: DeserializeOwned>(file: &str, text: &str) -> Result<Vec<T>, Failure> {
    text.lines().map(|line| serde_json::from_str(line).map_err(|error| bad(file, error.to_string()))).collect()
}

fn decode(text: &str) -> Option<Vec<f32>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let (values, rest) = bytes.as_chunks::<4>();
    let right = rest.is_empty() && values.len() == DIMENSION as usize;
    right.then(|| values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

/// A value in the form that `cairn add --file` reads too: JSON has no times, so a time is `{"$time": "..."}`.
fn from_json(value: serde_json::Value) -> Result<Value, Failure> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => value.into(),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => number.as_f64().into(),
        },
        Json::String(text) => text.into(),
        Json::Array(values) => Value::List(values.into_iter().map(from_json).collect::<Result<_, _>>()?),
        Json::Object(entries) => match entries.get("$time") {
            Some(Json::String(text)) => time(text)?.into(),
            _ => Value::Map(
                entries.into_iter().map(|(key, value)| Ok((key, from_json(value)?))).collect::<Result<_, Failure>>()?,
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sha2::Digest as _;

    use super::*;

    #[test]
    fn there_are_enough_memories_and_they_are_varied() {
        let sample = Sample::load().unwrap();
        assert!(sample.memories.len() >= 300);
        assert_eq!(sample.questions.len(), 20);
        let distinct = |name: fn(&Memory) -> String| sample.memories.iter().map(name).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|memory| memory.id.clone()), sample.memories.len());
        assert_eq!(distinct(|memory| memory.content.clone()), sample.memories.len());
        assert!(distinct(|memory| memory.kind.clone()) >= 10);
        assert!(distinct(|memory| memory.scope.agent_id.clone().unwrap()) >= 10);
        assert!(distinct(|memory| memory.scope.namespace.clone().unwrap()) >= 20);
    }

    #[test]
    fn vectors_were_made_from_the_texts_that_are_there_now() {
        #[derive(Deserialize)]
        struct Line {
            id: String,
            text_sha256: String,
        }
        let hashes: BTreeMap<_, _> = lines::<Line>("vectors.jsonl", VECTORS)
            .unwrap()
            .into_iter()
            .map(|line| (line.id, line.text_sha256))
            .collect();
        let memories = lines::<MemoryLine>("memories.jsonl", MEMORIES).unwrap();
        let questions = lines::<QuestionLine>("questions.jsonl", QUESTIONS).unwrap();
        let texts = memories.into_iter().map(|line| (line.id, line.content));
        for (id, text) in texts.chain(questions.into_iter().map(|line| (line.id, line.question))) {
            assert_eq!(hashes[&id], hex::encode(sha2::Sha256::digest(text)), "run scripts/embed_demo.py for {id}");
        }
    }

    #[test]
    fn at_least_18_questions_find_an_expected_memory_among_their_three_nearest() {
        let sample = Sample::load().unwrap();
        let found = sample.questions.iter().filter(|question| {
            let mut scored: Vec<_> = sample
                .memories
                .iter()
                .map(|memory| {
                    let pairs = memory.vectors[0].values.iter().zip(&question.vector);
                    (pairs.map(|(a, b)| a * b).sum::<f32>(), &memory.id)
                })
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0));
            scored[..3].iter().any(|(_, id)| question.expected.contains(id))
        });
        assert!(found.count() >= 18);
    }
}
