//! Lists and searches under faults: they may be late, and never tell of what nobody wrote.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What may be seen, and how often anybody looked.
#[derive(Default)]
pub(crate) struct Looks {
    /// Memories and values that anybody asked to be written, answered or not.
    asked_for: Mutex<BTreeSet<(String, u64)>>,
    answered: AtomicU64,
}

impl Looks {
    /// Notes a write before it is sent.
    pub(crate) fn ask_for(&self, key: &str, value: u64) {
        self.asked_for.lock().insert((key.to_owned(), value));
    }

    /// Takes in an answer: memories and their contents.
    ///
    /// # Panics
    /// Where nobody ever asked for one of them.
    pub(crate) fn see<'a>(&self, memories: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let asked_for = self.asked_for.lock();
        for (key, content) in memories {
            let is_known = content.parse().is_ok_and(|value| asked_for.contains(&(key.to_owned(), value)));
            assert!(is_known, "nobody ever wrote {content:?} to {key}");
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lists and searches were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "nobody ever wrote \"2\" to k1")]
    fn what_nobody_wrote_is_noticed() {
        let looks = Looks::default();
        looks.ask_for("k1", 1);
        looks.ask_for("k2", 2);
        looks.see([("k1", "1"), ("k2", "2")]);
        looks.see([("k1", "2")]);
    }
}
