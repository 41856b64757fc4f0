//! `--force-new-cluster`: this member alone is the cluster from now on, with all that it has.
//!
//! One entry is appended to the log before Raft starts: a membership of this member alone, in a new
//! term of its own. openraft counts votes by the last membership of the log, committed or not; so
//! the member elects itself, and with that entry everything before it is committed, also what the
//! lost majority had not confirmed. A learner becomes a voter so, and a joint membership comes to
//! its end.
//!
//! A crash before the entry is durable leaves the cluster as it was; after it, the member is alone.
//! Where it is alone already nothing is written: the flag may stay.
//!
//! Differs from etcd: it drops entries that it does not know to be committed. Some of them may have
//! been acknowledged by the leader that was lost, so they stay here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use apply::StateMachine;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use types::MemberId;

use crate::error::StartError;
use crate::log_store::LogStore;
use crate::membership;
use crate::node::Config;
use crate::type_config::{Entry, LogId, Membership, Payload, PeerNode, TypeConfig, Vote, log_id};

/// What etcd gives a member that is in no membership (`createConfChangeEnts`).
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// Entries read at a time while the last membership is looked for.
const READ_ENTRIES: u64 = 1024;

/// Makes this member the only one. Does nothing when nothing has begun yet.
pub(crate) async fn force_new_cluster(
    log: &mut LogStore,
    state: &StateMachine,
    config: &Config,
) -> Result<(), StartError> {
    let Some(last) = log.get_log_state().await.map_err(broken)?.last_log_id else {
        return Ok(());
    };
    let before = last_membership(log, state).await?;
    if before
        .as_ref()
        .is_some_and(|before| is_new_cluster(before, config.member))
    {
        return Ok(());
    }
    let alone = alone(before.as_ref(), config)?;
    let mut reader = log.get_log_reader().await;
    let vote = reader.read_vote().await.map_err(broken)?;
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term) + 1;
    tracing::warn!(
        member = %config.member,
        before = before.map(|before| before.to_string()),
        "forcing a new cluster of this member alone"
    );
    append(log, term, last, alone).await.map_err(broken)
}

async fn append(log: &mut LogStore, term: u64, last: LogId, alone: Alone) -> io::Result<()> {
    // The vote first: no entry is of a term that was not voted for.
    log.save_vote(&Vote::new_committed(term, alone.member.0))
        .await?;
    let entry = Entry {
        log_id: log_id(term, last.index + 1),
        payload: Payload::Membership(alone.membership),
    };
    let (flushed, durable) = TypeConfig::oneshot();
    log.append([entry], IOFlushed::signal(flushed)).await?;
    durable
        .await
        .map_err(|_gone| io::Error::other("the raft log is closed"))?
}

struct Alone {
    member: MemberId,
    membership: Membership,
}

fn alone(before: Option<&Membership>, config: &Config) -> Result<Alone, StartError> {
    let member = config.member;
    let known = before.and_then(|before| before.get_node(&member.0));
    let node = known.cloned().unwrap_or_else(|| initial(config));
    let node = PeerNode {
        is_learner: false,
        ..node
    };
    let membership = Membership::new(
        vec![BTreeSet::from([member.0])],
        BTreeMap::from([(member.0, node)]),
    );
    let membership = membership.map_err(|error| StartError::Bootstrap(Arc::new(error)))?;
    Ok(Alone { member, membership })
}

/// What this member is when no membership has it.
fn initial(config: &Config) -> PeerNode {
    let me = config
        .initial_members
        .iter()
        .find(|peer| peer.id == config.member);
    PeerNode {
        name: me.map(|me| me.name.clone()).unwrap_or_default(),
        peer_urls: me.map_or_else(
            || vec![DEFAULT_PEER_URL.to_owned()],
            |me| me.peer_urls.clone(),
        ),
        is_learner: false,
    }
}

/// Whether the member is alone already, and has its vote.
fn is_new_cluster(membership: &Membership, member: MemberId) -> bool {
    *membership.get_joint_config() == [BTreeSet::from([member.0])]
        && membership::is_alone(member.0, membership)
        && membership.nodes().all(|(_, node)| !node.is_learner)
}

/// The last membership of the log, else that of the state.
async fn last_membership(
    log: &mut LogStore,
    state: &StateMachine,
) -> Result<Option<Membership>, StartError> {
    let bounds = log.get_log_state().await.map_err(broken)?;
    let first = bounds
        .last_purged_log_id
        .map_or(0, |purged| purged.index + 1);
    let mut end = bounds.last_log_id.map_or(0, |last| last.index + 1);
    let mut reader = log.get_log_reader().await;
    while end > first {
        let start = end.saturating_sub(READ_ENTRIES).max(first);
        let entries = reader
            .try_get_log_entries(start..end)
            .await
            .map_err(broken)?;
        for entry in entries.into_iter().rev() {
            if let Payload::Membership(membership) = entry.payload {
                return Ok(Some(membership));
            }
        }
        end = start;
    }
    let stored = state.applied().1.map(|raw| membership::decode_stored(&raw));
    let stored = stored.transpose().map_err(StartError::Membership)?;
    Ok(stored.map(|stored| stored.membership().clone()))
}

fn broken(error: io::Error) -> StartError {
    StartError::Bootstrap(Arc::new(error))
}
