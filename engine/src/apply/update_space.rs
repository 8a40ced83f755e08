//! UpdateSpace: settings, what makes vectors, and indexed fields; and the steps of what a change leaves to do.
//!
//! | change | takes effect |
//! |---|---|
//! | default_ttl, history_depth, embedder, model | at once, for what is written from now on |
//! | fields | at once for what filters mean; the index in memory is made by each replica on its own |
//! | dedup_by_content | at once for what is written from now on; memories that are there already are looked at in steps |
//!
//! While a space does not deduplicate, the rows that find a memory by its content stay as they are. They mislead nobody: a
//! twin is looked at before it counts.

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{
    AdvanceSpaceBuild, BuildOutcome, MemoryRecord, Outcome, SpaceBuildRecord, SpaceCountersRecord, SpaceOutcome,
    SpaceRecord, UpdateSpace,
};
use cairn_proto::v1;

use crate::apply::Applier;
use crate::content::has_content;
use crate::error::{Error, ErrorKind, Result};
use crate::partitions::IndexChange;
use crate::requests::update_space::Path;
use crate::spaces::{self, SpaceInfo, wire_space};
use crate::store::keys::{Key, Kind, LookupId, SpaceRef, prefix_of_space};
use crate::store::{Rows, decode};

/// Memories that one step of a build looks at, at most.
pub(crate) const BUILD_ROWS_MAX: u32 = 2_000;
/// Bytes of records that one step looks at; it ends early behind the row that exceeds them.
const BUILD_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Applier<'_> {
    /// Changes the fields of a space that the command names.
    pub(super) fn update_space(&mut self, tenant: u64, update: UpdateSpace) -> Result<Outcome> {
        let new = update.space.ok_or_else(|| Error::corruption("a change of a space without values in the log"))?;
        let space = spaces::resolve(&self.overlay, self.overlay.sealer(), tenant, &new.name)?;
        let version = space.record.version;
        if update.expected_version != 0 && update.expected_version != version {
            let message = format!("the space has version {version}, not {}", update.expected_version);
            return Err(Error::new(ErrorKind::Aborted, message));
        }
        let mut definition = space.definition().clone();
        for path in &update.paths {
            let path = Path::parse(path).ok_or_else(|| Error::corruption("an unknown field of a space in the log"))?;
            change_field(&mut definition, &new, &path)?;
        }
        let before = space.definition();
        if definition == *before {
            return Ok(outcome(&space.record));
        }
        let reference = space.reference;
        let fields_change = definition.fields != before.fields;
        if definition.dedup_by_content != before.dedup_by_content {
            self.change_dedup(reference, definition.dedup_by_content)?;
        }
        self.change_space(space, |record| record.definition = Some(definition))?;
        let changed = spaces::find(&self.overlay, reference)?
            .ok_or_else(|| Error::internal("a space that was changed is not there"))?;
        if fields_change {
            self.pending.push((reference, IndexChange::Schema(changed.schema.clone())));
        }
        Ok(outcome(&changed.record))
    }

    /// Has the memories that are there looked at, or not any more.
    fn change_dedup(&mut self, space: SpaceRef, dedup: bool) -> Result<()> {
        let key = Key::Build(space);
        let old = self.overlay.get(&key)?;
        if !dedup {
            self.overlay.delete(key, old.as_deref());
            return Ok(());
        }
        let counters: SpaceCountersRecord = self.overlay.get_message(&Key::SpaceCounters(space))?.unwrap_or_default();
        if counters.memories > 0 {
            let build = SpaceBuildRecord { total: counters.memories, ..SpaceBuildRecord::default() };
            self.overlay.put_message(key, old.as_deref(), &build);
        }
        Ok(())
    }

    /// Does one step of what a change of a space has left to do.
    pub(super) fn advance_space_build(&mut self, tenant: u64, advance: &AdvanceSpaceBuild) -> Result<Outcome> {
        let reference = SpaceRef { tenant, space: advance.space_id };
        let key = Key::Build(reference);
        let Some(plain) = self.overlay.get(&key)? else { return Ok(build_outcome(0, false)) };
        let mut build: SpaceBuildRecord = decode(&key, &plain)?;
        let space = match spaces::find(&self.overlay, reference) {
            // A tenant whose keys were destroyed: its rows go with the tenant.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound { .. }) => None,
            found => found?,
        };
        let Some(space) = space else {
            self.overlay.delete(key, Some(&plain));
            return Ok(build_outcome(build.done, false));
        };
        let (records, complete) = self.next_records(reference, &build.cursor, advance.rows_max)?;
        for (memory, record) in &records {
            self.find_by_content(&space, *memory, record)?;
            build.done += 1;
            build.cursor = memory.to_vec().into();
        }
        if complete {
            self.overlay.delete(key, Some(&plain));
        } else {
            self.overlay.put_message(key, Some(&plain), &build);
        }
        Ok(build_outcome(build.done, !complete))
    }

    /// The next memories behind a cursor, and whether there are no more.
    fn next_records(
        &self,
        space: SpaceRef,
        cursor: &[u8],
        rows_max: u32,
    ) -> Result<(Vec<(LookupId, MemoryRecord)>, bool)> {
        let group = self.overlay.sealer().group();
        let prefix = prefix_of_space(group, Kind::Memory, space);
        let start = match LookupId::try_from(cursor) {
            Ok(memory) => Key::Memory { space, memory }.encode(group).successor(),
            Err(_) => prefix,
        };
        let rows_max = rows_max.clamp(1, BUILD_ROWS_MAX) as usize;
        let (mut records, mut bytes, mut complete) = (Vec::new(), 0, true);
        self.overlay.scan(&start, &prefix.prefix_end(), &mut |key, open| {
            let Key::Memory { memory, .. } = *key else { return Ok(true) };
            if records.len() >= rows_max || bytes >= BUILD_BYTES_MAX {
                complete = false;
                return Ok(false);
            }
            let plain = open()?;
            bytes += plain.len();
            records.push((memory, decode(key, &plain)?));
            Ok(true)
        })?;
        Ok((records, complete))
    }

    /// Lets a memory be found by its content, unless another one of the same content is found already.
    fn find_by_content(&mut self, space: &SpaceInfo, memory: LookupId, record: &MemoryRecord) -> Result<()> {
        if !has_content(record) || self.content_twin(space, memory, record)?.is_some() {
            return Ok(());
        }
        let key = self.content_key(space, record)?;
        self.overlay.put(key, None, memory.to_vec());
        Ok(())
    }
}

fn change_field(definition: &mut v1::Space, new: &v1::Space, path: &Path<'_>) -> Result<()> {
    let (name, is_embedder) = match path {
        Path::Fields => {
            definition.fields.clone_from(&new.fields);
            return Ok(());
        }
        Path::DefaultTtl => {
            definition.default_ttl = new.default_ttl;
            return Ok(());
        }
        Path::DedupByContent => {
            definition.dedup_by_content = new.dedup_by_content;
            return Ok(());
        }
        Path::HistoryDepth => {
            definition.history_depth = new.history_depth;
            return Ok(());
        }
        Path::Embedder(name) => (*name, true),
        Path::Model(name) => (*name, false),
    };
    let given = new.embeddings.iter().find(|embedding| embedding.name == name);
    let missing = || Error::not_found("embedding", name);
    let embedding = definition.embeddings.iter_mut().find(|embedding| embedding.name == name).ok_or_else(missing)?;
    if is_embedder {
        embedding.embedder = given.map(|given| given.embedder.clone()).unwrap_or_default();
    } else {
        embedding.model = given.map(|given| given.model.clone()).unwrap_or_default();
    }
    Ok(())
}

fn outcome(record: &SpaceRecord) -> Outcome {
    let outcome = SpaceOutcome { space: Some(wire_space(record)) };
    Outcome { result: Some(OutcomeResult::UpdateSpace(outcome)), replayed: false }
}

fn build_outcome(done: u64, unfinished: bool) -> Outcome {
    let outcome = BuildOutcome { done, unfinished };
    Outcome { result: Some(OutcomeResult::AdvanceSpaceBuild(outcome)), replayed: false }
}
