//! A snapshot on its way into a file: there as a whole, checked and durable, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use etcdfile::{EtcdFile, FileError, HashCheck};

/// Only its owner reads a snapshot, as in etcd.
const FILE_MODE: u32 = 0o600;

/// A file that goes unless it is kept.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

/// The file could not be kept. Nothing of it is left.
pub(crate) enum KeepError {
    /// It could not be written.
    Write(io::Error),
    /// What cannot be restored is no snapshot.
    NotASnapshot(FileError),
}

impl Part {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            is_kept: false,
        })
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)
    }

    /// Checks it, and gives it its name, durably.
    pub(crate) fn keep(mut self, target: &Path) -> Result<(), KeepError> {
        self.file.sync_all().map_err(KeepError::Write)?;
        EtcdFile::open(&self.path, HashCheck::Required).map_err(KeepError::NotASnapshot)?;
        fs::rename(&self.path, target).map_err(KeepError::Write)?;
        self.is_kept = true;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = File::open(directory).map_err(KeepError::Write)?;
        directory.sync_all().map_err(KeepError::Write)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // It has been said what went wrong.
            fs::remove_file(&self.path).ok();
        }
    }
}
