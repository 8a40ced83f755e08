//! [`History`]: the versions of a memory.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::call::{Core, method};
use crate::client::{call_builder, paged_builder, read_builder};
use crate::endpoints::CallKind;
use crate::error::{Error, Result};
use crate::proto;
use crate::results::{self, Consistency, Position};
use crate::watch::change_kind;
use crate::{ChangeKind, Memory, Space, Timestamp};

/// One version of a memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The memory as it was, without vectors.
    pub memory: Memory,
    /// What led to this version: it was created or updated.
    pub change: ChangeKind,
    /// When.
    pub changed_at: Option<Timestamp>,
    /// Who, as the write said.
    pub actor: String,
    /// Why, as the write said.
    pub reason: String,
    /// Who, as the caller's token said.
    pub principal: String,
}

/// One page of a history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The versions, newest first.
    pub revisions: Vec<Revision>,
    /// Give it to the same history as `page_token` for the next page; none on the last one.
    pub next_page_token: Option<String>,
    /// The position that was read.
    pub position: Position,
}

call_builder! {
    /// A read of the versions of a memory, newest first: await it for one page, or turn it into a
    /// [`stream`](History::stream) of all.
    History(proto::GetMemoryHistoryRequest) -> HistoryPage
}
read_builder!(History);
paged_builder!(History, "Versions": HistoryPage { revisions: Revision });

impl History {
    pub(crate) fn new(core: Arc<Core>, space: &Space, id: String) -> Self {
        let request = proto::GetMemoryHistoryRequest { space: space.name().to_owned(), id, ..Default::default() };
        Self { core, request, deadline: None }
    }

    async fn send(self) -> Result<HistoryPage> {
        let send = method!(MemoryServiceClient, get_memory_history);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(HistoryPage {
            revisions: answer.revisions.into_iter().map(revision).collect::<Result<_>>()?,
            next_page_token: results::next_page(answer.next_page_token),
            position: answer.position.into(),
        })
    }
}

fn revision(revision: proto::Revision) -> Result<Revision> {
    Ok(Revision {
        change: change_kind(revision.change())?,
        memory: revision.memory.ok_or_else(|| Error::malformed("the memory of a version"))?.into(),
        changed_at: revision.changed_at.map(Into::into),
        actor: revision.actor,
        reason: revision.reason,
        principal: revision.principal,
    })
}
