//! Cairn under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Client, Memory, NewSpace, Query, batches};
use cairn_demo::cluster::{Cluster, cairn_binary};
use futures::StreamExt;
use futures::stream;

use super::load::{Load, Measured};
use super::report::{LogCounters, Report, Row};
use super::usage::Usage;
use super::values::{DIMENSION, HITS, VALUE_BYTES, content, found_rows, row_id, vector, vector_of};
use super::{ClusterArguments, backlog, failed, failover};
use crate::BenchError;
use crate::corpus::Corpus;

const SYSTEM: &str = "cairn";
pub(super) const PLAIN: &str = "plain";
const INDEXED: &str = "indexed";
/// What searches over the corpus are asked to spend; 0: what is used where nobody asks.
const EFFORTS: [u32; 4] = [0, 32, 64, 128];
/// Memories in a call of a fill, and calls under way.
const FILL_BATCH: u64 = 20;
const FILL_CALLS: usize = 8;
/// A fill of an index with fewer vectors than this may be too little for a checkpoint.
const KEPT_FROM: u64 = 20_000;

/// A cluster of the bench and what is measured on it.
struct Bench<'a> {
    arguments: &'a ClusterArguments,
    cluster: &'a Cluster,
    processes: Vec<u32>,
    corpus: Option<&'a Arc<Corpus>>,
}

pub(super) async fn measure(
    arguments: &ClusterArguments,
    corpus: Option<&Arc<Corpus>>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&arguments.directory)?;
    let mut cluster = Cluster::start(&cairn_binary(), dir.path(), arguments.nodes).await.map_err(failed)?;
    let setup = Client::builder().endpoints(cluster.endpoints()).build().map_err(failed)?;
    for space in [PLAIN, INDEXED] {
        setup.create_space(NewSpace::new(space, DIMENSION as u32)).await.map_err(failed)?;
    }
    if let Some(corpus) = corpus {
        load(&setup, corpus).await?;
    }
    let processes = cluster.nodes().iter().filter_map(|node| node.process_id()).collect();
    let bench = Bench { arguments, cluster: &cluster, processes, corpus };
    backlog::open_everywhere(&cluster, INDEXED).await?;
    backlog::until_linked(&cluster).await?;
    if arguments.seconds > 0 {
        for &clients in &arguments.clients {
            bench.adds(clients, report).await?;
            bench.searches(clients, report).await?;
            bench.mix(clients, report).await?;
        }
    }
    for (space, count) in [(PLAIN, arguments.fill), (INDEXED, arguments.fill_indexed)] {
        if count > 0 {
            bench.fill(space, count, report).await?;
        }
    }
    if arguments.failovers > 0 {
        failover::measure(&mut cluster, arguments.failovers, report).await?;
    }
    Ok(())
}

async fn load(client: &Client, corpus: &Corpus) -> Result<(), BenchError> {
    let rows = (0..corpus.base.rows()).map(|row| {
        let text = format!("entry {row} of the corpus");
        Memory::new(text).id(row_id(row)).vector(corpus.base.row(row).to_vec())
    });
    for batch in batches(rows) {
        client.space(INDEXED).add_all(batch).await.map_err(failed)?;
    }
    Ok(())
}

impl Bench<'_> {
    fn row(&self, workload: &str, clients: usize, measured: Measured, before: &Usage) -> Row {
        let usage = Usage::of(&self.processes).since(before);
        Row { usage, ..Row::new(SYSTEM, self.arguments.nodes, workload, clients, measured) }
    }

    fn load(&self, clients: usize) -> Load {
        Load { clients, seconds: self.arguments.seconds }
    }

    async fn adds(&self, clients: usize, report: &mut Report) -> Result<(), BenchError> {
        for (workload, space) in [("add, no index", PLAIN), ("add, index", INDEXED)] {
            let connections = self.connections(clients).await?;
            let (log, usage) = (self.log_counters().await?, Usage::of(&self.processes));
            let run = self.load(clients).run(move |client, number| {
                let connection = connections[client % connections.len()].clone();
                async move { add(&connection, space, client, number).await.is_ok() }
            });
            let mut row = self.row(workload, clients, run.await, &usage);
            row.accepted_bytes = row.measured.done * accepted_bytes(space);
            row.indexed = space == INDEXED;
            if row.indexed {
                row.linked_after = Some(backlog::until_linked(self.cluster).await?);
            }
            row.log = Some(self.log_counters().await?.since(&log));
            report.row(&row)?;
        }
        Ok(())
    }

    /// Searches of the corpus, at several efforts.
    async fn searches(&self, clients: usize, report: &mut Report) -> Result<(), BenchError> {
        let Some(corpus) = self.corpus else { return Ok(()) };
        for effort in EFFORTS {
            let connections = self.connections(clients).await?;
            let found = Arc::new(Found::default());
            let usage = Usage::of(&self.processes);
            let (corpus, counted) = (Arc::clone(corpus), Arc::clone(&found));
            let run = self.load(clients).run(move |client, number| {
                let connection = connections[client % connections.len()].clone();
                let (corpus, found) = (Arc::clone(&corpus), Arc::clone(&counted));
                async move { search_corpus(&connection, &corpus, client, number, effort, &found).await }
            });
            let workload = if effort == 0 { "search".to_string() } else { format!("search, effort {effort}") };
            let row = self.row(&workload, clients, run.await, &usage);
            let searches = row.measured.done;
            report.row(&Row { indexed: true, searches, recall: Some(found.recall()), ..row })?;
        }
        Ok(())
    }

    /// Nine searches for each add: the corpus's queries, where there is one.
    async fn mix(&self, clients: usize, report: &mut Report) -> Result<(), BenchError> {
        let connections = self.connections(clients).await?;
        let (found, added) = (Arc::new(Found::default()), Arc::new(AtomicU64::new(0)));
        let usage = Usage::of(&self.processes);
        let (corpus, counted, counted_adds) = (self.corpus.map(Arc::clone), Arc::clone(&found), Arc::clone(&added));
        let run = self.load(clients).run(move |client, number| {
            let connection = connections[client % connections.len()].clone();
            let (corpus, found, added) = (corpus.clone(), Arc::clone(&counted), Arc::clone(&counted_adds));
            async move {
                match corpus {
                    _ if number.is_multiple_of(10) => {
                        let is_added = add(&connection, INDEXED, client + 1_000_000, number).await.is_ok();
                        added.fetch_add(u64::from(is_added), Ordering::Relaxed);
                        is_added
                    }
                    Some(corpus) => search_corpus(&connection, &corpus, client, number, 0, &found).await,
                    None => search(&connection, vector(number), 0).await.is_ok(),
                }
            }
        });
        let row = self.row("90 % search", clients, run.await, &usage);
        let recall = self.corpus.map(|_| found.recall());
        let searches = row.measured.done - added.load(Ordering::Relaxed);
        report.row(&Row { indexed: true, searches, recall, ..row })
    }

    /// Many memories, and what was written for them once all of them are linked, checkpoints are written and compaction has come
    /// to rest.
    async fn fill(&self, space: &str, count: u64, report: &mut Report) -> Result<(), BenchError> {
        let client = Client::builder().endpoints(self.cluster.endpoints()).build().map_err(failed)?;
        let is_indexed = space == INDEXED;
        let checkpoints = backlog::checkpoints(self.cluster).await?;
        let usage = Usage::of(&self.processes);
        let began = Instant::now();
        let calls = (0..count.div_ceil(FILL_BATCH)).map(|call| {
            let (numbers, space) = (call * FILL_BATCH..(call + 1) * FILL_BATCH, client.space(space));
            async move { space.add_all(numbers.map(|number| filling(number, is_indexed))).await.map(drop) }
        });
        let mut calls = stream::iter(calls).buffer_unordered(FILL_CALLS);
        let mut measured = Measured::default();
        while let Some(added) = calls.next().await {
            added.map_err(failed)?;
            measured.done += FILL_BATCH;
        }
        measured.took = began.elapsed();
        let mut linked_after = None;
        if is_indexed {
            linked_after = Some(backlog::until_linked(self.cluster).await?);
            if count >= KEPT_FROM {
                backlog::until_checkpoints(self.cluster, &checkpoints).await?;
            }
        }
        backlog::until_rest(&self.processes).await;
        let workload = if is_indexed { "fill, index" } else { "fill" };
        let row = self.row(workload, FILL_CALLS, measured, &usage);
        let accepted_bytes = row.measured.done * accepted_bytes(space);
        report.row(&Row { indexed: is_indexed, linked_after, accepted_bytes, is_at_rest: true, ..row })
    }

    /// Clients that each have a connection of their own, and begin with the leader.
    async fn connections(&self, clients: usize) -> Result<Arc<Vec<Client>>, BenchError> {
        let any = Client::builder().endpoints(self.cluster.endpoints()).build().map_err(failed)?;
        let leader = any.status().await.map_err(failed)?.leader_id;
        let mut endpoints = self.cluster.endpoints();
        if let Some(position) = self.cluster.nodes().iter().position(|node| node.id == leader) {
            endpoints.swap(0, position);
        }
        let connect = |_| {
            let client = Client::builder().endpoints(endpoints.clone()).deadline(Duration::from_secs(30)).build();
            client.map_err(failed)
        };
        Ok(Arc::new((0..clients.div_ceil(64)).map(connect).collect::<Result<_, _>>()?))
    }

    async fn log_counters(&self) -> Result<LogCounters, BenchError> {
        tokio::time::sleep(backlog::METRICS_BEHIND).await;
        let entries = backlog::sum(self.cluster, "cairn_wal_entries_total").await?;
        Ok(LogCounters { entries, syncs: backlog::sum(self.cluster, "cairn_wal_syncs_total").await? })
    }
}

/// What searches have found of what they should.
#[derive(Default)]
pub(super) struct Found {
    searches: AtomicU64,
    /// In hundredths of the true neighbours of a search.
    hundredths: AtomicU64,
}

impl Found {
    pub(super) fn count(&self, recall: f64) {
        self.searches.fetch_add(1, Ordering::Relaxed);
        self.hundredths.fetch_add((recall * 100.0).round() as u64, Ordering::Relaxed);
    }

    pub(super) fn recall(&self) -> f64 {
        let searches = self.searches.load(Ordering::Relaxed).max(1);
        self.hundredths.load(Ordering::Relaxed) as f64 / 100.0 / searches as f64
    }
}

/// The query that a client asks next; clients begin at different ones.
pub(super) fn query_of(corpus: &Corpus, client: usize, number: u64) -> usize {
    (client * 97 + (number % (1 << 24)) as usize) % corpus.queries.rows()
}

async fn search_corpus(
    client: &Client,
    corpus: &Corpus,
    worker: usize,
    number: u64,
    effort: u32,
    found: &Found,
) -> bool {
    let query = query_of(corpus, worker, number);
    let Ok(ids) = search(client, corpus.queries.row(query).to_vec(), effort).await else { return false };
    found.count(corpus.recall(query, &found_rows(ids.iter().map(String::as_str))));
    true
}

/// The ids of what is nearest to a vector in the space with the index.
async fn search(client: &Client, vector: Vec<f32>, effort: u32) -> cairn_client::Result<Vec<String>> {
    let search = client.space(INDEXED).search(Query::vector(vector)).limit(HITS as u32);
    let search = if effort == 0 { search } else { search.effort(effort) };
    Ok(search.await?.hits.into_iter().map(|hit| hit.memory.id).collect())
}

/// What a client hands over with one memory, ids aside.
fn accepted_bytes(space: &str) -> u64 {
    (VALUE_BYTES + if space == INDEXED { DIMENSION * size_of::<f32>() } else { 0 }) as u64
}

pub(super) async fn add(client: &Client, space: &str, worker: usize, number: u64) -> cairn_client::Result<()> {
    let mut memory = Memory::new(content(worker, number)).id(format!("m{worker}-{number}"));
    if space == INDEXED {
        memory = memory.vector(vector_of(worker, number));
    }
    client.space(space).add(memory).await.map(drop)
}

/// A memory of a fill.
fn filling(number: u64, is_indexed: bool) -> Memory {
    // No other worker has this number.
    let worker = usize::MAX >> 32;
    let memory = Memory::new(content(worker, number)).id(format!("f{number}"));
    if is_indexed { memory.vector(vector_of(worker, number)) } else { memory }
}
