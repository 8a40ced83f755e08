//! A node: the one type that the server needs.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`Node`]: propose, read points, status, stop |
//! | `start.rs` | from a configuration to a running node |
//! | `bootstrap.rs` | how a node comes to a cluster and its keys |
//! | `core.rs` | the parts of a running node |
//! | `propose.rs` | commands: stamping, forwarding, bounds |
//! | `read.rs` | read points |
//! | `members.rs` | changes of the members |
//! | `status.rs` | the state of this node and of its peers |
//! | `transfer.rs` | leadership to another node |
//! | `duties.rs` | what the leader does on its own account |

mod bootstrap;
mod core;
mod deadline;
mod duties;
pub(crate) mod members;
mod propose;
mod read;
mod start;
mod status;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cairn_engine::ReadPoint;
use cairn_engine::keyring::Keyring;
use cairn_proto::{storage, v1};
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::core::Core;
pub use propose::Applied;
pub use read::ReadLevel;
#[cfg(test)]
pub(crate) use start::{check_store, raft_config};
pub(crate) use status::own_state_now;
pub use status::{NodeStats, NodeStatus};

use crate::config::{Environment, NodeConfig, Peer};
use crate::error::{MembershipError, ProposeError, ReadError, StartError};
use crate::state_machine::Generation;

/// Entries that a node may lack and still call itself ready.
const READY_LAG_MAX: u64 = 10_000;

/// When to try again after a refusal for want of space: the nodes say once a second what they have.
const DISK_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long replication may take to end by itself.
const REPLICATION_END_MAX: Duration = Duration::from_secs(2);

/// A running member of a cluster.
pub struct Node {
    core: Arc<Core>,
    tasks: Mutex<Option<JoinSet<()>>>,
    server_stop: CancellationToken,
}

impl Node {
    /// Starts a node: forms or joins the cluster on the first start, and returns once replication runs. That may take
    /// as long as its peers take to start; it is safe to drop the future, and to start again at any point.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; every message is one line that says what to do.
    pub async fn start(config: NodeConfig) -> Result<Arc<Self>, StartError> {
        Self::start_in(config, Environment::default()).await
    }

    /// As [`start`](Self::start), with another clock or another disk.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_in(config: NodeConfig, environment: Environment) -> Result<Arc<Self>, StartError> {
        start::start(config, environment).await
    }

    /// Has `command` replicated and applied, on whichever node leads.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Overloaded`] at once when too much is under way; [`ProposeError::Unavailable`] shortly before
    /// `deadline` when no leader with a majority was found.
    pub async fn propose(&self, command: storage::Command, deadline: Instant) -> Result<Applied, ProposeError> {
        propose::propose(&self.core, command, deadline).await
    }

    /// The point at which a read of the wanted freshness may be made on this node, which has applied it by then.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] shortly before `deadline` when the freshness cannot be established.
    pub async fn read_point(&self, level: ReadLevel, deadline: Instant) -> Result<ReadPoint, ReadError> {
        read::read_point(&self.core, level, deadline).await
    }

    /// The last applied log index, to wait for the next one. The sender is gone once the node is dropped.
    #[must_use]
    pub fn progress(&self) -> tokio::sync::watch::Receiver<Option<u64>> {
        self.core.shared.progress()
    }

    /// Whether a write that makes the state grow may be proposed: enough is free on the disks of the leader and of a majority.
    /// To be asked before such a write; deletes, expiry and changes of members use what is reserved.
    ///
    /// # Errors
    ///
    /// [`ProposeError::DiskLow`].
    pub fn admit_growth(&self) -> Result<(), ProposeError> {
        self.core.room_on_disks().map_err(|nodes| ProposeError::DiskLow {
            nodes,
            reserved_bytes: self.core.limits.disk_reserved_bytes,
            retry_after: DISK_RETRY_AFTER,
        })
    }

    /// The engine in use, with its keyring and partitions. Hold it for one request, not longer: a snapshot that is
    /// installed meanwhile makes a new one.
    #[must_use]
    pub fn engine(&self) -> Arc<Generation> {
        self.core.shared.generations.current()
    }

    /// The node's keyring.
    #[must_use]
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.core.keyring)
    }

    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.core.node_id()
    }

    /// The cluster as this node sees it.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        status::status(&self.core)
    }

    /// As [`Node::status`], with what this node says of itself taken anew: the other answers up to a second old.
    pub async fn status_now(&self) -> NodeStatus {
        status::refresh_own(&self.core).await;
        self.status()
    }

    /// What this node has done since it started, for its metrics.
    #[must_use]
    pub fn stats(&self) -> NodeStats {
        status::stats(&self.core)
    }

    /// Where clients reach the leader, where it is known: the hint for a client that asked another node.
    #[must_use]
    pub fn leader_client_address(&self) -> Option<String> {
        let metrics = self.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader_id = metrics.current_leader?;
        let node = metrics.membership_config.get_node(&leader_id)?;
        Some(self.core.peers.client_address(leader_id, &node.client_address))
    }

    /// Whether the node should get requests: it runs, knows a leader, is not far behind, the cluster is formed, and it is
    /// not being drained.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if self.core.stopped().is_some() || self.is_draining() || !duties::has_default_tenant(&self.core) {
            return false;
        }
        let metrics = self.core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map_or(0, |log_id| log_id.index);
        let lag = metrics.last_log_index.unwrap_or(0).saturating_sub(applied);
        let Some(leader_id) = metrics.current_leader else { return false };
        // A node that has just joined has applied all that it has, and is far behind all the same.
        let leaders = self.core.states.applied_index_of(leader_id).unwrap_or(0);
        lag.max(leaders.saturating_sub(applied)) <= READY_LAG_MAX
    }

    /// Whether the node's replication core runs: for liveness, which must not depend on a majority.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.core.stopped().is_none() && self.core.raft.metrics().borrow_watched().running_state.is_ok()
    }

    /// Returns once the node has stopped by itself, with the reason: it would otherwise have gone on with a state that
    /// may differ from its peers'. The process should say so and end.
    pub async fn failed(&self) -> String {
        let mut fatal = self.core.shared.fatal();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the node is being drained.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.draining.load(Ordering::Acquire)
    }

    /// Marks the node as being drained, or no longer; a drained leader hands over.
    ///
    /// # Errors
    ///
    /// When leadership could not be handed over within `timeout`; the mark stays.
    pub async fn drain(&self, drain: bool, timeout: Duration) -> Result<(), MembershipError> {
        members::drain_here(&self.core, drain, timeout).await
    }

    /// As [`drain`](Self::drain), for any member; returns its state.
    ///
    /// # Errors
    ///
    /// [`MembershipError::NotFound`] for a node that is no member; [`MembershipError::Unavailable`] when it does not
    /// answer, or could not hand over leadership.
    pub async fn drain_node(
        &self,
        node_id: u64,
        drain: bool,
        deadline: Instant,
    ) -> Result<v1::NodeState, MembershipError> {
        members::drain(&self.core, node_id, drain, deadline).await
    }

    /// Makes a node a learner: it follows the log, serves reads and has no vote. On any node; so are the following.
    ///
    /// # Errors
    ///
    /// [`MembershipError::AlreadyExists`] for an id or an address of another member, [`MembershipError::Retired`] for an id
    /// that was used before, [`MembershipError::Unavailable`] when no leader with a majority was found before `deadline`.
    pub async fn add_member(&self, peer: Peer, deadline: Instant) -> Result<v1::Member, MembershipError> {
        let node_id = peer.id;
        let changed = members::change(&self.core, &members::Change::Add(peer), deadline).await?;
        member_of(changed.members, node_id)
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    ///
    /// [`MembershipError::NotFound`], [`MembershipError::NotCaughtUp`], [`MembershipError::Unavailable`].
    pub async fn promote_member(&self, node_id: u64, deadline: Instant) -> Result<v1::Member, MembershipError> {
        let changed = members::change(&self.core, &members::Change::Promote(node_id), deadline).await?;
        member_of(changed.members, node_id)
    }

    /// Removes a member for good, whether it runs or not, and returns those that remain.
    ///
    /// # Errors
    ///
    /// [`MembershipError::NotFound`]; [`MembershipError::Refused`] for the last voter, and where too few of the others can
    /// be reached; [`MembershipError::Unavailable`].
    pub async fn remove_member(&self, node_id: u64, deadline: Instant) -> Result<Vec<v1::Member>, MembershipError> {
        let changed = members::change(&self.core, &members::Change::Remove(node_id), deadline).await?;
        Ok(changed.members)
    }

    /// Hands leadership to `target`, or to the voter that is furthest; returns the leader afterwards.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Refused`] when the target is no voter or has not caught up, [`MembershipError::Unavailable`]
    /// when it did not take over before `deadline`.
    pub async fn transfer_leadership(&self, target: Option<u64>, deadline: Instant) -> Result<u64, MembershipError> {
        Ok(members::change(&self.core, &members::Change::Lead(target), deadline).await?.leader_id)
    }

    /// Stops the node in order: a leader hands over first, so that the others need not wait for its silence; then as
    /// [`stop`](Self::stop).
    pub async fn shutdown(&self) {
        if let Err(reason) = self.drain(true, self.core.timing.election_max * 2).await {
            tracing::info!(%reason, "leadership was not handed over, the other nodes elect a leader by themselves");
        }
        self.stop().await;
    }

    /// Ends once the data directory is free for another start: the node has stopped, and it and the engines that it gave
    /// away are dropped. Outlives the node.
    pub fn directory_given_back(&self) -> impl Future<Output = ()> + Send + use<> {
        self.core.lock.given_back().cancelled_owned()
    }

    /// Stops the node at once: replication first, then its tasks and its server; what is applied is made durable. When
    /// the data directory is free, [`directory_given_back`](Self::directory_given_back) says.
    pub async fn stop(&self) {
        self.core.stop.cancel();
        self.end_replication().await;
        let tasks = self.tasks.lock().take();
        if let Some(mut tasks) = tasks {
            while tasks.join_next().await.is_some() {}
        }
        let (generation, wal) = (self.engine(), Arc::clone(&self.core.wal));
        let closing = tokio::task::spawn_blocking(move || {
            wal.close();
            generation.close()
        });
        match closing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store was not flushed; the log has everything"),
            Err(error) => tracing::warn!(%error, "the store was not flushed; the log has everything"),
        }
    }
}

impl Node {
    /// Ends openraft. While the disk is full it waits for its log, which waits for space: then the log is closed first.
    /// What it had not written by then was acknowledged to nobody.
    async fn end_replication(&self) {
        let raft = self.core.raft.clone();
        let mut ending = tokio::spawn(async move { raft.shutdown().await });
        let ended = match tokio::time::timeout(REPLICATION_END_MAX, &mut ending).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(
                    "replication waits for its log, which is closed now; what waits for the disk is given up"
                );
                let wal = Arc::clone(&self.core.wal);
                // A panic shows in the end of replication.
                let _ = tokio::task::spawn_blocking(move || wal.close()).await;
                ending.await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "replication did not end cleanly"),
            Err(error) => tracing::warn!(%error, "replication did not end cleanly"),
        }
    }
}

fn member_of(members: Vec<v1::Member>, node_id: u64) -> Result<v1::Member, MembershipError> {
    members.into_iter().find(|member| member.node_id == node_id).ok_or(MembershipError::NotFound { node_id })
}

impl Drop for Node {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.server_stop.cancel();
    }
}
