//! A node from its configuration to its end.
//!
//! ```text
//! bind all ports -> HTTP answers (startupz: 503) -> root key -> Node::start (peers answer on 7481 from here)
//!   -> gRPC answers -> started ... stop: unready -> gRPC drains -> node flushes -> HTTP ends
//! ```

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use cairn_engine::Options;
use cairn_engine::keyring::{KeyringError, RootKey};
use cairn_proto::v1::cluster_service_server::ClusterServiceServer;
use cairn_proto::v1::memory_service_server::MemoryServiceServer;
use cairn_proto::v1::space_service_server::SpaceServiceServer;
use cairn_raft::wal::WalOptions;
use cairn_raft::{Node, NodeConfig, Peer, StartError, Timing};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

use crate::config::{Config, ConfigError, PeerEntry, RootKeySection};
use crate::embed::Embedders;
use crate::error::Chain;
use crate::http::Gateway;
use crate::monitor::Monitor;
use crate::service::{Cluster, MESSAGE_BYTES_MAX, Memories, Service, Spaces, rewrite};
use crate::vitals::{Answer, TICK};

/// Calls that one connection may have under way; the gates bound those of all connections together.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;

/// A connection without a sign of life for this long is probed, so that clients that vanished are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a leader that stops waits for another one to take over.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(2);

/// How long a node that has stopped waits for all that uses its data directory to end.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// An index leaves the memory when it was not searched in so many rounds; a round is that part of `storage.index_idle`.
const INDEX_IDLE_ROUNDS: u64 = 4;

/// The services whose health is reported; the empty name stands for the node as a whole.
const HEALTH_NAMES: [&str; 4] = ["", "cairn.v1.MemoryService", "cairn.v1.SpaceService", "cairn.v1.ClusterService"];

/// Why a node did not start, as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// The key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The root key cannot be used.
    #[error(transparent)]
    RootKey(#[from] KeyringError),
    /// The node refuses to start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// A part of the server cannot be set up.
    #[error("{0}")]
    Internal(String),
}

/// The bound addresses of a node. Bound apart from the start, so that tests know the ports of a cluster before its
/// first node starts.
#[derive(Debug)]
pub struct Listeners {
    grpc: TcpListener,
    peer: TcpListener,
    http: TcpListener,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub grpc: SocketAddr,
    /// For the other members.
    pub peer: SocketAddr,
    /// For probes and metrics.
    pub http: SocketAddr,
}

impl Listeners {
    /// Binds the addresses of `config.listen`; port 0 takes any free port.
    ///
    /// # Errors
    /// An address is taken or not of this machine.
    pub fn bind(config: &Config) -> Result<Self, RunError> {
        let listen = &config.listen;
        Ok(Self {
            grpc: bind("listen.grpc", listen.grpc)?,
            peer: bind("listen.peer", listen.peer)?,
            http: bind("listen.http", listen.http)?,
        })
    }

    /// The addresses, with the ports that were taken.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> Result<Addresses, RunError> {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| RunError::Internal(format!("cannot read a bound address: {error}")))
        };
        Ok(Addresses { grpc: address(&self.grpc)?, peer: address(&self.peer)?, http: address(&self.http)? })
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let failed = |source| RunError::Listen { key, address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    // tokio takes over sockets that do not block only.
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// A node that runs in this process.
pub struct Handle {
    addresses: Addresses,
    node: Arc<Node>,
    service: Arc<Service>,
    monitor: Arc<Monitor>,
    grace: Duration,
    grpc_stop: CancellationToken,
    grpc: JoinHandle<()>,
    gateway: Option<Arc<Gateway>>,
    background: Background,
}

/// What runs from before the node's start to after its end.
struct Background {
    stop: CancellationToken,
    http: JoinHandle<()>,
    ticker: JoinHandle<()>,
}

impl Background {
    async fn end(self) {
        self.stop.cancel();
        // Both end at the token; a panic of theirs has been logged by then.
        let _ = timeout(Duration::from_secs(1), self.http).await;
        let _ = timeout(Duration::from_secs(1), self.ticker).await;
    }
}

/// Binds the configured addresses and starts a node on them. See [`run_on`].
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config) -> Result<Handle, RunError> {
    let listeners = Listeners::bind(&config)?;
    run_on(config, listeners).await
}

/// Starts a node on addresses that are bound already, and returns once it has come up; it may not know a leader yet.
/// Where the cluster is made for the first time, that takes until the other members answer.
///
/// # Errors
/// See [`RunError`]; nothing is left running.
pub async fn run_on(config: Config, listeners: Listeners) -> Result<Handle, RunError> {
    config.validate()?;
    let addresses = listeners.addresses()?;
    let monitor = Arc::new(Monitor::new(config.ready.lag_entries_max));
    let shared = Arc::new(OnceLock::new());
    let (reporter, health) = tonic_health::server::health_reporter();
    let gateway = gateway(&config, addresses)?;
    let router = crate::http::router(Arc::clone(&monitor), gateway.clone());
    let embedders = Embedders::of(&config.embedders, &monitor)?;
    let background = start_background(&monitor, listeners.http, router, &shared, reporter)?;

    let node = match start_node(&config, addresses, listeners.peer).await {
        Ok(node) => node,
        Err(error) => {
            background.end().await;
            return Err(error);
        }
    };
    let own_address = own_address(&config, addresses);
    let service = Service::new(Arc::clone(&node), Arc::clone(&monitor), embedders, own_address, config.limits.clone());
    let service = Arc::new(service);
    tokio::spawn(index_rounds(Arc::downgrade(&node), config.storage.index_idle, background.stop.clone()));
    let grpc_stop = CancellationToken::new();
    let services = services(&service);
    if let Some(gateway) = &gateway {
        gateway.serve(services.clone());
    }
    let grpc = serve_grpc(services, health, listeners.grpc, grpc_stop.clone())?;
    // The ticker is the only other user of the cell, and only reads it.
    let _ = shared.set(Arc::clone(&service));
    monitor.vitals().set_started();
    tracing::info!(node_id = config.node.id, grpc = %addresses.grpc, peer = %addresses.peer, http = %addresses.http, "started");
    Ok(Handle { addresses, node, service, monitor, grace: config.shutdown.grace, grpc_stop, grpc, gateway, background })
}

/// The API over HTTP, where it is wanted.
fn gateway(config: &Config, addresses: Addresses) -> Result<Option<Arc<Gateway>>, RunError> {
    if !config.http.api {
        return Ok(None);
    }
    let gateway = Gateway::new(&config.http, addresses.http.ip().is_loopback());
    gateway
        .map(|gateway| Some(Arc::new(gateway)))
        .map_err(|error| RunError::Internal(format!("the API over HTTP: {error}")))
}

/// Starts what must answer before the node does: HTTP, and the ticker that watches the node.
fn start_background(
    monitor: &Arc<Monitor>,
    http: TcpListener,
    router: axum::Router,
    service: &Arc<OnceLock<Arc<Service>>>,
    reporter: HealthReporter,
) -> Result<Background, RunError> {
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::from_std(http)
        .map_err(|error| RunError::Internal(format!("cannot listen for HTTP: {error}")))?;
    let token = stop.clone();
    let http = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await {
            tracing::error!(%error, "HTTP ended");
        }
    });
    let ticker = Ticker { monitor: Arc::clone(monitor), service: Arc::clone(service), reporter, watches_ended: false };
    let ticker = tokio::spawn(ticker.run(stop.clone()));
    Ok(Background { stop, http, ticker })
}

/// Lets indexes that are not searched leave the memory.
async fn index_rounds(node: Weak<Node>, idle: Duration, stop: CancellationToken) {
    let mut rounds = interval(idle / u32::try_from(INDEX_IDLE_ROUNDS).unwrap_or(1));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let Some(engine) = node.upgrade().map(|node| node.engine()) else { return };
        let evicted = tokio::task::spawn_blocking(move || engine.begin_index_round(INDEX_IDLE_ROUNDS)).await;
        if let Some(spaces) = evicted.ok().filter(|spaces| *spaces > 0) {
            tracing::info!(spaces, "indexes that were not searched have left the memory");
        }
    }
}

/// Watches the node: keeps the probes' picture and the health service fresh.
struct Ticker {
    monitor: Arc<Monitor>,
    service: Arc<OnceLock<Arc<Service>>>,
    reporter: HealthReporter,
    watches_ended: bool,
}

impl Ticker {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    async fn tick(&mut self) {
        self.monitor.vitals().tick();
        self.monitor.metrics().upkeep();
        if let Some(service) = self.service.get() {
            service.observe();
            service.look_after_engine();
        }
        let health = match self.monitor.ready() {
            Answer::Yes => ServingStatus::Serving,
            Answer::No(_) => ServingStatus::NotServing,
        };
        if self.monitor.vitals().is_draining() && !self.watches_ended {
            // A watch has no end of its own, and the stop waits for calls that have begun.
            for name in HEALTH_NAMES {
                self.reporter.clear_service_status(name).await;
            }
            self.watches_ended = true;
        }
        for name in HEALTH_NAMES {
            self.reporter.set_service_status(name, health).await;
        }
    }
}

async fn start_node(config: &Config, addresses: Addresses, listener: TcpListener) -> Result<Arc<Node>, RunError> {
    let section = config.root_key.clone();
    let root_key = tokio::task::spawn_blocking(move || load_root_key(&section))
        .await
        .map_err(|error| RunError::Internal(format!("cannot read the root key: {error}")))??;
    let node = Node::start(node_config(config, addresses, root_key, listener)).await?;
    Ok(node)
}

fn load_root_key(section: &RootKeySection) -> Result<RootKey, KeyringError> {
    match &section.file {
        Some(path) => RootKey::from_file(path),
        None => RootKey::from_env(&section.environment),
    }
}

/// The members, where this node alone is one at the addresses that were bound.
fn members(config: &Config, addresses: Addresses) -> Vec<PeerEntry> {
    let mut bound = config.clone();
    bound.listen.grpc = addresses.grpc;
    bound.listen.peer = addresses.peer;
    bound.members()
}

/// Where clients reach this node.
fn own_address(config: &Config, addresses: Addresses) -> String {
    let own = members(config, addresses).into_iter().find(|member| member.id == config.node.id);
    own.map(|own| own.client_address).unwrap_or_default()
}

fn node_config(config: &Config, addresses: Addresses, root_key: RootKey, listener: TcpListener) -> NodeConfig {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let peers = members(config, addresses).into_iter().map(|member| Peer {
        id: member.id,
        peer_address: member.peer_address,
        client_address: member.client_address,
    });
    NodeConfig {
        node_id: config.node.id,
        peers: peers.collect(),
        join: config.cluster.join,
        data_dir: config.node.data_dir.clone(),
        root_key,
        listener,
        engine: Options {
            block_cache_bytes: bytes(config.storage.block_cache),
            write_buffer_bytes: bytes(config.storage.write_buffer),
            index_bytes_max: config.storage.index_memory,
            index_checkpoint_from: config.storage.index_checkpoint_from,
            ..Options::new(&config.node.data_dir)
        },
        timing: Timing {
            heartbeat: config.raft.heartbeat,
            election_min: config.raft.election_timeout_min,
            election_max: config.raft.election_timeout_max,
            snapshot_interval: config.raft.snapshot_interval,
            ..Timing::default()
        },
        limits: cairn_raft::Limits {
            disk_reserved_bytes: config.limits.disk_reserve,
            snapshot_bytes: config.raft.snapshot_after,
            snapshot_bytes_per_second: config.raft.snapshot_rate,
            log: WalOptions { segment_bytes: config.storage.log_segment, ..WalOptions::default() },
            ..cairn_raft::Limits::default()
        },
    }
}

/// The public API, for gRPC and for HTTP alike.
fn services(service: &Arc<Service>) -> Routes {
    let limit = MESSAGE_BYTES_MAX;
    Routes::new(MemoryServiceServer::new(Memories(Arc::clone(service))).max_decoding_message_size(limit))
        .add_service(SpaceServiceServer::new(Spaces(Arc::clone(service))).max_decoding_message_size(limit))
        .add_service(ClusterServiceServer::new(Cluster(Arc::clone(service))).max_decoding_message_size(limit))
}

/// Serves gRPC until the token is cancelled and the calls that had begun have ended.
fn serve_grpc<H>(
    services: Routes,
    health: tonic_health::pb::health_server::HealthServer<H>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, RunError>
where
    H: tonic_health::pb::health_server::Health,
{
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(cairn_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("cairn.v1.MemoryService")
        .with_service_name("cairn.v1.SpaceService")
        .with_service_name("cairn.v1.ClusterService")
        .with_service_name("grpc.health.v1.Health")
        .build_v1()
        .map_err(|error| RunError::Internal(format!("reflection cannot be set up: {error}")))?;
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| RunError::Internal(format!("cannot listen for gRPC: {error}")))?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));

    let server = Server::builder()
        .layer(MapResponseLayer::new(rewrite))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION_MAX))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_routes(services)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(error = %Chain(&error), "gRPC ended");
        }
    }))
}

impl Handle {
    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Waits until the node knows a leader and has caught up; `false` when `patience` ends first.
    pub async fn wait_ready(&self, patience: Duration) -> bool {
        let ready = async {
            let mut ticks = interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                self.service.observe();
                if self.monitor.ready() == Answer::Yes {
                    return;
                }
            }
        };
        timeout(patience, ready).await.is_ok()
    }

    /// Ends when the node has stopped itself, for example because its disk failed; says why.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// What `cairn dev` needs at its first start: makes a space unless one of that name is there. Returns the space as it is.
    ///
    /// # Errors
    /// The failure's text.
    pub async fn ensure_space(&self, space: cairn_proto::v1::Space) -> Result<cairn_proto::v1::Space, String> {
        self.service.ensure_space(space).await.map_err(|problem| problem.to_string())
    }

    /// The model of the embedder of this name, as it is labelled in spaces; `None` where the node has no such embedder.
    #[must_use]
    pub fn model_of(&self, embedder: &str) -> Option<String> {
        self.service.model_of(embedder)
    }

    /// Stops the node: unready, leadership handed over, no new calls, those that have begun end (at most
    /// `shutdown.grace`), then all is flushed. The data directory is free when this returns, unless a call that outlives
    /// the grace period holds on to it.
    pub async fn stop(self) {
        let Self { addresses: _, node, service, monitor, grace, grpc_stop, mut grpc, gateway, background } = self;
        monitor.vitals().set_draining();
        service.observe();
        // A leader that hands over spares the others an election; where nobody can take over, they hold one.
        if let Err(error) = node.drain(true, HANDOVER_PATIENCE).await {
            tracing::warn!(%error, "leadership was not handed over");
        }
        service.end_streams();
        grpc_stop.cancel();
        let ends = async {
            if let Some(gateway) = &gateway {
                gateway.stop().await;
            }
            // It ends at the token; a panic of its own has been logged by then.
            let _ = (&mut grpc).await;
        };
        if timeout(grace, ends).await.is_err() {
            tracing::warn!(?grace, "calls were still under way at the end of the grace period");
            grpc.abort();
        }
        node.shutdown().await;
        background.end().await;
        let given_back = node.directory_given_back();
        drop((node, service, gateway));
        // Tasks of calls that have ended let go of the node in their own time.
        if timeout(RELEASE_PATIENCE, given_back).await.is_err() {
            tracing::warn!("a call still holds on to the data directory");
        }
        tracing::info!("stopped");
    }
}
