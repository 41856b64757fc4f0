//! Why the group did not do what was asked, and why a member cannot go on.

use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;

pub use crate::codec::DecodeError;
pub use crate::log_store::{CorruptGroup, FlushError, OpenError};

/// A command was not, or perhaps not, carried out. The last three leave it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// There is no leader to ask; nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// Too much is waiting already; nothing was proposed.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command is larger than `max-request-bytes`; nothing was proposed.
    #[error("request is too large")]
    TooLarge,
    /// The member is stopping; the outcome is unknown.
    #[error("server stopped")]
    Stopped,
    /// Leadership was lost on the way; the outcome is unknown.
    #[error("leader changed")]
    LeaderChanged,
    /// Not applied in time; the outcome is unknown.
    #[error("request timed out")]
    Timeout,
    /// Not applied in time, and the leader was lost meanwhile; the outcome is unknown.
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutDueToLeaderFail,
    /// Not applied in time, and the leader was out of reach; the outcome is unknown.
    #[error("request timed out, possibly due to connection lost")]
    TimeoutDueToConnectionLost,
}

/// A linearizable read was not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// There is no leader to ask.
    #[error("no leader")]
    NoLeader,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
    /// Leadership was lost on the way.
    #[error("leader changed")]
    LeaderChanged,
    /// Not answered in time.
    #[error("request timed out")]
    Timeout,
}

/// The member could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log could not be written.
    #[error("cannot write the raft log")]
    LogWrite(#[source] std::io::Error),
    /// The membership that the state keeps is broken.
    #[error("the membership in the state is broken")]
    Membership(#[source] DecodeError),
    /// The log is older than the state: it was lost, or is another member's.
    #[error(
        "the state holds entry {applied} of the raft log, but {}: the log was lost, or belongs to \
         another member. Restore the member from a snapshot, or remove it and let it rejoin with \
         an empty data directory",
        match last { Some(last) => format!("the log ends at entry {last}"), None => "the log is empty".to_owned() }
    )]
    LogLost {
        /// The last entry whose effect is in the state.
        applied: u64,
        /// The last entry of the log.
        last: Option<u64>,
    },
    /// The state is older than what is left of the log: it was lost, or is another member's.
    #[error(
        "the raft log begins after entry {purged}, but {}: the state was lost, or belongs to \
         another member. Restore the member from a snapshot, or remove it and let it rejoin with \
         an empty data directory",
        match applied { Some(applied) => format!("the state ends at entry {applied}"), None => "the state is empty".to_owned() }
    )]
    StateLost {
        /// The last entry whose effect is in the state.
        applied: Option<u64>,
        /// The last entry that was purged.
        purged: u64,
    },
    /// The settings contradict each other.
    #[error("cannot run raft with these settings")]
    Config(#[source] openraft::ConfigError),
    /// Raft did not start.
    #[error("cannot start raft")]
    Raft(#[source] Arc<dyn Error + Send + Sync>),
    /// This member is not among those that begin the cluster.
    #[error("member {member} is not among the initial members")]
    NotAMember {
        /// This member.
        member: types::MemberId,
    },
    /// The first entry of the log could not be written.
    #[error("cannot begin the cluster")]
    Bootstrap(#[source] Arc<dyn Error + Send + Sync>),
}

/// The member has to stop.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fatal {
    /// The log could not be written.
    #[error("cannot write the raft log")]
    Log(#[source] Arc<FlushError>),
    /// A committed entry could not be applied.
    #[error("cannot apply a committed entry")]
    Apply(#[source] Arc<apply::Fatal>),
    /// The state could not be made durable.
    #[error("cannot persist the state")]
    Persist(#[source] Arc<apply::Fatal>),
    /// A part of the member has panicked.
    #[error("{part} has panicked")]
    Panicked {
        /// Which.
        part: &'static str,
    },
    /// The cluster has removed this member. etcd's words; tools look for them.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// What this member has once confirmed to the leader is not in its log.
    #[error(
        "the raft log ends before entry {confirmed}, which this member has confirmed: its data was \
         lost. Remove the member, and add it again with an empty data directory"
    )]
    LogLost {
        /// The entry.
        confirmed: u64,
    },
    /// Raft itself has given up.
    #[error("raft has stopped")]
    Raft(#[source] Arc<dyn Error + Send + Sync>),
}

/// The first reason to stop, for everybody who waits for one. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct FatalCell {
    reason: Arc<watch::Sender<Option<Fatal>>>,
}

impl Default for FatalCell {
    fn default() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl FatalCell {
    /// Sets the reason; later ones are consequences of the first and change nothing.
    pub(crate) fn set(&self, reason: Fatal) {
        self.reason.send_if_modified(|first| {
            let new = first.is_none();
            if new {
                *first = Some(reason);
            }
            new
        });
    }

    /// Waits for a reason.
    pub(crate) async fn wait(&self) -> Fatal {
        let mut reason = self.reason.subscribe();
        let reason = reason.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .expect("the sender is in self, and waited for one")
    }
}

/// On a thread: tells when it dies of a panic.
pub(crate) struct PanicGuard {
    part: &'static str,
    fatal: FatalCell,
}

impl PanicGuard {
    pub(crate) fn new(part: &'static str, fatal: &FatalCell) -> Self {
        Self {
            part,
            fatal: fatal.clone(),
        }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fatal.set(Fatal::Panicked { part: self.part });
        }
    }
}

/// A task that the member cannot go on without: tells when it dies of a panic.
pub(crate) async fn vital(part: &'static str, fatal: FatalCell, task: impl Future<Output = ()>) {
    // Nothing of the task is used after its panic; the member stops.
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        fatal.set(Fatal::Panicked { part });
    }
}

/// Prints an error with everything that caused it.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
