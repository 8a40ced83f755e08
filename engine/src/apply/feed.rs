//! The feed: one row for each command and space, in the order of the log. A bounded tail: the oldest rows go first.

use cairn_proto::storage::FeedRecord;

use crate::apply::Applier;
use crate::error::Result;
use crate::store::keys::{Key, Kind, SpaceRef, prefix_of_kind};

/// Rows that are looked at together when the feed is cut.
const TRIM_ROWS: usize = 64;

impl Applier<'_> {
    /// Writes what the command in progress has changed.
    pub(super) fn write_feed(&mut self) -> Result<()> {
        for (space, changes) in std::mem::take(&mut self.feed) {
            let count = changes.len() as u32;
            let record = FeedRecord { changes, changed_at_micros: self.stamp_micros() };
            self.overlay.put_message(Key::Feed { index: self.index, space, changes: count }, None, &record);
            self.fed.push((space, self.index));
            self.state.feed_changes += u64::from(count);
        }
        Ok(())
    }

    /// Drops the oldest rows until the feed is within its bound.
    pub(super) fn trim_feed(&mut self) -> Result<()> {
        let group = self.overlay.sealer().group();
        while self.state.feed_changes > self.limits.feed_changes_max {
            let first = SpaceRef { tenant: 0, space: 0 };
            let start = Key::Feed { index: self.hints.feed_from_index, space: first, changes: 0 }.encode(group);
            let oldest = self.overlay.keys(&start, &prefix_of_kind(group, Kind::Feed).prefix_end(), TRIM_ROWS)?;
            if oldest.is_empty() {
                self.state.feed_changes = 0;
            }
            for key in oldest {
                let Key::Feed { index, changes, .. } = key else { continue };
                if self.state.feed_changes <= self.limits.feed_changes_max {
                    break;
                }
                self.overlay.delete(key, None);
                self.state.feed_dropped_index = index;
                self.state.feed_changes = self.state.feed_changes.saturating_sub(u64::from(changes));
                self.hints.feed_from_index = index;
            }
        }
        Ok(())
    }
}
