//! [`batches`]: cuts any number of memories into calls that the server takes.

use prost::Message;

use crate::{Memory, proto};

/// The most memories that one call takes.
pub const BATCH_COUNT_MAX: usize = 1_000;
/// The most bytes of encoded memories that one call takes.
pub const BATCH_BYTES_MAX: usize = 3 << 20;

/// Room for the rest of the request beside the memories: names, ids, reason.
const REQUEST_OVERHEAD_BYTES: usize = 4 << 10;
/// Tag and length before each memory.
const MEMORY_OVERHEAD_BYTES: usize = 8;

/// Cuts memories, in order, into batches for [`Space::add_all`](crate::Space::add_all). A memory that is too large for
/// any call gets a batch of its own, for the server to refuse it by name.
pub fn batches(memories: impl IntoIterator<Item = Memory>) -> impl Iterator<Item = Vec<Memory>> {
    Batches { memories: memories.into_iter(), next: None }
}

/// Bytes that a memory takes in a call.
pub fn encoded_bytes(memory: &Memory) -> usize {
    proto::Memory::from(memory.clone()).encoded_len() + MEMORY_OVERHEAD_BYTES
}

struct Batches<I> {
    memories: I,
    /// Did not fit into the batch before.
    next: Option<(Memory, usize)>,
}

impl<I: Iterator<Item = Memory>> Iterator for Batches<I> {
    type Item = Vec<Memory>;

    fn next(&mut self) -> Option<Vec<Memory>> {
        let mut batch = Vec::new();
        let mut bytes = REQUEST_OVERHEAD_BYTES;
        while batch.len() < BATCH_COUNT_MAX {
            let sized = self.next.take().or_else(|| {
                let memory = self.memories.next()?;
                let size = encoded_bytes(&memory);
                Some((memory, size))
            });
            let Some((memory, size)) = sized else { break };
            if bytes + size > BATCH_BYTES_MAX && !batch.is_empty() {
                self.next = Some((memory, size));
                break;
            }
            bytes += size;
            batch.push(memory);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_memory_that_is_too_large_stands_alone() {
        let huge = Memory::new("x".repeat(BATCH_BYTES_MAX));
        let sizes: Vec<usize> = batches(["a".into(), huge, "b".into()]).map(|batch| batch.len()).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn nothing_is_lost_and_every_batch_fits(lengths in prop::collection::vec(0..200_000_usize, 0..60)) {
            let memories: Vec<Memory> = lengths.iter().map(|length| Memory::new("x".repeat(*length))).collect();
            let cut: Vec<Vec<Memory>> = batches(memories.clone()).collect();
            for batch in &cut {
                let memories = batch.iter().cloned().map(Into::into).collect();
                let request = proto::AddMemoriesRequest { memories, ..Default::default() };
                prop_assert!(request.encoded_len() <= BATCH_BYTES_MAX);
            }
            prop_assert_eq!(cut.concat(), memories);
        }

        #[test]
        fn the_count_is_bounded(count in 0..2_500_usize) {
            let sizes: Vec<usize> = batches((0..count).map(|_| Memory::new("x"))).map(|batch| batch.len()).collect();
            prop_assert!(sizes.iter().all(|size| (1..=BATCH_COUNT_MAX).contains(size)));
            prop_assert_eq!(sizes.iter().sum::<usize>(), count);
        }
    }
}
