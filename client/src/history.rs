//! [`History`]: the versions of a memory.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::memory_service_client::MemoryServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::call::{Core, method};
use crate::client::{call_builder, read_builder};
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

impl History {
    pub(crate) fn new(core: Arc<Core>, space: &Space, id: String) -> Self {
        let request = proto::GetMemoryHistoryRequest { space: space.name().to_owned(), id, ..Default::default() };
        Self { core, request, deadline: None }
    }

    /// Versions a page, 1 to 1,000; 50 where it is not said.
    pub fn page_size(mut self, size: u32) -> Self {
        self.request.page_size = i32::try_from(size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on where an earlier page of the same history ended.
    pub fn page_token(mut self, token: impl Into<String>) -> Self {
        self.request.page_token = token.into();
        self
    }

    /// All versions, page by page; the deadline holds for each page. The stream ends after the first error.
    pub fn stream(self) -> BoxStream<'static, Result<Revision>> {
        stream::try_unfold(Some(self), |history| async move {
            let Some(history) = history else { return Ok(None) };
            let mut next = history.clone();
            let page = history.send().await?;
            let next = match page.next_page_token {
                Some(token) if token == next.request.page_token => return Err(Error::malformed("a new page token")),
                Some(token) => {
                    next.request.page_token = token;
                    Some(next)
                }
                None => None,
            };
            Ok(Some((stream::iter(VecDeque::from(page.revisions).into_iter().map(Ok)), next)))
        })
        .try_flatten()
        .boxed()
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
