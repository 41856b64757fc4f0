//! Why there is no backup.

use std::io;
use std::path::PathBuf;

use etcdfile::{ExportError, FileError};

/// A backup or a segment was not made, or could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of this machine.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The bucket did not do what it was asked.
    #[error("cannot {operation} {name} in the bucket")]
    Bucket {
        /// What was tried.
        operation: &'static str,
        /// The object.
        name: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// The bucket cannot be spoken to as asked.
    #[error("the bucket cannot be used")]
    Connect(#[source] object_store::Error),
    /// The state could not be written.
    #[error("cannot write a snapshot of the state")]
    Export(#[from] ExportError),
    /// What was written cannot be restored.
    #[error("{name} is damaged")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: FileError,
    },
    /// What was written is not what is there.
    #[error("{name} has SHA-256 {found} instead of {expected}")]
    Digest {
        /// The file.
        name: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// It is no metadata.
    #[error("{name} cannot be understood")]
    Metadata {
        /// The file.
        name: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// History cannot be read.
    #[error("cannot read the history")]
    History(#[from] mvcc::StoreError),
    /// What was asked for is not there.
    #[error("there is no {name}")]
    NotFound {
        /// The file.
        name: String,
    },
    /// The location is none.
    #[error("{location:?} is no directory and no s3://bucket/folder")]
    Location {
        /// As given.
        location: String,
    },
    /// There is no state yet.
    #[error("there is nothing to be backed up yet")]
    NoState,
}

impl BackupError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
