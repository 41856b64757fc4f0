//! The beginning: a new cluster's first entry, and a lone member's first election after a restart.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use openraft::errors::{InitializeError, RaftError};

use crate::ask::ask;
use crate::error::StartError;
use crate::node::{Config, Peer, Raft};
use crate::type_config::PeerNode;

/// Writes the first entry of a new cluster, or, in one that has begun, lets a member that is its
/// own quorum stand for election at once instead of waiting for a leader that cannot be.
pub(crate) async fn bootstrap(
    raft: &Raft,
    config: &Config,
    is_pristine: bool,
) -> Result<(), StartError> {
    if is_pristine && !config.initial_members.is_empty() {
        return begin(raft, config).await;
    }
    let voters = ask(raft, |state| -> Vec<u64> {
        let membership = state.membership_state.effective().membership();
        membership.voter_ids().collect()
    });
    let voters = voters
        .await
        .map_err(|fatal| StartError::Raft(Arc::new(fatal)))?;
    if voters == [config.member.0] {
        raft.trigger()
            .elect(false)
            .await
            .map_err(|fatal| StartError::Raft(Arc::new(fatal)))?;
    }
    Ok(())
}

async fn begin(raft: &Raft, config: &Config) -> Result<(), StartError> {
    let members: BTreeMap<u64, PeerNode> = config
        .initial_members
        .iter()
        .map(|peer| (peer.id.0, node(peer)))
        .collect();
    if !members.contains_key(&config.member.0) {
        return Err(StartError::NotAMember {
            member: config.member,
        });
    }
    match raft.initialize(members).await {
        // It has begun already: a peer was first.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Bootstrap(
            Arc::new(error) as Arc<dyn Error + Send + Sync>
        )),
    }
}

fn node(peer: &Peer) -> PeerNode {
    PeerNode {
        name: peer.name.clone(),
        peer_urls: peer.peer_urls.clone(),
        is_learner: false,
    }
}
