//! A snapshot, or the database of a data directory.
//!
//! A snapshot ends with the SHA-256 of the bytes before; whether there is one can be seen by the length,
//! because a database is always whole pages long.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::{panic, thread};

use boltfile::{BoltFile, Bucket};
use sha2::{Digest as _, Sha256};

use crate::digest;
use crate::error::{Digest, FileError};

/// A database is a multiple of this, whatever the size of its pages.
const SECTOR_BYTES: u64 = 512;
/// Bytes that are hashed at a time.
const READ_BYTES: usize = 1 << 20;

/// Whether the checksum at the end counts.
///
/// ```
/// # use etcdfile::{EtcdFile, FileError, HashCheck};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let file = dir.path().join("db");
/// // No checksum, and no database either.
/// std::fs::write(&file, [0; 4096])?;
/// let refused = |hash| EtcdFile::open(&file, hash).expect_err("it is nothing");
/// assert!(matches!(refused(HashCheck::Required), FileError::NoHash));
/// assert!(matches!(refused(HashCheck::IfThere), FileError::Bolt(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashCheck {
    /// It has to be there, and right.
    Required,
    /// It may be missing, and is not looked at (`--skip-hash-check`).
    Skipped,
    /// It may be missing; if it is there, it has to be right.
    IfThere,
}

/// A file of etcd's: whole, as far as a checksum and every page say.
#[derive(Debug)]
pub struct EtcdFile {
    pub(crate) bolt: BoltFile,
}

impl EtcdFile {
    /// Opens a file and looks at all of it.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn open(path: &Path, hash: HashCheck) -> Result<Self, FileError> {
        let (opened, look) = Self::begin(path, hash)?;
        look.all(&opened)?;
        Ok(opened)
    }

    /// Opens a file, and looks at all of it while `work` is done with it: what comes of that is nothing
    /// unless the file is whole.
    ///
    /// # Errors
    /// When it is not whole, whatever `work` says.
    pub fn open_beside<T>(
        path: &Path,
        hash: HashCheck,
        work: impl FnOnce(&Self) -> T,
    ) -> Result<T, FileError> {
        let (opened, look) = Self::begin(path, hash)?;
        thread::scope(|scope| {
            let looked = thread::Builder::new()
                .name("verify".to_owned())
                .spawn_scoped(scope, || look.all(&opened))?;
            let done = work(&opened);
            match looked.join() {
                Ok(looked) => looked?,
                Err(panicked) => panic::resume_unwind(panicked),
            }
            Ok(done)
        })
    }

    fn begin(path: &Path, hash: HashCheck) -> Result<(Self, Look), FileError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let has_hash = len % SECTOR_BYTES == digest::BYTES;
        if !has_hash && hash == HashCheck::Required {
            return Err(FileError::NoHash);
        }
        let database = if has_hash { len - digest::BYTES } else { len };
        let look = Look {
            hashed: match has_hash && hash != HashCheck::Skipped {
                true => Some(file.try_clone()?),
                false => None,
            },
            database,
        };
        match BoltFile::open(file, database) {
            Ok(bolt) => Ok((Self { bolt }, look)),
            // Which may be because it is not what it was.
            Err(error) => {
                look.hash()?;
                Err(error.into())
            }
        }
    }

    /// One of its buckets; older etcds do not have all of them.
    pub(crate) fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>, FileError> {
        Ok(self.bolt.root().bucket(name)?)
    }
}

/// What is to be looked at.
struct Look {
    /// The file, if its checksum counts.
    hashed: Option<File>,
    /// Bytes before the checksum.
    database: u64,
}

impl Look {
    fn all(&self, opened: &EtcdFile) -> Result<(), FileError> {
        self.hash()?;
        opened.bolt.check()?;
        Ok(())
    }

    fn hash(&self) -> Result<(), FileError> {
        let Some(file) = &self.hashed else {
            return Ok(());
        };
        let mut hash = Sha256::new();
        let mut bytes = vec![0; READ_BYTES];
        let mut at = 0;
        while at < self.database {
            let left = usize::try_from(self.database - at).unwrap_or(READ_BYTES);
            let some = bytes.get_mut(..left.min(READ_BYTES)).unwrap_or_default();
            file.read_exact_at(some, at)?;
            hash.update(&*some);
            at += some.len() as u64;
        }
        let mut expected = [0; 32];
        file.read_exact_at(&mut expected, self.database)?;
        let found: [u8; 32] = hash.finalize().into();
        if found != expected {
            return Err(FileError::Hash {
                expected: Digest(expected),
                found: Digest(found),
            });
        }
        Ok(())
    }
}
