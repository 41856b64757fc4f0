//! Consensus: a member of a Raft group on openraft, whose state machine is `apply`. The only crate
//! that names openraft.
//!
//! The way of a command: [`Node::propose`] → `proposer` (one entry for what queued) → openraft →
//! `log_store` (durable) → `state_machine` (applied, published) → `waiters` (answered); where another
//! member leads, `forward` takes the proposal there, and it comes back through the log. The way of a read:
//! [`Node::read_index`] → `read_index`.
//!
//! What it is not: it does not know what a command does, and it serves nobody.

mod apply_counts;
mod ask;
mod bootstrap;
mod codec;
pub mod error;
mod forward;
pub mod installed;
mod leader_duties;
mod leadership;
mod lease_entries;
mod lease_requests;
mod log_cutter;
mod log_store;
mod member_change;
mod membership;
mod network;
mod node;
mod peer;
mod progress;
mod proposal_id;
mod proposer;
mod read_index;
mod recovery;
mod repair;
mod runtime;
#[cfg(test)]
mod simulation;
mod snapshot;
mod state_machine;
mod status;
#[cfg(test)]
mod storage_suite;
mod succession;
#[cfg(test)]
mod testing;
mod ticks;
mod type_config;
mod waiters;
mod watchdog;

/// The part of openraft that says at level error only that it had something for a Raft that has just been
/// stopped. Loggers leave it out: an ordinary stop is no error.
pub const HEARTBEAT_WORKER: &str = "openraft::core::heartbeat::worker";

pub use apply_counts::Applications;
pub use error::{Fatal, ProposeError, ReadIndexError, StartError};
pub use member_change::{MemberChange, MemberChangeError, MoveLeaderError};
pub use node::{Config, Node, Peer};
pub use peer::hashes::{HashWanted, PeerHash, PeerHashError};
pub use peer::{PeerService, PeerStatus};
pub use proposer::Applied;
pub use repair::RepairError;
pub use runtime::seed_this_thread;
pub use snapshot::{DURATION_BOUNDS_S, Durations, SnapshotMetrics, TransferMetrics};
pub use status::{Metrics, Status};
