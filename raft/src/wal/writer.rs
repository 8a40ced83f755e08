//! The one thread that owns the files: it takes everything that is queued, writes it, syncs once, and only then
//! acknowledges.
//!
//! Failures: a full disk is waited out, nothing is acknowledged meanwhile, appends wait behind the bounded queue. Any
//! other failed write and any failed sync end the process through [`OnFailure`], since the kernel may have dropped pages
//! that it will never report again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::error::WalError;
use super::frame::frame_bytes;
use super::ledger::Location;
use super::options::WalOptions;
use super::record::{Record, Summary};
use super::recovery::{ClosedSegment, Recovery};
use super::segment::{Directory, OpenSegment};
use super::shared::{Batch, Counters, Pending, Shared, Waiting, Work};

/// Called when the log cannot go on. The default logs the error and aborts the process; only a test's returns.
pub type OnFailure = Arc<dyn Fn(&WalError) + Send + Sync>;

/// A write call takes at most about this much, so that the buffer stays small.
const WRITE_BYTES_MAX: usize = 4 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    options: WalOptions,
    on_failure: OnFailure,
    /// Oldest first.
    closed: VecDeque<ClosedSegment>,
    open: OpenSegment,
    open_last_index: Option<u64>,
    /// Whether the open segment takes more frames. Not after a failed write: its offsets, and so its nonces, are used.
    open_is_usable: bool,
    /// The state that the frames in the files lead to.
    summary: Summary,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: Directory,
        options: WalOptions,
        on_failure: OnFailure,
        summary: Summary,
        recovery: RecoveredFiles,
    ) -> Self {
        let RecoveredFiles { closed, open, open_last_index } = recovery;
        Self {
            shared,
            directory,
            options,
            on_failure,
            closed: closed.into(),
            open,
            open_last_index,
            open_is_usable: true,
            summary,
            buffer: Vec::new(),
        }
    }

    /// The thread's body: returns when the log is closed or has failed.
    pub(super) fn run(mut self) {
        let _guard = PanicGuard { shared: Arc::clone(&self.shared), on_failure: Arc::clone(&self.on_failure) };
        if let Err(error) = self.work() {
            self.fail(&error);
        }
        self.shared.stop();
    }

    /// Serves the queue until the log is closed.
    fn work(&mut self) -> Result<(), WalError> {
        loop {
            let unproven = self.open.proven < self.open.synced;
            let work = self.shared.next_work(unproven, self.options.idle_delay);
            if self.serve(work)? {
                return Ok(());
            }
        }
    }

    /// Does one piece of work, and returns whether it was the last.
    fn serve(&mut self, work: Work) -> Result<bool, WalError> {
        match work {
            Work::Commit(batch) => self.commit(batch).map(|()| false),
            Work::Idle(committed) => self.write_unsynced(committed).map(|()| false),
            Work::Close => self.sync().map(|()| true),
        }
    }

    /// Writes a batch, syncs once, acknowledges.
    fn commit(&mut self, batch: Batch) -> Result<(), WalError> {
        let Batch { mut pending, waiting, committed } = batch;
        // Last, so that the entries that it speaks of come before it in the file.
        pending.extend(committed.map(|bytes| Pending { record: Record::Committed(bytes), ticket: 0 }));
        let result = self.write(&pending).and_then(|()| self.sync());
        if let Err(error) = result {
            for Waiting { done, .. } in waiting {
                done(Err(WalError::Stopped));
            }
            return Err(error);
        }
        for Waiting { done, room } in waiting {
            drop(room);
            done(Ok(()));
        }
        match self.remove_purged() {
            // Some file systems need space to remove a file: there will be another time.
            Err(error) if error.is_no_space() => Ok(()),
            result => result,
        }
    }

    /// Writes the committed position, or a mark: either proves the last sync to a later start. Not synced.
    fn write_unsynced(&mut self, committed: Option<Bytes>) -> Result<(), WalError> {
        let record = committed.map_or(Record::Mark, Record::Committed);
        self.write(&[Pending { record, ticket: 0 }])
    }

    fn write(&mut self, pending: &[Pending]) -> Result<(), WalError> {
        let mut written = 0;
        while written < pending.len() {
            match self.write_some(&pending[written..]) {
                Ok(count) => {
                    written += count;
                    self.shared.counters.stalled.store(false, Ordering::Relaxed);
                }
                Err(error) if error.is_no_space() => self.wait_for_space(error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes as many records as fit into the segment and one write call; returns how many.
    fn write_some(&mut self, pending: &[Pending]) -> Result<usize, WalError> {
        let first_bytes = pending.first().map_or(0, |pending| frame_bytes(pending.record.plain_bytes()));
        if !self.open_is_usable || self.open.end + first_bytes as u64 > self.open.capacity {
            self.roll(first_bytes as u64)?;
        }
        self.buffer.clear();
        let mut count = 0;
        let mut places = Vec::with_capacity(pending.len());
        for Pending { record, ticket } in pending {
            let offset = self.open.end + self.buffer.len() as u64;
            let bytes = frame_bytes(record.plain_bytes());
            let is_full = offset + bytes as u64 > self.open.capacity;
            if is_full || (count > 0 && self.buffer.len() + bytes > WRITE_BYTES_MAX) {
                break;
            }
            self.open.encode(&mut self.buffer, record)?;
            if let Record::Entry { index, .. } = record {
                places.push((*index, *ticket, Location::new(self.open.segment.sequence, offset, bytes)));
            }
            count += 1;
        }

        self.open_is_usable = false;
        let segment = &self.open.segment;
        segment.file.write_all_at(&self.buffer, self.open.end).map_err(WalError::io("write", &segment.path))?;
        self.open_is_usable = true;
        self.open.proven = self.open.synced;
        self.open.end += self.buffer.len() as u64;
        for Pending { record, .. } in &pending[..count] {
            self.summary.apply(record)?;
        }
        let last_place = places.iter().map(|(index, ..)| *index).max();
        self.open_last_index = self.open_last_index.max(last_place);
        self.shared.place(&places, self.options.cache_bytes_max);
        Counters::add(&self.shared.counters.entries, places.len() as u64);
        Counters::add(&self.shared.counters.bytes, self.buffer.len() as u64);
        Ok(count)
    }

    /// Makes what was written durable.
    fn sync(&mut self) -> Result<(), WalError> {
        if self.open.synced < self.open.end {
            let segment = &self.open.segment;
            segment.file.sync_data().map_err(|source| WalError::Io {
                action: "sync",
                path: segment.path.clone(),
                // A full disk that shows only here has cost pages: that is no matter of waiting.
                source: std::io::Error::other(source),
            })?;
            self.open.synced = self.open.end;
            Counters::add(&self.shared.counters.syncs, 1);
        }
        Ok(())
    }

    /// Goes on to a new segment, which has room for a frame of the given size. The old one is synced before, so that
    /// the new one's existence proves it whole.
    fn roll(&mut self, first_frame_bytes: u64) -> Result<(), WalError> {
        self.sync()?;
        let sequence = self.open.segment.sequence + 1;
        let (open, _) = self.directory.create(sequence, self.open.end, &self.summary, &[], first_frame_bytes)?;
        self.shared.add_segment(Arc::clone(&open.segment));
        let old = std::mem::replace(&mut self.open, open);
        self.open_is_usable = true;
        // Gives back what was reserved; nothing depends on it.
        let _ = old.segment.file.set_size(old.end);
        self.closed.push_back(ClosedSegment { segment: old.segment, last_index: self.open_last_index.take() });
        Counters::add(&self.shared.counters.segments_created, 1);
        Ok(())
    }

    /// Removes the oldest segments as long as all of their entries are purged. Call it after a sync: the purge must be
    /// durable before what it purges is gone.
    fn remove_purged(&mut self) -> Result<(), WalError> {
        let purged = self.summary.purged.as_ref().map(|purged| purged.index);
        while let Some(oldest) = self.closed.front()
            && (oldest.last_index.is_none() || oldest.last_index <= purged)
        {
            let path = &oldest.segment.path;
            self.directory.file_system.remove(path).map_err(WalError::io("remove", path))?;
            // One at a time: were a later one to vanish before an earlier one, the log would seem to have a hole.
            let directory = &self.directory.path;
            self.directory.file_system.sync_directory(directory).map_err(WalError::io("sync", directory))?;
            self.shared.remove_segment(oldest.segment.sequence);
            self.closed.pop_front();
            Counters::add(&self.shared.counters.segments_removed, 1);
        }
        Ok(())
    }

    /// Waits a while for space on the disk. Fails when the log is to close meanwhile.
    fn wait_for_space(&self, error: WalError) -> Result<(), WalError> {
        if !self.shared.counters.stalled.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = error.with_causes(),
                "the disk of the write-ahead log is full; writes wait for space"
            );
        }
        if self.shared.pause(self.options.full_disk_retry) { Ok(()) } else { Err(error) }
    }

    fn fail(&self, error: &WalError) {
        // A log that is closed while the disk is full leaves unacknowledged what it could not write; that is no failure.
        if error.is_no_space() {
            tracing::warn!(error = error.with_causes(), "the write-ahead log was closed while its disk was full");
        } else {
            (self.on_failure)(error);
        }
    }
}

/// The writer without its thread, for simulations: it does a piece of work when it is called.
#[cfg(test)]
pub(crate) struct Stepper(Writer);

#[cfg(test)]
impl Stepper {
    pub(super) fn new(writer: Writer) -> Self {
        Self(writer)
    }

    /// Whether somebody waits for a sync.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.shared.is_awaited()
    }

    /// Does what the thread would do next: writes and syncs all that is queued, or else writes what needs no sync. After
    /// a failure, which [`OnFailure`] was told, it does nothing any more.
    pub(crate) fn step(&mut self) {
        let unproven = self.0.open.proven < self.0.open.synced;
        let Some(work) = self.0.shared.work_at_hand(unproven) else { return };
        if let Err(error) = self.0.serve(work) {
            self.0.fail(&error);
            self.0.shared.stop();
        }
    }
}

/// The files that recovery found and made.
pub(super) struct RecoveredFiles {
    closed: Vec<ClosedSegment>,
    open: OpenSegment,
    open_last_index: Option<u64>,
}

impl RecoveredFiles {
    /// Parts a recovery into its files and its ledger.
    pub(super) fn split(recovery: Recovery) -> (Self, super::ledger::Ledger) {
        let Recovery { ledger, closed, open, open_last_index, .. } = recovery;
        (Self { closed, open, open_last_index }, ledger)
    }
}

/// Ends the process when the thread panics: nobody would ever be acknowledged again.
struct PanicGuard {
    shared: Arc<Shared>,
    on_failure: OnFailure,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.on_failure)(&WalError::Stopped);
            self.shared.stop();
        }
    }
}

/// Logs the error and aborts.
pub(super) fn abort_process(error: &WalError) {
    let error = error.with_causes();
    tracing::error!(error, "the write-ahead log cannot go on; the process ends to recover from the last synced record");
    std::process::abort();
}
