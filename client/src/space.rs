//! [`Space`]: the calls that work on the memories of one space.
//!
//! Every call is a builder that is sent by awaiting it.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use cairn_proto::v1::space_service_client::SpaceServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::call::{Core, method};
use crate::client::{
    call_builder, delete_call, history_builder, paged_builder, read_builder, request_id_or_new, write_builder,
};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::proto;
use crate::results::{self, Added, Consistency, Counted, Deleted, Found, Page, Position, SearchResult, SpaceInfo};
use crate::{Filter, History, Import, Memory, Namespaces, Query, Scope, Update, Watch};

/// A handle to one space, by name or alias; made by [`Client::space`](crate::Client::space), without a call.
#[derive(Clone)]
pub struct Space {
    core: Arc<Core>,
    name: String,
}

impl Space {
    pub(crate) fn new(core: Arc<Core>, name: String) -> Self {
        Self { core, name }
    }

    /// The name or alias that this handle was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes one memory; a memory with the same id is replaced.
    pub fn add(&self, memory: impl Into<Memory>) -> Add {
        self.add_all([memory.into()])
    }

    /// Writes 1 to 1,000 memories of at most 3 MiB, all or nothing; see [`batches`](crate::batches) for more.
    pub fn add_all(&self, memories: impl IntoIterator<Item = Memory>) -> Add {
        let request = proto::AddMemoriesRequest {
            space: self.name.clone(),
            memories: memories.into_iter().map(Into::into).collect(),
            ..Default::default()
        };
        Add { core: self.core.clone(), request, deadline: None }
    }

    /// Finds the memories nearest to a query.
    pub fn search(&self, query: impl Into<Query>) -> Search {
        let request = proto::SearchMemoriesRequest {
            space: self.name.clone(),
            query: Some(query.into().into()),
            ..Default::default()
        };
        Search { core: self.core.clone(), request, deadline: None }
    }

    /// Reads 1 to 1,000 memories by id.
    pub fn get<T: Into<String>>(&self, ids: impl IntoIterator<Item = T>) -> Get {
        let ids = ids.into_iter().map(Into::into).collect();
        let request = proto::GetMemoriesRequest { space: self.name.clone(), ids, ..Default::default() };
        Get { core: self.core.clone(), request, deadline: None }
    }

    /// Lists memories in order of time, by default those made last first.
    pub fn list(&self) -> List {
        let request = proto::ListMemoriesRequest { space: self.name.clone(), ..Default::default() };
        List { core: self.core.clone(), request, deadline: None }
    }

    /// Counts memories.
    pub fn count(&self) -> Count {
        let request = proto::CountMemoriesRequest { space: self.name.clone(), ..Default::default() };
        Count { core: self.core.clone(), request, deadline: None }
    }

    /// Changes single fields of a memory:
    ///
    /// ```
    /// # fn change(space: &cairn_client::Space) {
    /// let call = space.update("m1").content("Ada takes soy milk").metadata("drink.milk", "soy").reason("she said so");
    /// # }
    /// ```
    pub fn update(&self, id: impl Into<String>) -> Update {
        Update::new(self.core.clone(), self, id.into())
    }

    /// Reads the versions of a memory, newest first: the present one, and as many earlier ones as the space keeps.
    pub fn history(&self, id: impl Into<String>) -> History {
        History::new(self.core.clone(), self, id.into())
    }

    /// Deletes 1 to 1,000 memories by id; ids that are not there are no error.
    pub fn delete<T: Into<String>>(&self, ids: impl IntoIterator<Item = T>) -> Delete {
        let ids = ids.into_iter().map(Into::into).collect();
        self.delete_target(proto::delete_memories_request::Target::Ids(proto::MemoryIds { ids }))
    }

    /// Deletes the memories that match both; at least one of both must say something.
    pub fn delete_matching(&self, scope: Scope, filter: Option<Filter>) -> Delete {
        let selection = proto::Selection { scope: scope.into_proto(), filter: filter.map(Into::into), all: false };
        self.delete_target(proto::delete_memories_request::Target::Selection(selection))
    }

    /// Deletes every memory of the space; the space stays.
    pub fn delete_everything(&self) -> Delete {
        let selection = proto::Selection { scope: None, filter: None, all: true };
        self.delete_target(proto::delete_memories_request::Target::Selection(selection))
    }

    fn delete_target(&self, target: proto::delete_memories_request::Target) -> Delete {
        let request =
            proto::DeleteMemoriesRequest { space: self.name.clone(), target: Some(target), ..Default::default() };
        Delete { core: self.core.clone(), request, deadline: None }
    }

    /// Writes any number of memories. Under the same id and with the same memories an import can be begun anew within
    /// 24 hours, after whatever broke: what was written is not written again. The id has 1 to 64 bytes.
    pub fn import(&self, import_id: impl Into<String>) -> Import {
        Import::new(self.core.clone(), self.name.clone(), import_id.into())
    }

    /// Follows the changes of the space, from now on or from a position.
    pub fn watch(&self) -> Watch {
        Watch::new(self.core.clone(), self.name.clone())
    }

    /// Reads the namespaces in use: all of them, or those [`below`](Namespaces::below) one.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.core.clone(), self)
    }

    /// Reads the space itself and what is in it.
    pub fn info(&self) -> Info {
        let request = proto::GetSpaceRequest { name: self.name.clone(), ..Default::default() };
        Info { core: self.core.clone(), request, deadline: None }
    }
}

/// Adds what all reads of some memories have: whose, and which of them.
macro_rules! selection_builder {
    ($name:ident) => {
        impl $name {
            /// Only memories of this scope.
            pub fn scope(mut self, scope: Scope) -> Self {
                self.request.scope = scope.into_proto();
                self
            }

            /// Only memories that match.
            pub fn filter(mut self, filter: Filter) -> Self {
                self.request.filter = Some(filter.into());
                self
            }
        }
    };
}

call_builder! {
    /// A write of memories; await it.
    Add(proto::AddMemoriesRequest) -> Added
}
write_builder!(Add);
history_builder!(Add, request);

impl Add {
    /// Fails with `AlreadyExists` where an id is there already, instead of replacing the memory.
    pub fn insert_only(mut self) -> Self {
        self.request.write_mode = proto::WriteMode::Insert.into();
        self
    }

    async fn send(mut self) -> Result<Added> {
        request_id_or_new(&mut self.request.request_id);
        let sent = self.request.memories.len();
        let send = method!(MemoryServiceClient, add_memories);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        Added::from_proto(answer, sent)
    }
}

call_builder! {
    /// A search; await it.
    Search(proto::SearchMemoriesRequest) -> SearchResult
}
read_builder!(Search);
selection_builder!(Search);

impl Search {
    /// At most this many hits, 1 to 1,000; 10 where it is not said.
    pub fn limit(mut self, limit: u32) -> Self {
        self.request.limit = i32::try_from(limit).unwrap_or(i32::MAX);
        self
    }

    /// Leaves out hits with a lower score.
    pub fn min_score(mut self, score: f32) -> Self {
        self.request.min_score = Some(score);
        self
    }

    /// Compares with every match, so that nothing is missed.
    pub fn exact(mut self, exact: bool) -> Self {
        self.request.params.get_or_insert_default().exact = exact;
        self
    }

    /// How many candidates the index keeps, at most 10,000; 0: enough for recall@10 of 0.97.
    pub fn effort(mut self, effort: u32) -> Self {
        self.request.params.get_or_insert_default().effort = effort;
        self
    }

    /// Returns the vectors too.
    pub fn include_vectors(mut self, include: bool) -> Self {
        self.request.include_vectors = include;
        self
    }

    /// Returns how the search was carried out.
    pub fn explain(mut self, explain: bool) -> Self {
        self.request.explain = explain;
        self
    }

    async fn send(self) -> Result<SearchResult> {
        let send = method!(MemoryServiceClient, search_memories);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        SearchResult::from_proto(answer)
    }
}

call_builder! {
    /// A read by ids; await it.
    Get(proto::GetMemoriesRequest) -> Found
}
read_builder!(Get);

impl Get {
    /// Returns the vectors too.
    pub fn include_vectors(mut self, include: bool) -> Self {
        self.request.include_vectors = include;
        self
    }

    async fn send(self) -> Result<Found> {
        let send = method!(MemoryServiceClient, get_memories);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(Found {
            memories: results::memories(answer.memories),
            missing_ids: answer.missing_ids,
            position: answer.position.into(),
        })
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Made last comes first.
    #[default]
    CreatedDescending,
    /// Made first comes first.
    Created,
    /// Written last comes first.
    UpdatedDescending,
    /// Written first comes first.
    Updated,
}

call_builder! {
    /// A list: await it for one page, or turn it into a [`stream`](List::stream) of all memories.
    List(proto::ListMemoriesRequest) -> Page
}
read_builder!(List);
selection_builder!(List);
paged_builder!(List, "Memories": Page { memories: Memory });

impl List {
    /// The order.
    pub fn order(mut self, order: Order) -> Self {
        self.request.order_by = match order {
            Order::CreatedDescending => "created_at desc",
            Order::Created => "created_at",
            Order::UpdatedDescending => "updated_at desc",
            Order::Updated => "updated_at",
        }
        .to_owned();
        self
    }

    /// Returns the vectors too.
    pub fn include_vectors(mut self, include: bool) -> Self {
        self.request.include_vectors = include;
        self
    }

    async fn send(self) -> Result<Page> {
        let send = method!(MemoryServiceClient, list_memories);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(Page {
            memories: results::memories(answer.memories),
            next_page_token: results::next_page(answer.next_page_token),
            position: answer.position.into(),
        })
    }
}

call_builder! {
    /// A count; await it.
    Count(proto::CountMemoriesRequest) -> Counted
}
read_builder!(Count);
selection_builder!(Count);

impl Count {
    async fn send(self) -> Result<Counted> {
        let send = method!(MemoryServiceClient, count_memories);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(Counted { count: answer.count, position: answer.position.into() })
    }
}

call_builder! {
    /// A delete; await it.
    Delete(proto::DeleteMemoriesRequest) -> Deleted
}
delete_call!(Delete, MemoryServiceClient, delete_memories);

call_builder! {
    /// A read of a space itself; await it.
    Info(proto::GetSpaceRequest) -> SpaceInfo
}
read_builder!(Info);

impl Info {
    async fn send(self) -> Result<SpaceInfo> {
        let send = method!(SpaceServiceClient, get_space);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(SpaceInfo {
            space: answer.space.ok_or_else(|| Error::malformed("the space"))?,
            statistics: answer.statistics.unwrap_or_default(),
            position: answer.position.into(),
        })
    }
}
