//! Whole clusters under load: real processes on loopback with real fdatasync, this program as their clients, and etcd beside
//! them in the same run.
//!
//! ```text
//! cairn-bench cluster --nodes 3 --clients 1,8,64,512 --seconds 20 [--peer etcd] [--json FILE]
//! ```
//!
//! Every client sends its next call when the last one was answered. Values have 2 KiB, in etcd too. Both systems are given
//! connections to their leader, one for every 64 clients. One JSON object per line: system, nodes, clients, workload, and
//! what was measured.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the workloads and their report |
//! | `load.rs` | closed-loop clients and their latencies |
//! | `usage.rs` | what processes use: processor time, bytes written |
//! | `etcd.rs` | etcd: its processes and its client |

mod etcd;
mod load;
mod usage;

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_client::{Client, Memory, NewSpace, Query};
use cairn_demo::cluster::{Cluster, cairn_binary};
use serde_json::{Value, json};

use crate::BenchError;
use etcd::Etcd;
use load::{Load, Measured};
use usage::Usage;

/// Bytes of a value, in every system.
const VALUE_BYTES: usize = 2 << 10;
const DIMENSION: usize = 384;
const PLAIN: &str = "plain";
const INDEXED: &str = "indexed";
/// How often to look whether the index has caught up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it may take.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub(crate) struct ClusterArguments {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// How many clients at a time, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512")]
    clients: Vec<usize>,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measure another system in the same run.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// The program of etcd; Debian's package is `etcd-server`.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
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
}

/// Carries out the measurements.
pub(crate) fn run(arguments: &ClusterArguments) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut report = Report::new(arguments)?;
        measure_cairn(arguments, &mut report).await?;
        if arguments.peer == Some(Peer::Etcd) {
            measure_etcd(arguments, &mut report).await?;
        }
        Ok(())
    })
}

/// Any failure of a cluster, as text.
pub(crate) fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

async fn measure_cairn(arguments: &ClusterArguments, report: &mut Report) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&arguments.directory)?;
    let cluster = Cluster::start(&cairn_binary(), dir.path(), arguments.nodes).await.map_err(failed)?;
    let setup = Client::builder().endpoints(cluster.endpoints()).build().map_err(failed)?;
    for space in [PLAIN, INDEXED] {
        setup.create_space(NewSpace::new(space, DIMENSION as u32)).await.map_err(failed)?;
    }
    // From the first search on the space has its index.
    search(&setup, 0).await.map_err(failed)?;
    let processes: Vec<u32> = cluster.nodes().iter().filter_map(|node| node.process_id()).collect();
    for &clients in &arguments.clients {
        for (workload, space) in [("add, no index", PLAIN), ("add, index", INDEXED)] {
            let (log, usage) = (log_counters(&cluster).await?, Usage::of(&processes));
            let connections = connections(&cluster, clients).await?;
            let load = Load { clients, seconds: arguments.seconds };
            let measured = load
                .run(move |client, number| {
                    let connection = connections[client % connections.len()].clone();
                    async move { add(&connection, space, client, number).await.is_ok() }
                })
                .await;
            let log = log_counters(&cluster).await?.since(&log);
            let usage = Usage::of(&processes).since(&usage);
            let linked = if space == INDEXED { Some(until_linked(&setup).await?) } else { None };
            let row =
                Row { system: "cairn", workload, clients, measured, linked, log: Some(log), usage, searches: None };
            report.row(arguments, &row)?;
        }
        mix(arguments, &cluster, clients, &processes, report).await?;
    }
    Ok(())
}

/// Nine searches for each add.
async fn mix(
    arguments: &ClusterArguments,
    cluster: &Cluster,
    clients: usize,
    processes: &[u32],
    report: &mut Report,
) -> Result<(), BenchError> {
    let usage = Usage::of(processes);
    let connections = connections(cluster, clients).await?;
    let load = Load { clients, seconds: arguments.seconds };
    let measured = load
        .run(move |client, number| {
            let connection = connections[client % connections.len()].clone();
            async move {
                match number % 10 {
                    0 => add(&connection, INDEXED, client + 1_000_000, number).await.is_ok(),
                    _ => search(&connection, number).await.is_ok(),
                }
            }
        })
        .await;
    let usage = Usage::of(processes).since(&usage);
    let searches = Some(measured.per_second() * 0.9);
    let row =
        Row { system: "cairn", workload: "90 % search", clients, measured, linked: None, log: None, usage, searches };
    report.row(arguments, &row)
}

async fn measure_etcd(arguments: &ClusterArguments, report: &mut Report) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&arguments.directory)?;
    let etcd = Etcd::start(&arguments.etcd, dir.path(), arguments.nodes).await?;
    for &clients in &arguments.clients {
        let usage = Usage::of(&etcd.processes());
        let connections = Arc::new(etcd.connections(clients.div_ceil(64)).await?);
        let load = Load { clients, seconds: arguments.seconds };
        let measured = load
            .run(move |client, number| {
                let mut connection = connections[client % connections.len()].clone();
                async move { connection.put(&format!("k{client}-{number}"), content(client, number)).await.is_ok() }
            })
            .await;
        let usage = Usage::of(&etcd.processes()).since(&usage);
        let row =
            Row { system: "etcd", workload: "put", clients, measured, linked: None, log: None, usage, searches: None };
        report.row(arguments, &row)?;
    }
    Ok(())
}

/// Clients that each have a connection of their own, and begin with the leader.
async fn connections(cluster: &Cluster, clients: usize) -> Result<Arc<Vec<Client>>, BenchError> {
    let any = Client::builder().endpoints(cluster.endpoints()).build().map_err(failed)?;
    let leader = any.status().await.map_err(failed)?.leader_id;
    let mut endpoints = cluster.endpoints();
    if let Some(position) = cluster.nodes().iter().position(|node| node.id == leader) {
        endpoints.swap(0, position);
    }
    let connect = |_| {
        let client = Client::builder().endpoints(endpoints.clone()).deadline(Duration::from_secs(30)).build();
        client.map_err(failed)
    };
    Ok(Arc::new((0..clients.div_ceil(64)).map(connect).collect::<Result<_, _>>()?))
}

async fn add(client: &Client, space: &str, worker: usize, number: u64) -> cairn_client::Result<()> {
    let mut memory = Memory::new(content(worker, number)).id(format!("m{worker}-{number}"));
    if space == INDEXED {
        memory = memory.vector(vector(worker as u64 * 1_000_003 + number));
    }
    client.space(space).add(memory).await.map(drop)
}

async fn search(client: &Client, number: u64) -> cairn_client::Result<u64> {
    let found = client.space(INDEXED).search(Query::vector(vector(number))).limit(10).explain(true).await?;
    Ok(found.plan.map_or(0, |plan| plan.compared))
}

/// How long it takes until the index has linked everything: a search then compares as much as the one before.
async fn until_linked(client: &Client) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let mut last = [0; 3];
    let mut round = 0;
    while began.elapsed() < CAUGHT_UP_WITHIN {
        let compared = search(client, 1).await.map_err(failed)?;
        if last.iter().all(|earlier| *earlier == compared) {
            // The last rounds only confirmed it.
            return Ok(began.elapsed().saturating_sub(LOOK_EVERY * last.len() as u32));
        }
        last[round % last.len()] = compared;
        round += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed("the index does not catch up"))
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Text that hardly compresses, so that no system has an advantage by it.
fn content(worker: usize, number: u64) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let mut next = random(worker as u64 * 7_919 + number);
    (0..VALUE_BYTES).map(|_| char::from(LETTERS[(next() >> 40) as usize % LETTERS.len()])).collect()
}

fn vector(seed: u64) -> Vec<f32> {
    let mut next = random(seed + 17);
    (0..DIMENSION).map(|_| (next() >> 40) as f32 / (1_u64 << 24) as f32 - 0.5).collect()
}

/// What the nodes' logs have done, all together.
#[derive(Debug, Clone, Copy, Default)]
struct LogCounters {
    entries: f64,
    syncs: f64,
}

impl LogCounters {
    fn since(self, before: &Self) -> Self {
        Self { entries: self.entries - before.entries, syncs: self.syncs - before.syncs }
    }
}

async fn log_counters(cluster: &Cluster) -> Result<LogCounters, BenchError> {
    // The metrics follow the log twice a second.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut counters = LogCounters::default();
    for node in cluster.nodes() {
        let text = usage::get(node.http, "/metrics").await?;
        counters.entries += usage::sample(&text, "cairn_wal_entries_total");
        counters.syncs += usage::sample(&text, "cairn_wal_syncs_total");
    }
    Ok(counters)
}

/// One measurement.
struct Row {
    system: &'static str,
    workload: &'static str,
    clients: usize,
    measured: Measured,
    linked: Option<Duration>,
    log: Option<LogCounters>,
    usage: Usage,
    searches: Option<f64>,
}

/// Where measurements go.
struct Report {
    json: Option<BufWriter<File>>,
}

impl Report {
    fn new(arguments: &ClusterArguments) -> Result<Self, BenchError> {
        let json = arguments.json.as_ref().map(File::create).transpose()?.map(BufWriter::new);
        writeln!(
            stdout(),
            "{:<6} {:<14} {:>7} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6} {:>8} {:>6}",
            "system",
            "workload",
            "clients",
            "acked/s",
            "linked/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "entr/fs",
            "w.amp",
            "cpu ms",
            "failed"
        )?;
        Ok(Self { json })
    }

    fn row(&mut self, arguments: &ClusterArguments, row: &Row) -> Result<(), BenchError> {
        let measured = &row.measured;
        let done = measured.done as f64;
        let linked = row.linked.map(|behind| done / (measured.took + behind).as_secs_f64());
        let entries_per_fsync = row.log.map(|log| log.entries / log.syncs.max(1.0));
        let amplification = row.usage.written_bytes as f64 / (done * VALUE_BYTES as f64).max(1.0);
        let cpu_ms = row.usage.cpu.as_secs_f64() * 1e3 / done.max(1.0);
        let text = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.1}"));
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| measured.percentile_ms(share));
        writeln!(
            stdout(),
            "{:<6} {:<14} {:>7} {:>9.0} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>7} {:>6.1} {:>8.2} {:>6}",
            row.system,
            row.workload,
            row.clients,
            measured.per_second(),
            text(linked),
            p50,
            p99,
            p999,
            text(entries_per_fsync),
            amplification,
            cpu_ms,
            measured.failed
        )?;
        let line: Value = json!({
            "system": row.system,
            "nodes": arguments.nodes,
            "clients": row.clients,
            "workload": row.workload,
            "indexed": row.workload == "add, index",
            "acknowledged_per_second": if row.searches.is_none() { measured.per_second() } else { measured.per_second() * 0.1 },
            "linked_per_second": linked,
            "searches_per_second": row.searches,
            "p50_ms": p50,
            "p99_ms": p99,
            "p999_ms": p999,
            "entries_per_fsync": entries_per_fsync,
            "write_amplification": amplification,
            "cpu_ms_per_operation": cpu_ms,
            "operations": measured.done,
            "failed": measured.failed,
        });
        if let Some(json) = &mut self.json {
            writeln!(json, "{line}")?;
            json.flush()?;
        }
        Ok(())
    }
}
