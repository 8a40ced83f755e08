//! What a configuration must meet beyond the types of its values. Each refusal names the key and says what would be right.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use cairn_engine::COMPACTION_WRITE_BUFFERS;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError};

/// A refusal of `key`.
fn invalid(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.to_owned(), problem: problem.into() }
}

fn within<T: PartialOrd + std::fmt::Debug>(key: &str, value: &T, range: RangeInclusive<T>) -> Result<(), ConfigError> {
    if range.contains(value) {
        return Ok(());
    }
    Err(invalid(key, format!("{value:?} is not in {:?} to {:?}", range.start(), range.end())))
}

impl Config {
    /// Checks every rule that the types do not express.
    ///
    /// # Errors
    /// The first value that cannot be accepted.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_node()?;
        self.validate_peers()?;
        self.validate_listeners()?;
        self.validate_http()?;
        self.validate_limits()?;
        self.validate_embedders()?;
        self.validate_raft()?;
        self.validate_rest()
    }

    fn validate_node(&self) -> Result<(), ConfigError> {
        if self.node.id == 0 {
            return Err(invalid("node.id", "must be 1 or more"));
        }
        if self.node.data_dir.as_os_str().is_empty() {
            return Err(invalid("node.data_dir", "must name a directory"));
        }
        if self.root_key.file.is_none() && self.root_key.environment.is_empty() {
            return Err(invalid("root_key", "set root_key.file or root_key.environment"));
        }
        Ok(())
    }

    fn validate_peers(&self) -> Result<(), ConfigError> {
        let peers = &self.cluster.peers;
        if self.cluster.join && peers.len() < 2 {
            return Err(invalid("cluster.join", "cluster.peers must name this node and at least one member to ask"));
        }
        if peers.is_empty() {
            return Ok(());
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (position, peer) in peers.iter().enumerate() {
            let key = |field: &str| format!("cluster.peers[{position}].{field}");
            if peer.id == 0 || !ids.insert(peer.id) {
                return Err(invalid(&key("id"), format!("{} must be 1 or more and listed once", peer.id)));
            }
            for (field, address) in [("peer_address", &peer.peer_address), ("client_address", &peer.client_address)] {
                if !is_host_and_port(address) {
                    return Err(invalid(&key(field), format!("{address:?} is not HOST:PORT")));
                }
                if !addresses.insert(address) {
                    return Err(invalid(&key(field), format!("{address} is listed twice")));
                }
            }
        }
        if !ids.contains(&self.node.id) {
            return Err(invalid("cluster.peers", format!("node.id {} is not among the peers", self.node.id)));
        }
        Ok(())
    }

    fn validate_listeners(&self) -> Result<(), ConfigError> {
        let listen = &self.listen;
        let all = [("listen.grpc", listen.grpc), ("listen.peer", listen.peer), ("listen.http", listen.http)];
        for (position, (key, address)) in all.iter().enumerate() {
            let taken = all[..position].iter().find(|(_, other)| address.port() != 0 && other == address);
            if let Some((other, _)) = taken {
                return Err(invalid(key, format!("{address} is already the address of {other}")));
            }
            // Without the API, HTTP carries no content.
            let remote = !address.ip().is_loopback() && (*key != "listen.http" || self.http.api);
            if remote && !self.security.allow_unauthenticated_remote {
                let other_ways =
                    if *key == "listen.http" { "serve no API there (http.api: false), or " } else { "or " };
                return Err(invalid(
                    key,
                    format!(
                        "{address} is open to other machines, and there is no authentication yet; listen on 127.0.0.1, \
                         {other_ways}accept it with security.allow_unauthenticated_remote: true"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn validate_http(&self) -> Result<(), ConfigError> {
        within("http.body_max", &self.http.body_max, 1 << 10..=1 << 30)?;
        for (position, origin) in self.http.cors_origins.iter().enumerate() {
            let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if origin != "*" && authority.is_none_or(|authority| authority.is_empty() || authority.contains('/')) {
                let key = format!("http.cors_origins[{position}]");
                return Err(invalid(
                    &key,
                    format!("{origin:?} is neither * nor an origin such as https://app.example"),
                ));
            }
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let hour = Duration::from_secs(3_600);
        within("limits.request_timeout_max", &limits.request_timeout_max, Duration::from_millis(10)..=hour)?;
        within(
            "limits.request_timeout",
            &limits.request_timeout,
            Duration::from_millis(10)..=limits.request_timeout_max,
        )?;
        within("limits.writes_in_flight", &limits.writes_in_flight, 1..=100_000)?;
        within("limits.reads_in_flight", &limits.reads_in_flight, 1..=100_000)?;
        within("limits.imports_in_flight", &limits.imports_in_flight, 1..=1_000)?;
        within("limits.streams_in_flight", &limits.streams_in_flight, 1..=100_000)?;
        within(
            "limits.stream_stall_timeout",
            &limits.stream_stall_timeout,
            Duration::from_millis(10)..=Duration::from_secs(3_600),
        )?;
        within("limits.read_threads", &limits.read_threads, 0..=1_024)?;
        if self.storage.block_cache < 1 << 20 {
            return Err(invalid("storage.block_cache", "must be 1MiB or more"));
        }
        if self.storage.write_buffer < 1 << 20 {
            return Err(invalid("storage.write_buffer", "must be 1MiB or more"));
        }
        if !(1 << 20..=2 << 30).contains(&self.storage.log_segment) {
            return Err(invalid("storage.log_segment", "must be 1MiB to 2GiB"));
        }
        // Else the log or a compaction could find no room while the reserve seems to be there.
        if limits.disk_reserve < self.storage.log_segment + COMPACTION_WRITE_BUFFERS * self.storage.write_buffer {
            let needed = format!(
                "must be at least storage.log_segment and {COMPACTION_WRITE_BUFFERS} times storage.write_buffer, which the log \
                 and a compaction may need on a full disk"
            );
            return Err(invalid("limits.disk_reserve", needed));
        }
        if (1..1 << 20).contains(&self.storage.index_memory) {
            return Err(invalid("storage.index_memory", "must be 0B, which is no limit, or 1MiB or more"));
        }
        within(
            "storage.index_idle",
            &self.storage.index_idle,
            Duration::from_secs(10)..=Duration::from_secs(86_400 * 30),
        )?;
        if self.storage.index_checkpoint_from == 0 {
            return Err(invalid("storage.index_checkpoint_from", "must be 1 or more"));
        }
        Ok(())
    }

    fn validate_embedders(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::from(["hash"]);
        for (position, entry) in self.embedders.openai.iter().enumerate() {
            let key = |field: &str| format!("embedders.openai[{position}].{field}");
            if !is_name(&entry.name) {
                return Err(invalid(&key("name"), "must be 1 to 63 of a-z 0-9 _ -, starting with a letter"));
            }
            if !names.insert(&entry.name) {
                return Err(invalid(&key("name"), format!("{} is the name of another embedder", entry.name)));
            }
            let authority = entry.url.strip_prefix("https://").or_else(|| entry.url.strip_prefix("http://"));
            if authority.is_none_or(|authority| authority.is_empty() || authority.starts_with('/')) {
                let problem = format!("{:?} is no address such as https://api.openai.com/v1", entry.url);
                return Err(invalid(&key("url"), problem));
            }
            if entry.model.is_empty() {
                return Err(invalid(&key("model"), "must name the model to ask for"));
            }
            within(&key("dimension"), &entry.dimension, 0..=4_096)?;
            if entry.dimension > 0 && entry.send_dimensions {
                let problem =
                    "names the one dimension of a model that send_dimensions says has several; set one of the two";
                return Err(invalid(&key("dimension"), problem));
            }
            within(&key("batch_texts_max"), &entry.batch_texts_max, 1..=2_048)?;
            within(&key("batch_bytes_max"), &entry.batch_bytes_max, 1..=16 << 20)?;
            within(&key("timeout"), &entry.timeout, Duration::from_millis(10)..=Duration::from_secs(300))?;
            within(&key("attempts"), &entry.attempts, 1..=10)?;
            within(&key("calls_max"), &entry.calls_max, 1..=256)?;
        }
        for (position, entry) in self.embedders.local.iter().enumerate() {
            let key = |field: &str| format!("embedders.local[{position}].{field}");
            if !is_name(&entry.name) || !names.insert(&entry.name) {
                return Err(invalid(&key("name"), format!("{:?} is no name, or that of another embedder", entry.name)));
            }
            if entry.directory.as_os_str().is_empty() {
                return Err(invalid(&key("directory"), "must name the directory of a model; `make model` fetches one"));
            }
            within(&key("threads"), &entry.threads, 0..=256)?;
        }
        Ok(())
    }

    fn validate_raft(&self) -> Result<(), ConfigError> {
        let raft = &self.raft;
        within("raft.heartbeat", &raft.heartbeat, Duration::from_millis(10)..=Duration::from_secs(10))?;
        if raft.election_timeout_min < raft.heartbeat * 3 {
            return Err(invalid("raft.election_timeout_min", "must be at least three times raft.heartbeat"));
        }
        if raft.election_timeout_max <= raft.election_timeout_min {
            return Err(invalid("raft.election_timeout_max", "must be longer than raft.election_timeout_min"));
        }
        within("raft.election_timeout_max", &raft.election_timeout_max, Duration::ZERO..=Duration::from_secs(60))?;
        if raft.snapshot_after < 1 << 20 {
            return Err(invalid("raft.snapshot_after", "must be 1MiB or more"));
        }
        if raft.snapshot_rate < 1 << 20 {
            return Err(invalid("raft.snapshot_rate", "must be 1MiB or more"));
        }
        let day = Duration::from_secs(86_400);
        within("raft.snapshot_interval", &raft.snapshot_interval, Duration::from_secs(1)..=day)
    }

    fn validate_rest(&self) -> Result<(), ConfigError> {
        if let Err(error) = EnvFilter::try_new(&self.log.level) {
            return Err(invalid("log.level", format!("{:?}: {error}", self.log.level)));
        }
        within("ready.lag_entries_max", &self.ready.lag_entries_max, 1..=10_000)?;
        within("shutdown.grace", &self.shutdown.grace, Duration::ZERO..=Duration::from_secs(600))
    }
}

/// Whether `name` follows the rules of names in the API.
fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    name.len() <= 63 && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(rest)
}

/// Whether `address` has the form `host:port` with a port other than 0; `[::1]:7481` counts.
pub(crate) fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains(|character: char| character == ':' || character.is_whitespace());
    (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
}
