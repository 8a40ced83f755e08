//! `cairn.v1.ClusterService`: the state of the cluster and changes of its members. None of it needs a place among the calls
//! under way, so that a cluster can be mended while it is overloaded.

use std::sync::Arc;

use cairn_proto::v1;
use cairn_proto::v1::cluster_service_server::ClusterService;
use cairn_raft::Peer;
use tonic::{Request, Response, Status};

use super::{Call, Effect, Service};
use crate::config::is_host_and_port;
use crate::error::Problem;
use crate::monitor::Picture;
use crate::telemetry::Operation;

/// See the module.
pub(crate) struct Cluster(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_status(
        &self,
        request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let service = &self.0;
        let work = |_call, _message: v1::GetClusterStatusRequest| async move {
            // The others report once a second. Whoever has written through this node sees that at once.
            Ok(Picture::now(&service.node).await.status)
        };
        service.serve(Operation::GetClusterStatus, Effect::Observe, request, work).await
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let service = &self.0;
        let work = |call: Call, message: v1::AddMemberRequest| async move {
            let peer = new_member(message)?;
            let member = service.node.add_member(peer, call.deadline.into_std()).await?;
            Ok(v1::AddMemberResponse { member: Some(member) })
        };
        service.serve(Operation::ChangeCluster, Effect::Observe, request, work).await
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        let service = &self.0;
        let work = |call: Call, message: v1::PromoteMemberRequest| async move {
            let node_id = required_id(message.node_id)?;
            let member = service.node.promote_member(node_id, call.deadline.into_std()).await?;
            Ok(v1::PromoteMemberResponse { member: Some(member) })
        };
        service.serve(Operation::ChangeCluster, Effect::Observe, request, work).await
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let service = &self.0;
        let work = |call: Call, message: v1::RemoveMemberRequest| async move {
            let node_id = required_id(message.node_id)?;
            let members = service.node.remove_member(node_id, call.deadline.into_std()).await?;
            Ok(v1::RemoveMemberResponse { members })
        };
        service.serve(Operation::ChangeCluster, Effect::Observe, request, work).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let service = &self.0;
        let work = |call: Call, message: v1::TransferLeadershipRequest| async move {
            let target = (message.node_id != 0).then_some(message.node_id);
            let leader_id = service.node.transfer_leadership(target, call.deadline.into_std()).await?;
            Ok(v1::TransferLeadershipResponse { leader_id })
        };
        service.serve(Operation::ChangeCluster, Effect::Observe, request, work).await
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let service = &self.0;
        let work = |call: Call, message: v1::DrainNodeRequest| async move {
            let node_id = if message.node_id == 0 { service.node.node_id() } else { message.node_id };
            let state = service.node.drain_node(node_id, message.drain, call.deadline.into_std()).await?;
            // Probes see it at once where it is this node, and not only with the next look.
            service.observe();
            Ok(v1::DrainNodeResponse { state: Some(state) })
        };
        service.serve(Operation::ChangeCluster, Effect::Observe, request, work).await
    }
}

fn required_id(node_id: u64) -> Result<u64, Problem> {
    if node_id == 0 { Err(Problem::invalid("node_id", "must be 1 or more")) } else { Ok(node_id) }
}

fn new_member(message: v1::AddMemberRequest) -> Result<Peer, Problem> {
    let id = required_id(message.node_id)?;
    for (field, address) in [("peer_address", &message.peer_address), ("client_address", &message.client_address)] {
        if !is_host_and_port(address) {
            return Err(Problem::invalid(field, format!("{address:?} is not HOST:PORT")));
        }
    }
    Ok(Peer { id, peer_address: message.peer_address, client_address: message.client_address })
}
