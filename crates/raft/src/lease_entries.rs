//! What the leader decides about leases, on its way into the log: revocations and checkpoints.
//!
//! They are proposed for the term in which they were decided, and never again: the leader of another
//! one may have renewed the leases. What this is not: it decides nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use apply::Command;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::oneshot;

use crate::node::Raft;
use crate::proposal_id::ProposalIds;
use crate::proposer::leader_id;
use crate::type_config::{OnComplete, Proposal, Proposed, TypeConfig};

/// How long an entry is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Proposes them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaseEntries {
    pub(crate) raft: Raft,
    pub(crate) ids: Arc<ProposalIds>,
}

impl fmt::Debug for LeaseEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseEntries").finish_non_exhaustive()
    }
}

/// Nobody knows whether it was applied, or ever will be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotApplied {
    #[error(transparent)]
    Refused(#[from] ClientWriteError<TypeConfig>),
    #[error("it takes long")]
    Late,
    #[error("the member stops")]
    Stopped,
}

impl LeaseEntries {
    /// Proposes commands in one entry, and waits until they are applied.
    pub(crate) async fn apply(&self, commands: Vec<Command>, term: u64) -> Result<(), NotApplied> {
        let commands = commands.into_iter().map(|command| {
            let request = command.by_member();
            let encoded = request.encode();
            Proposed { request, encoded }
        });
        let commands = commands.collect();
        let id = self.ids.next().await.ok_or(NotApplied::Stopped)?;
        let (done, outcome) = oneshot::channel();
        let responder = OnComplete::new(move |result: ClientWriteResult<TypeConfig>| {
            if done.send(result.map(|_written| ())).is_err() {
                // receiver gone: it took too long
            }
        });
        let written = self
            .raft
            .write(Proposal::new(id, commands))
            .with_leader(leader_id(term))
            .responder(responder)
            .await;
        written.map_err(|_fatal| NotApplied::Stopped)?;
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(applied)) => Ok(applied?),
            Ok(Err(_stopping)) => Err(NotApplied::Stopped),
            Err(_elapsed) => Err(NotApplied::Late),
        }
    }
}
