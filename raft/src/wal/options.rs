//! The log's settings.

use std::time::Duration;

use super::error::WalError;
use super::segment::HEADER_BYTES;

/// Settings of one log. [`Default`] fits a server; [`WalOptions::validate`] says what is out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes preallocated for each segment file. A frame that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of entries that may wait for the disk; further appends wait until there is room.
    pub queue_bytes_max: usize,
    /// Bytes of recent entries kept in memory for readers, beyond those that wait for the disk.
    pub cache_bytes_max: usize,
    /// The largest entry, in bytes.
    pub entry_bytes_max: usize,
    /// How long the thread stays idle before it writes what needs no sync (the committed position, proof of the last
    /// sync).
    pub idle_delay: Duration,
    /// How long to wait before another attempt when the disk is full.
    pub full_disk_retry: Duration,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            entry_bytes_max: 32 << 20,
            idle_delay: Duration::from_millis(5),
            full_disk_retry: Duration::from_millis(250),
        }
    }
}

impl WalOptions {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`WalError::Option`] for the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), WalError> {
        let checks = [
            (
                "segment_bytes",
                "must be 4 KiB to 2 GiB",
                self.segment_bytes < 8 * HEADER_BYTES as u64 || self.segment_bytes > 2 << 30,
            ),
            ("queue_bytes_max", "must be 4 KiB to 2 GiB", !(4 << 10..=2 << 30).contains(&self.queue_bytes_max)),
            ("cache_bytes_max", "must be at most 1 TiB", self.cache_bytes_max > 1 << 40),
            ("entry_bytes_max", "must be 1 byte to 1 GiB", !(1..=1 << 30).contains(&self.entry_bytes_max)),
            ("full_disk_retry", "must not be zero", self.full_disk_retry.is_zero()),
        ];
        match checks.into_iter().find(|(_, _, wrong)| *wrong) {
            Some((name, reason, _)) => Err(WalError::Option { name, reason }),
            None => Ok(()),
        }
    }
}
