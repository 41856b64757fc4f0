//! The handle on this member's part of the group.

use std::time::Duration;

use apply::{Command, Persister, Rejection, Reply, StateMachine};
use types::MemberId;

use crate::{Fatal, ProposeError, ReadIndexError, StartError};

/// How to run Raft.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// The members that begin the cluster; used only when the log is empty.
    pub initial_members: Vec<Peer>,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--snapshot-count`: entries after which the log is cut.
    pub snapshot_count: u64,
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
}

/// A member that begins the cluster.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its peer urls.
    pub peer_urls: Vec<String>,
}

/// A command that was carried out or refused.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What came of it.
    pub outcome: Result<Reply, Rejection>,
    /// The term in which it was applied.
    pub term: u64,
}

/// Where Raft stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: u64,
    /// The last committed entry, counted from 1 as etcd does.
    pub committed_index: u64,
    /// The last applied entry, counted from 1 as etcd does.
    pub applied_index: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
}

/// This member's part of the group. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// Opens the log in `log`, replays it into `state`, and takes part in elections. Returns as
    /// soon as requests can be made; [`Node::wait_ready`] waits for a leader.
    pub async fn start(
        _config: Config,
        _log: backend::Backend,
        _state: StateMachine,
        _persister: Persister,
    ) -> Result<Self, StartError> {
        todo!()
    }

    /// Proposes a command and waits for its outcome on this member.
    pub async fn propose(&self, _command: Command) -> Result<Applied, ProposeError> {
        todo!()
    }

    /// Waits until a local read is linearizable: everything committed before the call is applied
    /// here. Calls that wait at the same time share one round.
    pub async fn read_index(&self) -> Result<(), ReadIndexError> {
        todo!()
    }

    /// Waits for a leader and for this member to have applied all that was committed.
    pub async fn wait_ready(&self) {
        todo!()
    }

    /// Where Raft stands now.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Follows [`Node::status`].
    #[must_use]
    pub fn watch_status(&self) -> tokio::sync::watch::Receiver<Status> {
        todo!()
    }

    /// Waits until the member cannot go on (a broken disk, a broken log), and says why.
    pub async fn fatal(&self) -> Fatal {
        todo!()
    }

    /// Stops taking part, and returns when all that was applied is durable.
    pub async fn stop(&self) {
        todo!()
    }
}
