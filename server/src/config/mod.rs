//! The configuration: a YAML file, over it `CAIRN_*` environment variables, over them `--set` flags.
//!
//! ```text
//! defaults  <  file (--config)  <  CAIRN_SECTION__KEY=...  <  --set section.key=...
//! ```
//!
//! `deploy/cairn.reference.yaml` documents every key with its default; a test keeps the two equal. A key that does not
//! exist is refused by name, wherever it comes from. Environment variables count only with two underscores between
//! section and key, so that `CAIRN_ROOT_KEY` and the variables of the command line stay out of the way.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | the sections, their defaults, loading |
//! | `validate.rs` | what a loaded configuration must meet |
//! | `units.rs` | `150ms`, `64MiB` |

pub(crate) mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format as _, Serialized, Yaml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

pub(crate) use self::validate::is_host_and_port;

/// Everything that a node can be told. See `deploy/cairn.reference.yaml` for what each key does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is and where its data lies.
    pub node: NodeSection,
    /// The members that make up the cluster at its first start.
    pub cluster: ClusterSection,
    /// The addresses that the node listens on.
    pub listen: ListenSection,
    /// The API over HTTP.
    pub http: HttpSection,
    /// Where the root key comes from.
    pub root_key: RootKeySection,
    /// What is allowed although it is not safe everywhere.
    pub security: SecuritySection,
    /// How much the node takes on at a time, and for how long.
    pub limits: LimitsSection,
    /// What turns text into vectors, beside the built-in `hash`.
    pub embedders: EmbeddersSection,
    /// Memory of the storage engine.
    pub storage: StorageSection,
    /// Timing of replication.
    pub raft: RaftSection,
    /// When the node calls itself ready.
    pub ready: ReadySection,
    /// What is logged, and how.
    pub log: LogSection,
    /// How the node stops.
    pub shutdown: ShutdownSection,
}

/// See [`Config::node`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// The node's number in the cluster, 1 or more, never used for another node again.
    pub id: u64,
    /// The directory that holds everything the node keeps.
    pub data_dir: PathBuf,
}

/// See [`Config::cluster`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// Whether the node joins a cluster that is there already.
    pub join: bool,
    /// All first members, this node included; empty: this node alone. With `join`: this node, and members to ask.
    pub peers: Vec<PeerEntry>,
}

/// One member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// The member's number.
    pub id: u64,
    /// `host:port` where the other members reach it.
    pub peer_address: String,
    /// `host:port` where clients reach it.
    pub client_address: String,
}

/// See [`Config::listen`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSection {
    /// For clients: gRPC.
    pub grpc: SocketAddr,
    /// For the other members: replication.
    pub peer: SocketAddr,
    /// For probes and metrics, and for the API as JSON: HTTP.
    pub http: SocketAddr,
}

/// See [`Config::http`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Whether the public API is served as JSON beside probes and metrics.
    pub api: bool,
    /// The largest body of a request that is not a stream.
    #[serde(with = "units::size")]
    pub body_max: u64,
    /// Origins, such as `https://app.example`, whose pages may call the API; `*`: those of anybody.
    pub cors_origins: Vec<String>,
    /// Names other than `localhost` by which a listener on loopback is called, such as that of a proxy in front.
    pub hosts: Vec<String>,
}

/// See [`Config::root_key`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RootKeySection {
    /// A file that only its owner can read, with 32 bytes as hex or base64. Not set: the environment variable is used.
    pub file: Option<PathBuf>,
    /// The environment variable that holds the key when no file is named.
    pub environment: String,
}

/// See [`Config::security`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySection {
    /// Whether to listen beyond loopback although there is no authentication and no TLS yet.
    pub allow_unauthenticated_remote: bool,
}

/// See [`Config::limits`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// The deadline of a call whose client sets none.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// The longest deadline that a client can set; longer ones are cut to it.
    #[serde(with = "units::duration")]
    pub request_timeout_max: Duration,
    /// Writes that are under way at a time; more are shed with RESOURCE_EXHAUSTED.
    pub writes_in_flight: usize,
    /// Reads that are under way or waiting at a time; more are shed with RESOURCE_EXHAUSTED.
    pub reads_in_flight: usize,
    /// Imports that are open at a time, each of which holds a few batches in memory; more are shed with RESOURCE_EXHAUSTED.
    pub imports_in_flight: usize,
    /// Watches that are open at a time; more are shed with RESOURCE_EXHAUSTED.
    pub streams_in_flight: usize,
    /// How long a client may leave a stream unread before it is shed.
    #[serde(with = "units::duration")]
    pub stream_stall_timeout: Duration,
    /// Bytes that must be free on the disks of the leader and of a majority; below that only deletes are taken.
    #[serde(with = "units::size")]
    pub disk_reserve: u64,
    /// Threads that carry out reads; 0: twice the number of cores.
    pub read_threads: usize,
}

/// See [`Config::embedders`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddersSection {
    /// Servers that speak OpenAI's `/v1/embeddings`.
    pub openai: Vec<OpenAiEntry>,
    /// Models that run in this process.
    pub local: Vec<LocalEntry>,
}

/// One model that runs in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalEntry {
    /// The name by which spaces choose it.
    pub name: String,
    /// A directory as sentence-transformers keeps a model, with weights of the BERT family.
    pub directory: PathBuf,
    /// What the model is called in spaces; empty: a hash of its weights.
    pub model: String,
    /// Threads that compute; 0: half the number of cores.
    pub threads: usize,
}

/// One server that speaks OpenAI's `/v1/embeddings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiEntry {
    /// The name by which spaces choose it.
    pub name: String,
    /// The address of its API, such as `https://api.openai.com/v1`; `/embeddings` is added.
    pub url: String,
    /// The model to ask for. It becomes the model of spaces that name none.
    pub model: String,
    /// The environment variable that holds the key; empty: none is sent.
    pub api_key_environment: String,
    /// The dimension of the model's vectors, so that a space of another one is refused when it is made; 0: not said.
    pub dimension: u32,
    /// Whether to ask for the space's dimension, which models of variable dimension need.
    pub send_dimensions: bool,
    /// Texts in one request at most.
    pub batch_texts_max: usize,
    /// Bytes of text in one request at most; a text that is larger goes alone.
    #[serde(with = "units::size")]
    pub batch_bytes_max: u64,
    /// How long one request may take.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How often a request is tried at most.
    pub attempts: u32,
    /// Calls of clients that wait for this server at a time; more of them wait their turn.
    pub calls_max: usize,
}

/// See [`Config::storage`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// Memory for blocks that were read.
    #[serde(with = "units::size")]
    pub block_cache: u64,
    /// Memory for writes that are not in a file yet.
    #[serde(with = "units::size")]
    pub write_buffer: u64,
    /// Disk space that the log reserves at a time: the size of its files.
    #[serde(with = "units::size")]
    pub log_segment: u64,
    /// Memory for the indexes of all spaces together; 0: no limit.
    #[serde(with = "units::size")]
    pub index_memory: u64,
    /// An index that was not searched for this long leaves the memory.
    #[serde(with = "units::duration")]
    pub index_idle: Duration,
    /// An index of at least so many memories is kept in checkpoints, so that a start need not make it anew.
    pub index_checkpoint_from: u64,
}

/// See [`Config::raft`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftSection {
    /// How often a leader says that it lives.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// The shortest time without a leader before a node campaigns.
    #[serde(with = "units::duration")]
    pub election_timeout_min: Duration,
    /// The longest such time; also how long a leader's lease lasts.
    #[serde(with = "units::duration")]
    pub election_timeout_max: Duration,
    /// A snapshot is taken, and the log before the one before it given up, once this much has been written since the last one.
    #[serde(with = "units::size")]
    pub snapshot_after: u64,
    /// The same, once this much time has passed since the last one, if anything has been written.
    #[serde(with = "units::duration")]
    pub snapshot_interval: Duration,
    /// Bytes of a snapshot that are sent to one member in a second, at most.
    #[serde(with = "units::size")]
    pub snapshot_rate: u64,
}

/// See [`Config::ready`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadySection {
    /// Committed entries that a ready node may have left to apply.
    pub lag_entries_max: u64,
}

/// See [`Config::log`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// How a line looks.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,cairn_raft=debug`.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// See [`Config::shutdown`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSection {
    /// How long calls that have begun may take to end.
    #[serde(with = "units::duration")]
    pub grace: Duration,
}

/// The port for clients.
pub const GRPC_PORT: u16 = 7480;
/// The port for the other members.
pub const PEER_PORT: u16 = 7481;
/// The port for probes and metrics, and for the API as JSON.
pub const HTTP_PORT: u16 = 7482;

impl Default for NodeSection {
    fn default() -> Self {
        Self { id: 1, data_dir: PathBuf::from("./data") }
    }
}

impl Default for ListenSection {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { grpc: loopback(GRPC_PORT), peer: loopback(PEER_PORT), http: loopback(HTTP_PORT) }
    }
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { api: true, body_max: 16 << 20, cors_origins: Vec::new(), hosts: Vec::new() }
    }
}

impl Default for RootKeySection {
    fn default() -> Self {
        Self { file: None, environment: "CAIRN_ROOT_KEY".to_owned() }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            request_timeout_max: Duration::from_secs(300),
            writes_in_flight: 1_024,
            reads_in_flight: 1_024,
            imports_in_flight: 16,
            streams_in_flight: 1_024,
            stream_stall_timeout: Duration::from_secs(60),
            disk_reserve: 1 << 30,
            read_threads: 0,
        }
    }
}

impl Default for LocalEntry {
    fn default() -> Self {
        Self { name: "local".to_owned(), directory: PathBuf::new(), model: String::new(), threads: 0 }
    }
}

impl Default for OpenAiEntry {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            model: String::new(),
            api_key_environment: String::new(),
            dimension: 0,
            send_dimensions: false,
            batch_texts_max: 128,
            batch_bytes_max: 512 << 10,
            timeout: Duration::from_secs(10),
            attempts: 4,
            calls_max: 16,
        }
    }
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            block_cache: 256 << 20,
            write_buffer: 64 << 20,
            log_segment: 64 << 20,
            index_memory: 0,
            index_idle: Duration::from_secs(3_600),
            index_checkpoint_from: 2_000,
        }
    }
}

impl Default for RaftSection {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(900),
            snapshot_after: 256 << 20,
            snapshot_interval: Duration::from_secs(10 * 60),
            snapshot_rate: 128 << 20,
        }
    }
}

impl Default for ReadySection {
    fn default() -> Self {
        Self { lag_entries_max: 10_000 }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30) }
    }
}

/// A configuration that cannot be used. Its text is one line that names the key and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The file is not YAML, a key does not exist, or a value has the wrong type.
    #[error("{source_name}: {problem}")]
    Malformed {
        /// The file, variable or flag that it comes from.
        source_name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value cannot be accepted.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key, with its section.
        key: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

impl Config {
    /// Loads and validates a configuration. `environment` is what `std::env::vars` gives; `overrides` are `key=value`.
    ///
    /// # Errors
    /// The first thing that is wrong, as one line.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            figment = figment.merge(YamlText::read(path)?);
        }
        for setting in environment.into_iter().filter_map(Setting::from_environment) {
            figment = figment.merge(setting);
        }
        for text in overrides {
            figment = figment.merge(Setting::from_flag(text)?);
        }
        let config: Self = figment.extract().map_err(|error| malformed(&figment, error))?;
        config.validate()?;
        Ok(config)
    }

    /// The members of the cluster: those that are listed or, where none is, this node at the addresses that it listens on.
    #[must_use]
    pub fn members(&self) -> Vec<PeerEntry> {
        if !self.cluster.peers.is_empty() {
            return self.cluster.peers.clone();
        }
        vec![PeerEntry {
            id: self.node.id,
            peer_address: self.listen.peer.to_string(),
            client_address: self.listen.grpc.to_string(),
        }]
    }
}

/// A YAML file as a layer of the configuration.
struct YamlText {
    path: String,
    text: String,
}

impl YamlText {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { path: name, text }),
            Err(error) => Err(ConfigError::Unreadable { path: name, reason: error.to_string() }),
        }
    }
}

impl Provider for YamlText {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Yaml::string(&self.text).data()
    }
}

/// One value from an environment variable or a flag.
struct Setting {
    source_name: String,
    key: String,
    value: Value,
}

impl Setting {
    fn from_environment((name, value): (String, String)) -> Option<Self> {
        let key = name.strip_prefix("CAIRN_")?;
        let key = key.contains("__").then(|| key.to_lowercase().replace("__", "."))?;
        Some(Self { source_name: format!("environment variable {name}"), key, value: read_value(&value) })
    }

    fn from_flag(text: &str) -> Result<Self, ConfigError> {
        let source_name = format!("--set {text}");
        match text.split_once('=') {
            Some((key, value)) if key.contains('.') => {
                Ok(Self { source_name, key: key.trim().to_owned(), value: read_value(value) })
            }
            _ => Err(ConfigError::Malformed {
                source_name,
                problem: "expected SECTION.KEY=VALUE, such as node.id=2".to_owned(),
            }),
        }
    }
}

/// Numbers, booleans, `[lists]` and `{maps}` are taken as such, all else as text.
fn read_value(text: &str) -> Value {
    match text.parse() {
        Ok(value) => value,
        Err(impossible) => match impossible {},
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source_name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(&self.key, &self.value).data()
    }
}

/// Puts figment's error into one line that names the key and the source.
fn malformed(figment: &Figment, error: figment::Error) -> ConfigError {
    use figment::error::Kind;

    let parent = error.path.join(".");
    let (key, problem) = match &error.kind {
        Kind::UnknownField(name, known) => {
            // Single settings come with the unknown name in their path, files without.
            let complete = error.path.last() == Some(name);
            let key = match parent.as_str() {
                "" => name.clone(),
                _ if complete => parent,
                _ => format!("{parent}.{name}"),
            };
            let problem = format!("unknown key {key}; known here: {}", known.join(", "));
            (key, problem)
        }
        kind if parent.is_empty() => (String::new(), first_line(&kind.to_string())),
        kind => {
            let problem = format!("{parent}: {}", first_line(&kind.to_string()));
            (parent, problem)
        }
    };
    let named = error.metadata.or_else(|| figment.find_metadata(&key).cloned());
    let source_name = named.map_or_else(|| "configuration".to_owned(), |metadata| metadata.name.into_owned());
    ConfigError::Malformed { source_name, problem }
}

fn first_line(text: &str) -> String {
    // figment puts quotes around lists that are quoted already.
    text.lines().next().unwrap_or_default().replace("``", "`")
}
