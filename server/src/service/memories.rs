//! `cairn.v1.MemoryService`.

use std::pin::Pin;
use std::sync::Arc;

use cairn_engine::{Engine, WriteRequest, WriteResponse};
use cairn_proto::v1;
use cairn_proto::v1::memory_service_server::MemoryService;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Effect, Service};
use crate::telemetry::Operation;

/// See the module.
pub(crate) struct Memories(pub(crate) Arc<Service>);

/// A stream of responses.
pub(super) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MemoryService for Memories {
    async fn add_memories(
        &self,
        request: Request<v1::AddMemoriesRequest>,
    ) -> Result<Response<v1::AddMemoriesResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::AddMemories(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::AddMemories, request, WriteRequest::AddMemories, unwrap).await
    }

    type ImportMemoriesStream = Responses<v1::ImportMemoriesResponse>;

    async fn import_memories(
        &self,
        request: Request<Streaming<v1::ImportMemoriesRequest>>,
    ) -> Result<Response<Self::ImportMemoriesStream>, Status> {
        super::import::import(&self.0, request)
    }

    async fn get_memories(
        &self,
        request: Request<v1::GetMemoriesRequest>,
    ) -> Result<Response<v1::GetMemoriesResponse>, Status> {
        self.0
            .serve_read(Operation::GetMemories, request, |message| message.consistency.as_ref(), Engine::get_memories)
            .await
    }

    async fn list_memories(
        &self,
        request: Request<v1::ListMemoriesRequest>,
    ) -> Result<Response<v1::ListMemoriesResponse>, Status> {
        self.0
            .serve_read(Operation::ListMemories, request, |message| message.consistency.as_ref(), Engine::list_memories)
            .await
    }

    async fn update_memory(
        &self,
        request: Request<v1::UpdateMemoryRequest>,
    ) -> Result<Response<v1::UpdateMemoryResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::UpdateMemory(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::UpdateMemory, request, WriteRequest::UpdateMemory, unwrap).await
    }

    async fn delete_memories(
        &self,
        request: Request<v1::DeleteMemoriesRequest>,
    ) -> Result<Response<v1::DeleteMemoriesResponse>, Status> {
        let unwrap = |response| match response {
            WriteResponse::DeleteMemories(response) => Some(response),
            _ => None,
        };
        self.0.serve_write(Operation::DeleteMemories, request, WriteRequest::DeleteMemories, unwrap).await
    }

    async fn search_memories(
        &self,
        request: Request<v1::SearchMemoriesRequest>,
    ) -> Result<Response<v1::SearchMemoriesResponse>, Status> {
        let service = &self.0;
        let work = |call, message: v1::SearchMemoriesRequest| async move {
            let point = service.read_point(&call, message.consistency.as_ref()).await?;
            let message = service.embed_query(&call, message, point).await?;
            let read =
                move |engine: &Engine, principal: &_, point: &_| engine.search_memories(principal, &message, point);
            service.read_at(&call, point, read).await
        };
        service.serve(Operation::SearchMemories, Effect::Read, request, work).await
    }

    async fn count_memories(
        &self,
        request: Request<v1::CountMemoriesRequest>,
    ) -> Result<Response<v1::CountMemoriesResponse>, Status> {
        self.0
            .serve_read(
                Operation::CountMemories,
                request,
                |message| message.consistency.as_ref(),
                Engine::count_memories,
            )
            .await
    }

    async fn get_memory_history(
        &self,
        request: Request<v1::GetMemoryHistoryRequest>,
    ) -> Result<Response<v1::GetMemoryHistoryResponse>, Status> {
        self.0
            .serve_read(
                Operation::GetMemoryHistory,
                request,
                |message| message.consistency.as_ref(),
                Engine::get_memory_history,
            )
            .await
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        self.0
            .serve_read(
                Operation::ListNamespaces,
                request,
                |message| message.consistency.as_ref(),
                Engine::list_namespaces,
            )
            .await
    }

    type WatchMemoriesStream = Responses<v1::WatchMemoriesResponse>;

    async fn watch_memories(
        &self,
        request: Request<v1::WatchMemoriesRequest>,
    ) -> Result<Response<Self::WatchMemoriesStream>, Status> {
        super::watch::watch(&self.0, request).await
    }
}
