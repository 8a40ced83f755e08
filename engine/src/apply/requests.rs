//! Exactly once: a request that was carried out is remembered with its outcome, for a day by the leader's stamps, and a
//! retry gets that outcome instead of a second effect.
//!
//! A request that failed had no effect and is not remembered: its retry is judged anew. A full table sheds new requests
//! and never forgets one early. A delete by selection keeps its progress here, so that each of its commands, and a retry
//! by the client, goes on where the one before ended.

use std::time::Duration;

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{DedupRecord, Outcome, RequestKey};

use crate::apply::{Applier, update};
use crate::error::{Error, ErrorKind, Result};
use crate::store::keys::{Key, Kind, LookupDomain, end_of_time, prefix_of_kind};
use crate::store::{Rows, decode};
use crate::time::later;

/// Rows that are forgotten at once, at most.
const FORGET_ROWS_MAX: usize = 256;
/// Every so many log indexes, requests are forgotten.
const FORGET_EVERY: u64 = 64;
/// When a client whose request was shed should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How far an unfinished request has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Where to go on; empty: at the start.
    pub(crate) cursor: Vec<u8>,
    /// The space that the first command worked on, or whose memory was updated; 0: this is the first command.
    pub(crate) space_id: u64,
    /// What was done so far.
    pub(crate) deleted_count: u64,
}

impl Applier<'_> {
    /// Carries out a request unless it was carried out before. `operation` may move the progress on, which is kept
    /// with the outcome.
    pub(super) fn once(
        &mut self,
        tenant: u64,
        request: &RequestKey,
        operation: impl FnOnce(&mut Self, &mut Progress) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let parts: [&[u8]; 3] =
            [request.principal.as_bytes(), &request.method.to_le_bytes(), request.request_id.as_bytes()];
        let id = self.overlay.sealer().lookup_id(tenant, LookupDomain::Request, &parts)?;
        let key = Key::Request { tenant, request: id };
        let old_plain = self.overlay.get(&key)?;
        let old: Option<DedupRecord> = old_plain.as_deref().map(|plain| decode(&key, plain)).transpose()?;

        let mut progress = Progress::default();
        if let Some(old) = old.as_ref().filter(|old| old.expires_at_micros > self.stamp_micros()) {
            if old.fingerprint != request.fingerprint {
                return Err(Error::invalid("request_id", "was used for a request with another body"));
            }
            let outcome = old.outcome.clone().unwrap_or_default();
            let Some(deleted_count) = unfinished_count(&outcome) else {
                let result = match outcome.result {
                    Some(OutcomeResult::UpdateMemory(kept)) => {
                        Some(OutcomeResult::UpdateMemory(self.updated_again(tenant, old.space_id, kept)?))
                    }
                    result => result,
                };
                return Ok(Outcome { replayed: true, result });
            };
            progress = Progress { cursor: old.cursor.to_vec(), space_id: old.space_id, deleted_count };
        } else if old.is_none() {
            self.make_room()?;
        }

        let outcome = operation(self, &mut progress)?;
        let age = if request.generated { self.limits.dedup_age_generated } else { self.limits.dedup_age };
        let expires_at_micros = later(self.stamp_micros(), i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let new = DedupRecord {
            fingerprint: request.fingerprint.clone(),
            outcome: Some(remembered(&outcome)),
            expires_at_micros,
            cursor: progress.cursor.into(),
            space_id: progress.space_id,
        };
        if let Some(old) = &old {
            let expiry = Key::RequestExpiry { time_micros: old.expires_at_micros, tenant, request: id };
            self.overlay.delete(expiry, None);
        } else {
            self.state.dedup_rows += 1;
        }
        self.overlay.put_message(key, old_plain.as_deref(), &new);
        self.overlay.put(Key::RequestExpiry { time_micros: expires_at_micros, tenant, request: id }, None, Vec::new());
        Ok(outcome)
    }

    fn make_room(&mut self) -> Result<()> {
        if self.state.dedup_rows < self.limits.dedup_rows_max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted { retry_after: RETRY_AFTER },
            format!("{} requests are remembered already; try again later", self.limits.dedup_rows_max),
        ))
    }

    /// Forgets requests whose time is over, from time to time, and always when the table is full.
    pub(super) fn forget_requests_now_and_then(&mut self) -> Result<()> {
        let full = self.state.dedup_rows >= self.limits.dedup_rows_max;
        if full || self.index.is_multiple_of(FORGET_EVERY) {
            self.forget_requests(FORGET_ROWS_MAX)?;
            self.overlay.finish()?;
        }
        Ok(())
    }

    /// Forgets up to `rows_max` requests whose time is over, the oldest first. Returns how many.
    pub(super) fn forget_requests(&mut self, rows_max: usize) -> Result<usize> {
        let group = self.overlay.sealer().group();
        let stamp = self.stamp_micros();
        let from = self.hints.request_expiry_from_micros;
        if from > stamp {
            return Ok(0);
        }
        let start = match from {
            i64::MIN => prefix_of_kind(group, Kind::RequestExpiry),
            from => end_of_time(group, Kind::RequestExpiry, from - 1),
        };
        let due = self.overlay.keys(&start, &end_of_time(group, Kind::RequestExpiry, stamp), rows_max)?;
        for key in &due {
            let Key::RequestExpiry { time_micros, tenant, request } = *key else { continue };
            self.overlay.delete(*key, None);
            let row = Key::Request { tenant, request };
            let Some(plain) = self.overlay.get(&row)? else { continue };
            let record: DedupRecord = decode(&row, &plain)?;
            if record.expires_at_micros == time_micros {
                self.overlay.delete(row, Some(&plain));
                self.state.dedup_rows = self.state.dedup_rows.saturating_sub(1);
            }
        }
        self.hints.request_expiry_from_micros = match due.last() {
            Some(Key::RequestExpiry { time_micros, .. }) if due.len() == rows_max => *time_micros,
            // New rows lie at least a microsecond behind the stamp.
            _ => stamp.saturating_add(1),
        };
        Ok(due.len())
    }
}

/// An outcome as it is kept: compact, and without the text of a memory, which must not outlive the memory.
fn remembered(outcome: &Outcome) -> Outcome {
    let result = match &outcome.result {
        Some(OutcomeResult::UpdateMemory(updated)) => Some(OutcomeResult::UpdateMemory(update::remembered(updated))),
        result => result.clone(),
    };
    Outcome { result, ..*outcome }
}

/// What an unfinished outcome has counted so far; `None` for a finished one.
fn unfinished_count(outcome: &Outcome) -> Option<u64> {
    match &outcome.result {
        Some(OutcomeResult::DeleteMemories(delete)) if delete.unfinished => Some(delete.deleted_count),
        _ => None,
    }
}
