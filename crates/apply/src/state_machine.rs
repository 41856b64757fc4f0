//! One command at a time.

use std::sync::Arc;

use bytes::Bytes;
use types::{Clock, MemberId};

use crate::{Alarms, Cluster, Command, Fatal, Member, OpenError, Rejection, Reply};

/// The log entry a command came from. `index` counts from 0, as openraft does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The leader's id (openraft's log ids carry it).
    pub leader: u64,
    /// The entry's index.
    pub index: u64,
}

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// So many bytes; above it writes are refused and NOSPACE is raised.
    Bytes(u64),
    /// Whatever the disk holds.
    Unlimited,
}

/// How to open the state.
#[derive(Clone)]
pub struct Config {
    /// This member, for the alarms it raises.
    pub member: MemberId,
    /// The quota.
    pub quota: Quota,
    /// For leases' expiry; the state itself never asks it.
    pub clock: Arc<dyn Clock>,
    /// The store's bounds.
    pub mvcc: mvcc::Config,
}

/// Everything that may be read of the state. Cheap to clone; nothing in it can write.
#[derive(Clone, Debug)]
pub struct Views {
    /// The revisioned store.
    pub store: mvcc::Store,
    /// The leases.
    pub leases: lease::Leases,
    /// The leases' expiry: only the leader uses it.
    pub renewer: lease::Renewer,
    /// The alarms.
    pub alarms: Alarms,
    /// The members.
    pub cluster: Cluster,
}

/// The state machine.
#[derive(Debug)]
pub struct StateMachine {}

/// Writes staged batches to the state's store, behind the state machine, on a thread of its own.
#[derive(Clone, Debug)]
pub struct Persister {}

/// Loads the state as of its last persisted batch. The log has to be replayed from the entry after
/// [`StateMachine::applied`].
pub fn open(
    _state: backend::Backend,
    _config: &Config,
) -> Result<(StateMachine, Views, Persister), OpenError> {
    todo!()
}

impl StateMachine {
    /// The last entry that was applied, if any, and the bytes that were stored with the last
    /// membership (see [`StateMachine::set_membership`]).
    #[must_use]
    pub fn applied(&self) -> (Option<LogPosition>, Option<Bytes>) {
        todo!()
    }

    /// Carries out one command. Its effects show in [`Views`] only after
    /// [`StateMachine::finish_batch`]; send no reply before that.
    pub fn apply(
        &mut self,
        _at: LogPosition,
        _command: &Command,
    ) -> Result<Result<Reply, Rejection>, Fatal> {
        todo!()
    }

    /// Notes an entry that holds no command (a new leader's blank entry).
    pub fn skip(&mut self, _at: LogPosition) {
        todo!()
    }

    /// Notes a change of membership: the members it names (peer urls and learner flag are taken,
    /// names and client urls kept), and `raw`, which Raft wants back after a restart.
    pub fn set_membership(&mut self, _at: LogPosition, _members: Vec<Member>, _raw: Bytes) {
        todo!()
    }

    /// Makes everything applied so far visible, and hands it to the persister when enough has come
    /// together. Waits if the persister is far behind.
    pub fn finish_batch(&mut self) -> Result<(), Fatal> {
        todo!()
    }

    /// Stages everything applied so far, and says which entry it ends with: once
    /// [`Persister::durable`] has returned, the log is not needed up to there.
    pub fn stage_all(&mut self) -> Result<Option<LogPosition>, Fatal> {
        todo!()
    }
}

impl Persister {
    /// Waits until everything staged so far survives a loss of power.
    pub async fn durable(&self) -> Result<(), Fatal> {
        todo!()
    }

    /// Waits until the persister has failed, and says how. The member has to stop then.
    pub async fn failed(&self) -> Fatal {
        todo!()
    }

    /// Bytes of the state's files.
    pub fn size_on_disk(&self) -> Result<u64, Fatal> {
        todo!()
    }
}
