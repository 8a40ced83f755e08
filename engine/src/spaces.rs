//! A space as the engine works with it: found by name, its schema and embedding ready for use.

use cairn_index::{FieldType, IndexKind, Metric, Schema, VectorStorage};
use cairn_proto::storage::{EmbeddedBy, SpaceNameRecord, SpaceRecord};
use cairn_proto::v1;
use cairn_proto::v1::embedding::Kind;

use crate::engine::EMBEDDER_CHANGED;
use crate::error::{Error, Result};
use crate::requests::path::FieldPath;
use crate::store::Rows;
use crate::store::keys::{Key, LookupDomain, LookupId, SpaceRef};
use crate::store::sealing::Sealer;
use crate::time::{micros_of_positive_duration, timestamp_of_micros};

/// The number of a space's only embedding.
pub(crate) const EMBEDDING_ID: u16 = 0;

/// A space, ready for use.
pub(crate) struct SpaceInfo {
    pub(crate) reference: SpaceRef,
    pub(crate) record: SpaceRecord,
    pub(crate) schema: Schema,
    /// The name of its embedding.
    pub(crate) embedding: String,
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    /// Whether its vectors can be searched.
    pub(crate) searchable: bool,
    /// What finds candidates in its index.
    pub(crate) kind: IndexKind,
    /// Where its index has the vectors for exact scores.
    pub(crate) storage: VectorStorage,
}

impl SpaceInfo {
    /// Reads a record; one that this release could not have written is CORRUPTION.
    pub(crate) fn new(tenant: u64, record: SpaceRecord) -> Result<Self> {
        let broken = |what: &str| Error::corruption(format!("the record of space {} has {what}", record.id));
        let definition = record.definition.as_ref().ok_or_else(|| broken("no definition"))?;
        let embedding = definition.embeddings.first().ok_or_else(|| broken("no embedding"))?;
        let Some(Kind::Dense(dense)) = &embedding.kind else { return Err(broken("no dense embedding")) };
        let metric = match dense.metric() {
            v1::Metric::Cosine => Metric::Cosine,
            v1::Metric::Dot => Metric::Dot,
            v1::Metric::L2 => Metric::L2,
            v1::Metric::Unspecified => return Err(broken("no metric")),
        };
        let fields = definition.fields.iter().map(|field| Some((field.path.clone(), field_type(field)?)));
        let fields = fields.collect::<Option<Vec<_>>>().ok_or_else(|| broken("a field without a type"))?;
        let schema = Schema::new(fields).map_err(|e| broken("a bad schema").with_source(e))?;
        Ok(Self {
            reference: SpaceRef { tenant, space: record.id },
            schema,
            embedding: embedding.name.clone(),
            dimension: dense.dimension as usize,
            metric,
            kind: index_kind(dense.index_kind()),
            searchable: dense.index_kind() != v1::IndexKind::None,
            storage: match dense.rescore_storage() {
                v1::RescoreStorage::Unspecified | v1::RescoreStorage::MemoryF32 => VectorStorage::MemoryF32,
                v1::RescoreStorage::MemoryF16 => VectorStorage::MemoryF16,
                v1::RescoreStorage::Disk => VectorStorage::Elsewhere,
            },
            record,
        })
    }

    /// The space as its tenant made it.
    pub(crate) fn definition(&self) -> &v1::Space {
        // `new` refuses records without one; a default keeps this free of panics.
        static NONE: std::sync::LazyLock<v1::Space> = std::sync::LazyLock::new(v1::Space::default);
        self.record.definition.as_ref().unwrap_or(&NONE)
    }

    /// The name of its embedder; empty: it has none.
    pub(crate) fn embedder(&self) -> &str {
        self.definition().embeddings.first().map_or("", |embedding| &embedding.embedder)
    }

    /// Checks that vectors which were made for a write are of this space's embedder and model, which may have changed since.
    pub(crate) fn check_embedder(&self, by: Option<&EmbeddedBy>) -> Result<()> {
        let Some(by) = by else { return Ok(()) };
        let model = self.definition().embeddings.first().map_or("", |embedding| &embedding.model);
        if by.space_id == self.reference.space && by.embedder == self.embedder() && by.model == model {
            return Ok(());
        }
        let (made, now) = (&by.embedder, self.embedder());
        let made = if made.is_empty() { "nothing".to_string() } else { format!("{made:?}") };
        let message = format!("the vectors were made by {made} while the space's embedder became {now:?}: try again");
        Err(Error::failed_precondition(EMBEDDER_CHANGED, message))
    }

    /// The default time to live in microseconds.
    pub(crate) fn default_ttl_micros(&self) -> Option<i64> {
        self.definition().default_ttl.as_ref().and_then(micros_of_positive_duration)
    }

    /// The space as clients see it.
    pub(crate) fn to_wire(&self) -> v1::Space {
        wire_space(&self.record)
    }

    /// Checks a vector against the space's embedding: its name, dimension and, under cosine, that it has a direction.
    /// `path` is that of the vector. Returns the violated field and what is wrong.
    pub(crate) fn check_vector(
        &self,
        embedding: &str,
        values: &[f32],
        path: &FieldPath<'_>,
    ) -> std::result::Result<(), (String, String)> {
        if !embedding.is_empty() && embedding != self.embedding {
            let what = format!("is {embedding:?}; the space has the embedding {:?}", self.embedding);
            return Err((path.field("embedding").to_string(), what));
        }
        let dense = path.field("dense");
        let field = || dense.field("values").to_string();
        if values.len() != self.dimension {
            let what = format!("has {} values; the space's dimension is {}", values.len(), self.dimension);
            return Err((field(), what));
        }
        if self.metric == Metric::Cosine && values.iter().all(|value| *value == 0.0) {
            return Err((field(), "must not be all zero, since the space's metric is cosine".to_string()));
        }
        Ok(())
    }

    /// The lookup id of a memory of this space.
    pub(crate) fn memory_id(&self, sealer: &Sealer, id: &str) -> Result<LookupId> {
        let space = self.reference.space.to_be_bytes();
        sealer.lookup_id(self.reference.tenant, LookupDomain::MemoryId, &[&space, id.as_bytes()])
    }

    /// The lookup id of a namespace of this space.
    pub(crate) fn namespace_id(&self, sealer: &Sealer, path: &str) -> Result<LookupId> {
        let space = self.reference.space.to_be_bytes();
        sealer.lookup_id(self.reference.tenant, LookupDomain::Namespace, &[&space, path.as_bytes()])
    }
}

/// The index of a space. A node whose build has no hnsw_rs serves such a space with Cairn's own index, which gives the same scores.
fn index_kind(kind: v1::IndexKind) -> IndexKind {
    match kind {
        #[cfg(feature = "hnsw-rs")]
        v1::IndexKind::HnswRs => IndexKind::HnswRs,
        _ => IndexKind::Cairn,
    }
}

fn field_type(field: &v1::IndexedField) -> Option<FieldType> {
    match field.r#type() {
        v1::FieldType::Keyword => Some(FieldType::Keyword),
        v1::FieldType::Integer => Some(FieldType::Integer),
        v1::FieldType::Float => Some(FieldType::Float),
        v1::FieldType::Bool => Some(FieldType::Bool),
        v1::FieldType::Datetime => Some(FieldType::Datetime),
        v1::FieldType::Unspecified => None,
    }
}

/// A space's record as clients see it.
pub(crate) fn wire_space(record: &SpaceRecord) -> v1::Space {
    let mut space = record.definition.clone().unwrap_or_default();
    space.id = record.id;
    space.created_at = Some(timestamp_of_micros(record.created_at_micros));
    space.updated_at = Some(timestamp_of_micros(record.updated_at_micros));
    space.version = record.version;
    space
}

/// The key of a space's name or alias.
pub(crate) fn name_key(sealer: &Sealer, tenant: u64, name: &str) -> Result<Key> {
    let name = sealer.lookup_id(tenant, LookupDomain::SpaceName, &[name.as_bytes()])?;
    Ok(Key::SpaceName { tenant, name })
}

/// What a name means; `None` where it means nothing.
pub(crate) fn find_name(rows: &impl Rows, sealer: &Sealer, tenant: u64, name: &str) -> Result<Option<SpaceNameRecord>> {
    rows.get_message(&name_key(sealer, tenant, name)?)
}

/// The space of a number; `None` where it is not there.
pub(crate) fn find(rows: &impl Rows, reference: SpaceRef) -> Result<Option<SpaceInfo>> {
    let record = rows.get_message::<SpaceRecord>(&Key::Space(reference))?;
    record.map(|record| SpaceInfo::new(reference.tenant, record)).transpose()
}

/// The space of a name or alias, else NOT_FOUND.
pub(crate) fn resolve(rows: &impl Rows, sealer: &Sealer, tenant: u64, name: &str) -> Result<SpaceInfo> {
    let not_found = || Error::not_found("space", name);
    let found = find_name(rows, sealer, tenant, name)?.ok_or_else(not_found)?;
    find(rows, SpaceRef { tenant, space: found.space_id })?.ok_or_else(not_found)
}
