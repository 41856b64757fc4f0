//! A store: one reader that can be cloned, one writer that cannot.

use std::path::PathBuf;

use bytes::Bytes;

use crate::{Batch, Bucket, OpenError, ReadError, WriteError};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of this store's files; made when it is not there.
    pub path: PathBuf,
    /// Bytes of the engine's own cache.
    pub cache_bytes: u64,
}

/// An open store, as [`Backend::open`] gives it: the reader to share and the one writer.
#[derive(Debug)]
pub struct Backend {
    /// Reads; clone it freely.
    pub reader: Reader,
    /// Writes; there is one for each open store.
    pub writer: Writer,
}

/// Reads what has been committed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {}

/// Writes. Not `Clone`: whoever holds it is the only one who can change the store.
#[derive(Debug)]
pub struct Writer {}

/// The records of a range of one bucket, in key order (or backwards: it is double-ended).
#[derive(Debug)]
pub struct Scan {}

impl Backend {
    /// Opens the store in sled, and checks its format version.
    pub fn open(_config: &Config) -> Result<Self, OpenError> {
        todo!()
    }

    /// An empty store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        todo!()
    }
}

impl Reader {
    /// The value at `key`, checked against its checksum.
    pub fn get(&self, _bucket: Bucket, _key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        todo!()
    }

    /// Every record of `bucket` from key `from` on and before key `to` (`None`: to the end).
    #[must_use]
    pub fn scan(&self, _bucket: Bucket, _from: &[u8], _to: Option<&[u8]>) -> Scan {
        todo!()
    }

    /// Bytes the store's files take on the disk.
    pub fn size_on_disk(&self) -> Result<u64, ReadError> {
        todo!()
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

impl Writer {
    /// Applies `batch` as a whole: after a crash either all of it is there or nothing. It is
    /// visible to readers on return, and durable only after [`Writer::flush_durable`].
    pub fn commit(&mut self, _batch: Batch) -> Result<(), WriteError> {
        todo!()
    }

    /// Returns when everything committed so far survives a loss of power.
    pub fn flush_durable(&mut self) -> Result<(), WriteError> {
        todo!()
    }
}
