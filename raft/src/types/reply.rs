//! The way back of a command.

use openraft::RaftTypeConfig;
use openraft::raft::responder::Responder;
use tokio::sync::oneshot;

use crate::error::Refusal;

/// Takes the end of a command to whoever waits for it: from openraft, or from the proposer, where it refuses.
pub struct Reply<T>(pub(crate) oneshot::Sender<Result<T, Refusal>>);

impl<C: RaftTypeConfig, T: Send + 'static> Responder<C, T> for Reply<T> {
    fn on_complete(self, result: T) {
        // The caller may have given up.
        let _ = self.0.send(Ok(result));
    }
}
