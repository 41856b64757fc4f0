//! A member's data directory: who owns it, and which format it is in. It knows nothing of what the
//! stores inside hold.

mod log_dir;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::site;

/// The version of the layout of the data directory. The stores inside carry one of their own.
const LAYOUT_VERSION: u32 = 1;
/// What the format file begins with; the version follows.
const MAGIC: &str = "kvorum data directory, layout ";

const MEMBER: &str = "member";
const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const LOG: &str = "log";
const STATE: &str = "state";

/// Only the owner reads and writes, as in etcd.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The log's store.
    log: PathBuf,
    /// The state's store.
    state: PathBuf,
    /// Holds the lock; the system gives it up with the descriptor, also when the process is killed.
    _lock: File,
    /// And that of the log's own directory.
    _log_lock: Option<File>,
}

/// A data directory could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process holds it.
    #[error("data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// etcd's data is in it.
    #[error(
        "data directory {} belongs to etcd, and kvorum cannot read its files: nothing was \
         changed; choose another --data-dir",
        path.display()
    )]
    Etcd {
        /// The data directory.
        path: PathBuf,
    },
    /// There is data in it that does not say what it is.
    #[error(
        "data directory {} holds a store but no valid {} file: it is damaged, or not kvorum's; \
         choose another --data-dir",
        path.display(), FORMAT
    )]
    Unknown {
        /// The data directory.
        path: PathBuf,
    },
    /// A later version of kvorum made it.
    #[error(
        "data directory {} has layout version {found}, and this version of kvorum knows only up to \
         {supported}: use the version that made it, or a later one",
        path.display()
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The version in the directory.
        found: u32,
        /// The newest version this build knows.
        supported: u32,
    },
    /// Its log is in a directory of its own, and nobody said so.
    #[error(
        "data directory {} keeps its log in a directory of its own, last {}: start the member with \
         --wal-dir; nothing was changed",
        path.display(), wal_dir.display()
    )]
    LogElsewhere {
        /// The data directory.
        path: PathBuf,
        /// Where its log was when it was used last.
        wal_dir: PathBuf,
    },
    /// Its log is in it, and somebody said that it is elsewhere.
    #[error(
        "data directory {} has its log within, not in --wal-dir={}: start the member without \
         --wal-dir; nothing was changed",
        path.display(), wal_dir.display()
    )]
    LogInside {
        /// The data directory.
        path: PathBuf,
        /// Where the log was said to be.
        wal_dir: PathBuf,
    },
    /// The log is not that of the data directory.
    #[error(
        "--wal-dir={} does not hold the log of data directory {}, which was last in {}; nothing was \
         changed",
        wal_dir.display(), path.display(), last.display()
    )]
    WrongLog {
        /// The data directory.
        path: PathBuf,
        /// Where its log was said to be.
        wal_dir: PathBuf,
        /// Where it was when it was used last.
        last: PathBuf,
    },
    /// A new member was to put its log where there is one.
    #[error(
        "--wal-dir={} holds a log already, {whose}, and data directory {} is new: choose another \
         --wal-dir; nothing was changed",
        wal_dir.display(), path.display()
    )]
    LogThere {
        /// The data directory.
        path: PathBuf,
        /// The directory of the log.
        wal_dir: PathBuf,
        /// What kind of log it is.
        whose: &'static str,
    },
    /// Another process holds the log's directory.
    #[error("--wal-dir={} is in use by another process", wal_dir.display())]
    LogInUse {
        /// The directory of the log.
        wal_dir: PathBuf,
    },
    /// A file of it could not be read or written.
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
}

impl DataDir {
    /// Makes the directory (0700) if needed, locks it against other processes, and checks that
    /// nobody else's data is in it. A directory it refuses is left as it was.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        Self::lock_with(path, None)
    }

    /// As [`DataDir::lock`], with the log in `wal_dir` if one is named (`--wal-dir`). A data directory
    /// and its log stay together: one without the other, or with another's, is refused.
    pub fn lock_with(path: &Path, wal_dir: Option<&Path>) -> Result<Self, DataDirError> {
        let member = path.join(MEMBER);
        // Before anything is made in there.
        refuse_etcd(path, &member)?;
        make_private(path)?;
        make_private(&member)?;
        let in_use = || DataDirError::InUse {
            path: path.to_owned(),
        };
        let lock = take_lock(&member, in_use)?;
        let is_new = check_format(path, &member)?;
        let (log, log_lock) = log_dir::settle(path, &member, is_new, wal_dir)?;
        if is_new {
            write_format(path, &member)?;
        }
        let state = member.join(STATE);
        let state = site::in_use(&state).map_err(failed("find the store in use at", &state))?;
        Ok(Self {
            path: path.to_owned(),
            log,
            state,
            _lock: lock,
            _log_lock: log_lock,
        })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft log's store goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// Where the state's store is, or goes: as of [`DataDir::lock`], see [`crate::Site`].
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.state.clone()
    }
}

fn refuse_etcd(path: &Path, member: &Path) -> Result<(), DataDirError> {
    let wal = member.join("wal");
    // A --wal-dir of ours may be called as etcd calls its own.
    let has_etcds_log = wal.exists() && !wal.join(FORMAT).exists();
    let is_etcds = member.join("snap").join("db").exists() || has_etcds_log;
    if is_etcds && !member.join(FORMAT).exists() {
        return Err(DataDirError::Etcd {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Makes `path` for the owner alone. One that exists is left as it is, with a warning when others
/// may enter it (as etcd does).
fn make_private(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        let metadata = fs::metadata(path).map_err(failed("inspect", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & !DIR_MODE != 0 {
            warn!(
                path = %path.display(),
                mode = format_args!("{mode:o}"),
                recommended = format_args!("{DIR_MODE:o}"),
                "directory is accessible to others than its owner"
            );
        }
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
        .map_err(failed("create directory", path))
}

fn take_lock(
    directory: &Path,
    in_use: impl FnOnce() -> DataDirError,
) -> Result<File, DataDirError> {
    let lock_path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&lock_path)
        .map_err(failed("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path)(source)),
    }
}

/// Checks the format file; whether the directory is new and needs one.
fn check_format(path: &Path, member: &Path) -> Result<bool, DataDirError> {
    let format_path = member.join(FORMAT);
    let text = match fs::read(&format_path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if member.join(LOG).exists() || member.join(STATE).exists() {
                return Err(DataDirError::Unknown {
                    path: path.to_owned(),
                });
            }
            return Ok(true);
        }
        Err(error) => return Err(failed("read", &format_path)(error)),
    };
    let found = parse_format(&text).ok_or_else(|| DataDirError::Unknown {
        path: path.to_owned(),
    })?;
    if found > LAYOUT_VERSION {
        let (path, supported) = (path.to_owned(), LAYOUT_VERSION);
        return Err(DataDirError::Newer {
            path,
            found,
            supported,
        });
    }
    Ok(false)
}

fn parse_format(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.strip_prefix(MAGIC)?.trim_end().parse().ok()
}

fn write_format(path: &Path, member: &Path) -> Result<(), DataDirError> {
    write_whole(member, FORMAT, &format!("{MAGIC}{LAYOUT_VERSION}\n"))?;
    // The names must be durable too, up to the one that the data directory has.
    let sync = || {
        File::open(path)?.sync_all()?;
        sync_parent(path)
    };
    sync().map_err(failed("make durable", path))
}

/// Writes a file under another name first, so that it is there whole or not at all. Durable on return.
fn write_whole(directory: &Path, name: &str, text: &str) -> Result<(), DataDirError> {
    let (path, new_path) = (directory.join(name), directory.join(format!("{name}.new")));
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&new_path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new_path, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", &path))
}

/// Makes the name of `path` durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> DataDirError + use<'a> {
    move |source| DataDirError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
