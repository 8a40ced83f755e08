//! Where each space's feed was written to last: lets those who watch a space wait without reading anything.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::store::keys::SpaceRef;

/// The log index of the last news of each space. Only of those that changed since the engine was opened.
pub(crate) struct FeedHeads {
    /// For all other spaces: there may be news up to here.
    opened_at: u64,
    heads: Mutex<HashMap<SpaceRef, u64>>,
}

impl FeedHeads {
    /// Of an engine that was opened at this log index.
    pub(crate) fn new(opened_at: u64) -> Self {
        Self { opened_at, heads: Mutex::default() }
    }

    /// Notes news, after they were written and before the index that they stand at is published.
    pub(crate) fn raise(&self, news: Vec<(SpaceRef, u64)>) {
        if !news.is_empty() {
            self.heads.lock().extend(news);
        }
    }

    /// There is nothing new in the space behind this log index.
    pub(crate) fn of(&self, space: SpaceRef) -> u64 {
        self.heads.lock().get(&space).copied().unwrap_or(self.opened_at)
    }
}
