//! Two kinds of failure that must never be confused.

/// The command was refused: an answer to the client, the same on every member. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A put that keeps value or lease, of a key that is not there.
    #[error("key not found")]
    KeyNotFound,
    /// A put with a lease that is not there, or a revoke of it.
    #[error("lease not found")]
    LeaseNotFound,
    /// A grant of an id that exists.
    #[error("lease already exists")]
    LeaseExists,
    /// A range or compaction below the compacted revision.
    #[error("required revision has been compacted")]
    Compacted,
    /// A range or compaction above the current revision.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// A write while the NOSPACE alarm stands.
    #[error("database space exceeded")]
    NoSpace,
    /// Anything but reads of status while the CORRUPT alarm stands.
    #[error("corrupt cluster")]
    Corrupt,
}

/// The state cannot go on: the member has to stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The state could not be read.
    #[error("cannot read the state")]
    Read(#[from] backend::ReadError),
    /// The state could not be written.
    #[error("cannot write the state")]
    Write(#[from] backend::WriteError),
    /// The store is broken.
    #[error("the store is broken")]
    Store(#[from] mvcc::StoreError),
    /// The log holds something that is not a command.
    #[error("the log is broken")]
    Decode(#[from] crate::DecodeError),
}

/// The state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The revisioned store.
    #[error(transparent)]
    Mvcc(#[from] mvcc::OpenError),
    /// Anything else.
    #[error("cannot read the state")]
    Read(#[from] backend::ReadError),
}
