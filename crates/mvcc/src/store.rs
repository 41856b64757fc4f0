//! The store: a handle to read and watch, and the one writer.

use crate::history::History;
use crate::{
    CompactError, HashError, HashKv, OpenError, PrevKv, RangeError, ReadView, WatchStream, WriteTxn,
};

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
    /// The events of the revisions from `from` to `to`, both included, in order: from the event log
    /// where it still has them, else from the disk. Stops after the revision with which
    /// `budget_bytes` is used up, so there is always at least one if there is any.
    ///
    /// `from` below the compacted revision is [`RangeError::Compacted`]; equal is allowed. `to` is
    /// cut to the published revision. Reads the disk: call it off the async threads.
    pub(crate) fn history(
        &self,
        _from: i64,
        _to: i64,
        _budget_bytes: usize,
        _prev: PrevKv,
    ) -> Result<History, RangeError> {
        todo!()
    }
    /// The published revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// History up to here is gone; -1 when nothing was compacted yet.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }
    /// Notes that every revision up to `revision` (from [`Writer::stage`]) is committed in the
    /// backend: from now on the event log may forget it. Callable from any thread.
    pub fn note_persisted(&self, _revision: i64) {
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
    ///
    /// Returns the revision up to which everything is in this batch or an earlier one; once the
    /// batch is committed, [`Store::note_persisted`] has to be told.
    pub fn stage(&mut self, _batch: &mut backend::Batch) -> Result<i64, crate::StoreError> {
        todo!()
    }
    /// Whether a compaction still has physical work to do.
    #[must_use]
    pub fn is_scrubbing(&self) -> bool {
        todo!()
    }
}
