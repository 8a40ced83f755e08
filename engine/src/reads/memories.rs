//! GetMemories.

use cairn_proto::v1;

use crate::apply::is_expired;
use crate::error::Result;
use crate::reads::{AnswerSize, Reader, position, record, wire_memory};
use crate::requests::check_ids;
use crate::requests::path::FieldPath;

impl Reader<'_> {
    /// Reads memories by id.
    pub(crate) fn get_memories(&self, request: &v1::GetMemoriesRequest) -> Result<v1::GetMemoriesResponse> {
        check_ids(&FieldPath::root("ids"), &request.ids)?;
        let view = self.store.view();
        let space = self.space(&view, &request.space)?;
        let mut response = v1::GetMemoriesResponse { position: position(&view)?, ..Default::default() };
        let mut size = AnswerSize::default();
        for id in &request.ids {
            let memory = space.memory_id(view.sealer(), id)?;
            let found = record(&view, &space, memory)?.filter(|record| !is_expired(record, self.time_micros));
            match found {
                Some(record) => {
                    let memory = wire_memory(&view, &space, memory, record, request.include_vectors)?;
                    size.add(&memory)?;
                    response.memories.push(memory);
                }
                None => response.missing_ids.push(id.clone()),
            }
        }
        Ok(response)
    }
}
