//! Another schema for a partition that is in use: its attributes are made anew beside the old ones, memory by memory.
//!
//! ```text
//!   change_schema ──▶ refill each memory (writes go to both) ──▶ finish_reindex: the new attributes take the old ones' place
//! ```
//!
//! Until then filters are answered by the old attributes. They know nothing of a new field, so conditions on it are tested
//! on records. What they know of a field that is gone, or has another type now, must not be asked any more: its values may
//! match what the old column left out.

use roaring::RoaringBitmap;

use super::Partition;
use crate::attributes::{Attributes, Matches};
use crate::error::IndexError;
use crate::filter::{Field, FieldSource, Filter};
use crate::schema::{FieldType, Schema};
use crate::slots::MemoryKey;

/// A change of the schema on its way.
pub(super) struct Reindex {
    schema: Schema,
    attributes: Attributes,
    /// Fields that the old attributes must not be asked for.
    gone: Vec<Field>,
}

impl Reindex {
    /// Puts a memory's values into a slot, in the place of those that it has.
    pub(super) fn replace<S: FieldSource + ?Sized>(&mut self, slot: u32, fields: &S) {
        self.attributes.remove(slot);
        let row = self.attributes.read(fields);
        self.attributes.insert(slot, row);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.attributes.remove(slot);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.attributes.bytes()
    }

    /// Every memory, each to be tested by its record, where the filter asks for a field that is gone.
    pub(super) fn matches<'a>(&self, filter: &Filter, live: &'a RoaringBitmap) -> Option<Matches<'a>> {
        mentions(filter, &self.gone).then(|| Matches::unknown(live))
    }
}

fn mentions(filter: &Filter, fields: &[Field]) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().any(|filter| mentions(filter, fields)),
        Filter::Not(inner) => mentions(inner, fields),
        Filter::Where(condition) => fields.contains(&condition.field),
    }
}

impl Partition {
    /// Begins to index by another schema; filters must have passed [`Filter::check`] with that one from now on. Every
    /// memory is then to be given to [`Self::refill`], and [`Self::finish_reindex`] ends it. A change that is under way is
    /// given up for this one.
    pub fn change_schema(&mut self, schema: Schema) {
        self.reindex = None;
        if schema == self.options.schema {
            self.settle();
            return;
        }
        if self.is_empty() {
            self.attributes = Attributes::new(schema.clone());
            self.options.schema = schema;
            return;
        }
        let field_of = |(path, _): &(String, FieldType)| Field::Metadata(path.clone());
        let is_gone = |field: &(String, FieldType)| schema.type_of(&field_of(field)) != Some(field.1);
        let gone = self.options.schema.fields().iter().filter(|field| is_gone(field)).map(field_of).collect();
        let attributes = Attributes::new(schema.clone());
        self.reindex = Some(Box::new(Reindex { schema, attributes, gone }));
    }

    /// Gives the new attributes a memory that is there and that they do not have yet; all others are left alone. `fields`
    /// may be older than the memory: what was written since the change began is known already.
    ///
    /// # Errors
    /// There is no memory left for it; nothing has changed then.
    pub fn refill<S: FieldSource + ?Sized>(&mut self, key: &MemoryKey, fields: &S) -> Result<(), IndexError> {
        let Some(slot) = self.slots.find(key) else { return Ok(()) };
        let Some(reindex) = &mut self.reindex else { return Ok(()) };
        if reindex.attributes.live().contains(slot) {
            return Ok(());
        }
        let row = reindex.attributes.read(fields);
        self.options.budget.check(row.len() as u64 * 8 + 512)?;
        reindex.attributes.insert(slot, row);
        Ok(())
    }

    /// Goes over to the new attributes if they have every memory; returns whether no change of the schema is left.
    pub fn finish_reindex(&mut self) -> bool {
        let Some(reindex) = self.reindex.take_if(|reindex| reindex.attributes.live() == self.attributes.live()) else {
            self.settle();
            return self.reindex.is_none();
        };
        self.attributes = reindex.attributes;
        self.options.schema = reindex.schema;
        self.stamps.memories.mark_all();
        self.settle();
        true
    }

    /// How many memories the new attributes have, and of how many; `None` where no change of the schema is under way.
    pub fn reindex_progress(&self) -> Option<(u64, u64)> {
        self.reindex.as_ref().map(|reindex| (reindex.attributes.live().len(), self.attributes.live().len()))
    }

    /// The paths of the fields that the new attributes index and the present ones do not.
    pub fn reindexed_paths(&self) -> Vec<String> {
        let Some(reindex) = &self.reindex else { return Vec::new() };
        let old = self.options.schema.fields();
        reindex.schema.fields().iter().filter(|field| !old.contains(field)).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::MemoryBudget;
    use crate::filter::{Condition, Scalar, Test};
    use crate::metric::Metric;
    use crate::partition::PartitionOptions;

    type Document = [(Field, Vec<Scalar>)];
    /// A memory's fields, by its number; `None`: it is not there.
    type Known = Option<Vec<(Field, Vec<Scalar>)>>;

    fn path(name: &str) -> Field {
        Field::Metadata(name.into())
    }

    fn partition(schema: Schema) -> Partition {
        let budget = MemoryBudget::unlimited();
        Partition::new(PartitionOptions {
            dimension: 2,
            metric: Metric::Cosine,
            kind: crate::IndexKind::Cairn,
            storage: crate::VectorStorage::MemoryF32,
            schema,
            budget,
        })
        .unwrap()
    }

    fn schema(fields: &[(&str, FieldType)]) -> Schema {
        Schema::new(fields.iter().map(|(path, field_type)| ((*path).to_owned(), *field_type))).unwrap()
    }

    fn key(number: u32) -> MemoryKey {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        MemoryKey(key)
    }

    /// What matches for certain, and what matches once the uncertain ones are tested.
    fn matching(partition: &Partition, filter: &Filter, documents: &[Known]) -> Vec<u32> {
        let matches = partition.matches(filter);
        let number = |slot: u32| u32::from_be_bytes(partition.key_of(slot).unwrap().0[..4].try_into().unwrap());
        let document = |slot: u32| -> &Document { documents[number(slot) as usize].as_ref().unwrap() };
        let is_match = |slot: &u32| matches.certain().contains(*slot) || filter.matches(document(*slot));
        let mut found: Vec<u32> = matches.possible().iter().filter(is_match).map(number).collect();
        found.sort_unstable();
        found
    }

    fn value() -> impl Strategy<Value = Scalar> {
        prop_oneof![(0..3_i64).prop_map(Scalar::Integer), "[ab]".prop_map(Scalar::String)]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u32, Vec<Scalar>, Vec<Scalar>),
        Remove(u32),
        Refill(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let values = || prop::collection::vec(value(), 0..3);
        prop_oneof![
            4 => (0..90_u32, values(), values()).prop_map(|(id, a, b)| Step::Write(id, a, b)),
            2 => (0..90_u32).prop_map(Step::Remove),
            4 => (0..90_u32).prop_map(Step::Refill),
        ]
    }

    fn filters() -> Vec<Filter> {
        let condition = |name: &str, test| Filter::Where(Condition { field: path(name), test });
        let mut filters = Vec::new();
        for name in ["a", "b"] {
            filters.push(condition(name, Test::Exists(true)));
            filters.push(condition(name, Test::Exists(false)));
        }
        // `b` is text under the new schema, and `a` may be anything.
        filters.push(condition("b", Test::Eq(Scalar::String("a".into()))));
        filters.push(condition("b", Test::Ne(Scalar::String("a".into()))));
        filters.push(condition("a", Test::Eq(Scalar::Integer(1))));
        filters.push(condition("a", Test::Lt(Scalar::String("b".into()))));
        filters.push(Filter::Not(Box::new(condition("a", Test::In(vec![Scalar::Integer(2), Scalar::Integer(0)])))));
        filters
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Filters mean the same before, during and after a change of the schema, whatever is written meanwhile.
        #[test]
        fn filters_stay_right_while_the_schema_changes(before in prop::collection::vec(step(), 0..200), during in prop::collection::vec(step(), 0..60)) {
            let mut partition = partition(schema(&[("a", FieldType::Keyword), ("c", FieldType::Bool)]));
            let mut documents: Vec<Known> = vec![None; 90];
            let apply = |partition: &mut Partition, documents: &mut Vec<_>, step: &Step| match step {
                Step::Write(id, a, b) => {
                    let document = vec![(path("a"), a.clone()), (path("b"), b.clone())];
                    partition.upsert(key(*id), &id.to_be_bytes(), document.as_slice(), None).unwrap();
                    documents[*id as usize] = Some(document);
                }
                Step::Remove(id) => {
                    partition.remove(&key(*id));
                    documents[*id as usize] = None;
                }
                Step::Refill(id) => if let Some(document) = &documents[*id as usize] {
                    partition.refill(&key(*id), document.as_slice()).unwrap();
                },
            };
            for step in &before {
                apply(&mut partition, &mut documents, step);
            }
            let check = |partition: &Partition, documents: &Vec<Known>| {
                for filter in filters() {
                    let expected: Vec<u32> = (0..90).filter(|id| documents[*id as usize].as_ref().is_some_and(|document| filter.matches(document.as_slice()))).collect();
                    assert_eq!(matching(partition, &filter, documents), expected, "{filter:?}");
                }
            };
            let new = schema(&[("b", FieldType::Keyword)]);
            partition.change_schema(new.clone());
            for step in &during {
                apply(&mut partition, &mut documents, step);
                check(&partition, &documents);
            }
            for id in 0..90 {
                apply(&mut partition, &mut documents, &Step::Refill(id));
            }
            prop_assert!(partition.finish_reindex());
            prop_assert_eq!(&partition.options().schema, &new);
            check(&partition, &documents);
            let known = partition.matches(&Filter::Where(Condition { field: path("b"), test: Test::Exists(true) }));
            prop_assert!(known.is_exact());
        }
    }

    #[test]
    fn an_unfinished_change_is_not_gone_over_to() {
        let mut partition = partition(schema(&[]));
        let document = [(path("a"), vec![Scalar::Integer(1)])];
        for id in 0..3 {
            partition.upsert(key(id), &[id as u8], &document[..], None).unwrap();
        }
        partition.change_schema(schema(&[("a", FieldType::Integer)]));
        partition.refill(&key(0), &document[..]).unwrap();
        assert!(!partition.finish_reindex());
        assert_eq!((partition.reindex_progress(), partition.reindexed_paths()), (Some((1, 3)), vec!["a".to_owned()]));
        partition.remove(&key(1));
        partition.remove(&key(2));
        assert!(partition.finish_reindex());
        assert_eq!(partition.reindex_progress(), None);
        // Back to what it was, and to what it is.
        partition.change_schema(schema(&[]));
        partition.change_schema(schema(&[("a", FieldType::Integer)]));
        assert_eq!(partition.reindex_progress(), None);
    }
}
