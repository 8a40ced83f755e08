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
