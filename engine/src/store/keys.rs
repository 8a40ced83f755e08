//! The keys of the store, every byte of them.
//!
//! A key is `[group u16][kind u8]` and then the fields of its kind, all big-endian and of fixed size, so that keys sort
//! by their fields. A string enters a key only as a lookup id: HMAC-SHA-256 under the tenant's lookup key, cut to 16
//! bytes. Times are microseconds since 1970 with the sign bit flipped, so that they sort as numbers.
//!
//! ```text
//! kind  name            fields                                                      value
//!    1  meta            [item u8]                                                   plain: StoreHeader, AppliedRecord
//!    2  tenant          [tenant u64]                                                sealed by the system: TenantRecord
//!    3  tenant_name     [name id 16]                                                plain: [tenant u64]
//!    4  space           [tenant u64][space u64]                                     sealed: SpaceRecord
//!    5  space_name      [tenant u64][name id 16]                                    sealed: SpaceNameRecord
//!    6  space_counters  [tenant u64][space u64]                                     sealed: SpaceCountersRecord
//!    7  memory          [tenant u64][space u64][memory id 16]                       sealed: MemoryRecord
//!    8  vector          [tenant u64][space u64][embedding u16][memory id 16]        sealed: f32 little-endian, one a dimension
//!    9  by_created      [tenant u64][space u64][time i64][memory id 16]             plain: empty
//!   10  by_updated      [tenant u64][space u64][time i64][memory id 16]             plain: empty
//!   11  expiry          [time i64][tenant u64][space u64][memory id 16]             plain: empty
//!   12  content         [tenant u64][space u64][scope and content id 16]            plain: [memory id 16]
//!   13  namespace       [tenant u64][space u64][path id 16]                         sealed: NamespaceRecord
//!   14  history         [tenant u64][space u64][memory id 16][version u64]          sealed: RevisionRecord
//!   15  request         [tenant u64][request id 16]                                 sealed: DedupRecord
//!   16  request_expiry  [time i64][tenant u64][request id 16]                       plain: empty
//!   17  feed            [log index u64][tenant u64][space u64][changes u32]         sealed: FeedRecord
//!   18  build           [tenant u64][space u64]                                     plain: SpaceBuildRecord
//! ```
//!
//! The number of a kind is never used for anything else, also when the kind is gone.

use crate::error::{Error, Result};
use crate::position::GroupId;

/// HMAC of a string, cut to 128 bits: what stands for the string in a key.
pub(crate) type LookupId = [u8; 16];

const KEY_LEN_MAX: usize = 48;

/// What a lookup id is of. The number goes into the HMAC, so that one string gives other ids for other uses. Numbers
/// are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LookupDomain {
    /// A tenant's name, under the system's lookup key.
    TenantName = 1,
    /// A space's name or alias.
    SpaceName = 2,
    /// A memory's id, within a space.
    MemoryId = 3,
    /// A scope and a content hash, within a space.
    Content = 4,
    /// A namespace path, within a space.
    Namespace = 5,
    /// Principal, method and request id.
    Request = 6,
}

/// The kinds of rows. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The store's own rows.
    Meta = 1,
    /// Tenants.
    Tenant = 2,
    /// Tenants by name.
    TenantName = 3,
    /// Spaces.
    Space = 4,
    /// Spaces by name and alias.
    SpaceName = 5,
    /// What is in a space, in numbers.
    SpaceCounters = 6,
    /// Memories.
    Memory = 7,
    /// Their vectors.
    Vector = 8,
    /// Memories in order of creation.
    ByCreated = 9,
    /// Memories in order of the last write.
    ByUpdated = 10,
    /// Memories in order of expiry, over all tenants.
    Expiry = 11,
    /// Memories by scope and content, in spaces that deduplicate.
    Content = 12,
    /// Namespaces in use.
    Namespace = 13,
    /// Earlier versions.
    History = 14,
    /// Requests that were carried out.
    Request = 15,
    /// Requests in the order in which they are forgotten.
    RequestExpiry = 16,
    /// Changes in the order of the log.
    Feed = 17,
    /// What changes of spaces have left to do.
    Build = 18,
}

/// How the value of a row is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// `[version u8][bytes]`: holds nothing of a tenant.
    Plain,
    /// Sealed under the system's data key.
    System,
    /// Sealed under the data key of the tenant that the key names.
    Tenant,
}

const KINDS: [Kind; 18] = [
    Kind::Meta,
    Kind::Tenant,
    Kind::TenantName,
    Kind::Space,
    Kind::SpaceName,
    Kind::SpaceCounters,
    Kind::Memory,
    Kind::Vector,
    Kind::ByCreated,
    Kind::ByUpdated,
    Kind::Expiry,
    Kind::Content,
    Kind::Namespace,
    Kind::History,
    Kind::Request,
    Kind::RequestExpiry,
    Kind::Feed,
    Kind::Build,
];

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        KINDS.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The names of all kinds, in the order of their numbers.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        KINDS.into_iter().map(Self::name)
    }

    /// The name of the table above.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tenant => "tenant",
            Self::TenantName => "tenant_name",
            Self::Space => "space",
            Self::SpaceName => "space_name",
            Self::SpaceCounters => "space_counters",
            Self::Memory => "memory",
            Self::Vector => "vector",
            Self::ByCreated => "by_created",
            Self::ByUpdated => "by_updated",
            Self::Expiry => "expiry",
            Self::Content => "content",
            Self::Namespace => "namespace",
            Self::History => "history",
            Self::Request => "request",
            Self::RequestExpiry => "request_expiry",
            Self::Feed => "feed",
            Self::Build => "build",
        }
    }

    /// How values of this kind are kept.
    pub(crate) fn protection(self) -> Protection {
        match self {
            Self::Meta
            | Self::TenantName
            | Self::ByCreated
            | Self::ByUpdated
            | Self::Expiry
            | Self::Content
            | Self::RequestExpiry
            | Self::Build => Protection::Plain,
            Self::Tenant => Protection::System,
            Self::Space
            | Self::SpaceName
            | Self::SpaceCounters
            | Self::Memory
            | Self::Vector
            | Self::Namespace
            | Self::History
            | Self::Request
            | Self::Feed => Protection::Tenant,
        }
    }

    /// Whether rows of this kind count in the digest. The others follow from these, or, like vectors, are hashed
    /// within them; the feed is a bounded tail of the log.
    pub(crate) fn in_digest(self) -> bool {
        matches!(
            self,
            Self::Tenant | Self::Space | Self::SpaceName | Self::Memory | Self::History | Self::Request | Self::Build
        )
    }

    /// The kinds whose keys begin with tenant and space, and which go at once when the space goes.
    pub(crate) const OF_A_SPACE: [Self; 8] = [
        Self::SpaceCounters,
        Self::Memory,
        Self::Vector,
        Self::ByCreated,
        Self::ByUpdated,
        Self::Content,
        Self::Namespace,
        Self::History,
    ];
}

/// The store's own rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MetaItem {
    /// What this store is: StoreHeader.
    Header = 1,
    /// What has been applied: AppliedRecord.
    Applied = 2,
}

/// A space and its tenant: the first fields of most keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpaceRef {
    pub(crate) tenant: u64,
    pub(crate) space: u64,
}

/// A key, by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Meta(MetaItem),
    Tenant { tenant: u64 },
    TenantName { name: LookupId },
    Space(SpaceRef),
    SpaceName { tenant: u64, name: LookupId },
    SpaceCounters(SpaceRef),
    Memory { space: SpaceRef, memory: LookupId },
    Vector { space: SpaceRef, embedding: u16, memory: LookupId },
    ByCreated { space: SpaceRef, time_micros: i64, memory: LookupId },
    ByUpdated { space: SpaceRef, time_micros: i64, memory: LookupId },
    Expiry { time_micros: i64, space: SpaceRef, memory: LookupId },
    Content { space: SpaceRef, content: LookupId },
    Namespace { space: SpaceRef, path: LookupId },
    History { space: SpaceRef, memory: LookupId, version: u64 },
    Request { tenant: u64, request: LookupId },
    RequestExpiry { time_micros: i64, tenant: u64, request: LookupId },
    Feed { index: u64, space: SpaceRef, changes: u32 },
    Build(SpaceRef),
}

/// The bytes of a key or of a prefix of keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyBytes {
    bytes: [u8; KEY_LEN_MAX],
    len: u8,
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_ref().cmp(other.as_ref())
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", hex::encode(self.as_ref()))
    }
}

impl KeyBytes {
    fn head(group: GroupId, kind: Kind) -> Self {
        let mut key = Self { bytes: [0; KEY_LEN_MAX], len: 0 };
        key.push(&group.0.to_be_bytes());
        key.push(&[kind as u8]);
        key
    }

    fn push(&mut self, field: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + field.len()].copy_from_slice(field);
        self.len += field.len() as u8;
    }

    fn with(mut self, field: &[u8]) -> Self {
        self.push(field);
        self
    }

    fn with_space(self, space: SpaceRef) -> Self {
        self.with(&space.tenant.to_be_bytes()).with(&space.space.to_be_bytes())
    }

    fn with_time(self, micros: i64) -> Self {
        self.with(&ordered(micros).to_be_bytes())
    }

    /// The first key behind all keys that begin with these bytes. Kinds are below 255, so there always is one.
    pub(crate) fn prefix_end(&self) -> Self {
        let mut end = *self;
        while end.len > 0 {
            let last = usize::from(end.len) - 1;
            if end.bytes[last] < u8::MAX {
                end.bytes[last] += 1;
                return end;
            }
            end.bytes[last] = 0;
            end.len -= 1;
        }
        end
    }

    /// The key right behind this one.
    pub(crate) fn successor(&self) -> Self {
        self.with(&[0])
    }
}

/// Flips the sign bit: signed numbers then sort like their big-endian bytes.
fn ordered(micros: i64) -> u64 {
    (micros as u64) ^ (1 << 63)
}

/// All keys of a kind.
pub(crate) fn prefix_of_kind(group: GroupId, kind: Kind) -> KeyBytes {
    KeyBytes::head(group, kind)
}

/// All keys of a kind and a tenant; for kinds that begin with the tenant.
pub(crate) fn prefix_of_tenant(group: GroupId, kind: Kind, tenant: u64) -> KeyBytes {
    KeyBytes::head(group, kind).with(&tenant.to_be_bytes())
}

/// All keys of a kind and a space; for kinds that begin with tenant and space.
pub(crate) fn prefix_of_space(group: GroupId, kind: Kind, space: SpaceRef) -> KeyBytes {
    KeyBytes::head(group, kind).with_space(space)
}

/// The first key of a kind that sorts by time whose time is later than this; for kinds that begin with the time.
pub(crate) fn end_of_time(group: GroupId, kind: Kind, time_micros: i64) -> KeyBytes {
    KeyBytes::head(group, kind).with_time(time_micros).prefix_end()
}

impl Key {
    /// The kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Meta(_) => Kind::Meta,
            Self::Tenant { .. } => Kind::Tenant,
            Self::TenantName { .. } => Kind::TenantName,
            Self::Space(_) => Kind::Space,
            Self::SpaceName { .. } => Kind::SpaceName,
            Self::SpaceCounters(_) => Kind::SpaceCounters,
            Self::Memory { .. } => Kind::Memory,
            Self::Vector { .. } => Kind::Vector,
            Self::ByCreated { .. } => Kind::ByCreated,
            Self::ByUpdated { .. } => Kind::ByUpdated,
            Self::Expiry { .. } => Kind::Expiry,
            Self::Content { .. } => Kind::Content,
            Self::Namespace { .. } => Kind::Namespace,
            Self::History { .. } => Kind::History,
            Self::Request { .. } => Kind::Request,
            Self::RequestExpiry { .. } => Kind::RequestExpiry,
            Self::Feed { .. } => Kind::Feed,
            Self::Build(_) => Kind::Build,
        }
    }

    /// The tenant whose key seals the value; 0 for rows of the system.
    pub(crate) fn tenant(&self) -> u64 {
        match self {
            Self::Meta(_) | Self::Tenant { .. } | Self::TenantName { .. } => 0,
            Self::SpaceName { tenant, .. } | Self::Request { tenant, .. } | Self::RequestExpiry { tenant, .. } => {
                *tenant
            }
            Self::Space(space)
            | Self::SpaceCounters(space)
            | Self::Build(space)
            | Self::Memory { space, .. }
            | Self::Vector { space, .. }
            | Self::ByCreated { space, .. }
            | Self::ByUpdated { space, .. }
            | Self::Expiry { space, .. }
            | Self::Content { space, .. }
            | Self::Namespace { space, .. }
            | Self::History { space, .. }
            | Self::Feed { space, .. } => space.tenant,
        }
    }

    /// The bytes of the table above.
    pub(crate) fn encode(&self, group: GroupId) -> KeyBytes {
        let head = KeyBytes::head(group, self.kind());
        match self {
            Self::Meta(item) => head.with(&[*item as u8]),
            Self::Tenant { tenant } => head.with(&tenant.to_be_bytes()),
            Self::TenantName { name } => head.with(name),
            Self::Space(space) | Self::SpaceCounters(space) | Self::Build(space) => head.with_space(*space),
            Self::SpaceName { tenant, name: id } | Self::Request { tenant, request: id } => {
                head.with(&tenant.to_be_bytes()).with(id)
            }
            Self::Memory { space, memory: id }
            | Self::Content { space, content: id }
            | Self::Namespace { space, path: id } => head.with_space(*space).with(id),
            Self::Vector { space, embedding, memory } => {
                head.with_space(*space).with(&embedding.to_be_bytes()).with(memory)
            }
            Self::ByCreated { space, time_micros, memory } | Self::ByUpdated { space, time_micros, memory } => {
                head.with_space(*space).with_time(*time_micros).with(memory)
            }
            Self::Expiry { time_micros, space, memory } => head.with_time(*time_micros).with_space(*space).with(memory),
            Self::History { space, memory, version } => {
                head.with_space(*space).with(memory).with(&version.to_be_bytes())
            }
            Self::RequestExpiry { time_micros, tenant, request } => {
                head.with_time(*time_micros).with(&tenant.to_be_bytes()).with(request)
            }
            Self::Feed { index, space, changes } => {
                head.with(&index.to_be_bytes()).with_space(*space).with(&changes.to_be_bytes())
            }
        }
    }

    /// Reads what [`encode`](Self::encode) made; anything else is CORRUPTION.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(GroupId, Self)> {
        Self::read(&mut Fields(bytes)).ok_or_else(|| Error::corruption("a key of the store has no meaning"))
    }

    fn read(fields: &mut Fields<'_>) -> Option<(GroupId, Self)> {
        let group = GroupId(u16::from_be_bytes(fields.take()?));
        let [kind] = fields.take()?;
        let key = match Kind::from_byte(kind)? {
            Kind::Meta => match fields.take()? {
                [1] => Self::Meta(MetaItem::Header),
                [2] => Self::Meta(MetaItem::Applied),
                _ => return None,
            },
            Kind::Tenant => Self::Tenant { tenant: fields.number()? },
            Kind::TenantName => Self::TenantName { name: fields.take()? },
            Kind::Space => Self::Space(fields.space()?),
            Kind::SpaceName => Self::SpaceName { tenant: fields.number()?, name: fields.take()? },
            Kind::Build => Self::Build(fields.space()?),
            Kind::SpaceCounters => Self::SpaceCounters(fields.space()?),
            Kind::Memory => Self::Memory { space: fields.space()?, memory: fields.take()? },
            Kind::Vector => Self::Vector {
                space: fields.space()?,
                embedding: u16::from_be_bytes(fields.take()?),
                memory: fields.take()?,
            },
            Kind::ByCreated => {
                Self::ByCreated { space: fields.space()?, time_micros: fields.time()?, memory: fields.take()? }
            }
            Kind::ByUpdated => {
                Self::ByUpdated { space: fields.space()?, time_micros: fields.time()?, memory: fields.take()? }
            }
            Kind::Expiry => {
                Self::Expiry { time_micros: fields.time()?, space: fields.space()?, memory: fields.take()? }
            }
            Kind::Content => Self::Content { space: fields.space()?, content: fields.take()? },
            Kind::Namespace => Self::Namespace { space: fields.space()?, path: fields.take()? },
            Kind::History => {
                Self::History { space: fields.space()?, memory: fields.take()?, version: fields.number()? }
            }
            Kind::Request => Self::Request { tenant: fields.number()?, request: fields.take()? },
            Kind::RequestExpiry => {
                Self::RequestExpiry { time_micros: fields.time()?, tenant: fields.number()?, request: fields.take()? }
            }
            Kind::Feed => Self::Feed {
                index: fields.number()?,
                space: fields.space()?,
                changes: u32::from_be_bytes(fields.take()?),
            },
        };
        fields.0.is_empty().then_some((group, key))
    }
}

/// What is left to read of a key.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<i64> {
        self.number().map(|bits| (bits ^ (1 << 63)) as i64)
    }

    fn space(&mut self) -> Option<SpaceRef> {
        Some(SpaceRef { tenant: self.number()?, space: self.number()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_space() -> impl Strategy<Value = SpaceRef> {
        (any::<u64>(), any::<u64>()).prop_map(|(tenant, space)| SpaceRef { tenant, space })
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let id = any::<LookupId>;
        prop_oneof![
            Just(Key::Meta(MetaItem::Applied)),
            any::<u64>().prop_map(|tenant| Key::Tenant { tenant }),
            id().prop_map(|name| Key::TenantName { name }),
            any_space().prop_map(Key::Space),
            (any::<u64>(), id()).prop_map(|(tenant, name)| Key::SpaceName { tenant, name }),
            any_space().prop_map(Key::SpaceCounters),
            (any_space(), id()).prop_map(|(space, memory)| Key::Memory { space, memory }),
            (any_space(), any::<u16>(), id()).prop_map(|(space, embedding, memory)| Key::Vector {
                space,
                embedding,
                memory
            }),
            (any_space(), any::<i64>(), id()).prop_map(|(space, time_micros, memory)| Key::ByCreated {
                space,
                time_micros,
                memory
            }),
            (any_space(), any::<i64>(), id()).prop_map(|(space, time_micros, memory)| Key::ByUpdated {
                space,
                time_micros,
                memory
            }),
            (any_space(), any::<i64>(), id()).prop_map(|(space, time_micros, memory)| Key::Expiry {
                time_micros,
                space,
                memory
            }),
            (any_space(), id()).prop_map(|(space, content)| Key::Content { space, content }),
            (any_space(), id()).prop_map(|(space, path)| Key::Namespace { space, path }),
            (any_space(), id(), any::<u64>()).prop_map(|(space, memory, version)| Key::History {
                space,
                memory,
                version
            }),
            (any::<u64>(), id()).prop_map(|(tenant, request)| Key::Request { tenant, request }),
            (any::<i64>(), any::<u64>(), id()).prop_map(|(time_micros, tenant, request)| Key::RequestExpiry {
                time_micros,
                tenant,
                request
            }),
            (any::<u64>(), any_space(), any::<u32>()).prop_map(|(index, space, changes)| Key::Feed {
                index,
                space,
                changes
            }),
            any_space().prop_map(Key::Build),
        ]
    }

    proptest! {
        #[test]
        fn keys_survive_encoding(group: u16, key in any_key()) {
            let bytes = key.encode(GroupId(group));
            prop_assert_eq!(Key::decode(bytes.as_ref()).unwrap(), (GroupId(group), key));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Key::decode(&bytes);
        }

        #[test]
        fn times_sort_as_numbers(a: i64, b: i64) {
            prop_assert_eq!(a.cmp(&b), ordered(a).to_be_bytes().cmp(&ordered(b).to_be_bytes()));
        }

        #[test]
        fn a_prefix_ends_right_behind_its_keys(key in any_key(), cut in 3usize..19) {
            let full = key.encode(GroupId(7));
            let mut prefix = full;
            prefix.len = prefix.len.min(cut as u8);
            let end = prefix.prefix_end();
            prop_assert!(full.as_ref() < end.as_ref());
            prop_assert!(!end.as_ref().starts_with(prefix.as_ref()));
        }
    }

    #[test]
    fn the_byte_map_of_a_memory_key() {
        let space = SpaceRef { tenant: 1, space: 2 };
        let bytes = Key::Memory { space, memory: [0xAA; 16] }.encode(GroupId(3));
        let expected = format!("0003{}{:016x}{:016x}{}", "07", 1, 2, "aa".repeat(16));
        assert_eq!(hex::encode(bytes.as_ref()), expected);
    }
}
