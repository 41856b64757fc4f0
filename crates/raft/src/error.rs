//! Why the group did not do what was asked.

/// A command was not, or perhaps not, carried out. The last one is the only one that leaves it open.
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
pub enum StartError {}

/// The member has to stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {}
