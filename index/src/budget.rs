//! The memory budget that partitions share, and the bytes that each part of them holds of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::IndexError;

/// A limit on the memory of several partitions together. Clones share the limit.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    /// At most this many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self { shared: Arc::new(Shared { limit: limit_bytes, used: AtomicU64::new(0) }) }
    }

    /// No limit, but the bytes are counted.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Bytes in use by all partitions of this budget.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes that are left.
    pub fn available(&self) -> u64 {
        self.shared.limit.saturating_sub(self.used())
    }

    /// Fails unless this many bytes are left. Takes nothing.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), IndexError> {
        let available = self.available();
        if bytes <= available {
            return Ok(());
        }
        Err(IndexError::MemoryLimit { needed: bytes, available, limit: self.shared.limit })
    }

    /// Takes bytes of the budget, or fails where so many are not left.
    pub(crate) fn take(&self, bytes: u64) -> Result<Reservation, IndexError> {
        let limit = self.shared.limit;
        let take = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Reservation { budget: self.clone(), bytes }),
            Err(used) => Err(IndexError::MemoryLimit { needed: bytes, available: limit.saturating_sub(used), limit }),
        }
    }

    /// A reservation of nothing yet.
    pub(crate) fn empty(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

/// Bytes taken of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// States what is in use by now, which has already been allocated, even beyond the limit.
    pub(crate) fn settle(&mut self, bytes: u64) {
        let used = &self.budget.shared.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = MemoryBudget::new(100);
        let first = budget.clone().take(60).unwrap();
        assert_eq!(budget.available(), 40);
        assert_eq!(budget.take(41).unwrap_err(), IndexError::MemoryLimit { needed: 41, available: 40, limit: 100 });
        drop(first);
        let mut second = budget.empty();
        second.settle(120);
        assert_eq!((budget.used(), budget.available()), (120, 0));
        assert!(budget.check(1).is_err() && budget.check(0).is_ok());
        second.settle(10);
        assert_eq!(budget.used(), 10);
    }
}
