//! Changes of the members of a cluster. Each says how things are to be, so that any of them can be repeated.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::cluster_service_client::ClusterServiceClient;
use futures::future::BoxFuture;

use crate::call::{Core, method};
use crate::client::{Client, call_builder};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::proto;

impl Client {
    /// Adds a node as a learner: it follows the log, serves reads and has no vote. `peer_address` is where members reach
    /// it, `client_address` where clients do, both as `host:port`.
    pub fn add_member(
        &self,
        node_id: u64,
        peer_address: impl Into<String>,
        client_address: impl Into<String>,
    ) -> AddMember {
        let (peer_address, client_address) = (peer_address.into(), client_address.into());
        let request = proto::AddMemberRequest { node_id, peer_address, client_address };
        AddMember { core: self.core.clone(), request, deadline: None }
    }

    /// Gives a learner that has caught up a vote.
    pub fn promote_member(&self, node_id: u64) -> PromoteMember {
        PromoteMember { core: self.core.clone(), request: proto::PromoteMemberRequest { node_id }, deadline: None }
    }

    /// Removes a node for good: its id is never used again.
    pub fn remove_member(&self, node_id: u64) -> RemoveMember {
        RemoveMember { core: self.core.clone(), request: proto::RemoveMemberRequest { node_id }, deadline: None }
    }

    /// Hands leadership to a voter, or to the one that is furthest.
    pub fn transfer_leadership(&self, node_id: Option<u64>) -> TransferLeadership {
        let request = proto::TransferLeadershipRequest { node_id: node_id.unwrap_or(0) };
        TransferLeadership { core: self.core.clone(), request, deadline: None }
    }

    /// Prepares a node for a stop, or undoes that.
    pub fn drain_node(&self, node_id: u64, drain: bool) -> DrainNode {
        DrainNode { core: self.core.clone(), request: proto::DrainNodeRequest { node_id, drain }, deadline: None }
    }
}

call_builder! {
    /// Adds a node; await it. Asked again for the same node it changes nothing, so it is safe to repeat; so are the others.
    AddMember(proto::AddMemberRequest) -> proto::Member
}

impl AddMember {
    async fn send(self) -> Result<proto::Member> {
        let send = method!(ClusterServiceClient, add_member);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        answer.member.ok_or_else(|| Error::malformed("the member"))
    }
}

call_builder! {
    /// Gives a node a vote; await it.
    PromoteMember(proto::PromoteMemberRequest) -> proto::Member
}

impl PromoteMember {
    async fn send(self) -> Result<proto::Member> {
        let send = method!(ClusterServiceClient, promote_member);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        answer.member.ok_or_else(|| Error::malformed("the member"))
    }
}

call_builder! {
    /// Removes a node; await it for the members that remain.
    RemoveMember(proto::RemoveMemberRequest) -> Vec<proto::Member>
}

impl RemoveMember {
    async fn send(self) -> Result<Vec<proto::Member>> {
        let send = method!(ClusterServiceClient, remove_member);
        Ok(self.core.call(CallKind::Write, self.deadline, self.request, send).await?.members)
    }
}

call_builder! {
    /// Hands over leadership; await it for the leader's id.
    TransferLeadership(proto::TransferLeadershipRequest) -> u64
}

impl TransferLeadership {
    async fn send(self) -> Result<u64> {
        let send = method!(ClusterServiceClient, transfer_leadership);
        Ok(self.core.call(CallKind::Write, self.deadline, self.request, send).await?.leader_id)
    }
}

call_builder! {
    /// Drains a node; await it for the node's state.
    DrainNode(proto::DrainNodeRequest) -> proto::NodeState
}

impl DrainNode {
    async fn send(self) -> Result<proto::NodeState> {
        let send = method!(ClusterServiceClient, drain_node);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        answer.state.ok_or_else(|| Error::malformed("the state"))
    }
}
