//! The store: a handle to read and watch, and the one writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use backend::{Batch, Reader};

use crate::compaction::{Compaction, Scrubbed};
use crate::history::{self, History};
use crate::install::{Hold, Loaded};
use crate::read_view::Source;
use crate::segment::Segments;
use crate::shared::{Past, Shared, Snapshot};
use crate::tree_index::TreeIndex;
use crate::{
    CompactError, CompactionHash, HashError, HashJob, HashKv, PrevKv, RangeError, ReadView,
    RevisionEvents, StoreError, WatchCounts, WatchStream, WriteTxn, hash, meta, size,
};

/// Reads and watches. Cheap to clone; cannot write.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// Writes. There is one; `apply` holds it.
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) past: Arc<Past>,
    pub(crate) index: TreeIndex,
    pub(crate) revision: i64,
    pub(crate) segments: Segments,
    pub(crate) compaction: Compaction,
    /// Finished transactions that no [`Writer::publish`] has shown yet.
    unpublished: Vec<Arc<RevisionEvents>>,
    /// Finished transactions that no [`Writer::stage`] has taken yet.
    unstaged: Vec<Arc<RevisionEvents>>,
    unstaged_bytes: usize,
    /// What those take of etcd's pages.
    unstaged_paged_bytes: u64,
    /// The size that is on the disk.
    staged_allocated: u64,
    /// While there is another clone, nothing is removed from the disk.
    pub(crate) hold: Hold,
    /// Compactions since the last [`Writer::publish`]: what was compacted before, and what is now.
    unhashed: Vec<(i64, i64)>,
    /// Those that no [`Writer::take_hash_jobs`] has taken yet.
    hash_jobs: Vec<HashJob>,
}

impl Store {
    /// The store as of the last [`Writer::publish`].
    #[must_use]
    pub fn view(&self) -> ReadView {
        ReadView {
            snapshot: self.shared.published.load_full(),
            shared: self.shared.clone(),
        }
    }

    /// A new watch stream with no watchers.
    #[must_use]
    pub fn watch_stream(&self) -> WatchStream {
        WatchStream::new(self.clone())
    }

    /// Bytes of the keys and values that were put since the start, for metrics.
    #[must_use]
    pub fn put_bytes(&self) -> u64 {
        self.shared.put_bytes.load(Ordering::Relaxed)
    }

    /// How many watch streams and watchers there are, for metrics.
    #[must_use]
    pub fn watch_counts(&self) -> WatchCounts {
        self.shared.hub.counts()
    }

    /// The hash of all history up to `revision` (`None`: the current one), or the one that a compaction at
    /// `revision` has left. Reads the whole store: call it off the async threads.
    pub fn hash_kv(&self, revision: Option<i64>) -> Result<HashKv, HashError> {
        hash::hash_kv(self, revision)
    }

    /// The same, but never one that a compaction has left.
    pub fn hash_kv_now(&self, revision: i64) -> Result<HashKv, HashError> {
        hash::hash_kv_now(self, Some(revision))
    }

    /// The hashes that the last compactions have left, oldest first.
    #[must_use]
    pub fn compaction_hashes(&self) -> Vec<CompactionHash> {
        self.shared.remembered().all()
    }

    /// Bytes that live and not yet compacted records take (etcd's `dbSizeInUse`). Never 0.
    #[must_use]
    pub fn size_in_use(&self) -> u64 {
        self.shared.sizes().in_use()
    }

    /// Bytes that have been allocated for them (etcd's `dbSize`): not less than were in use at any
    /// time since the store was defragmented. Never 0.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.sizes().allocated()
    }

    /// Whether what is read of the past is read from this reader's store.
    #[must_use]
    pub fn reads_from(&self, reader: &Reader) -> bool {
        let past = Arc::clone(&self.shared.published.load().past);
        past.reader().is_of_the_same_store(reader)
    }

    /// The store was written anew: `reader` holds everything that was committed. From now on the past
    /// is read there, if it was read from `before`.
    pub fn defragmented(&self, before: &Reader, reader: &Reader) {
        let past = Arc::clone(&self.shared.published.load().past);
        if past.reader().is_of_the_same_store(before) {
            past.read_from(reader.clone());
            self.shared.sizes().free();
        }
    }

    /// The events of the revisions from `from` to `to`, both included, in order: from the event log
    /// where it still has them, else from the disk. Stops after the revision with which
    /// `budget_bytes` is used up, so there is always at least one if there is any.
    ///
    /// `from` below the compacted revision is [`RangeError::Compacted`]; equal is allowed. `to` is
    /// cut to the published revision. Reads the disk: call it off the async threads.
    pub(crate) fn history(
        &self,
        from: i64,
        to: i64,
        budget_bytes: usize,
        prev: PrevKv,
    ) -> Result<History, RangeError> {
        history::read(self, from, to, budget_bytes, prev)
    }

    /// The published revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.shared.published.load().revision
    }

    /// History up to here is gone; -1 when nothing was compacted yet.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.shared.compact_revision()
    }

    /// Notes that every revision up to `revision` (from [`Writer::stage`]) is committed in the
    /// backend: from now on the event log may forget it. Callable from any thread.
    pub fn note_persisted(&self, revision: i64) {
        // What is evicted is dropped after the lock.
        let past = Arc::clone(&self.shared.published.load().past);
        let evicted = past.log.write().note_persisted(revision);
        drop(evicted);
    }

    /// Waits until everything below the compaction at `revision` is physically gone.
    pub async fn compacted(&self, revision: i64) {
        let mut scrubbed = self.shared.scrubbed.subscribe();
        let gone = scrubbed.wait_for(|scrubbed| *scrubbed >= revision).await;
        debug_assert!(
            gone.is_ok(),
            "the sender is in `shared`, which this handle keeps"
        );
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        snapshot: Snapshot,
        segments: Segments,
        compaction: Compaction,
    ) -> Self {
        let writer = Self {
            shared,
            past: snapshot.past,
            index: snapshot.index,
            revision: snapshot.revision,
            segments,
            compaction,
            unpublished: Vec::new(),
            unstaged: Vec::new(),
            unstaged_bytes: 0,
            unstaged_paged_bytes: 0,
            staged_allocated: 0,
            hold: Hold::default(),
            unhashed: Vec::new(),
            hash_jobs: Vec::new(),
        };
        writer.note_size();
        writer
    }

    /// Puts another member's store, which is ahead of this one, in the place of this one, for
    /// readers and watchers too. What is not staged yet is dropped: the other one has it.
    pub fn install(&mut self, loaded: Loaded) {
        debug_assert!(loaded.revision >= self.revision, "history does not go back");
        self.past = Arc::new(loaded.past(&self.shared.config));
        (self.index, self.revision) = (loaded.index, loaded.revision);
        (self.segments, self.compaction) = (loaded.segments, loaded.compaction);
        self.unpublished.clear();
        self.unstaged.clear();
        self.unhashed.clear();
        self.hash_jobs.clear();
        self.shared.remembered().forget();
        self.unstaged_bytes = 0;
        self.unstaged_paged_bytes = 0;
        self.shared.sizes().set_allocated(loaded.allocated);
        // In the order of a publication: watchers first.
        self.shared.hub.jump(self.revision);
        self.shared.publish(self.snapshot());
        self.shared.hub.compacted(self.compaction.revision());
        let finished = self.compaction.finished();
        self.shared.scrubbed.send_if_modified(|scrubbed| {
            let is_news = finished > *scrubbed;
            *scrubbed = finished.max(*scrubbed);
            is_news
        });
        self.note_size();
    }

    /// Begins a transaction: everything in it gets one main revision.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// The revision of the last transaction that changed something (1 at first).
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// History up to here is gone; -1 when nothing was compacted yet.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.compaction.revision()
    }

    /// Takes over a transaction that has changed something.
    pub(crate) fn finish(&mut self, events: Arc<RevisionEvents>) {
        debug_assert_eq!(events.revision, self.revision + 1);
        self.revision = events.revision;
        self.unstaged_bytes += events
            .events
            .iter()
            .map(|event| event.stored().len())
            .sum::<usize>();
        let versions = events.events.iter().map(|event| event.version());
        self.unstaged_paged_bytes += versions.map(size::paged).sum::<u64>();
        self.unpublished.push(events.clone());
        self.unstaged.push(events);
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            index: &self.index,
            revision: self.revision,
            compact_revision: self.compaction.revision(),
            shared: &self.shared,
            past: &self.past,
            unpublished: &self.unpublished,
        }
    }

    /// Drops history up to `revision` from reads with the next [`Writer::publish`], and from
    /// memory and disk bit by bit through [`Writer::stage`].
    pub fn compact(&mut self, revision: i64) -> Result<(), CompactError> {
        if revision <= self.compaction.revision() {
            return Err(CompactError::Compacted);
        }
        if revision > self.revision {
            return Err(CompactError::FutureRevision);
        }
        self.unhashed.push((self.compaction.revision(), revision));
        self.compaction.schedule(revision);
        Ok(())
    }

    /// The compactions since the last call whose hashes are to be made.
    pub fn take_hash_jobs(&mut self) -> Vec<HashJob> {
        std::mem::take(&mut self.hash_jobs)
    }

    /// Hands the events since the last call to the watchers, then makes the changes visible to
    /// readers, in that order.
    pub fn publish(&mut self) {
        let compacted = self.compaction.revision() > self.shared.compact_revision();
        if !self.unpublished.is_empty() {
            let evicted = self.past.log.write().extend(&self.unpublished);
            drop(evicted);
            self.shared.hub.dispatch(&self.unpublished);
            self.unpublished.clear();
        }
        self.shared.publish(self.snapshot());
        if compacted {
            self.shared.hub.compacted(self.compaction.revision());
        }
        for compactions in std::mem::take(&mut self.unhashed) {
            // Nothing is forgotten before the compaction is published, which is now.
            let view = ReadView {
                snapshot: Arc::new(self.snapshot()),
                shared: Arc::clone(&self.shared),
            };
            let job = HashJob::new(view, compactions, self.hold.clone());
            self.hash_jobs.push(job);
        }
        self.note_size();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            index: self.index.clone(),
            revision: self.revision,
            compact_revision: self.compaction.revision(),
            past: Arc::clone(&self.past),
        }
    }

    fn note_size(&self) {
        let paged_bytes = self.segments.paged_bytes() + self.unstaged_paged_bytes;
        self.shared.sizes().set_in_use(paged_bytes);
    }

    /// Bytes of records that no [`Writer::stage`] has taken yet.
    #[must_use]
    pub fn unstaged_bytes(&self) -> usize {
        self.unstaged_bytes
    }

    /// Adds to `batch` all that has changed since the last call: packed segments, compaction
    /// marks, and the next bounded step of physical compaction.
    ///
    /// Returns the revision up to which everything is in this batch or an earlier one; once the
    /// batch is committed, [`Store::note_persisted`] has to be told.
    pub fn stage(&mut self, batch: &mut Batch) -> Result<i64, StoreError> {
        self.stage_scrubbing(batch, usize::MAX)
    }

    /// The same, with only so much of a compaction's work on the disk: about so many revisions, and none
    /// for 0. See [`Writer::take_scrubbed`].
    pub fn stage_scrubbing(
        &mut self,
        batch: &mut Batch,
        revisions: usize,
    ) -> Result<i64, StoreError> {
        if !self.unstaged.is_empty() {
            meta::put(batch, meta::CURRENT_REVISION, self.revision);
        }
        for events in self.unstaged.drain(..) {
            for event in &events.events {
                self.segments.append(event.version(), event.stored(), batch);
            }
        }
        self.unstaged_bytes = 0;
        self.unstaged_paged_bytes = 0;
        self.stage_size(batch);
        self.segments.stage_open(batch);
        let index_changed = self.step_compaction(batch, revisions)?;
        if index_changed && self.unpublished.is_empty() {
            self.shared.publish(self.snapshot());
        }
        self.note_size();
        Ok(self.revision)
    }

    fn stage_size(&mut self, batch: &mut Batch) {
        let allocated = self.shared.sizes().allocated();
        if allocated != self.staged_allocated {
            self.staged_allocated = allocated;
            let allocated = i64::try_from(allocated).unwrap_or(i64::MAX);
            meta::put(batch, meta::ALLOCATED, allocated);
        }
    }

    /// Bytes that have been allocated, with what no [`Writer::publish`] has shown.
    #[must_use]
    pub fn size(&self) -> u64 {
        let paged_bytes = self.segments.paged_bytes() + self.unstaged_paged_bytes;
        self.shared.sizes().allocated_with(paged_bytes)
    }

    /// Whether a compaction still has physical work to do, though it may have to wait with it.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_running()
    }

    /// Whether a compaction still has physical work to do, and may: call [`Writer::stage`] again, after
    /// the batch of the last call is committed and noted as persisted.
    #[must_use]
    pub fn is_scrubbing(&self) -> bool {
        self.compaction.is_running() && !(self.compaction.is_at_the_disk() && self.hold.is_held())
    }

    /// Whether all that a compaction still has to do is to be done on the disk.
    #[must_use]
    pub fn only_scrubs(&self) -> bool {
        self.compaction.is_at_the_disk()
    }

    /// What compactions have done on the disk since the last call.
    pub fn take_scrubbed(&mut self) -> Scrubbed {
        self.compaction.take_scrubbed()
    }

    /// The compaction whose physical work was finished last, if none is going on; else -1.
    #[must_use]
    pub fn finished_compaction(&self) -> i64 {
        self.compaction.finished()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("revision", &self.revision)
            .field("compact_revision", &self.compaction.revision())
            .field("unstaged_bytes", &self.unstaged_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
