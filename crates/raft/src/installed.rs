//! A member whose state was made from a copy, and whose log is empty: what Raft has to find so that it
//! goes on after that state as if a leader had sent it.
//!
//! Several members may begin with the same state: they are then in agreement up to its entry, and elect
//! a leader in a later term.

use std::collections::{BTreeMap, BTreeSet};

use apply::{LogPosition, Member};
use backend::schema::raft::{RaftMetaKey, encode_meta};
use backend::{Backend, Batch, Bucket, WriteError};
use bytes::Bytes;
use openraft::errors::MembershipError;
use types::MemberId;

use crate::log_store::encode_vote;
use crate::membership;
use crate::type_config::{Membership, PeerNode, StoredMembership, Vote, log_id};

/// These cannot be the members of a cluster.
#[derive(Debug, thiserror::Error)]
#[error("impossible membership")]
pub struct ImpossibleMembership(#[source] MembershipError<u64>);

/// What the state keeps for Raft when these are the members as of entry `at`.
pub fn membership(at: LogPosition, members: &[Member]) -> Result<Bytes, ImpossibleMembership> {
    let voters = members.iter().filter(|member| !member.is_learner);
    let voters: BTreeSet<u64> = voters.map(|member| member.id.0).collect();
    let node = |member: &Member| PeerNode {
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
    };
    let nodes: BTreeMap<u64, PeerNode> = members
        .iter()
        .map(|member| (member.id.0, node(member)))
        .collect();
    let membership = Membership::new(vec![voters], nodes).map_err(ImpossibleMembership)?;
    let id = log_id(at.term, at.index);
    Ok(membership::encode_stored(&StoredMembership::new(
        Some(id),
        membership,
    )))
}

/// Makes an empty log one that begins after a state of this term. Durable on return.
pub fn begin_log(log: &mut Backend, member: MemberId, term: u64) -> Result<(), WriteError> {
    let mut batch = Batch::new();
    let vote = Vote::new(term, member.0);
    batch.put(
        Bucket::RaftMeta,
        encode_meta(RaftMetaKey::Vote),
        encode_vote(&vote),
    );
    log.writer.commit(batch)?;
    log.writer.flush_durable()
}
