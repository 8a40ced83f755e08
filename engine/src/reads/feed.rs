//! WatchMemories: the changes of a space behind a position, out of the feed, in the order of the log.
//!
//! A cursor stands behind a whole command, or behind some of the changes that a command made in the space: a command that
//! changes a thousand memories must be resumable in its midst. What was dropped from the feed is never skipped in silence:
//! a cursor before it is OUT_OF_RANGE.

use cairn_index::Filter;
use cairn_proto::storage::{AppliedRecord, FeedChange, FeedRecord, MemoryRecord};
use cairn_proto::v1;
use prost::Message;

use crate::apply::is_expired;
use crate::error::{Error, ErrorKind, Result};
use crate::filters::{self, RecordFields};
use crate::position::{GroupId, Position};
use crate::reads::list::check_request_scope;
use crate::reads::{Reader, open_message, record, wire_memory};
use crate::spaces::{self, SpaceInfo};
use crate::store::Rows;
use crate::store::keys::{Key, Kind, MetaItem, SpaceRef, prefix_of_kind};
use crate::store::rocks::View;
use crate::time::timestamp_of_micros;

/// Changes of one page.
const PAGE_CHANGES_MAX: usize = 256;
/// Bytes of one page; it ends behind the change that exceeds them.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows of other spaces that one page steps over. Above the number of spaces that one command can change, so that every
/// page gets on.
const SCAN_ROWS_MAX: usize = 20_000;

/// How far a watch has come.
#[derive(Clone, Debug)]
pub struct FeedCursor {
    group: GroupId,
    pub(crate) space: SpaceRef,
    /// The name or alias that the watch began with.
    name: String,
    scope: Option<v1::Scope>,
    include_memory: bool,
    /// Everything before this log index has been seen.
    pub(crate) index: u64,
    /// Of the command at `index`: so many changes; `None`: all.
    seen: Option<u32>,
}

impl FeedCursor {
    /// What clients give as `after` to go on from here.
    #[must_use]
    pub fn position(&self) -> String {
        Position { group: self.group, index: self.index }.encode_behind(self.seen)
    }

    pub(crate) fn is_within_command(&self) -> bool {
        self.seen.is_some()
    }

    fn is_kept(&self, dropped_index: u64) -> bool {
        self.index > dropped_index || (self.index == dropped_index && self.seen.is_none())
    }
}

/// Some changes.
#[derive(Debug)]
pub struct FeedPage {
    /// In the order in which they happened.
    pub changes: Vec<v1::MemoryChange>,
    /// Behind them, and behind what was of no interest.
    pub cursor: FeedCursor,
    /// Whether nothing more was there.
    pub caught_up: bool,
}

impl Reader<'_> {
    /// A cursor behind `request.after`, or behind `now_index` where there is none.
    pub(crate) fn open_feed(&self, request: &v1::WatchMemoriesRequest, now_index: u64) -> Result<FeedCursor> {
        check_request_scope(request.scope.as_ref())?;
        let view = self.store.view();
        let space = self.space(&view, &request.space)?;
        let group = view.sealer().group();
        let (position, seen) = if request.after.is_empty() {
            (Position { group, index: now_index }, None)
        } else {
            Position::decode_behind("after", &request.after)?
        };
        let applied = applied(&view)?;
        let applied_index = applied.applied.as_ref().map_or(0, |applied| applied.index);
        if position.group != group {
            return Err(Error::invalid("after", format!("is of group {}, which is not here", position.group.0)));
        }
        if position.index > applied_index {
            let message = format!("log index {} is not applied here yet, only {applied_index}", position.index);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let cursor = FeedCursor {
            group,
            space: space.reference,
            name: request.space.clone(),
            scope: request.scope.clone().filter(|scope| *scope != v1::Scope::default()),
            include_memory: request.include_memory,
            index: position.index,
            seen,
        };
        check_kept(&cursor, &applied)?;
        Ok(cursor)
    }

    /// The next page behind a cursor.
    pub(crate) fn read_feed(&self, cursor: &FeedCursor) -> Result<FeedPage> {
        let view = self.store.view();
        let applied = applied(&view)?;
        check_kept(cursor, &applied)?;
        let space = spaces::find(&view, cursor.space)?.ok_or_else(|| Error::not_found("space", &cursor.name))?;
        let scope = filters::selection("", cursor.scope.as_ref(), None, &space.schema)?;
        let mut page = FeedPage { changes: Vec::new(), cursor: cursor.clone(), caught_up: false };
        let first = SpaceRef { tenant: 0, space: 0 };
        let index = if cursor.seen.is_some() { cursor.index } else { cursor.index + 1 };
        let start = Key::Feed { index, space: first, changes: 0 }.encode(cursor.group);
        let mut rows = view.cursor(&start, &prefix_of_kind(cursor.group, Kind::Feed).prefix_end(), false);
        for _ in 0..SCAN_ROWS_MAX {
            let Some((key, value)) = rows.item()? else {
                page.caught_up = true;
                let applied_index = applied.applied.as_ref().map_or(0, |applied| applied.index);
                page.cursor = FeedCursor { index: applied_index.max(page.cursor.index), seen: None, ..page.cursor };
                return Ok(page);
            };
            let Key::Feed { index, space: of, .. } = Key::decode(key)?.1 else {
                return Err(Error::corruption("a row of another kind in the feed"));
            };
            if of == cursor.space {
                let record: FeedRecord = open_message(&view, key, value)?;
                if !self.take_changes(&view, &space, &scope, index, record, &mut page)? {
                    return Ok(page);
                }
            } else if index > page.cursor.index + 1 {
                // The space may have a row at this index too, so only what lies before it has been seen.
                page.cursor = FeedCursor { index: index - 1, seen: None, ..page.cursor };
            }
            rows.advance();
        }
        Ok(page)
    }

    /// Adds the changes of a row to a page; `false` where the page is full before their end.
    fn take_changes(
        &self,
        view: &View<'_>,
        space: &SpaceInfo,
        scope: &Filter,
        index: u64,
        record: FeedRecord,
        page: &mut FeedPage,
    ) -> Result<bool> {
        let skip = if index == page.cursor.index { page.cursor.seen.unwrap_or(0) } else { 0 };
        let count = record.changes.len() as u32;
        let mut bytes: usize = page.changes.iter().map(Message::encoded_len).sum();
        for (number, mut change) in (1..=count).zip(record.changes).skip(skip as usize) {
            let seen = (number < count).then_some(number);
            let behind = FeedCursor { index, seen, ..page.cursor.clone() };
            let is_in = |of: Option<v1::Scope>| {
                scope.matches(&RecordFields(&MemoryRecord { scope: of, ..MemoryRecord::default() }))
            };
            let (is_wanted, has_left) = match (is_in(change.scope.clone()), change.previous_scope.take()) {
                (true, _) => (true, false),
                (false, None) => (false, false),
                (false, previous) => (is_in(previous), true),
            };
            if is_wanted {
                if has_left {
                    // For whoever watches this scope, the memory is gone.
                    change.set_type(v1::ChangeType::Deleted);
                }
                if page.changes.len() >= PAGE_CHANGES_MAX || bytes >= PAGE_BYTES_MAX {
                    return Ok(false);
                }
                let change = self.wire_change(view, space, change, record.changed_at_micros, &behind)?;
                bytes += change.encoded_len();
                page.changes.push(change);
            }
            page.cursor = behind;
        }
        Ok(true)
    }

    fn wire_change(
        &self,
        view: &View<'_>,
        space: &SpaceInfo,
        change: FeedChange,
        changed_at_micros: i64,
        behind: &FeedCursor,
    ) -> Result<v1::MemoryChange> {
        let mut memory = None;
        if behind.include_memory && matches!(change.r#type(), v1::ChangeType::Created | v1::ChangeType::Updated) {
            let id = space.memory_id(view.sealer(), &change.id)?;
            let found = record(view, space, id)?;
            // A memory that was deleted and made anew has the same version again, but not the same time.
            let same = |found: &MemoryRecord| {
                found.version == change.version
                    && found.updated_at_micros == changed_at_micros
                    && !is_expired(found, self.time_micros)
            };
            memory = found.filter(same).map(|found| wire_memory(view, space, id, found, false)).transpose()?;
        }
        Ok(v1::MemoryChange {
            r#type: change.r#type,
            id: change.id,
            version: change.version,
            changed_at: Some(timestamp_of_micros(changed_at_micros)),
            memory,
            position: behind.position(),
        })
    }
}

fn applied(view: &View<'_>) -> Result<AppliedRecord> {
    Ok(view.get_message(&Key::Meta(MetaItem::Applied))?.unwrap_or_default())
}

fn check_kept(cursor: &FeedCursor, applied: &AppliedRecord) -> Result<()> {
    if cursor.is_kept(applied.feed_dropped_index) {
        return Ok(());
    }
    let oldest = Position { group: cursor.group, index: applied.feed_dropped_index }.encode();
    let message = format!(
        "the changes behind this position are no longer kept, only those behind {oldest}: list the memories anew, then watch \
         from the position that the list returns"
    );
    Err(Error::new(ErrorKind::OutOfRange, message))
}
