//! What the store refuses, and what can be wrong with it.

/// The store's own files are broken or cannot be read. The member has to stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The backend failed.
    #[error("cannot read the store")]
    Read(#[from] backend::ReadError),
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store's files are broken.
    #[error(transparent)]
    Store(#[from] StoreError),
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
#[derive(Debug, thiserror::Error)]
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
