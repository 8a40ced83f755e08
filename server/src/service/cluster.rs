//! `cairn.v1.ClusterService`: the state of the cluster. Changes of its members come with a later version.

use std::sync::Arc;

use cairn_proto::v1;
use cairn_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::{Effect, Service};
use crate::monitor::Picture;
use crate::telemetry::Operation;

/// See the module.
pub(crate) struct Cluster(pub(crate) Arc<Service>);

impl Cluster {
    fn later<R>(&self, rpc: &str) -> Result<Response<R>, Status> {
        Err(self.0.unimplemented(Operation::ChangeCluster, rpc))
    }
}

impl Service {
    /// Members report their states once a second. What this node has applied is at hand, so that a caller who has written
    /// through it sees that.
    fn refresh_own_state(&self, status: &mut v1::GetClusterStatusResponse) {
        let own = status.members.iter_mut().find(|member| member.node_id == status.node_id);
        if let Some(state) = own.and_then(|own| own.state.as_mut()) {
            let applied = self.node.engine().applied();
            state.applied_index = applied.log_id.map_or(0, |log_id| log_id.index);
            state.digest = hex::encode(applied.digest);
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_status(
        &self,
        request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let service = &self.0;
        let work = |_call, _message: v1::GetClusterStatusRequest| async move {
            let mut status = Picture::of(&service.node).status;
            service.refresh_own_state(&mut status);
            Ok(status)
        };
        service.serve(Operation::GetClusterStatus, Effect::Observe, request, work).await
    }

    async fn add_member(
        &self,
        _request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        self.later("AddMember")
    }

    async fn promote_member(
        &self,
        _request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        self.later("PromoteMember")
    }

    async fn remove_member(
        &self,
        _request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        self.later("RemoveMember")
    }

    async fn transfer_leadership(
        &self,
        _request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.later("TransferLeadership")
    }

    async fn drain_node(
        &self,
        _request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        self.later("DrainNode")
    }
}
