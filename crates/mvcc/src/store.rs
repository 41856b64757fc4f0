//! The store: a handle to read and watch, and the one writer.

use crate::{CompactError, HashError, HashKv, OpenError, ReadView, WatchStream, WriteTxn};

/// Bounds of the store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of recent events that are kept in memory for watchers.
    pub event_log_bytes_max: usize,
}

/// Reads and watches. Cheap to clone; cannot write.
#[derive(Clone, Debug)]
pub struct Store {}

/// Writes. There is one; `apply` holds it.
#[derive(Debug)]
pub struct Writer {}

/// Loads the store from its backend: everything up to the last batch that was committed.
pub fn open(_reader: backend::Reader, _config: &Config) -> Result<(Store, Writer), OpenError> {
    todo!()
}

impl Store {
    /// The store as of the last [`Writer::publish`].
    #[must_use]
    pub fn view(&self) -> ReadView {
        todo!()
    }
    /// A new watch stream with no watchers.
    #[must_use]
    pub fn watch_stream(&self) -> WatchStream {
        todo!()
    }
    /// The hash of all history up to `revision` (`None`: the current one). Reads the whole store:
    /// call it off the async threads.
    pub fn hash_kv(&self, _revision: Option<i64>) -> Result<HashKv, HashError> {
        todo!()
    }
    /// Bytes that live and not yet compacted records take (etcd's `dbSizeInUse`).
    #[must_use]
    pub fn size_in_use(&self) -> u64 {
        todo!()
    }
    /// Waits until everything below the compaction at `revision` is physically gone.
    pub async fn compacted(&self, _revision: i64) {
        todo!()
    }
}

impl Writer {
    /// Begins a transaction: everything in it gets one main revision.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        todo!()
    }
    /// The revision of the last transaction that changed something (1 at first).
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// Drops history up to `revision` from reads at once, and from the disk bit by bit through
    /// [`Writer::stage`].
    pub fn compact(&mut self, _revision: i64) -> Result<(), CompactError> {
        todo!()
    }
    /// Hands the events since the last call to the watchers, then makes the changes visible to
    /// readers, in that order.
    pub fn publish(&mut self) {
        todo!()
    }
    /// Bytes of records that no [`Writer::stage`] has taken yet.
    #[must_use]
    pub fn unstaged_bytes(&self) -> usize {
        todo!()
    }
    /// Adds to `batch` all that has changed since the last call: packed segments, compaction
    /// marks, and the next bounded step of physical compaction.
    pub fn stage(&mut self, _batch: &mut backend::Batch) -> Result<(), crate::StoreError> {
        todo!()
    }
    /// Whether a compaction still has physical work to do.
    #[must_use]
    pub fn is_scrubbing(&self) -> bool {
        todo!()
    }
}
