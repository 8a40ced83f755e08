//! Room for the appends that a node has taken from its leader and not yet put into its log.
//!
//! A log that waits for its disk leaves openraft's queue standing, while the leader gives up, connects again and sends the
//! same entries once more. So every append takes room for its bytes before openraft sees it, and the bytes themselves give
//! the room back when the last of them is dropped, wherever that is: in the queue, in the log, or with a connection.
//! Nothing has to be matched with answers, and a new connection finds the room as its predecessor has left it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::messages::RaftAppend;
use crate::types::{EntryPayload, LogCommand};

/// Bytes that one permit stands for.
const UNIT_BYTES: usize = 1024;

/// Room for appends, of a whole node.
pub(crate) struct AppendRoom {
    units: Arc<Semaphore>,
    units_max: u32,
}

impl AppendRoom {
    /// Room for `bytes_max`, at least 1 KiB.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units_max = u32::try_from((bytes_max / UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        // The semaphore's own limit is far above what fits into 32 bits on 64-bit machines.
        let units_max = units_max.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Bytes that are taken now, in whole KiB.
    pub(crate) fn bytes_taken(&self) -> u64 {
        let free = self.units.available_permits();
        ((self.units_max as usize).saturating_sub(free) * UNIT_BYTES) as u64
    }

    /// Waits until there is room for the commands of `append`, and ties it to them. An append larger than all the room
    /// passes when it has it for itself.
    pub(crate) async fn admit(&self, append: &mut RaftAppend) {
        let bytes: usize = append.entries.iter().map(|entry| command_bytes(&entry.payload)).sum();
        if bytes == 0 {
            return;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units_max);
        // The semaphore is never closed.
        let Ok(room) = Arc::clone(&self.units).acquire_many_owned(units).await else { return };
        let room = Arc::new(room);
        for entry in &mut append.entries {
            if let EntryPayload::Normal(LogCommand(bytes)) = &mut entry.payload {
                let held = Held { bytes: std::mem::take(bytes), _room: Arc::clone(&room) };
                *bytes = Bytes::from_owner(held);
            }
        }
    }
}

fn command_bytes(payload: &EntryPayload) -> usize {
    match payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// A command and the room that its append takes.
struct Held {
    bytes: Bytes,
    _room: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::types::{Entry, LeaderId, LogId, Vote};

    fn append(sizes: &[usize]) -> RaftAppend {
        let entry = |(index, size): (u64, &usize)| Entry {
            log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index),
            payload: EntryPayload::Normal(LogCommand(vec![7; *size].into())),
        };
        RaftAppend {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries: (0..).zip(sizes).map(entry).collect(),
            leader_commit: None,
        }
    }

    #[test]
    fn appends_wait_until_the_bytes_of_earlier_ones_are_dropped() {
        let room = AppendRoom::new(64 << 10);
        let mut first = append(&[30_000, 2_000]);
        room.admit(&mut first).now_or_never().unwrap();
        let mut second = append(&[32 << 10]);
        room.admit(&mut second).now_or_never().unwrap();
        assert_eq!(room.bytes_taken(), 64 << 10);

        let mut third = append(&[1]);
        assert!(room.admit(&mut third).now_or_never().is_none(), "there is no room");
        let kept = first.entries.pop();
        drop(first);
        assert!(room.admit(&mut third).now_or_never().is_none(), "an entry of the first append is still there");
        drop(kept);
        room.admit(&mut third).now_or_never().unwrap();
        drop((second, third));
        assert_eq!(room.bytes_taken(), 0);
    }

    #[test]
    fn an_append_larger_than_the_room_passes_alone_and_unchanged() {
        let room = AppendRoom::new(4096);
        let (mut large, expected) = (append(&[5000, 3]), append(&[5000, 3]));
        room.admit(&mut large).now_or_never().unwrap();
        assert_eq!(large.entries, expected.entries);
        assert!(room.admit(&mut append(&[1])).now_or_never().is_none());
        drop(large);
        room.admit(&mut append(&[1])).now_or_never().unwrap();
        assert_eq!(room.bytes_taken(), 0, "the room goes with the bytes");
    }
}
