//! [`Cluster`]: real `cairn start` processes on free loopback ports, with everything they write in one directory.
//!
//! ```text
//! DIRECTORY/root.key          32 bytes as hex, mode 0600
//! DIRECTORY/node-1.yaml       the configuration
//! DIRECTORY/node-1.log        what the process says, over all its lives
//! DIRECTORY/node-1/           the data directory
//! ```
//!
//! Processes are ended by their id only, and all of them when the value is dropped, unless [`Cluster::leave_running`].

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Client, proto};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a node may take from its start until it is ready.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(40);
const POLL_EVERY: Duration = Duration::from_millis(50);
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const LOG_LINES_SHOWN: usize = 30;

/// Where the program is: `CAIRN_BIN`, else beside the running program, where cargo puts what it builds.
pub fn cairn_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CAIRN_BIN") {
        return PathBuf::from(path);
    }
    let running = std::env::current_exe().unwrap_or_default();
    let beside = running.ancestors().skip(1).take(2).map(|folder| folder.join("cairn")).find(|path| path.is_file());
    beside.unwrap_or_else(|| PathBuf::from("cairn"))
}

/// What went wrong with the processes.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or a process could not be made.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process ended that should run.
    #[error("node {node} ended by itself with {status}; the end of its log:\n{log}")]
    Ended {
        /// The node.
        node: u64,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A process runs, but did not get to where it should in time.
    #[error("node {node} was not {state} within {} s; the end of its log:\n{log}", limit.as_secs())]
    Slow {
        /// The node.
        node: u64,
        /// What it should be.
        state: &'static str,
        /// The time that it had.
        limit: Duration,
        /// The last lines of its log.
        log: String,
    },
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let doing = doing.into();
    move |source| ClusterError::System { doing, source }
}

/// One node: where it listens, and its process while it has one.
#[derive(Debug)]
pub struct Node {
    /// Its number, from 1.
    pub id: u64,
    /// For clients.
    pub grpc: SocketAddr,
    /// For the other nodes.
    pub peer: SocketAddr,
    /// For probes and metrics.
    pub http: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// What its process begins with, before the program.
    launcher: Vec<String>,
    /// Whether it joins a cluster that is there.
    joins: bool,
    child: Option<Child>,
}

impl Node {
    /// Its address as the client wants it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The id of its process, while it has one.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Err(error) = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text)) {
            return format!("(no log: {error})");
        }
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// What it says of itself; `limit` is how long it may take to answer.
    ///
    /// # Errors
    /// A node that does not answer.
    pub async fn state(&self, limit: Duration) -> cairn_client::Result<proto::NodeState> {
        let status = Client::builder().endpoints([self.endpoint()]).deadline(limit).build()?.status().await?;
        let own = status.members.into_iter().find(|member| member.node_id == self.id);
        Ok(own.and_then(|member| member.state).unwrap_or_default())
    }

    /// A metric without labels, as the node tells it now; nothing where it does not answer or has no such metric.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics").await?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Asks the HTTP port for a page; the status, or nothing where there is no answer.
    async fn probe(&self, page: &str) -> Option<u16> {
        self.page(page).await?.split_whitespace().nth(1)?.parse().ok()
    }

    /// Head and body of a page of the HTTP port.
    async fn page(&self, page: &str) -> Option<String> {
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(self.http).await?;
            stream.write_all(format!("GET {page} HTTP/1.0\r\nHost: {}\r\n\r\n", self.http).as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(PROBE_WITHIN, ask).await.ok()?.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Ends the process at once, with SIGKILL, and waits until it is gone.
    fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

/// The nodes of one cluster and their directory.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    nodes: Vec<Node>,
    leave_running: bool,
}

impl Cluster {
    /// Writes the root key and the configurations of `count` nodes into `directory`, which must exist. Starts nothing.
    ///
    /// # Errors
    /// A file that cannot be written, or no free ports.
    pub fn new(binary: &Path, directory: &Path, count: u64) -> Result<Self, ClusterError> {
        let nodes = (1..=count).map(|id| new_node(directory, id)).collect::<Result<_, _>>()?;
        write_root_key(&directory.join("root.key")).map_err(system("writing the root key"))?;
        let cluster = Self { binary: binary.to_owned(), directory: directory.to_owned(), nodes, leave_running: false };
        cluster.nodes.iter().try_for_each(|node| cluster.write_configuration(node))?;
        Ok(cluster)
    }

    /// Writes the configuration of a further node, which joins the cluster of the others, and returns its id. It is neither
    /// added nor started.
    ///
    /// # Errors
    /// A file that cannot be written, or no free ports.
    pub fn newcomer(&mut self) -> Result<u64, ClusterError> {
        let id = self.nodes.len() as u64 + 1;
        self.nodes.push(Node { joins: true, ..new_node(&self.directory, id)? });
        self.write_configuration(self.node(id))?;
        Ok(id)
    }

    /// Has a node that was not started yet listen at `host` in place of loopback, and its process begin with `launcher`, such as
    /// `ip netns exec NAME`. Writes anew the configurations of all that know its address by them.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn place(&mut self, id: u64, host: Ipv4Addr, launcher: &[&str]) -> Result<(), ClusterError> {
        let node = &mut self.nodes[position(id)];
        for address in [&mut node.grpc, &mut node.peer, &mut node.http] {
            address.set_ip(host.into());
        }
        node.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        let joins = node.joins;
        let concerned = self.nodes.iter().filter(|other| !joins || other.id == id);
        concerned.into_iter().try_for_each(|other| self.write_configuration(other))
    }

    /// [`Cluster::new`], then starts every node and waits until all are ready.
    ///
    /// # Errors
    /// Whatever keeps a node from becoming ready, with the end of its log.
    pub async fn start(binary: &Path, directory: &Path, count: u64) -> Result<Self, ClusterError> {
        let mut cluster = Self::new(binary, directory, count)?;
        for id in 1..=count {
            cluster.start_node(id)?;
        }
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    fn write_configuration(&self, node: &Node) -> Result<(), ClusterError> {
        fs::write(&node.config, self.configuration(node)).map_err(system("writing a configuration"))
    }

    fn configuration(&self, node: &Node) -> String {
        // Strings in the manner of JSON, which YAML understands whatever a path contains.
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let mut text = format!(
            "node:\n  id: {}\n  data_dir: {}\nlisten:\n  grpc: {}\n  peer: {}\n  http: {}\nroot_key:\n  file: {}\n",
            node.id,
            quoted(&node.data),
            node.grpc,
            node.peer,
            node.http,
            quoted(&self.directory.join("root.key")),
        );
        if !node.grpc.ip().is_loopback() {
            text.push_str("security:\n  allow_unauthenticated_remote: true\n");
        }
        text.push_str("cluster:\n  peers:\n");
        for peer in &self.nodes {
            let _ = writeln!(
                text,
                "    - {{ id: {}, peer_address: \"{}\", client_address: \"{}\" }}",
                peer.id, peer.peer, peer.grpc
            );
        }
        if node.joins {
            text.push_str("  join: true\n");
        }
        text
    }

    /// The directory of all files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All nodes, in the order of their ids.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The addresses of all nodes, for a client.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::endpoint).collect()
    }

    /// The node with this id; ids count from 1.
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[position(id)]
    }

    /// Starts a node that is not running; it goes on with the data that it has.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start_node(&mut self, id: u64) -> Result<(), ClusterError> {
        let node = &mut self.nodes[position(id)];
        let log = OpenOptions::new().create(true).append(true).open(&node.log).map_err(system("opening a log"))?;
        let copy = log.try_clone().map_err(system("opening a log"))?;
        let program = self.binary.as_os_str();
        let mut words = node.launcher.iter().map(AsRef::as_ref).chain([program]);
        let child = Command::new(words.next().unwrap_or(program))
            .args(words)
            .arg("start")
            .arg("--config")
            .arg(&node.config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            // A Ctrl-C at the terminal is for the caller, who ends the nodes itself or leaves them running.
            .process_group(0)
            .spawn()
            .map_err(system(format!("starting {}", self.binary.display())))?;
        node.child = Some(child);
        Ok(())
    }

    /// Ends a node at once, as `kill -9` does.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn kill(&mut self, id: u64) -> Result<(), ClusterError> {
        self.nodes[position(id)].kill().map_err(system(format!("killing node {id}")))
    }

    /// Asks a node to stop, with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// A node that does not stop in time.
    pub async fn stop(&mut self, id: u64) -> Result<ExitStatus, ClusterError> {
        let node = &mut self.nodes[position(id)];
        let Some(child) = node.child.as_mut() else { return Ok(ExitStatus::default()) };
        let stopping = || system(format!("stopping node {id}"));
        kill_process(Pid::from_child(child), Signal::TERM).map_err(|error| stopping()(error.into()))?;
        let begun = Instant::now();
        while begun.elapsed() < STOPPED_WITHIN {
            if let Some(status) = child.try_wait().map_err(stopping())? {
                node.child = None;
                return Ok(status);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Err(ClusterError::Slow { node: id, state: "stopped", limit: STOPPED_WITHIN, log: node.log_tail() })
    }

    /// Waits until every node that has a process says that it is ready.
    ///
    /// # Errors
    /// A node that ends, or is not ready in time.
    pub async fn wait_until_ready(&mut self) -> Result<(), ClusterError> {
        let begun = Instant::now();
        for node in &mut self.nodes {
            while let Some(child) = node.child.as_mut() {
                if let Some(status) = child.try_wait().map_err(system("waiting for a node"))? {
                    node.child = None;
                    return Err(ClusterError::Ended { node: node.id, status, log: node.log_tail() });
                }
                if node.probe("/readyz").await == Some(200) {
                    break;
                }
                if begun.elapsed() > READY_WITHIN {
                    let log = node.log_tail();
                    return Err(ClusterError::Slow { node: node.id, state: "ready", limit: READY_WITHIN, log });
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
        Ok(())
    }

    /// Waits until all nodes that have a process have applied the same entries, or `limit` is over; returns what each
    /// says of itself, in the order of their ids.
    ///
    /// # Errors
    /// A node that does not answer.
    pub async fn settled_states(&self, limit: Duration) -> cairn_client::Result<Vec<(u64, proto::NodeState)>> {
        let begun = Instant::now();
        loop {
            let mut states = Vec::new();
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                states.push((node.id, node.state(limit).await?));
            }
            let together = states.iter().all(|(_, state)| state.applied_index == states[0].1.applied_index);
            if together || begun.elapsed() > limit {
                return Ok(states);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Lets the processes live on when this value is dropped.
    pub fn leave_running(&mut self) {
        self.leave_running = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.leave_running {
            return;
        }
        for node in &mut self.nodes {
            // Nobody is left to tell; a process that cannot be killed is gone already.
            let _ = node.kill();
        }
    }
}

/// A node without a process, on free ports.
fn new_node(directory: &Path, id: u64) -> Result<Node, ClusterError> {
    let path = |suffix: &str| directory.join(format!("node-{id}{suffix}"));
    let address = || free_address().map_err(system("looking for a free port"));
    let (grpc, peer, http) = (address()?, address()?, address()?);
    let (data, config, log) = (path(""), path(".yaml"), path(".log"));
    Ok(Node { id, grpc, peer, http, data, config, log, launcher: Vec::new(), joins: false, child: None })
}

fn position(id: u64) -> usize {
    (id as usize).checked_sub(1).unwrap_or(usize::MAX)
}

fn write_root_key(path: &Path) -> io::Result<()> {
    let mut key = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// An address that nobody listens on. Ports are handed out below the range from which the system takes those of outgoing
/// connections, so that none of these takes one before its node does, and processes that run at one time begin apart.
fn free_address() -> io::Result<SocketAddr> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1_000) as u16 * 12;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (start + offset) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_handed_out_once() {
        let mut ports: Vec<_> = (0..60).map(|_| free_address().unwrap().port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 60);
    }

    #[test]
    fn files_are_ready_before_the_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(Path::new("cairn"), directory.path(), 3).unwrap();
        let text = fs::read_to_string(directory.path().join("node-2.yaml")).unwrap();
        for node in cluster.nodes() {
            assert!(text.contains(&format!("id: {}, peer_address: \"{}\"", node.id, node.peer)), "{text}");
        }
        assert_eq!(fs::read_to_string(directory.path().join("root.key")).unwrap().len(), 64);
    }

    #[test]
    fn a_node_is_placed_where_all_others_look_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(Path::new("cairn"), directory.path(), 2).unwrap();
        let text_of = |id: u64| fs::read_to_string(directory.path().join(format!("node-{id}.yaml"))).unwrap();
        cluster.place(2, Ipv4Addr::new(10, 0, 0, 2), &["env"]).unwrap();
        let address = format!("peer_address: \"10.0.0.2:{}\"", cluster.node(2).peer.port());
        assert!(text_of(1).contains(&address) && text_of(2).contains(&address), "{}", text_of(1));
        assert!(
            text_of(2).contains("allow_unauthenticated_remote") && !text_of(1).contains("allow_unauthenticated_remote")
        );

        fs::write(directory.path().join("node-1.yaml"), "changed since").unwrap();
        let id = cluster.newcomer().unwrap();
        cluster.place(id, Ipv4Addr::new(10, 0, 0, 3), &[]).unwrap();
        assert!(text_of(id).contains("join: true") && text_of(id).contains("10.0.0.3"), "{}", text_of(id));
        assert_eq!(text_of(1), "changed since", "nobody knows a newcomer by its own configuration");
    }

    #[tokio::test]
    async fn a_process_that_ends_is_reported_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let error = Cluster::start(Path::new("/bin/false"), directory.path(), 1).await.unwrap_err();
        assert!(matches!(error, ClusterError::Ended { node: 1, .. }), "{error}");
    }
}
