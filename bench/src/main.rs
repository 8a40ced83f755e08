//! Measures Cairn; the numbers stand in `docs/decisions/`, each with its machine.
//!
//! | bench | measures |
//! |---|---|
//! | `benches/codec` | protobuf against bincode and postcard on the messages of log and store |
//! | `benches/apply` | how long searches wait for large writes to their space |
//! | `benches/index` | the index's hot paths: flat scans, the graph, a filter, linking |
//! | `benches/restart` | how long a large space takes to answer after a restart |
//! | `benches/seal` | sealing and opening of records and frames, lookup ids |
//! | the subcommands of this program | the index on a corpus; a table, and with `--json FILE` one JSON object per line |
//!
//! Run the benches with `make bench`, or one of them with `cargo bench --package cairn-bench --bench seal`; the last with
//!
//! ```text
//! cargo run --release -p cairn-bench -- index --corpus DIR [--queries Q.npy --truth T.npy] [--json FILE]
//! cargo run --release -p cairn-bench -- filters --corpus DIR [--json FILE]
//! cargo run --release -p cairn-bench -- cluster --nodes 3 --clients 1,8,64,512 --seconds 20 [--peer etcd|postgres] [--json FILE]
//! cargo run --release -p cairn-bench -- churn --corpus DIR [--json FILE]
//! cargo run --release -p cairn-bench -- mixed --corpus DIR [--json FILE]
//! cargo run --release -p cairn-bench -- tenants [--json FILE]
//! ```
//!
//! | file | measures or holds |
//! |---|---|
//! | `index.rs` | searches of the index: recall, speed, build, memory |
//! | `filters.rs` | searches with filters, by the share of vectors that match |
//! | `churn.rs` | recall and speed after every vector was replaced, again and again |
//! | `mixed.rs` | searches under a steady stream of writes |
//! | `tenants.rs` | memory and searches of many small partitions |
//! | `serve.rs` | the same as `index`, driven line by line by `bench/peers` |
//! | `cluster/` | whole clusters of processes under load, and etcd or Postgres beside them |
//! | `systems.rs` | what is measured, behind one trait |
//! | `corpus.rs` | the vectors, queries and true neighbours |
//! | `npy.rs` | the reader of `.npy` files |
//! | `report.rs` | measurements as a table and as JSON lines |

mod churn;
mod cluster;
mod corpus;
mod filters;
mod index;
mod mixed;
mod npy;
mod report;
mod serve;
mod systems;
mod tenants;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Cairn.
#[derive(Parser)]
#[command(name = "cairn-bench")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Recall, speed, build time and memory of the index.
    Index(index::IndexArguments),
    /// Recall and speed of searches with filters, by the share of vectors that match.
    Filters(filters::FilterArguments),
    /// Recall and speed after every vector was replaced, again and again.
    Churn(churn::ChurnArguments),
    /// How long searches take while others write.
    Mixed(mixed::MixedArguments),
    /// Memory and searches of many small partitions.
    Tenants(tenants::TenantArguments),
    /// Whole clusters under load, and other systems beside them.
    Cluster(cluster::ClusterArguments),
    /// Builds, then measures a setting for each line of input.
    Serve(serve::ServeArguments),
}

/// What can end a bench.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{path}: {reason}")]
    Format { path: String, reason: String },
    #[error("the index refused: {0}")]
    Index(#[from] cairn_index::IndexError),
    #[error("{0}")]
    Cluster(String),
    #[error("cannot read or write: {0}")]
    Output(#[from] std::io::Error),
}

#[expect(clippy::print_stderr, reason = "the one place where a bench says why it ended")]
fn main() -> ExitCode {
    let result = match Arguments::parse().bench {
        Bench::Index(arguments) => index::run(&arguments),
        Bench::Filters(arguments) => filters::run(&arguments),
        Bench::Churn(arguments) => churn::run(&arguments),
        Bench::Mixed(arguments) => mixed::run(&arguments),
        Bench::Tenants(arguments) => tenants::run(&arguments),
        Bench::Cluster(arguments) => cluster::run(&arguments),
        Bench::Serve(arguments) => serve::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
