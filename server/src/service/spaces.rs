//! `cairn.v1.SpaceService`.

use std::sync::Arc;

use cairn_engine::{Engine, WriteRequest, WriteResponse};
use cairn_proto::v1;
use cairn_proto::v1::space_service_server::SpaceService;
use tonic::{Request, Response, Status};

use super::Service;
use crate::telemetry::Operation;

/// See the module.
pub(crate) struct Spaces(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl SpaceService for Spaces {
    async fn create_space(
        &self,
        request: Request<v1::CreateSpaceRequest>,
    ) -> Result<Response<v1::CreateSpaceResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::CreateSpace(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::CreateSpace, request, WriteRequest::CreateSpace, unwrap).await
    }

    async fn get_space(&self, request: Request<v1::GetSpaceRequest>) -> Result<Response<v1::GetSpaceResponse>, Status> {
        self.0.serve_read(Operation::GetSpace, request, |message| message.consistency.as_ref(), Engine::get_space).await
    }

    async fn list_spaces(
        &self,
        request: Request<v1::ListSpacesRequest>,
    ) -> Result<Response<v1::ListSpacesResponse>, Status> {
        self.0
            .serve_read(Operation::ListSpaces, request, |message| message.consistency.as_ref(), Engine::list_spaces)
            .await
    }

    async fn update_space(
        &self,
        request: Request<v1::UpdateSpaceRequest>,
    ) -> Result<Response<v1::UpdateSpaceResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::UpdateSpace(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::UpdateSpace, request, WriteRequest::UpdateSpace, unwrap).await
    }

    async fn delete_space(
        &self,
        request: Request<v1::DeleteSpaceRequest>,
    ) -> Result<Response<v1::DeleteSpaceResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::DeleteSpace(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::DeleteSpace, request, WriteRequest::DeleteSpace, unwrap).await
    }

    async fn set_alias(&self, request: Request<v1::SetAliasRequest>) -> Result<Response<v1::SetAliasResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::SetAlias(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::SetAlias, request, WriteRequest::SetAlias, unwrap).await
    }
}
