//! Whole clusters under load: real processes on loopback with real fdatasync, this program as their clients, and other
//! systems beside them in the same run.
//!
//! ```text
//! cairn-bench cluster --nodes 3 --clients 1,8,64,512 --seconds 20 [--corpus DIR] [--peer etcd|postgres] [--json FILE]
//! cairn-bench cluster --clients 8 --seconds 0 --fill 300000      bytes written for each byte accepted
//! cairn-bench cluster --clients 8 --seconds 0 --fill-indexed 300000      the same with vectors and their index
//! cairn-bench cluster --clients 8 --seconds 0 --failovers 10     kill -9 of the leader to the next acknowledgement
//! ```
//!
//! Every client sends its next call when the last one was answered. Values have 2 KiB in every system. Cairn and etcd are
//! given connections to their leader, one for every 64 clients; Postgres, one for each client, as it wants. With
//! `--corpus`, or `CAIRN_CORPUS`, the space with the index holds the corpus before the first measurement, and searches are measured by its
//! queries, with their recall. Every node has that index in memory. One JSON object per line: system, nodes, clients, workload,
//! and what was measured.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the arguments |
//! | `nodes.rs` | Cairn: its workloads |
//! | `backlog.rs` | Cairn: what is left to do for acknowledged writes |
//! | `failover.rs` | Cairn: what the death of a leader costs |
//! | `etcd.rs` | etcd: its processes, its client, its workload |
//! | `postgres.rs` | Postgres with pgvector: its process and its workloads |
//! | `values.rs` | what is written and asked for |
//! | `load.rs` | closed-loop clients and their latencies |
//! | `usage.rs` | what processes use: processor time, bytes written |
//! | `report.rs` | the table and the JSON lines |

mod backlog;
mod etcd;
mod failover;
mod load;
mod nodes;
mod postgres;
mod report;
mod usage;
mod values;

use std::path::PathBuf;

use crate::BenchError;
use report::Report;

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub(crate) struct ClusterArguments {
    /// How many nodes of Cairn, and members of etcd.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// How many clients at a time, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512")]
    clients: Vec<usize>,
    /// How long each measurement lasts; 0: none, only what `--fill`, `--fill-indexed` and `--failovers` ask for.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often everything is measured, the systems in turns.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Measure another system in the same run.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// The program of etcd; Debian's package is `etcd-server`.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// The folder of Postgres' programs `initdb` and `postgres`, with the extension `vector` in its place.
    #[arg(long, default_value = "/usr/lib/postgresql/18/bin")]
    postgres: PathBuf,
    /// A folder with a corpus of 384 dimensions, which is loaded first and searched; else the one that `CAIRN_CORPUS` names.
    #[arg(long, env = "CAIRN_CORPUS")]
    corpus: Option<PathBuf>,
    /// Add so many memories at the end, and count what was written for them until compaction has come to rest.
    #[arg(long, default_value_t = 0)]
    fill: u64,
    /// The same with vectors, in the space with the index, until all are linked and its checkpoints are written too.
    #[arg(long, default_value_t = 0)]
    fill_indexed: u64,
    /// Kill the leader so often at the end, and take the time to the next acknowledged write.
    #[arg(long, default_value_t = 0)]
    failovers: usize,
    /// Where the data lies: on a real disk.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Write one JSON object per line and measurement here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Systems to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// As many members of etcd, puts.
    Etcd,
    /// One Postgres with pgvector: adds with the index in place, and searches.
    Postgres,
}

/// Carries out the measurements.
pub(crate) fn run(arguments: &ClusterArguments) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let corpus = values::corpus(arguments.corpus.as_deref())?;
        let mut report = Report::new(arguments.json.as_deref())?;
        for _ in 0..arguments.rounds {
            nodes::measure(arguments, corpus.as_ref(), &mut report).await?;
            match arguments.peer {
                Some(Peer::Etcd) => etcd::measure(arguments, &mut report).await?,
                Some(Peer::Postgres) => postgres::measure(arguments, corpus.as_ref(), &mut report).await?,
                None => {}
            }
        }
        Ok(())
    })
}

/// Any failure of a cluster, as text.
pub(crate) fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}
