//! Which memory is in which slot, and the ids by which ties are broken.
//!
//! Invariants: `keys`, `ids` have one entry for each slot ever used; `by_key` names each live slot once; `free` and `held` are the
//! rest. A held slot has no memory, but the graph may still name it, so that it cannot be used again yet.
//! The lowest free slot is used first, so that the same history gives the same slots and small partitions stay dense.

use std::cmp::Ordering;

use hashbrown::HashTable;
use roaring::RoaringBitmap;
use zeroize::Zeroize;

use crate::error::IndexError;

/// The name of a memory in the store: 16 bytes that the engine derives from its id. Must be as good as random, since it is
/// used as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MemoryKey(pub [u8; 16]);

/// Slots stay below this, so that the graph can mark them with a bit.
pub(crate) const SLOTS_MAX: u32 = 1 << 31;

/// The slots of a partition.
#[derive(Default)]
pub(crate) struct Slots {
    by_key: HashTable<u32>,
    keys: Vec<MemoryKey>,
    ids: Vec<MemoryId>,
    free: RoaringBitmap,
    held: RoaringBitmap,
    id_bytes: u64,
}

impl Slots {
    /// The slot of a memory, or the one that it would get.
    pub(crate) fn place(&self, key: &MemoryKey) -> Result<Place, IndexError> {
        self.find(key).map_or_else(|| self.next_free().map(Place::Free), |slot| Ok(Place::Taken(slot)))
    }

    /// The slot that the next new memory gets.
    pub(crate) fn next_free(&self) -> Result<u32, IndexError> {
        let slot = self.free.min().map_or_else(|| u32::try_from(self.keys.len()), Ok).map_err(|_| IndexError::Full)?;
        if slot >= SLOTS_MAX { Err(IndexError::Full) } else { Ok(slot) }
    }

    pub(crate) fn find(&self, key: &MemoryKey) -> Option<u32> {
        self.by_key.find(hash(key), |slot| self.keys[*slot as usize] == *key).copied()
    }

    /// Puts a memory into the free slot that [`Self::place`] named for it.
    pub(crate) fn insert(&mut self, slot: u32, key: MemoryKey, id: &[u8]) {
        let position = slot as usize;
        if position == self.keys.len() {
            push_tight(&mut self.keys, key);
            push_tight(&mut self.ids, MemoryId::new(id));
        } else {
            self.free.remove(slot);
            self.keys[position] = key;
            self.ids[position] = MemoryId::new(id);
        }
        self.id_bytes += self.ids[position].heap_bytes();
        let keys = &self.keys;
        self.by_key.insert_unique(hash(&key), slot, |slot| hash(&keys[*slot as usize]));
    }

    /// Nothing yet, with room for so many slots.
    pub(crate) fn with_capacity(slots: u32) -> Self {
        let mut made = Self::default();
        // What a damaged number asks for is not believed at once.
        let room = (slots as usize).min(1 << 24);
        made.keys.reserve_exact(room);
        made.ids.reserve_exact(room);
        made.by_key.reserve(room, |_| 0);
        made
    }

    /// How many slots were ever used.
    pub(crate) fn used(&self) -> u32 {
        self.keys.len() as u32
    }

    /// Adds a free slot behind all others.
    pub(crate) fn push_free(&mut self) {
        self.free.insert(self.used());
        push_tight(&mut self.keys, MemoryKey::default());
        push_tight(&mut self.ids, MemoryId::new(&[]));
    }

    /// Keeps a slot that has just been freed from being used until it is released.
    pub(crate) fn hold(&mut self, slot: u32) {
        if self.free.remove(slot) {
            self.held.insert(slot);
        }
    }

    /// Lets those of these slots that were held be used again.
    pub(crate) fn release(&mut self, slots: &RoaringBitmap) {
        let released = &self.held & slots;
        self.held -= &released;
        self.free |= released;
    }

    /// Frees the slot of a memory and overwrites its key and id.
    pub(crate) fn remove(&mut self, key: &MemoryKey) -> Option<u32> {
        let keys = &self.keys;
        let entry = self.by_key.find_entry(hash(key), |slot| keys[*slot as usize] == *key).ok()?;
        let (slot, _) = entry.remove();
        self.id_bytes -= self.ids[slot as usize].heap_bytes();
        self.keys[slot as usize].0.zeroize();
        self.ids[slot as usize] = MemoryId::new(&[]);
        self.free.insert(slot);
        Some(slot)
    }

    pub(crate) fn key_of(&self, slot: u32) -> Option<MemoryKey> {
        let key = *self.keys.get(slot as usize)?;
        (!self.free.contains(slot) && !self.held.contains(slot)).then_some(key)
    }

    /// The caller's id of a live slot, for the order of ties.
    #[inline]
    pub(crate) fn id_of(&self, slot: u32) -> &MemoryId {
        &self.ids[slot as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes held, counted from capacities.
    pub(crate) fn bytes(&self) -> u64 {
        let keys = self.keys.capacity() * size_of::<MemoryKey>() + self.ids.capacity() * size_of::<MemoryId>();
        let table = self.by_key.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        (keys + table) as u64 + self.id_bytes + (self.free.serialized_size() + self.held.serialized_size()) as u64
    }
}

/// Where a memory is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its slot.
    Taken(u32),
    /// It has none yet, and would get this one.
    Free(u32),
}

fn hash(key: &MemoryKey) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0[..8]);
    u64::from_le_bytes(first)
}

/// Adds to the end, growing by a quarter instead of doubling.
pub(crate) fn push_tight<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 1);
    }
    list.push(value);
}

/// A caller's id in 24 bytes, where it is a UUID in lower case or at most 22 bytes long; else on the heap. Ordered as the
/// bytes of the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemoryId {
    /// The 16 bytes of a UUID written in lower case with hyphens.
    Uuid([u8; 16]),
    /// Up to 22 bytes.
    Short { length: u8, bytes: [u8; 22] },
    /// More.
    Long(Box<[u8]>),
}

const UUID_TEXT: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl MemoryId {
    fn new(id: &[u8]) -> Self {
        if let Some(uuid) = parse_uuid(id) {
            return Self::Uuid(uuid);
        }
        let mut bytes = [0; 22];
        match bytes.get_mut(..id.len()) {
            Some(start) => {
                start.copy_from_slice(id);
                Self::Short { length: id.len() as u8, bytes }
            }
            None => Self::Long(id.into()),
        }
    }

    fn heap_bytes(&self) -> u64 {
        if let Self::Long(bytes) = self { bytes.len() as u64 + 16 } else { 0 }
    }

    fn wipe(&mut self) {
        match self {
            Self::Uuid(bytes) => bytes.zeroize(),
            Self::Short { length, bytes } => {
                length.zeroize();
                bytes.zeroize();
            }
            Self::Long(bytes) => bytes.zeroize(),
        }
    }

    /// Gives the bytes of the id.
    pub(crate) fn with_bytes<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Uuid(uuid) => then(&write_uuid(uuid)),
            Self::Short { length, bytes } => then(&bytes[..usize::from(*length)]),
            Self::Long(bytes) => then(bytes),
        }
    }
}

impl Drop for MemoryId {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Ord for MemoryId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Digits and letters in lower case are in the order of their values, and the hyphens stand alike.
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            _ => self.with_bytes(|a| other.with_bytes(|b| a.cmp(b))),
        }
    }
}

impl PartialOrd for MemoryId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != UUID_TEXT || HYPHENS.iter().any(|position| text[*position] != b'-') {
        return None;
    }
    let mut digits =
        text.iter().enumerate().filter(|(position, _)| !HYPHENS.contains(position)).map(|(_, digit)| *digit);
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        *byte = hex_value(digits.next()?)? << 4 | hex_value(digits.next()?)?;
    }
    Some(uuid)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn write_uuid(uuid: &[u8; 16]) -> [u8; UUID_TEXT] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; UUID_TEXT];
    let mut positions = (0..UUID_TEXT).filter(|position| !HYPHENS.contains(position));
    for byte in uuid {
        for digit in [byte >> 4, byte & 15] {
            if let Some(position) = positions.next() {
                text[position] = DIGITS[usize::from(digit)];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> MemoryKey {
        MemoryKey([number; 16])
    }

    fn insert(slots: &mut Slots, number: u8) -> u32 {
        let Place::Free(slot) = slots.place(&key(number)).unwrap() else { panic!("taken") };
        slots.insert(slot, key(number), &[number]);
        slot
    }

    #[test]
    fn the_lowest_free_slot_is_used_first() {
        let mut slots = Slots::default();
        let given: Vec<u32> = (0..5).map(|number| insert(&mut slots, number)).collect();
        assert_eq!(given, [0, 1, 2, 3, 4]);
        assert_eq!(slots.remove(&key(3)), Some(3));
        assert_eq!(slots.remove(&key(1)), Some(1));
        assert_eq!(slots.remove(&key(1)), None);
        assert_eq!((slots.key_of(1), slots.key_of(4), slots.key_of(9)), (None, Some(key(4)), None));
        assert_eq!(slots.keys[1], MemoryKey::default());
        assert_eq!(insert(&mut slots, 9), 1);
        assert_eq!(insert(&mut slots, 10), 3);
        assert_eq!(slots.place(&key(9)), Ok(Place::Taken(1)));
        assert_eq!(slots.len(), 5);
    }

    fn id() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|uuid| write_uuid(&uuid).to_vec()),
            "[0-9a-f]{8}-[0-9A-Fa-g]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn ids_are_ordered_by_their_bytes(a in id(), b in id()) {
            let (kept_a, kept_b) = (MemoryId::new(&a), MemoryId::new(&b));
            prop_assert_eq!(kept_a.cmp(&kept_b), a.cmp(&b));
            prop_assert_eq!(kept_a == kept_b, a == b);
            prop_assert!(kept_a.with_bytes(|bytes| bytes == a));
        }
    }

    #[test]
    fn ids_are_small() {
        assert_eq!(size_of::<MemoryId>(), 24);
    }
}
