//! A member's data directory: who owns it, and which format it is in.

use std::path::{Path, PathBuf};

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// A data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {}

impl DataDir {
    /// Makes the directory (0700) if needed, locks it against other processes, and checks that
    /// nobody else's data is in it.
    pub fn lock(_path: &Path) -> Result<Self, DataDirError> {
        todo!()
    }

    /// Where the Raft log's store goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.path.join("member").join("log")
    }

    /// Where the state's store goes.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.path.join("member").join("state")
    }
}
