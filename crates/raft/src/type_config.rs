//! What openraft's type parameters are here.

use std::fmt;
use std::sync::Arc;

use apply::{Rejection, Reply, Request};
use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, RaftTypeConfig};

/// openraft's types, as this crate uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    // One leader for each term: etcd shows the term to its clients as if that were enough.
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = crate::runtime::Runtime;
    type Responder<T>
        = OnComplete<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Proposal, u64, PeerNode>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, PeerNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, PeerNode>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeaderId, u64, PeerNode, crate::state_machine::DurableState>;

/// What each command of a [`Proposal`] came to, in the same order.
pub(crate) type Outcomes = Vec<Result<Reply, Rejection>>;

/// The id of the entry at `index` that the leader of `term` wrote.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    // The node is not kept: there is one leader for each term.
    LogId {
        leader_id: LeaderId::new(term, 0).to_committed(),
        index,
    }
}

/// A member as the membership knows it. The name and client urls it tells by itself are in
/// `apply`'s member store only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerNode {
    /// Its name in `--initial-cluster`; empty for one that was added later.
    pub(crate) name: String,
    /// Where its peers reach it.
    pub(crate) peer_urls: Vec<String>,
    /// Whether it is a learner for clients. One that is not may still have no vote: the leader
    /// gives it one when it has caught up.
    pub(crate) is_learner: bool,
}

/// A command, and its bytes in the log.
#[derive(Clone, Debug)]
pub(crate) struct Proposed {
    pub(crate) request: Request,
    pub(crate) encoded: Bytes,
}

/// The data of one log entry: the commands that had queued on the member that was asked. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct Proposal {
    /// No other proposal has it.
    id: u64,
    commands: Arc<[Proposed]>,
}

impl Proposal {
    pub(crate) fn new(id: u64, commands: Vec<Proposed>) -> Self {
        Self {
            id,
            commands: commands.into(),
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn commands(&self) -> &[Proposed] {
        &self.commands
    }

    /// Bytes of the commands in the log.
    pub(crate) fn encoded_len(&self) -> usize {
        self.commands
            .iter()
            .map(|proposed| proposed.encoded.len())
            .sum()
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        let encoded = |proposal: &Self| {
            proposal
                .commands
                .iter()
                .map(|p| p.encoded.clone())
                .collect::<Vec<_>>()
        };
        self.id == other.id
            && (Arc::ptr_eq(&self.commands, &other.commands) || encoded(self) == encoded(other))
    }
}

// Keys and values stay out of logs, so neither of these prints the commands.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal")
            .field("commands", &self.commands.len())
            .finish()
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.commands.len())
    }
}

/// Runs a closure with the result of a write, where openraft knows it first: no channel and no
/// task between the state machine and those who wait for its replies.
pub(crate) struct OnComplete<T>(Box<dyn FnOnce(T) + Send>);

impl<T> OnComplete<T> {
    pub(crate) fn new(then: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(then))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for OnComplete<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
