//! Rows of one size in memory aligned to 64 bytes, addressed by slot.
//!
//! ```text
//!   chunk 0                     chunk 1                  chunk 2
//!   ┌─────┬─────┬───┬─────┐     ┌─────┬───┬─────┐        (absent: no slot of it was ever used)
//!   │row 0│row 1│ … │     │     │     │ … │     │
//!   └─────┴─────┴───┴─────┘     └─────┴───┴─────┘
//!    grows by 2 and a quarter    2^shift rows at once
//! ```
//!
//! No allocation per row, rows of a chunk lie side by side for scans, and a small partition holds little more than its rows.
//! Memory is overwritten before it goes back to the allocator, so that no copy of a row outlives its removal.

#![expect(unsafe_code, reason = "aligned allocation, and slices of plain numbers over it")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::budget::{MemoryBudget, Reservation};
use crate::error::IndexError;

/// Alignment of every chunk in bytes: a cache line, and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;
/// From this size on, memory is asked for in huge pages, since searches jump about in it.
const HUGE_PAGE: usize = 2 << 20;

/// Numbers for which every pattern of bits is a value, and zero bytes are one.
///
/// # Safety
///
/// Only for such types, with an alignment of at most [`ALIGNMENT`].
pub(crate) unsafe trait Plain: Copy + Default + 'static {}
// SAFETY: a plain number, as below.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// A zeroed, aligned piece of memory. Its length in bytes is a multiple of [`ALIGNMENT`] and not 0.
struct Block {
    pointer: NonNull<u8>,
    layout: Layout,
    _reservation: Reservation,
}

// SAFETY: a block owns its memory alone, and hands it out only by the borrow rules of its own reference.
unsafe impl Send for Block {}
// SAFETY: as above; a shared block gives only shared slices.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize, budget: &MemoryBudget) -> Result<Self, IndexError> {
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        let too_large = || IndexError::OutOfMemory(bytes as u64);
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes, alignment).map_err(|_| too_large())?;
        let reservation = budget.take(bytes as u64)?;
        let pointer = NonNull::new(allocate(layout)).ok_or_else(too_large)?;
        Ok(Self { pointer, layout, _reservation: reservation })
    }

    fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: the memory is initialized, aligned for every plain number, as long as the layout says, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pointer.cast().as_ptr(), self.layout.size() / size_of::<T>()) }
    }

    fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast().as_ptr(), self.layout.size() / size_of::<T>()) }
    }
}

/// Zeroed memory; null where there is none. The layout's size must not be 0.
fn allocate(layout: Layout) -> *mut u8 {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        // SAFETY: the size is not 0; the advice covers memory just allocated, changes no content, and may be refused.
        unsafe {
            let pointer = std::alloc::alloc(layout);
            if !pointer.is_null() {
                libc::madvise(pointer.cast(), layout.size(), libc::MADV_HUGEPAGE);
                pointer.write_bytes(0, layout.size());
            }
            return pointer;
        }
    }
    // SAFETY: the size is not 0.
    unsafe { alloc_zeroed(layout) }
}

impl Drop for Block {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(self.as_mut_slice::<u8>());
        // SAFETY: allocated in `new` with this layout, and not used after this.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

/// Rows of `stride` numbers each. A row that was never written holds zeros.
pub(crate) struct Arena<T: Plain> {
    chunks: Vec<Option<Block>>,
    stride: usize,
    shift: u32,
    budget: MemoryBudget,
    numbers: PhantomData<T>,
}

impl<T: Plain> Arena<T> {
    /// An empty arena. Allocates nothing. `shift`: a chunk has 2^shift rows.
    pub(crate) fn new(stride: usize, shift: u32, budget: MemoryBudget) -> Self {
        Self { chunks: Vec::new(), stride, shift, budget, numbers: PhantomData }
    }

    /// Makes room for a row. Fails without any change where memory is short.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), IndexError> {
        let (chunk, row) = self.locate(slot);
        if self.chunks.len() <= chunk {
            let missing = chunk + 1 - self.chunks.len();
            self.chunks.try_reserve_exact(missing).map_err(|_| IndexError::OutOfMemory(missing as u64))?;
            self.chunks.resize_with(chunk + 1, || None);
        }
        let rows = self.rows_in(chunk);
        if row < rows {
            return Ok(());
        }
        let full = 1usize << self.shift;
        let grown = if chunk == 0 { (rows + 2 + rows / 4).max(row + 1).min(full) } else { full };
        let mut block = Block::new(grown * self.stride * size_of::<T>(), &self.budget)?;
        if let Some(old) = &self.chunks[chunk] {
            let old = old.as_slice::<T>();
            block.as_mut_slice::<T>()[..old.len()].copy_from_slice(old);
        }
        self.chunks[chunk] = Some(block);
        Ok(())
    }

    /// The row of a slot, for which there must be room.
    #[inline]
    pub(crate) fn row(&self, slot: u32) -> &[T] {
        let (chunk, row) = self.locate(slot);
        &self.chunk(chunk)[row * self.stride..][..self.stride]
    }

    /// The row of a slot, for which there must be room.
    #[inline]
    pub(crate) fn row_mut(&mut self, slot: u32) -> &mut [T] {
        let (chunk, row) = self.locate(slot);
        let block = self.chunks.get_mut(chunk).and_then(Option::as_mut);
        let rows = block.map_or(&mut [][..], Block::as_mut_slice);
        &mut rows[row * self.stride..][..self.stride]
    }

    /// Whether there is room for the row of a slot.
    pub(crate) fn has_room(&self, slot: u32) -> bool {
        let (chunk, row) = self.locate(slot);
        row < self.rows_in(chunk)
    }

    /// Overwrites the row of a slot with zeros.
    pub(crate) fn wipe(&mut self, slot: u32) {
        self.row_mut(slot).fill(T::default());
        // The rows are read again by scans, so that the compiler cannot leave these writes out.
    }

    /// How many chunks there are, present or not.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// All rows of a chunk; empty where it is absent.
    #[inline]
    pub(crate) fn chunk(&self, chunk: usize) -> &[T] {
        self.chunks.get(chunk).and_then(Option::as_ref).map_or(&[], Block::as_slice)
    }

    /// How many rows a chunk has room for; 0 where it is absent.
    pub(crate) fn rows_in(&self, chunk: usize) -> usize {
        (self.chunk(chunk).len() / self.stride).min(1 << self.shift)
    }

    /// Bytes held, including the table of chunks.
    pub(crate) fn bytes(&self) -> u64 {
        let blocks: usize = self.chunks.iter().flatten().map(|block| block.layout.size()).sum();
        (blocks + self.chunks.capacity() * size_of::<Option<Block>>()) as u64
    }

    #[inline]
    fn locate(&self, slot: u32) -> (usize, usize) {
        ((slot >> self.shift) as usize, (slot & ((1 << self.shift) - 1)) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_while_the_arena_grows() {
        let budget = MemoryBudget::unlimited();
        let mut arena = Arena::<f32>::new(16, 4, budget.clone());
        for slot in 0..100 {
            arena.reserve(slot).unwrap();
            arena.row_mut(slot).fill(slot as f32);
        }
        for slot in 0..100 {
            assert_eq!(arena.row(slot), [slot as f32; 16]);
            assert_eq!(arena.row(slot).as_ptr() as usize % ALIGNMENT, 0);
        }
        assert_eq!((arena.chunks(), arena.rows_in(0), arena.rows_in(6)), (7, 16, 16));
        assert_eq!(budget.used(), 7 * 16 * 64);
        assert!(arena.bytes() >= budget.used());
        arena.wipe(3);
        assert_eq!(arena.row(3), [0.0; 16]);
        drop(arena);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_small_arena_holds_little_more_than_its_rows() {
        let budget = MemoryBudget::unlimited();
        let mut arena = Arena::<u8>::new(384, 9, budget.clone());
        for slot in 0..10 {
            arena.reserve(slot).unwrap();
        }
        assert!(budget.used() <= 11 * 384, "{}", budget.used());
    }

    #[test]
    fn chunks_appear_where_they_are_used_and_memory_limits_hold() {
        let mut arena = Arena::<u8>::new(64, 2, MemoryBudget::new(64 * 8));
        arena.reserve(17).unwrap();
        assert_eq!((arena.rows_in(0), arena.rows_in(4)), (0, 4));
        arena.reserve(9).unwrap();
        assert!(matches!(arena.reserve(0), Err(IndexError::MemoryLimit { needed: 128, available: 0, .. })));
        assert!(arena.reserve(16).is_ok());
    }
}
