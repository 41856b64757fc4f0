//! Two kinds of failure that must never be confused.

use bytes::Bytes;

/// The command was refused: an answer to the client, the same on every member. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Who asks may not have it, or users and roles cannot be changed so.
    #[error(transparent)]
    Auth(#[from] auth::AuthError),
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
    /// A command could not be carried out, so the state is of no log entry any more.
    #[error("an earlier command could not be carried out")]
    Halted,
    /// The persister has ended, because it was told to or because its thread did not start.
    #[error("the persister has ended")]
    PersisterEnded,
}

/// The state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The revisioned store.
    #[error(transparent)]
    Mvcc(#[from] mvcc::OpenError),
    /// The leases.
    #[error(transparent)]
    Lease(#[from] lease::OpenError),
    /// The users and roles.
    #[error(transparent)]
    Auth(#[from] auth::OpenError),
    /// The live keys could not be read.
    #[error("cannot read the live keys")]
    LiveKeys(#[from] mvcc::RangeError),
    /// The backend failed.
    #[error("cannot read the state")]
    Read(#[from] backend::ReadError),
    /// A record has a key that its bucket cannot hold.
    #[error(transparent)]
    Key(#[from] backend::schema::KeyError),
    /// A record's value is not a message of its bucket.
    #[error("the record at {key:?} of bucket {bucket} cannot be decoded")]
    Decode {
        /// Its bucket.
        bucket: backend::Bucket,
        /// Its key.
        key: Bytes,
        /// What was wrong.
        #[source]
        source: prost::DecodeError,
    },
    /// An alarm stands that this version does not know.
    #[error("there is no kind {kind} of alarm")]
    AlarmKind {
        /// Its number.
        kind: u8,
    },
    /// What is stored as the cluster's version is none.
    #[error("{value:?} is no version of a cluster")]
    Version {
        /// What is stored.
        value: Bytes,
    },
    /// The store was being received from another member when it was left.
    #[error("the store is not complete: it was being received from another member")]
    Unfinished,
    /// The persister's thread could not be started.
    #[error("cannot start the persister")]
    Thread(#[source] std::io::Error),
}
