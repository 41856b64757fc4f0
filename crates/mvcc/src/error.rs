//! What the store refuses, and what can be wrong with it.

use backend::schema::KeyError;
use types::Revision;

use crate::kv::ParseKvError;

/// The store's own files are broken or cannot be read. The member has to stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The backend failed.
    #[error("cannot read the store")]
    Read(#[from] backend::ReadError),
    /// A segment has a key that is not a revision.
    #[error("cannot read the store")]
    SegmentKey(#[from] KeyError),
    /// A segment is not what was written.
    #[error("the segment of bucket key that begins with revision {first} is corrupt")]
    Segment {
        /// The revision that it is stored under.
        first: Revision,
        /// What is wrong with it.
        #[source]
        problem: SegmentProblem,
    },
    /// A single value is not 8 bytes long.
    #[error("{name} of bucket meta is corrupt: {len} bytes instead of 8")]
    Meta {
        /// Its key.
        name: &'static str,
        /// Bytes that it has.
        len: usize,
    },
    /// A version that is not compacted is nowhere.
    #[error("the version of revision {revision} is missing in bucket key")]
    Missing {
        /// Its revision.
        revision: Revision,
    },
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentProblem {
    /// It is of a format that this version does not know.
    #[error("it has format {found}, and this version reads format {expected}")]
    Format {
        /// The format that this version writes.
        expected: u8,
        /// The format that the segment names.
        found: u8,
    },
    /// It ends in the middle of a record.
    #[error("it ends early")]
    Truncated,
    /// A record is neither a put nor a delete.
    #[error("there is no kind {found} of record")]
    Kind {
        /// The kind that was found.
        found: u8,
    },
    /// A record comes before the one it follows.
    #[error("revision {found} follows revision {after}")]
    Order {
        /// The record before.
        after: Revision,
        /// The record that should be later.
        found: Revision,
    },
    /// A record's key-value has no key.
    #[error("the key-value of revision {revision} has no key")]
    NoKey {
        /// The record's revision.
        revision: Revision,
    },
    /// A deletion's record has more than a key.
    #[error("the deletion of revision {revision} has more than a key")]
    Tombstone {
        /// The record's revision.
        revision: Revision,
    },
    /// A record's key-value cannot be decoded.
    #[error("the key-value of revision {revision} cannot be decoded")]
    Kv {
        /// The record's revision.
        revision: Revision,
        /// Why not.
        #[source]
        problem: ParseKvError,
    },
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store's files are broken.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that reads could not be started.
    #[error("cannot start the thread that reads the store")]
    Thread(#[source] std::io::Error),
}

impl From<backend::ReadError> for OpenError {
    fn from(error: backend::ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// A range could not be read at the revision that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The revision is below the compacted one.
    #[error("required revision has been compacted")]
    Compacted {
        /// The revision up to which history is gone.
        compact_revision: i64,
    },
    /// The revision has not happened yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The store is broken.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A compaction was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// That revision is compacted already.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision has not happened yet.
    #[error("required revision is a future revision")]
    FutureRevision,
}

/// A hash could not be made; the same reasons as for a range.
pub type HashError = RangeError;
