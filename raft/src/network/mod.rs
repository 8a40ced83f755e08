//! The network between the nodes: tonic over connections that only peers use.
//!
//! ```text
//!   openraft --RaftNetworkFactory--> PeerNetwork --lane--> tonic channel --> PeerService of the peer --> its openraft
//! ```
//!
//! Each sort of traffic has a *lane*, a connection of its own, so that a heartbeat never waits behind a snapshot. Every
//! call has a deadline, and names the cluster, the group, both nodes and the caller's data directory; the other side
//! refuses what is not meant for it.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the peers' addresses and connections |
//! | `client.rs` | the calls that openraft makes |
//! | `intake.rs` | how much a node takes from its leader before its log has it |
//! | `messages.rs` | both ways between openraft's requests and protobuf |
//! | `server.rs` | the calls that this node answers |

mod client;
mod intake;
mod messages;
mod server;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::Keyring;
use cairn_proto::peer::PeerHeader;
use cairn_proto::peer::peer_service_client::PeerServiceClient;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub(crate) use client::{NetworkFactory, still_follows};
pub(crate) use intake::AppendRoom;
pub(crate) use server::{PeerServer, serve};

use crate::config::{Peer, Timing};
use crate::identity::Identity;
use crate::types::GROUP;

/// The largest message between peers: an append is capped well below by the log store, a single entry by the API's limits.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How much may be on its way on one connection. A ping waits behind it, and a connection whose ping is not answered in time is
/// given up with all that was on its way.
pub(crate) const WINDOW_BYTES: u32 = 512 << 10;

/// Which connection a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Votes, read indexes, states: small and urgent.
    Control,
    /// Heartbeats, and nothing else.
    Heartbeat,
    /// The log.
    Log,
    /// Proposals on their way to the leader.
    Forward,
    /// Snapshots.
    Snapshot,
}

impl Lane {
    /// How long a peer may take to answer a ping.
    fn ping_timeout(self) -> Duration {
        match self {
            Self::Control | Self::Heartbeat | Self::Forward => Duration::from_secs(5),
            // A slow link is busy with these all the time.
            Self::Log | Self::Snapshot => Duration::from_secs(10),
        }
    }
}

/// The other members: where they are, and open connections to them.
pub(crate) struct Peers {
    identity: Arc<Identity>,
    configured: BTreeMap<u64, Peer>,
    timing: Timing,
    channels: Mutex<HashMap<(u64, Lane), (String, Channel)>>,
}

impl Peers {
    pub(crate) fn new(identity: Arc<Identity>, peers: &[Peer], timing: Timing) -> Self {
        let configured = peers.iter().map(|peer| (peer.id, peer.clone())).collect();
        Self { identity, configured, timing, channels: Mutex::default() }
    }

    /// The address of `node_id`: the configured one, else the one in the log.
    pub(crate) fn address(&self, node_id: u64, in_log: Option<&str>) -> Option<String> {
        let configured = self.configured.get(&node_id).map(|peer| peer.peer_address.as_str());
        configured.or(in_log).map(str::to_string)
    }

    /// Where clients reach `node_id`: the configured address, else the one in the log.
    pub(crate) fn client_address(&self, node_id: u64, in_log: &str) -> String {
        let configured = self.configured.get(&node_id).map(|peer| peer.client_address.as_str());
        configured.unwrap_or(in_log).to_string()
    }

    /// A client for calls to `node_id` at `address`; connects when first used.
    pub(crate) fn client(
        &self,
        node_id: u64,
        address: &str,
        lane: Lane,
    ) -> Result<PeerServiceClient<Channel>, tonic::transport::Error> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(&(node_id, lane)) {
            Some((known, channel)) if known == address => channel.clone(),
            _ => {
                let channel = self.connect_lazily(address, lane)?;
                channels.insert((node_id, lane), (address.to_string(), channel.clone()));
                channel
            }
        };
        Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The header of a call to `node_id`.
    pub(crate) fn header(&self, node_id: u64) -> PeerHeader {
        let cluster_id = self.identity.cluster_id().map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default();
        PeerHeader {
            cluster_id,
            group: GROUP,
            from_node_id: self.identity.node_id(),
            from_incarnation: Bytes::copy_from_slice(&self.identity.incarnation()),
            to_node_id: node_id,
        }
    }

    /// This node.
    pub(crate) fn node_id(&self) -> u64 {
        self.identity.node_id()
    }

    fn connect_lazily(&self, address: &str, lane: Lane) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(self.timing.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(lane.ping_timeout())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        Ok(endpoint.connect_lazy())
    }
}

/// A request that is given up after `timeout`, on both sides.
pub(crate) fn with_deadline<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Awaits a call for at most `timeout`: tonic's own deadline does not cover a peer that never reads.
pub(crate) async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the peer did not answer in time")),
    }
}

/// The parts of a node that know its cluster; set once it has joined one.
pub(crate) struct Membership {
    pub(crate) cluster_id: ClusterId,
    pub(crate) keyring: Arc<Keyring>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_never_answered_is_given_up() {
        let never = std::future::pending::<Result<tonic::Response<()>, Status>>();
        let given_up = within(Duration::from_millis(20), never);
        let given_up = tokio::time::timeout(Duration::from_secs(10), given_up).await.unwrap();
        assert_eq!(given_up.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
