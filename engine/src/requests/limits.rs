//! Every limit of a request, as the comments in `proto/cairn/v1` state them.

/// Memories or ids of one call.
pub(crate) const ITEMS_MAX: usize = 1_000;
/// Bytes of one call that writes, and where a page of a list ends early.
pub(crate) const CALL_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Bytes of an id, a kind, a scope value, an actor, a metadata path.
pub(crate) const WORD_BYTES_MAX: usize = 255;
/// Bytes of a memory's content.
pub(crate) const CONTENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a memory's metadata, encoded.
pub(crate) const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Levels of a memory's metadata: the map itself is the first.
pub(crate) const METADATA_LEVELS_MAX: usize = 16;
/// Paths of an update mask.
pub(crate) const MASK_PATHS_MAX: usize = 256;
/// Bytes of a request id.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 64;
/// Bytes of a reason.
pub(crate) const REASON_BYTES_MAX: usize = 1024;
/// Bytes of the name of a space, an alias or an embedding.
pub(crate) const NAME_BYTES_MAX: usize = 63;
/// Values of a dense vector.
pub(crate) const DIMENSION_MAX: usize = 4_096;
/// Indexed fields of a space.
pub(crate) const INDEXED_FIELDS_MAX: usize = 64;
/// Aliases of one space.
pub(crate) const ALIASES_MAX: usize = 64;
/// Earlier versions that a space may ask to keep.
pub(crate) const HISTORY_DEPTH_MAX: u32 = 1_000;
/// Items of a page.
pub(crate) const PAGE_SIZE_MAX: i32 = 1_000;
/// Items of a page where none is asked for.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 50;
/// Hits of a search.
pub(crate) const SEARCH_LIMIT_MAX: i32 = 1_000;
/// Hits of a search where none is asked for.
pub(crate) const SEARCH_LIMIT_DEFAULT: usize = 10;
/// Candidates that a search may keep.
pub(crate) const EFFORT_MAX: u32 = 10_000;
/// Levels of a filter.
pub(crate) const FILTER_LEVELS_MAX: usize = 16;
/// Bytes of an answer to a get or a search; more is refused before it is put together.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
