//! Where a data directory is made: beside its place, and moved there when it is whole.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backend::{DataDir, DataDirError};

/// A data directory is its owner's, as in etcd.
const DIR_MODE: u32 = 0o700;
/// What the directory is called while it is made, if its place is there already.
const INSIDE: &str = "restore.part";
/// What its name ends with otherwise.
const BESIDE: &str = ".part";
const MEMBER: &str = "member";

/// There is no place for a data directory.
///
/// ```
/// use kvorum::Config;
/// use kvorum::restore::{HashCheck, PlaceError, Restore, RestoreError, restore};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data_dir = dir.path().join("data");
/// # std::fs::create_dir_all(data_dir.join("member"))?;
///
/// let config = Config::builder().data_dir(&data_dir).build()?;
/// let snapshot = "snapshot.db".into();
/// let request = Restore { snapshot, way: None, hash: HashCheck::Required, bump: None, config };
/// let refused = restore(&request, |_versions| ()).expect_err("a member is there already");
/// assert!(matches!(&refused, RestoreError::Place(PlaceError::NotEmpty { path }) if *path == data_dir));
/// assert_eq!(refused.to_string(), format!("data-dir {data_dir:?} not empty or could not be read"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is something in it.
    #[error("data-dir {path:?} not empty or could not be read")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// There is something where its log is to go.
    #[error("wal-dir {path:?} exists")]
    LogThere {
        /// The log's directory.
        path: PathBuf,
    },
    /// A file of it could not be written.
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
    /// It could not be locked.
    #[error(transparent)]
    Lock(#[from] DataDirError),
}

/// A place for a data directory. What was made goes when it is dropped unfinished.
#[derive(Debug)]
pub(crate) struct Place {
    target: PathBuf,
    work: PathBuf,
    /// Where the log goes, if not into the directory.
    wal_dir: Option<PathBuf>,
    is_finished: bool,
}

impl Place {
    /// A place that is not there, or empty; `wal_dir` must not be there at all, as in etcd.
    pub(crate) fn begin(target: &Path, wal_dir: Option<&Path>) -> Result<Self, PlaceError> {
        let not_empty = |path: &Path| PlaceError::NotEmpty {
            path: path.to_owned(),
        };
        let work = match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => target.join(INSIDE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => beside(target),
            Ok(false) | Err(_) => return Err(not_empty(target)),
        };
        // What somebody else is making, or what a crash has left: whose it is cannot be seen.
        if work.exists() {
            return Err(not_empty(&work));
        }
        if let Some(there) = wal_dir.filter(|wal_dir| wal_dir.exists()) {
            return Err(PlaceError::LogThere {
                path: there.to_owned(),
            });
        }
        Ok(Self {
            target: target.to_owned(),
            work,
            wal_dir: wal_dir.map(Path::to_owned),
            is_finished: false,
        })
    }

    /// Makes the directory, and takes it.
    pub(crate) fn lock(&self) -> Result<DataDir, PlaceError> {
        make_private(&self.work)?;
        Ok(DataDir::lock_with(&self.work, self.wal_dir.as_deref())?)
    }

    /// Moves what was made, and is closed, to its place; durable on return.
    pub(crate) fn finish(mut self) -> Result<(), PlaceError> {
        make_private(&self.target)?;
        let (from, to) = (self.work.join(MEMBER), self.target.join(MEMBER));
        // A log without its data directory is of no use to anybody, so it need not be moved.
        if let Some(wal_dir) = &self.wal_dir {
            sync_all(wal_dir)?;
            sync_parent(wal_dir)?;
        }
        sync_all(&from)?;
        fs::rename(&from, &to).map_err(failed("move the new member to", &to))?;
        self.is_finished = true;
        fs::remove_dir_all(&self.work).map_err(failed("remove", &self.work))?;
        sync(&self.target)?;
        sync_parent(&self.target)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_finished || !self.work.exists() {
            return;
        }
        for begun in [Some(&self.work), self.wal_dir.as_ref()] {
            let Some(begun) = begun.filter(|begun| begun.exists()) else {
                continue;
            };
            if let Err(error) = fs::remove_dir_all(begun) {
                tracing::warn!(path = %begun.display(), %error, "cannot remove what was begun");
            }
        }
    }
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(BESIDE);
    name.into()
}

fn make_private(path: &Path) -> Result<(), PlaceError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
        .map_err(failed("create directory", path))
}

/// A directory's files and directories, one level below what is flushed by whoever wrote it.
fn sync_all(directory: &Path) -> Result<(), PlaceError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = entry.map_err(failed("read", directory))?.path();
        sync(&path)?;
    }
    sync(directory)
}

fn sync_parent(path: &Path) -> Result<(), PlaceError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

fn sync(path: &Path) -> Result<(), PlaceError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed("make durable", path))
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> PlaceError + use<'a> {
    move |source| PlaceError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        for there in [false, true] {
            if there {
                fs::create_dir(&target).unwrap();
            }
            let place = Place::begin(&target, None).unwrap();
            drop(place.lock().unwrap());
            assert!(Place::begin(&target, None).is_err(), "somebody makes it");
            drop(place);
            assert_eq!(target.exists(), there);
            let place = Place::begin(&target, None).unwrap();
            drop(place.lock().unwrap());
            place.finish().unwrap();
            assert!(target.join("member/FORMAT").is_file());
            assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
            assert!(Place::begin(&target, None).is_err(), "it is not empty");
            fs::remove_dir_all(&target).unwrap();
        }
    }

    #[test]
    fn the_log_goes_with_what_is_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (target, wal) = (dir.path().join("data"), dir.path().join("wal"));
        let begin = || Place::begin(&target, Some(&wal));
        let place = begin().unwrap();
        drop(place.lock().unwrap());
        assert!(wal.exists());
        drop(place);
        assert!(!wal.exists());
        fs::create_dir(&wal).unwrap();
        let error = begin().unwrap_err();
        assert_eq!(error.to_string(), format!("wal-dir {wal:?} exists"));
        fs::remove_dir(&wal).unwrap();
        let place = begin().unwrap();
        drop(place.lock().unwrap());
        place.finish().unwrap();
        drop(DataDir::lock_with(&target, Some(&wal)).unwrap());
    }
}
