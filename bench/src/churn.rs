//! What churn does to a graph: every vector is replaced, again and again, and recall and speed are compared with a fresh build.

use std::path::PathBuf;
use std::time::Instant;

use cairn_index::{MemoryKey, Partition};

use crate::BenchError;
use crate::corpus::Corpus;
use crate::index::{Built, measure};
use crate::report::Report;
use crate::systems::{Cairn, Setting, key_of_turn};

/// Arguments of `churn`.
#[derive(clap::Args)]
pub(crate) struct ChurnArguments {
    /// The folder with `base.f16.npy`, `queries.f16.npy` and `gt100.i32.npy`.
    #[arg(long)]
    corpus: PathBuf,
    /// Only the first so many vectors.
    #[arg(long)]
    count: Option<usize>,
    /// How often every vector is replaced.
    #[arg(long, default_value_t = 10)]
    turnovers: u32,
    /// Write one JSON object per line and measurement here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The settings at which recall is compared.
const SETTINGS: [Setting; 3] = [Setting::Effort(0), Setting::Effort(32), Setting::Effort(128)];

/// Replaces and measures.
pub(crate) fn run(arguments: &ChurnArguments) -> Result<(), BenchError> {
    let mut corpus = Corpus::read(&arguments.corpus, None, None)?;
    if let Some(count) = arguments.count {
        corpus = corpus.cut(count);
    }
    let mut report = Report::new(arguments.json.as_deref())?;
    let start = Instant::now();
    let mut cairn = Cairn::build(&corpus.base, corpus.base.rows())?;
    for turn in 0..=arguments.turnovers {
        let start = if turn == 0 { start } else { Instant::now() };
        if turn > 0 {
            turn_over(&mut cairn.partition, &corpus, turn)?;
        }
        let build = Built { name: format!("cairn turn {turn}"), seconds: start.elapsed().as_secs_f64() };
        if cairn.partition.unreachable() > 0 {
            let reason = format!("{} vectors cannot be reached", cairn.partition.unreachable());
            return Err(BenchError::Format { path: build.name, reason });
        }
        for setting in SETTINGS {
            report.add(&measure(&cairn, setting, &corpus, &build)?)?;
        }
    }
    Ok(())
}

/// Replaces every vector once, in a mixed order: one half by removing the memory and adding another, the other by giving the
/// memory another vector and then its own again.
fn turn_over(partition: &mut Partition, corpus: &Corpus, turn: u32) -> Result<(), BenchError> {
    let rows = corpus.base.rows();
    let mut order: Vec<usize> = (0..rows).collect();
    let mixed =
        |row: &usize| ((*row as u64) << 32 | u64::from(turn)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    order.sort_by_key(|row| mixed(row).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    for row in order {
        let own = key_of_turn(row, turn);
        let removed = key_of_turn(row, turn - 1);
        if row % 2 == 0 {
            partition.remove(&removed);
            add(partition, own, row, corpus.base.row(row))?;
        } else {
            // Its key stays.
            add(partition, key_of_turn(row, 0), row, corpus.base.row((row + 1) % rows))?;
            add(partition, key_of_turn(row, 0), row, corpus.base.row(row))?;
        }
        partition.maintain(3);
    }
    while partition.maintain(1000) > 0 {}
    Ok(())
}

fn add(partition: &mut Partition, key: MemoryKey, row: usize, vector: &[f32]) -> Result<(), BenchError> {
    partition.upsert(key, row.to_string().as_bytes(), &(), Some(vector))?;
    Ok(())
}
