//! The spaces that were lately written to or read, found by name without a look at their rows.
//!
//! ```text
//!   apply, before a chunk that changes spaces can be seen:  forget -- nothing is known, from that log index on
//!   apply and reads:  get, else the rows and keep -- of a state in which that change can be seen
//!   a writer before it proposes:  latest -- checked when the write is applied
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::spaces::SpaceInfo;

/// Spaces that are kept; when there are more, all are forgotten.
const KEPT_MAX: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(crate) struct KnownSpaces(RwLock<Known>);

#[derive(Default)]
struct Known {
    /// The log index of the last change of a space.
    changed_at: u64,
    /// By tenant and name, aliases too: the spaces in every state from that index on.
    spaces: HashMap<u64, HashMap<String, Arc<SpaceInfo>>>,
}

impl KnownSpaces {
    /// What a name means in the state at a log index.
    pub(crate) fn get(&self, tenant: u64, name: &str, index: u64) -> Option<Arc<SpaceInfo>> {
        let known = self.0.read();
        if index < known.changed_at {
            return None;
        }
        known.spaces.get(&tenant)?.get(name).cloned()
    }

    /// What a name means as far as is known here.
    pub(crate) fn latest(&self, tenant: u64, name: &str) -> Option<Arc<SpaceInfo>> {
        self.get(tenant, name, u64::MAX)
    }

    /// Keeps what a name means in the state at a log index, unless a space has changed since.
    pub(crate) fn keep(&self, tenant: u64, name: &str, index: u64, space: &Arc<SpaceInfo>) {
        let mut known = self.0.write();
        if index < known.changed_at {
            return;
        }
        if known.spaces.values().map(HashMap::len).sum::<usize>() >= KEPT_MAX {
            known.spaces.clear();
        }
        known.spaces.entry(tenant).or_default().insert(name.to_owned(), Arc::clone(space));
    }

    /// Forgets all of them, since the entry at this log index may have changed some. To be called before anybody can see
    /// the change: then whoever sees it finds nothing that was kept before.
    pub(crate) fn forget(&self, index: u64) {
        *self.0.write() = Known { changed_at: index, spaces: HashMap::new() };
    }
}
