//! What can be wrong with a file of etcd's.

use std::fmt;
use std::io;

/// A file cannot be used.
///
/// ```
/// # use etcdfile::{EtcdFile, FileError, HashCheck};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let snapshot = dir.path().join("snapshot.db");
/// // A snapshot of which the disk has made zeros, the checksum at its end too.
/// std::fs::write(&snapshot, [0; 4096 + 32])?;
/// let refused = EtcdFile::open(&snapshot, HashCheck::Required).expect_err("it is damaged");
/// let FileError::Hash { expected, .. } = &refused else { panic!("{refused}") };
/// assert_eq!(expected.0, [0; 32]);
/// assert!(refused.to_string().starts_with("expected sha256 [0 0 0 "));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// It is no whole database.
    #[error("its database is damaged")]
    Bolt(#[from] boltfile::Error),
    /// There is no checksum at its end, and one was asked for.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    /// The checksum at its end is another one.
    #[error("expected sha256 {expected}, got {found}")]
    Hash {
        /// The one at its end.
        expected: Digest,
        /// That of the bytes before.
        found: Digest,
    },
    /// A bucket that every etcd has is not there.
    #[error("it has no bucket {name:?}, so it is not etcd's")]
    NoBucket {
        /// The bucket.
        name: String,
    },
    /// Its layout is of a version that is not known.
    #[error(transparent)]
    StorageVersion(#[from] crate::StorageVersionError),
    /// A record is not what its bucket can hold.
    #[error("the record {key:?} of bucket {bucket:?} {problem}")]
    Record {
        /// The bucket.
        bucket: String,
        /// The key, what cannot be printed escaped.
        key: String,
        /// What is wrong.
        #[source]
        problem: RecordProblem,
    },
    /// The state could not be made.
    #[error(transparent)]
    Import(#[from] apply::ImportError),
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordProblem {
    /// Its key cannot be in that bucket.
    #[error("has a key that cannot be there")]
    Key,
    /// Its value is not what belongs there.
    #[error("has a value that cannot be there")]
    Value,
    /// It is a bucket.
    #[error("is a bucket")]
    Bucket,
    /// It is no message.
    #[error("cannot be decoded: {0}")]
    Message(#[from] prost::DecodeError),
    /// It is no JSON of that form.
    #[error("cannot be decoded: {0}")]
    Json(#[from] serde_json::Error),
}

impl FileError {
    pub(crate) fn record(bucket: &[u8], key: &[u8], problem: impl Into<RecordProblem>) -> Self {
        Self::Record {
            bucket: bucket.escape_ascii().to_string(),
            key: key.escape_ascii().to_string(),
            problem: problem.into(),
        }
    }
}

/// A SHA-256, printed as Go prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, byte) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            write!(f, "{separator}{byte}")?;
        }
        f.write_str("]")
    }
}

/// A state cannot be written as a file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The state cannot be read.
    #[error("cannot read the state")]
    Store(#[from] mvcc::StoreError),
    /// The rest of it cannot be read.
    #[error("cannot read the state")]
    State(#[from] apply::OpenError),
    /// It cannot be written.
    #[error("cannot write the snapshot")]
    Write(#[from] boltfile::WriteError),
}
