//! The apply thread: turns committed entries into state, one engine batch per chunk.
//!
//! RocksDB may block for a while; a tokio worker must not, or elections time out. So one thread of its own applies, and the
//! async side hands it chunks and awaits the answers.

use std::sync::Arc;

use cairn_engine::{ApplyEntry, EntryBody};
use cairn_proto::storage;
use tokio::sync::{mpsc, oneshot};

use super::generation::{Generations, error_chain};
use crate::types::{Entry, EntryPayload, LogId, encode_membership};

/// Chunks that may wait for the thread; openraft waits for each chunk anyway.
const QUEUE: usize = 2;

/// What a chunk did: one outcome per entry, in order.
pub(crate) type Applied = Result<Vec<storage::Outcome>, String>;

struct Job {
    entries: Vec<Entry>,
    reply: oneshot::Sender<Applied>,
}

/// A handle of the apply thread; the thread ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct ApplyThread {
    jobs: mpsc::Sender<Job>,
    /// In a simulation there is no thread: whoever hands over a chunk applies it.
    #[cfg(test)]
    generations: Arc<Generations>,
}

impl ApplyThread {
    /// Starts the thread.
    pub(crate) fn start(generations: Arc<Generations>) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        #[cfg(test)]
        if crate::sim::is_running() {
            return Ok(Self { jobs, generations });
        }
        #[cfg(test)]
        let kept = Arc::clone(&generations);
        std::thread::Builder::new().name("cairn-apply".to_string()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                let applied = apply(&generations, &job.entries);
                // The receiver is gone only while the node stops.
                let _ = job.reply.send(applied);
            }
        })?;
        Ok(Self {
            jobs,
            #[cfg(test)]
            generations: kept,
        })
    }

    /// Applies a chunk.
    ///
    /// # Errors
    ///
    /// When the state can no longer be trusted to equal that of the peers: the node must stop.
    pub(crate) async fn apply(&self, entries: Vec<Entry>) -> Applied {
        #[cfg(test)]
        if crate::sim::is_running() {
            crate::sim::before_apply(&entries).await;
            return apply(&self.generations, &entries);
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { entries, reply }).await.map_err(|_| "the apply thread has ended".to_string())?;
        answer.await.map_err(|_| "the apply thread has panicked".to_string())?
    }
}

fn apply(generations: &Generations, entries: &[Entry]) -> Applied {
    let prepared = entries.iter().map(to_apply_entry).collect::<Result<Vec<_>, String>>()?;
    let outcomes = generations.current().apply(&prepared).map_err(|error| error_chain(&error))?;
    if outcomes.len() == entries.len() {
        Ok(outcomes)
    } else {
        Err(format!("the engine answered {} entries with {} outcomes", entries.len(), outcomes.len()))
    }
}

fn to_apply_entry(entry: &Entry) -> Result<ApplyEntry, String> {
    let body = match &entry.payload {
        EntryPayload::Blank => EntryBody::Blank,
        EntryPayload::Membership(membership) => EntryBody::Membership {
            encoded: encode_membership(membership),
            node_ids: membership.nodes().map(|(&id, _)| id).collect(),
        },
        EntryPayload::Normal(command) => {
            let command = command.decode().map_err(|error| format!("entry {} is no command: {error}", entry.log_id))?;
            EntryBody::Command(command)
        }
    };
    Ok(ApplyEntry { log_id: to_engine_log_id(&entry.log_id), body })
}

/// A log id as the engine keeps it.
fn to_engine_log_id(log_id: &LogId) -> cairn_engine::LogId {
    let leader = log_id.committed_leader_id();
    cairn_engine::LogId { term: leader.term, node_id: leader.node_id, index: log_id.index }
}

/// A log id from the engine.
pub(crate) fn from_engine_log_id(log_id: &cairn_engine::LogId) -> LogId {
    LogId::new(crate::types::LeaderId { term: log_id.term, node_id: log_id.node_id }, log_id.index)
}
