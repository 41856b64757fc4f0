//! A snapshot, or the database of a data directory.
//!
//! A snapshot ends with the SHA-256 of the bytes before; whether there is one can be seen by the length,
//! because a database is always whole pages long.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use boltfile::{BoltFile, Bucket};
use sha2::{Digest as _, Sha256};

use crate::digest;
use crate::error::{Digest, FileError};

/// A database is a multiple of this, whatever the size of its pages.
const SECTOR_BYTES: u64 = 512;
/// Bytes that are hashed at a time.
const READ_BYTES: usize = 1 << 20;

/// Whether the checksum at the end counts.
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
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let has_hash = len % SECTOR_BYTES == digest::BYTES;
        if !has_hash && hash == HashCheck::Required {
            return Err(FileError::NoHash);
        }
        let database = if has_hash { len - digest::BYTES } else { len };
        if has_hash && hash != HashCheck::Skipped {
            check_hash(&file, database)?;
        }
        let bolt = BoltFile::open(file, database)?;
        bolt.check()?;
        Ok(Self { bolt })
    }

    /// One of its buckets; older etcds do not have all of them.
    pub(crate) fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>, FileError> {
        Ok(self.bolt.root().bucket(name)?)
    }
}

fn check_hash(file: &File, database: u64) -> Result<(), FileError> {
    let mut hash = Sha256::new();
    let mut reader = BufReader::with_capacity(READ_BYTES, file).take(database);
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = reader.read(&mut bytes)?;
        if read == 0 {
            break;
        }
        hash.update(bytes.get(..read).unwrap_or_default());
    }
    let mut expected = [0; 32];
    file.read_exact_at(&mut expected, database)?;
    let found: [u8; 32] = hash.finalize().into();
    if found != expected {
        return Err(FileError::Hash {
            expected: Digest(expected),
            found: Digest(found),
        });
    }
    Ok(())
}
