//! A server in the test's own process that answers from a script, and writes down what it was asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_server::{MemoryService, MemoryServiceServer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::error::LEADER_HINT;
use crate::proto;

/// What the server does with the next call.
pub(crate) enum Step {
    /// Answers well.
    Answer,
    /// Answers well and says who leads.
    AnswerWithLeader(String),
    /// Refuses.
    Fail(Status),
    /// Does not answer.
    Hang,
}

/// A call as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) request_id: String,
    pub(crate) timeout: Option<String>,
}

/// A running mock; it stops when the test's runtime does.
#[derive(Clone)]
pub(crate) struct Mock {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Step>,
    seen: Vec<Seen>,
    pages: usize,
    watches: VecDeque<Vec<Result<proto::WatchMemoriesResponse, Status>>>,
    watched: Vec<String>,
    /// After how many acknowledgements each import breaks, and how; without an entry it goes on to its end.
    imports: VecDeque<(usize, Status)>,
    imported: Vec<(u64, Vec<String>)>,
    listed: Vec<proto::ListMemoriesRequest>,
    updated: Vec<proto::UpdateMemoryRequest>,
}

impl Mock {
    /// Starts a server; calls beyond the script are answered well.
    pub(crate) async fn start(script: impl IntoIterator<Item = Step>) -> Self {
        let state = State { script: script.into_iter().collect(), pages: 3, ..State::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mock = Self { address, state: Arc::new(Mutex::new(state)) };
        let service = MemoryServiceServer::new(mock.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        mock
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    pub(crate) fn listed(&self) -> Vec<proto::ListMemoriesRequest> {
        self.state.lock().listed.clone()
    }

    pub(crate) fn updated(&self) -> Vec<proto::UpdateMemoryRequest> {
        self.state.lock().updated.clone()
    }

    /// What the next watches tell, one after the other; without one, they are refused as unavailable.
    pub(crate) fn tell(&self, watches: impl IntoIterator<Item = Vec<Result<proto::WatchMemoriesResponse, Status>>>) {
        self.state.lock().watches.extend(watches);
    }

    /// Lets the next imports break after so many acknowledgements each.
    pub(crate) fn break_imports(&self, imports: impl IntoIterator<Item = (usize, Status)>) {
        self.state.lock().imports.extend(imports);
    }

    /// Every batch that arrived: its offset, and the ids of its memories.
    pub(crate) fn imported(&self) -> Vec<(u64, Vec<String>)> {
        self.state.lock().imported.clone()
    }

    /// The positions that watches were to begin behind.
    pub(crate) fn watched(&self) -> Vec<String> {
        self.state.lock().watched.clone()
    }

    async fn play<A>(&self, seen: Seen, answer: A) -> Result<Response<A>, Status> {
        let step = {
            let mut state = self.state.lock();
            state.seen.push(seen);
            state.script.pop_front().unwrap_or(Step::Answer)
        };
        let mut response = Response::new(answer);
        match step {
            Step::Answer => {}
            Step::AnswerWithLeader(leader) => {
                response.metadata_mut().insert(LEADER_HINT, leader.parse().unwrap());
            }
            Step::Fail(status) => return Err(status),
            Step::Hang => tokio::time::sleep(Duration::from_secs(3_600)).await,
        }
        Ok(response)
    }
}

fn seen<T>(request: &Request<T>, request_id: &str) -> Seen {
    let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
    Seen { request_id: request_id.to_owned(), timeout }
}

type Answer<T> = Result<Response<T>, Status>;

fn unscripted<T>() -> Answer<T> {
    Err(Status::unimplemented("the mock does not play this"))
}

#[tonic::async_trait]
impl MemoryService for Mock {
    type ImportMemoriesStream = tokio_stream::wrappers::ReceiverStream<Result<proto::ImportMemoriesResponse, Status>>;
    type WatchMemoriesStream = tokio_stream::Iter<std::vec::IntoIter<Result<proto::WatchMemoriesResponse, Status>>>;

    async fn add_memories(&self, request: Request<proto::AddMemoriesRequest>) -> Answer<proto::AddMemoriesResponse> {
        let results = request.get_ref().memories.iter().map(|memory| proto::WriteResult {
            id: memory.id.clone(),
            version: 1,
            outcome: proto::WriteOutcome::Created.into(),
        });
        let answer = proto::AddMemoriesResponse { results: results.collect(), position: "p1".to_owned() };
        self.play(seen(&request, &request.get_ref().request_id), answer).await
    }

    async fn count_memories(
        &self,
        request: Request<proto::CountMemoriesRequest>,
    ) -> Answer<proto::CountMemoriesResponse> {
        let answer = proto::CountMemoriesResponse { count: 7, position: "p2".to_owned() };
        self.play(seen(&request, ""), answer).await
    }

    async fn list_memories(&self, request: Request<proto::ListMemoriesRequest>) -> Answer<proto::ListMemoriesResponse> {
        let pages = {
            let mut state = self.state.lock();
            state.listed.push(request.get_ref().clone());
            state.pages
        };
        let page: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let memories =
            (0..2).map(|index| proto::Memory { id: format!("{page}-{index}"), ..Default::default() }).collect();
        let next_page_token = if page + 1 < pages { (page + 1).to_string() } else { String::new() };
        let answer = proto::ListMemoriesResponse { memories, next_page_token, position: "p3".to_owned() };
        self.play(seen(&request, ""), answer).await
    }

    async fn import_memories(
        &self,
        request: Request<tonic::Streaming<proto::ImportMemoriesRequest>>,
    ) -> Answer<Self::ImportMemoriesStream> {
        use proto::import_memories_request::Message;
        let (mut requests, state) = (request.into_inner(), Arc::clone(&self.state));
        let (answers, answered) = tokio::sync::mpsc::channel(1);
        let end = state.lock().imports.pop_front();
        tokio::spawn(async move {
            let mut left = end.as_ref().map_or(usize::MAX, |(acknowledgements, _)| *acknowledgements);
            while let Ok(Some(request)) = requests.message().await {
                let Some(Message::Batch(batch)) = request.message else { continue };
                let ids: Vec<String> = batch.memories.into_iter().map(|memory| memory.id).collect();
                let result = |id: &String| proto::WriteResult { id: id.clone(), version: 1, outcome: 1 };
                let answer = proto::ImportMemoriesResponse {
                    acknowledged_offset: batch.offset + ids.len() as u64,
                    results: ids.iter().map(result).collect(),
                    position: "p5".to_owned(),
                };
                state.lock().imported.push((batch.offset, ids));
                if left == 0 {
                    break;
                }
                left -= 1;
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if let Some((_, status)) = end {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(answered)))
    }

    async fn get_memories(&self, _: Request<proto::GetMemoriesRequest>) -> Answer<proto::GetMemoriesResponse> {
        unscripted()
    }

    async fn update_memory(&self, request: Request<proto::UpdateMemoryRequest>) -> Answer<proto::UpdateMemoryResponse> {
        self.state.lock().updated.push(request.get_ref().clone());
        let memory = proto::Memory { version: 2, ..request.get_ref().memory.clone().unwrap_or_default() };
        let answer = proto::UpdateMemoryResponse { memory: Some(memory), position: "p5".to_owned() };
        self.play(seen(&request, &request.get_ref().request_id), answer).await
    }

    async fn delete_memories(
        &self,
        request: Request<proto::DeleteMemoriesRequest>,
    ) -> Answer<proto::DeleteMemoriesResponse> {
        let answer = proto::DeleteMemoriesResponse { deleted_count: 2, position: "p4".to_owned() };
        self.play(seen(&request, &request.get_ref().request_id), answer).await
    }

    async fn search_memories(&self, _: Request<proto::SearchMemoriesRequest>) -> Answer<proto::SearchMemoriesResponse> {
        unscripted()
    }

    async fn get_memory_history(
        &self,
        request: Request<proto::GetMemoryHistoryRequest>,
    ) -> Answer<proto::GetMemoryHistoryResponse> {
        let page: u64 = request.get_ref().page_token.parse().unwrap_or(0);
        let memory = proto::Memory { id: request.get_ref().id.clone(), version: 2 - page, ..Default::default() };
        let change = if page == 0 { proto::ChangeType::Updated } else { proto::ChangeType::Created };
        let revision = proto::Revision {
            memory: Some(memory),
            change: change.into(),
            changed_at: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
            actor: "ada".to_owned(),
            reason: "why not".to_owned(),
            principal: "token".to_owned(),
        };
        let next_page_token = if page == 0 { "1".to_owned() } else { String::new() };
        let answer =
            proto::GetMemoryHistoryResponse { revisions: vec![revision], next_page_token, position: "p6".to_owned() };
        self.play(seen(&request, ""), answer).await
    }

    /// Two pages.
    async fn list_namespaces(
        &self,
        request: Request<proto::ListNamespacesRequest>,
    ) -> Answer<proto::ListNamespacesResponse> {
        let (below, first) = (request.get_ref().prefix.clone(), request.get_ref().page_token.is_empty());
        let path = format!("{below}/{}", if first { "a" } else { "b" });
        let answer = proto::ListNamespacesResponse {
            namespaces: vec![proto::Namespace { path, memory_count: 3 }],
            next_page_token: if first { "1".to_owned() } else { String::new() },
            position: "p7".to_owned(),
        };
        self.play(seen(&request, ""), answer).await
    }

    async fn watch_memories(&self, request: Request<proto::WatchMemoriesRequest>) -> Answer<Self::WatchMemoriesStream> {
        let told = {
            let mut state = self.state.lock();
            state.watched.push(request.get_ref().after.clone());
            state.watches.pop_front()
        };
        let told = told.ok_or_else(|| Status::unavailable("nothing is told here"))?;
        Ok(Response::new(tokio_stream::iter(told)))
    }
}
