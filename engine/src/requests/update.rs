//! UpdateMemory on its way in.

use cairn_proto::storage::UpdateMemory;
use cairn_proto::storage::mutation::Operation;
use cairn_proto::v1;

use crate::api::Embedded;
use crate::content::pack_content;
use crate::error::Result;
use crate::requests::check_space_name;
use crate::requests::limits::{REASON_BYTES_MAX, WORD_BYTES_MAX};
use crate::requests::mask::{Mask, MaskPath, masked};
use crate::requests::memory::check_memory;
use crate::requests::path::{FieldPath, Violations};

/// Checks an update and leaves only what its mask names. `embedded` is the vector that was made from the new content.
pub(super) fn update_memory(request: v1::UpdateMemoryRequest, embedded: Option<Embedded>) -> Result<Operation> {
    check_space_name("space", &request.space)?;
    let memory = request.memory.unwrap_or_default();
    let names = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let mut violations = Violations::default();
    let path = FieldPath::root("memory");
    violations.check_bytes(&path.field("id"), &memory.id, 1, WORD_BYTES_MAX);
    violations.check_bytes(&FieldPath::root("actor"), &request.actor, 0, WORD_BYTES_MAX);
    violations.check_bytes(&FieldPath::root("reason"), &request.reason, 0, REASON_BYTES_MAX);
    violations.into_result()?;

    let mask = Mask::of_request(&names, &memory)?;
    let mut violations = Violations::default();
    let mut memory = masked(memory, &names, &mask, &mut violations);
    check_memory(&memory, &path, &mut violations)?;
    violations.into_result()?;
    let mut embedded_by = None;
    if let Some(embedded) = embedded.filter(|_| wants_vector(&memory, &mask))
        && let Some(vector) = embedded.vectors.into_iter().flatten().next()
    {
        memory.vectors = vec![vector];
        embedded_by = Some(embedded.by.into());
    }
    let packed_content = Some(pack_content(&mut memory)?).filter(|content| !content.packed.is_empty());
    Ok(Operation::UpdateMemory(UpdateMemory {
        space: request.space,
        memory: Some(memory),
        paths: mask.names(),
        whole: mask.whole,
        expected_version: request.expected_version,
        actor: request.actor,
        reason: request.reason,
        embedded_by,
        packed_content,
    }))
}

/// Whether the new content wants a vector that the caller does not bring.
fn wants_vector(memory: &v1::Memory, mask: &Mask) -> bool {
    mask.has(&MaskPath::Content) && !mask.has(&MaskPath::Vectors) && !memory.content.is_empty()
}

/// The text that needs a vector before an update can be prepared; `None` where none does, or where the mask is at fault,
/// which [`update_memory`] says.
pub(crate) fn text_to_embed(request: &v1::UpdateMemoryRequest) -> Option<&str> {
    let memory = request.memory.as_ref()?;
    let names = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
    let mask = Mask::of_request(names, memory).ok()?;
    wants_vector(memory, &mask).then_some(memory.content.as_str())
}
