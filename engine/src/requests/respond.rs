//! Outcomes as answers.

use cairn_proto::storage::Outcome;
use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::v1;

use crate::api::WriteResponse;
use crate::error::{Error, Result};
use crate::position::Position;

/// See [`crate::Engine::respond`].
pub(crate) fn respond(outcome: &Outcome, position: Position) -> Result<WriteResponse> {
    let position = position.encode();
    let result = outcome.result.as_ref().ok_or_else(|| Error::internal("an outcome without a result"))?;
    Ok(match result {
        OutcomeResult::Failure(failure) => return Err(Error::from_failure(failure)),
        OutcomeResult::Done(_) | OutcomeResult::ExpireMemories(_) | OutcomeResult::AdvanceSpaceBuild(_) => {
            WriteResponse::Done
        }
        OutcomeResult::AddMemories(added) => {
            WriteResponse::AddMemories(v1::AddMemoriesResponse { results: added.results.clone(), position })
        }
        OutcomeResult::UpdateMemory(updated) => {
            WriteResponse::UpdateMemory(v1::UpdateMemoryResponse { memory: updated.memory.clone(), position })
        }
        OutcomeResult::DeleteMemories(deleted) if deleted.unfinished => WriteResponse::Unfinished,
        OutcomeResult::DeleteMemories(deleted) => {
            WriteResponse::DeleteMemories(v1::DeleteMemoriesResponse { deleted_count: deleted.deleted_count, position })
        }
        OutcomeResult::CreateSpace(created) => {
            WriteResponse::CreateSpace(v1::CreateSpaceResponse { space: created.space.clone(), position })
        }
        OutcomeResult::DeleteSpace(deleted) => {
            WriteResponse::DeleteSpace(v1::DeleteSpaceResponse { deleted_count: deleted.deleted_count, position })
        }
        OutcomeResult::UpdateSpace(updated) => {
            WriteResponse::UpdateSpace(v1::UpdateSpaceResponse { space: updated.space.clone(), position })
        }
        OutcomeResult::SetAlias(set) => {
            WriteResponse::SetAlias(v1::SetAliasResponse { previous_space: set.previous_space.clone(), position })
        }
    })
}
