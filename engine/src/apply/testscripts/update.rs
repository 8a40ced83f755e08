//! Updates and histories in scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cairn_proto::v1;
use goldenscript::ArgumentConsumer;

use super::{Failure, Script, number, owned, seconds};
use crate::api::{Embedded, EmbeddedBy, Principal, ReadPoint, WriteRequest};
use crate::crypto::TenantId;
use crate::requests::mask;
use crate::time::micros_of_timestamp;

impl Script {
    pub(super) fn update(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let space = args.next_pos().ok_or("a space is missing")?.to_string();
        let id = args.next_pos().ok_or("an id is missing")?.to_string();
        self.learn_memories(std::slice::from_ref(&id))?;
        let memory = v1::Memory { id, ..self.memory(args)? };
        let paths = owned(args, "mask").map(|mask| mask.split(',').map(str::to_string).collect());
        let request_id = owned(args, "request").unwrap_or_default();
        self.learn_request(2, &request_id)?;
        let (actor, reason) = (owned(args, "actor"), owned(args, "reason"));
        let embedded = take_embedded(args)?;
        let request = WriteRequest::UpdateMemory(v1::UpdateMemoryRequest {
            space,
            memory: Some(memory),
            update_mask: paths.map(|paths| prost_types::FieldMask { paths }),
            expected_version: number(args, "expect")?.unwrap_or_default() as u64,
            request_id,
            actor: actor.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
        });
        self.write_embedded(request, embedded)
    }

    pub(super) fn history(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        let mut request = v1::GetMemoryHistoryRequest {
            space: args.next_pos().ok_or("a space is missing")?.to_string(),
            id: args.next_pos().ok_or("an id is missing")?.to_string(),
            page_size: 2,
            ..Default::default()
        };
        let me = Principal::new(TenantId::DEFAULT, "me");
        let mut output = String::new();
        loop {
            let page = self.engine.get_memory_history(&me, &request, &ReadPoint { index: 0, time_micros: self.now });
            let page = match page {
                Ok(page) => page,
                Err(error) => return Ok(format!("{error}\n")),
            };
            for revision in page.revisions {
                let memory = revision.memory.clone().unwrap_or_default();
                let at = revision.changed_at.as_ref().and_then(micros_of_timestamp).unwrap_or_default();
                let change = revision.change();
                let (version, content) = (memory.version, memory.content);
                writeln!(
                    output,
                    "v{version} {change:?} at {} by {}/{} for {:?}: {content:?}",
                    seconds(at),
                    revision.principal,
                    revision.actor,
                    revision.reason
                )?;
            }
            if page.next_page_token.is_empty() {
                return Ok(output);
            }
            writeln!(output, "next page")?;
            request.page_token = page.next_page_token;
        }
    }
}

/// `meta=PATH:TEXT,PATH:TEXT`.
pub(super) fn take_metadata(
    args: &mut ArgumentConsumer<'_>,
    metadata: &mut BTreeMap<String, v1::Value>,
) -> Result<(), Failure> {
    for entry in owned(args, "meta").iter().flat_map(|list| list.split(',')) {
        let (path, text) = entry.split_once(':').ok_or("metadata is PATH:TEXT")?;
        let path: Vec<String> = path.split('.').map(str::to_string).collect();
        let value = v1::Value { kind: Some(v1::value::Kind::StringValue(text.to_string())) };
        mask::set(metadata, &path, value).map_err(|_| "a path leads through a text")?;
    }
    Ok(())
}

pub(super) fn take_vector(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<Option<v1::Vector>, Failure> {
    let values = args.take_key(key).map(|list| list.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>());
    Ok(values.transpose()?.map(|values| v1::Vector {
        data: Some(v1::vector::Data::Dense(v1::DenseVector { values })),
        ..Default::default()
    }))
}

/// `embedded=NAME`: the vector [1, 1] was made by this embedder for the first space.
pub(super) fn take_embedded(args: &mut ArgumentConsumer<'_>) -> Result<Option<Embedded>, Failure> {
    Ok(owned(args, "embedded").map(|embedder| Embedded {
        by: EmbeddedBy { space_id: 1, embedder, model: String::new() },
        vectors: vec![Some(v1::Vector {
            data: Some(v1::vector::Data::Dense(v1::DenseVector { values: vec![1.0, 1.0] })),
            ..Default::default()
        })],
    }))
}
