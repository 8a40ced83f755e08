//! The spaces that commands were lately applied to, found by name without a look at their rows.
//!
//! ```text
//!   apply: a command on memories --resolve--> known? else its rows, and known from then on
//!          any other command     --forget---> rows only for the rest of the chunk, nothing known after it
//!   anybody: get -- what the space was at the last look; a write that relies on it is checked when it is applied
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::spaces::SpaceInfo;

/// Spaces that are kept; when there are more, all are forgotten.
const KEPT_MAX: usize = 1_024;

/// By tenant and name; aliases count as names.
type ByName = HashMap<u64, HashMap<String, Arc<SpaceInfo>>>;

/// See the module.
#[derive(Default)]
pub(crate) struct KnownSpaces(RwLock<ByName>);

impl KnownSpaces {
    /// The space of a name or alias.
    pub(crate) fn get(&self, tenant: u64, name: &str) -> Option<Arc<SpaceInfo>> {
        self.0.read().get(&tenant)?.get(name).cloned()
    }

    /// Keeps what a name means. Only for the applying thread, and only for what is stored.
    pub(crate) fn keep(&self, tenant: u64, name: &str, space: &Arc<SpaceInfo>) {
        let mut tenants = self.0.write();
        if tenants.values().map(HashMap::len).sum::<usize>() >= KEPT_MAX {
            tenants.clear();
        }
        tenants.entry(tenant).or_default().insert(name.to_owned(), Arc::clone(space));
    }

    /// Forgets all of them.
    pub(crate) fn forget(&self) {
        self.0.write().clear();
    }
}
