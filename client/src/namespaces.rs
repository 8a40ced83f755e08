//! [`Namespaces`]: the namespaces in use.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::Space;
use crate::call::{Core, method};
use crate::client::{call_builder, paged_builder, read_builder};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::proto;
use crate::results::{self, Consistency, Position};

/// A namespace that at least one memory carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its path, such as `team/x`.
    pub path: String,
    /// How many memories carry exactly this path; those of the namespaces below it do not count.
    pub memory_count: u64,
}

/// One page of namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePage {
    /// The namespaces, in order of their paths' bytes.
    pub namespaces: Vec<Namespace>,
    /// Give it to the same call as `page_token` for the next page; none on the last one.
    pub next_page_token: Option<String>,
    /// The position that was read.
    pub position: Position,
}

call_builder! {
    /// A read of the namespaces in use: await it for one page, or turn it into a [`stream`](Namespaces::stream) of all.
    Namespaces(proto::ListNamespacesRequest) -> NamespacePage
}
read_builder!(Namespaces);
paged_builder!(Namespaces, "Namespaces": NamespacePage { namespaces: Namespace });

impl Namespaces {
    pub(crate) fn new(core: Arc<Core>, space: &Space) -> Self {
        let request = proto::ListNamespacesRequest { space: space.name().to_owned(), ..Default::default() };
        Self { core, request, deadline: None }
    }

    /// Only this namespace and those below it.
    pub fn below(mut self, path: impl Into<String>) -> Self {
        self.request.prefix = path.into();
        self
    }

    async fn send(self) -> Result<NamespacePage> {
        let send = method!(MemoryServiceClient, list_namespaces);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        let namespace = |found: proto::Namespace| Namespace { path: found.path, memory_count: found.memory_count };
        Ok(NamespacePage {
            namespaces: answer.namespaces.into_iter().map(namespace).collect(),
            next_page_token: results::next_page(answer.next_page_token),
            position: answer.position.into(),
        })
    }
}
