//! Postgres with pgvector as a peer: one server with its usual durability, an HNSW index in place, and prepared statements
//! over connections of their own.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, Statement};

use super::etcd::free_address;
use super::load::{Load, Measured};
use super::nodes::{Found, query_of};
use super::report::{Report, Row};
use super::usage::Usage;
use super::values::{DIMENSION, HITS, VALUE_BYTES, content, found_rows, row_id, vector_of};
use super::{ClusterArguments, failed};
use crate::BenchError;
use crate::corpus::Corpus;

const SYSTEM: &str = "postgres";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The user that a server runs as where this program is root, whom Postgres refuses: nobody.
const UNPRIVILEGED: u32 = 65_534;
/// What searches are asked to spend, in the words of pgvector; 40 is its default.
const EF_SEARCH: [u32; 4] = [40, 100, 200, 400];
const TABLE: &str = "CREATE EXTENSION IF NOT EXISTS vector;
    CREATE TABLE memories (id text PRIMARY KEY, content text NOT NULL, embedding vector(384));";
const INDEX: &str = "CREATE INDEX ON memories USING hnsw (embedding vector_cosine_ops)";
const INSERT: &str = "INSERT INTO memories VALUES ($1, $2, $3::real[]::vector)";
const SEARCH: &str = "SELECT id FROM memories ORDER BY embedding <=> $1::real[]::vector LIMIT 10";

/// Adds with the index in place, and searches of the corpus where there is one.
pub(super) async fn measure(
    arguments: &ClusterArguments,
    corpus: Option<&Arc<Corpus>>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&arguments.directory)?;
    let connections = arguments.clients.iter().max().copied().unwrap_or(1) + 8;
    let server = Server::start(&arguments.postgres, dir.path(), connections).await?;
    let setup = server.connect().await?;
    setup.batch_execute(TABLE).await.map_err(failed)?;
    if let Some(corpus) = corpus {
        load(&setup, corpus).await?;
    }
    setup.batch_execute(INDEX).await.map_err(failed)?;
    for &clients in &arguments.clients {
        server.adds(arguments, clients, report).await?;
        if let Some(corpus) = corpus {
            server.searches(arguments, clients, corpus, report).await?;
        }
    }
    Ok(())
}

async fn load(setup: &Client, corpus: &Corpus) -> Result<(), BenchError> {
    let insert = setup.prepare(INSERT).await.map_err(failed)?;
    setup.batch_execute("BEGIN").await.map_err(failed)?;
    for row in 0..corpus.base.rows() {
        let text = format!("entry {row} of the corpus");
        setup.execute(&insert, &[&row_id(row), &text, &corpus.base.row(row)]).await.map_err(failed)?;
    }
    setup.batch_execute("COMMIT; ANALYZE memories").await.map_err(failed)
}

/// A running server; its processes end with this value.
struct Server {
    address: SocketAddr,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself. Its children notice that it is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    async fn start(programs: &Path, directory: &Path, connections: usize) -> Result<Self, BenchError> {
        let data = directory.join("postgres");
        std::fs::create_dir(&data)?;
        if rustix::process::geteuid().is_root() {
            chown(directory, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
            chown(&data, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let initdb = program(programs.join("initdb"), directory)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
            .arg(&data)
            .output()?;
        if !initdb.status.success() {
            return Err(failed(format!("initdb: {}", String::from_utf8_lossy(&initdb.stderr).trim())));
        }
        let address = free_address()?;
        let log = std::fs::File::create(directory.join("postgres.log"))?;
        let settings = [
            format!("port={}", address.port()),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            format!("max_connections={connections}"),
            "shared_buffers=1GB".into(),
            "maintenance_work_mem=1GB".into(),
            "max_wal_size=4GB".into(),
        ];
        let mut command = program(programs.join("postgres"), directory);
        command.arg("-D").arg(&data).args(settings.iter().flat_map(|setting| ["-c", setting]));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let server = Self { address, process };
        let began = Instant::now();
        while let Err(error) = server.connect().await {
            if began.elapsed() > READY_WITHIN {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(server)
    }

    async fn connect(&self) -> Result<Client, BenchError> {
        let parameters = format!("host=127.0.0.1 port={} user=postgres", self.address.port());
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.map_err(failed)?;
        // Ends with its client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// The server and its children, of which each connection has one.
    fn processes(&self) -> Vec<u32> {
        let own = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }

    /// So many connections, each with its statement.
    async fn connections(
        &self,
        count: usize,
        setting: &str,
        statement: &str,
    ) -> Result<Arc<Vec<(Client, Statement)>>, BenchError> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let client = self.connect().await?;
            client.batch_execute(setting).await.map_err(failed)?;
            let statement = client.prepare(statement).await.map_err(failed)?;
            connections.push((client, statement));
        }
        Ok(Arc::new(connections))
    }

    fn row(&self, workload: &str, clients: usize, measured: Measured, before: &Usage) -> Row {
        let usage = Usage::of(&self.processes()).since(before);
        Row { usage, ..Row::new(SYSTEM, 1, workload, clients, measured) }
    }

    async fn adds(&self, arguments: &ClusterArguments, clients: usize, report: &mut Report) -> Result<(), BenchError> {
        let connections = self.connections(clients, "", INSERT).await?;
        let held = Arc::clone(&connections);
        let usage = Usage::of(&self.processes());
        let run = Load { clients, seconds: arguments.seconds }.run(move |client, number| {
            let connections = Arc::clone(&connections);
            async move {
                let (connection, insert) = &connections[client];
                let (id, text) = (format!("m{client}-{number}"), content(client, number));
                connection.execute(insert, &[&id, &text, &vector_of(client, number)]).await.is_ok()
            }
        });
        let mut row = self.row("add, index", clients, run.await, &usage);
        row.accepted_bytes = row.measured.done * (VALUE_BYTES + DIMENSION * size_of::<f32>()) as u64;
        // What is acknowledged is in the index.
        row.linked_after = Some(Duration::ZERO);
        row.indexed = true;
        drop(held);
        report.row(&row)
    }

    async fn searches(
        &self,
        arguments: &ClusterArguments,
        clients: usize,
        corpus: &Arc<Corpus>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        for ef in EF_SEARCH {
            let connections = self.connections(clients, &format!("SET hnsw.ef_search = {ef}"), SEARCH).await?;
            let held = Arc::clone(&connections);
            let found = Arc::new(Found::default());
            let usage = Usage::of(&self.processes());
            let (corpus, counted) = (Arc::clone(corpus), Arc::clone(&found));
            let run = Load { clients, seconds: arguments.seconds }.run(move |client, number| {
                let (connections, corpus) = (Arc::clone(&connections), Arc::clone(&corpus));
                let found = Arc::clone(&counted);
                async move {
                    let (connection, search) = &connections[client];
                    let query = query_of(&corpus, client, number);
                    let Ok(rows) = connection.query(search, &[&corpus.queries.row(query)]).await else { return false };
                    found.count(corpus.recall(query, &found_rows(rows.iter().map(|row| row.get(0)))));
                    rows.len() == HITS
                }
            });
            let row = self.row(&format!("search, ef {ef}"), clients, run.await, &usage);
            drop(held);
            let searches = row.measured.done;
            report.row(&Row { indexed: true, searches, recall: Some(found.recall()), ..row })?;
        }
        Ok(())
    }
}

/// A program of Postgres, as a user that it accepts.
fn program(path: PathBuf, directory: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(directory);
    if rustix::process::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}
