//! ExpireMemories: removes what has expired by the command's stamp. Reads hide it already; this gives the bytes back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{ExpireMemories, ExpireOutcome, Outcome};
use cairn_proto::v1;

use crate::apply::{Applier, history};
use crate::error::{ErrorKind, Result};
use crate::spaces;
use crate::store::keys::{Key, Kind, end_of_time, prefix_of_kind};

/// Rows of either sort that one command removes at most.
pub(crate) const EXPIRE_ROWS_MAX: u32 = 1_000;
/// One command ends behind the memory whose history exceeds this many rows in all.
const HISTORY_ROWS_MAX: u64 = 10_000;

impl Applier<'_> {
    /// Removes up to `rows_max` memories whose time is over, the earliest first, and as many remembered requests.
    pub(super) fn expire_memories(&mut self, expire: &ExpireMemories) -> Result<Outcome> {
        let rows_max = expire.rows_max.clamp(1, EXPIRE_ROWS_MAX) as usize;
        let group = self.overlay.sealer().group();
        let start = prefix_of_kind(group, Kind::Expiry);
        let due = self.overlay.keys(&start, &end_of_time(group, Kind::Expiry, self.stamp_micros()), rows_max)?;
        let mut spaces = BTreeMap::new();
        let mut memories = 0;
        let mut history_rows = 0;
        let mut stopped = false;
        for key in &due {
            let Key::Expiry { time_micros, space: reference, memory } = *key else { continue };
            if history_rows >= HISTORY_ROWS_MAX {
                stopped = true;
                break;
            }
            self.overlay.delete(*key, None);
            let space = match spaces.entry(reference) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(match spaces::find(&self.overlay, reference) {
                    // A tenant whose keys were destroyed: its rows go with the tenant.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound { .. }) => None,
                    found => found?,
                }),
            };
            // A space that was deleted leaves its expiry rows behind; there is nothing else to remove for them.
            let Some(space) = space else { continue };
            let Some(old) = self.stored(space, memory)? else { continue };
            if old.record.expires_at_micros == Some(time_micros) {
                self.remove_memory(space, memory, &old, v1::ChangeType::Expired)?;
                memories += 1;
                history_rows += history::rows(&old.record);
            }
        }
        let dedup_rows = self.forget_requests(rows_max)?;
        let outcome = ExpireOutcome {
            memories,
            dedup_rows: dedup_rows as u64,
            unfinished: stopped || due.len() == rows_max || dedup_rows == rows_max,
        };
        Ok(Outcome { result: Some(OutcomeResult::ExpireMemories(outcome)), replayed: false })
    }
}
