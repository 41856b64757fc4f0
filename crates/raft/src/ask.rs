//! Asks openraft for what only its core knows.
//!
//! What openraft has for this logs an error when nobody waits for the answer any more. That is how
//! every question may end: whoever asks stops, or has waited for long enough.

use openraft::RaftState;
use openraft::errors::Fatal;
use tokio::sync::oneshot;

use crate::node::Raft;
use crate::type_config::TypeConfig;

/// Looks at Raft's state when its core comes to it.
pub(crate) async fn ask<V: Send + 'static>(
    raft: &Raft,
    look: impl FnOnce(&RaftState<TypeConfig>) -> V + Send + 'static,
) -> Result<V, Fatal<TypeConfig>> {
    let (sender, answer) = oneshot::channel();
    let look = move |state: &RaftState<TypeConfig>| {
        if sender.send(look(state)).is_err() { /* nobody waits any more */ }
    };
    raft.external_request(look).await?;
    answer.await.map_err(|_gone| Fatal::Stopped)
}
