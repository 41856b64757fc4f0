//! The deterministic state machine: one replicated command at a time against the revisioned store,
//! the leases, the alarms and the members, together with the index of the log entry it came from.
//!
//! The only crate that holds the writers. No clock, no randomness, no tasks in here: whatever a
//! command needs of those comes inside it.

mod access;
mod alarm;
mod applier;
mod cluster;
mod command;
mod compaction_counts;
mod error;
mod hashing;
mod image;
mod persister;
mod quota;
mod reply;
mod scrub_pace;
mod snapshot;
mod state_machine;
mod storage;
mod txn;
mod versions;
mod workers;

pub use access::{Access, Guard, LeaseKeys, permit};
pub use alarm::{Alarm, AlarmKind, Alarms};
pub use cluster::{Cluster, Member};
pub use command::{
    AlarmAction, Asker, AuthCommand, Command, Compare, CompareOperator, CompareTarget, DecodeError,
    DeleteRange, Op, Put, PutLease, PutValue, RangeOp, Request, SortOrder, SortTarget, Txn,
};
pub use compaction_counts::{CompactionCounts, Compactions};
pub use error::{Fatal, OpenError, Rejection};
pub use image::{Import, ImportError, Registers, stamp};
pub use lease::{NotPrimary, RenewError};
pub use persister::{DefragmentError, Persister};
pub use quota::{Quota, Room};
pub use reply::{AlarmReply, DeleteRangeReply, OpReply, PutReply, RangeReply, Reply, TxnReply};
pub use scrub_pace::ScrubSteps;
pub use snapshot::{Chunk, Incoming, Pinned, Place, ReceiveError, Received, Record};
pub use state_machine::{Config, LogPosition, StateMachine, Views, open};
pub use txn::execute_read_only_txn;
pub use txn::range::{RangeSource, execute_range};
pub use versions::{ClusterVersions, Versions};
pub use workers::{Pace, Unfinished, Workers};

#[cfg(test)]
mod tests;
