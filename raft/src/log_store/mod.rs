//! openraft's log storage over the write-ahead log.
//!
//! ```text
//!   openraft core ----- LogStore  ---\
//!   replication, apply  LogReader ----+-- types::{encode, decode} -- Wal (bytes)
//! ```
//!
//! What openraft asks for, and where it is kept: votes and entries share the log's one queue, so no vote overtakes an
//! entry; entries can be read when `append` returns and are durable when its callback runs; `save_committed` does not
//! wait; `purge` moves the log forward beyond its tail too. Nothing here blocks an async worker: entries that are no
//! longer in memory are read on the blocking pool.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::storage;
use futures::stream::{self, Stream, TryStreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use prost::Message;

use crate::blocking::blocking;
use crate::types::{
    CairnTypes, ConvertError, Entry, LogId, Vote, decode_entry, decode_vote, encode_entry, encode_vote,
    log_id_from_proto, log_id_to_proto,
};
use crate::wal::{Callback, Environment, Recovered, SealContext, Summary, Wal, WalError, WalOptions};

/// The log of one Raft group.
#[derive(Debug)]
pub struct LogStore {
    reader: LogReader,
    /// The id of the last live entry; meaningless while there is none.
    last_entry: Option<LogId>,
}

/// Reads the log while others write it. Clones share it.
#[derive(Debug, Clone)]
pub struct LogReader {
    wal: Arc<Wal>,
    batch_bytes_max: usize,
}

impl LogStore {
    /// Opens or creates the log in a directory. Blocks on the disk.
    ///
    /// `batch_bytes_max`: a batch of entries for a peer, or for the state machine, has about this many bytes at most;
    /// an entry that is larger travels alone. Keep it below the limit of a peer message.
    ///
    /// # Errors
    /// As [`Wal::open`]; [`WalError::Corruption`] as well when what the log holds is no Raft log.
    pub fn open(
        directory: &Path,
        options: WalOptions,
        seal: SealContext,
        batch_bytes_max: usize,
    ) -> Result<(Self, Recovered), WalError> {
        Self::open_in(directory, options, seal, batch_bytes_max, Environment::default())
    }

    /// As [`LogStore::open`], on another file system or with another end.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn open_in(
        directory: &Path,
        options: WalOptions,
        seal: SealContext,
        batch_bytes_max: usize,
        environment: Environment,
    ) -> Result<(Self, Recovered), WalError> {
        let (wal, recovered) = Wal::open_in(directory, options, seal, environment)?;
        let store = Self::over(wal, &recovered.summary, directory, batch_bytes_max)?;
        Ok((store, recovered))
    }

    /// As [`LogStore::open_in`], over a log that is open already and was found in this state.
    pub(crate) fn over(
        wal: Wal,
        summary: &Summary,
        directory: &Path,
        batch_bytes_max: usize,
    ) -> Result<Self, WalError> {
        let malformed = |reason| WalError::Corruption { path: directory.to_owned(), offset: 0, reason };
        let last_entry = match summary.last_index() {
            None => None,
            Some(index) => {
                let mut entries = wal.read(index..index.saturating_add(1), usize::MAX).load()?;
                let entry = entries.pop().and_then(|bytes| decode_entry(bytes).ok());
                Some(entry.ok_or_else(|| malformed("the last record is no log entry"))?.log_id)
            }
        };
        let votes = summary.vote.as_ref().map(|bytes| decode_vote(bytes).map(drop));
        let ids = [summary.committed.as_ref(), summary.purged.as_ref().map(|purged| &purged.id)];
        let ids = ids.into_iter().flatten().map(|bytes| decode_log_id(bytes).map(drop));
        if votes.into_iter().chain(ids).any(|decoded| decoded.is_err()) {
            return Err(malformed("the vote, or a log id, is malformed"));
        }
        Ok(Self { reader: LogReader { wal: Arc::new(wal), batch_bytes_max }, last_entry })
    }

    /// The log beneath, for its statistics and to close it.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.reader.wal
    }
}

/// A callback for the log, and what waits until it is called.
fn acknowledgement() -> (Callback, impl Future<Output = Result<(), WalError>>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| {
        // Nobody waits any more when the core was dropped.
        let _ = sender.send(result);
    });
    (done, async { receiver.await.map_err(|_dropped| WalError::Stopped)? })
}

fn decode_log_id(bytes: &[u8]) -> Result<LogId, ConvertError> {
    Ok(log_id_from_proto(&storage::LogId::decode(bytes)?))
}

fn encode_log_id(log_id: &LogId) -> Bytes {
    log_id_to_proto(log_id).encode_to_vec().into()
}

/// What was encoded here does not decode: only a fault of the program, or of the memory, can do that.
fn undecodable(error: ConvertError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Entries that were to be applied are not there: to go on without them would give this node a state of its own.
fn hole(index: u64, found: Option<u64>) -> io::Error {
    let found = found.map_or("nothing".to_string(), |found| format!("entry {found}"));
    io::Error::new(io::ErrorKind::InvalidData, format!("the log has {found} where entry {index} should be"))
}

impl LogReader {
    /// The live entries of a range, from the first on, as many as fit.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        let reading = self.wal.read(range, bytes_max);
        let first_index = reading.first_index();
        let encoded = match reading.is_cached() {
            true => reading.load()?,
            false => blocking(move || reading.load()).await??,
        };
        let entries = (first_index..).zip(encoded).map(|(index, bytes)| {
            let entry = decode_entry(bytes).map_err(undecodable)?;
            if entry.log_id.index == index { Ok(entry) } else { Err(hole(index, Some(entry.log_id.index))) }
        });
        entries.collect()
    }

    /// As [`read`](Self::read), for a range whose entries are all live, up to the end of the log.
    async fn read_whole(&self, range: Range<u64>) -> Result<Vec<Entry>, io::Error> {
        let next = self.wal.summary().next;
        let entries = self.read(range.clone(), self.batch_bytes_max).await?;
        match entries.first().map(|first| first.log_id.index) {
            Some(first) if first == range.start => Ok(entries),
            None if range.is_empty() || next <= range.start => Ok(entries),
            found => Err(hole(range.start, found)),
        }
    }

    fn vote(&self) -> Result<Option<Vote>, io::Error> {
        self.wal.summary().vote.map(|bytes| decode_vote(&bytes).map_err(undecodable)).transpose()
    }
}

fn to_range(bounds: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match bounds.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match bounds.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<C: CairnTypes> RaftLogReader<C> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(to_range(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start..end, self.batch_bytes_max).await?;
        // A purge may have come between. Entries from further on would leave a hole at the receiver; openraft takes
        // none as a heartbeat and then sends a snapshot.
        match entries.first() {
            Some(first) if first.log_id.index != start => Ok(Vec::new()),
            _ => Ok(entries),
        }
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // In batches, so that re-applying a long log does not need it in memory all at once.
        let reader = self.clone();
        let batches = stream::try_unfold((reader, to_range(&range)), |(reader, range)| async move {
            let entries = reader.read_whole(range.clone()).await?;
            let next = entries.last().map(|last| last.log_id.index.saturating_add(1));
            Ok::<_, io::Error>(next.map(|next| (stream::iter(entries.into_iter().map(Ok)), (reader, next..range.end))))
        });
        Box::pin(batches.try_flatten())
    }
}

impl<C: CairnTypes> RaftLogStorage<C> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let summary = self.reader.wal.summary();
        let purged =
            summary.purged.as_ref().map(|purged| decode_log_id(&purged.id).map_err(undecodable)).transpose()?;
        let last_log_id = if summary.is_empty() { purged } else { self.last_entry };
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = acknowledgement();
        self.reader.wal.save_vote(encode_vote(vote).into(), done)?;
        Ok(durable.await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Nothing becomes uncommitted again, so there is nothing to note for `None`.
        if let Some(committed) = committed {
            self.reader.wal.save_committed(encode_log_id(&committed))?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.reader.wal.summary().committed.map(|bytes| decode_log_id(&bytes).map_err(undecodable)).transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ids = None;
        let encode = |entry: Entry| {
            let (first, _) = ids.unwrap_or((entry.log_id, entry.log_id));
            ids = Some((first, entry.log_id));
            Bytes::from(encode_entry(&entry))
        };
        let encoded: Vec<Bytes> = entries.into_iter().map(encode).collect();
        // Nothing to append waits for its turn and a sync all the same: the callback speaks of what came before it.
        let next_index = self.reader.wal.summary().next;
        let first_index = ids.map_or(next_index, |(first, _)| first.index);
        let done = Box::new(move |result: Result<(), WalError>| callback.io_completed(result.map_err(io::Error::from)));
        self.reader.wal.append(first_index, encoded, done).await?;
        if let Some((_, last)) = ids {
            self.last_entry = Some(last);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let before = self.reader.wal.summary().last_index();
        let (done, durable) = acknowledgement();
        self.reader.wal.truncate_after(last_log_id.map(|log_id| log_id.index), done)?;
        if before > last_log_id.map(|log_id| log_id.index) {
            self.last_entry = last_log_id;
        }
        // What follows may depend on it, such as the installation of a snapshot that contradicts what was removed.
        Ok(durable.await?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.reader.wal.purge_to(log_id.index, encode_log_id(&log_id))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
