//! What the writer and all readers of a store have in common, and how versions of the past are found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use backend::schema::key;
use backend::{Bucket, Reader};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use types::Revision;

use crate::config::SEGMENT_CACHE_BYTES_MAX;
use crate::event_log::EventLog;
use crate::hash::Remembered;
use crate::segment::Segment;
use crate::size::Sizes;
use crate::tree_index::TreeIndex;
use crate::watchable_store::Hub;
use crate::{Config, StoreError, StoredKv};

/// The store at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) index: TreeIndex,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    /// Where the older versions are. Another one as soon as another member's state is installed;
    /// whoever still reads this moment reads from here.
    pub(crate) past: Arc<Past>,
}

pub(crate) struct Shared {
    /// What readers see.
    pub(crate) published: ArcSwap<Snapshot>,
    pub(crate) hub: Hub,
    pub(crate) config: Config,
    /// The published compacted revision, for those whose own view is older.
    compact_revision: AtomicI64,
    sizes: Sizes,
    /// Bytes of keys and values that were put since the start.
    pub(crate) put_bytes: AtomicU64,
    remembered: Remembered,
    /// Compactions up to this revision have nothing left to remove from the disk.
    pub(crate) scrubbed: watch::Sender<i64>,
}

/// The versions of the past: the last ones in memory, all that are committed on the disk.
pub(crate) struct Past {
    pub(crate) log: RwLock<EventLog>,
    reader: ArcSwap<Reader>,
    cache: Mutex<SegmentCache>,
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, config: &Config) -> Self {
        let (revision, compact_revision) = (snapshot.revision, snapshot.compact_revision);
        Self {
            published: ArcSwap::from_pointee(snapshot),
            hub: Hub::new(revision),
            config: config.clone(),
            compact_revision: AtomicI64::new(compact_revision),
            sizes: Sizes::default(),
            put_bytes: AtomicU64::new(0),
            remembered: Remembered::default(),
            scrubbed: watch::Sender::new(compact_revision),
        }
    }

    /// Makes `snapshot` what readers see.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        // Before the snapshot: a reader that finds a version gone must find out why.
        self.compact_revision
            .fetch_max(snapshot.compact_revision, Ordering::SeqCst);
        self.published.store(Arc::new(snapshot));
    }

    /// The newest published compacted revision.
    pub(crate) fn compact_revision(&self) -> i64 {
        self.compact_revision.load(Ordering::SeqCst)
    }

    pub(crate) const fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The hashes of compactions.
    pub(crate) const fn remembered(&self) -> &Remembered {
        &self.remembered
    }
}

impl Past {
    /// What `reader` holds, everything up to `revision`.
    pub(crate) fn new(reader: Reader, revision: i64, config: &Config) -> Self {
        Self {
            log: RwLock::new(EventLog::new(config.event_log_bytes_max, revision)),
            reader: ArcSwap::from_pointee(reader),
            cache: Mutex::default(),
        }
    }

    /// The store that holds everything that was committed up to now. Ask after the log was looked at:
    /// what the log does not have any more is in the store of that moment or a later one.
    pub(crate) fn reader(&self) -> Arc<Reader> {
        self.reader.load_full()
    }

    /// Reads from another store from now on, which holds the same.
    pub(crate) fn read_from(&self, reader: Reader) {
        self.reader.store(Arc::new(reader));
    }

    /// The version written at `revision`, wherever it is; `None` when it is nowhere, which means
    /// that it has been compacted since the caller learned of it.
    pub(crate) fn version(&self, revision: Revision) -> Result<Option<StoredKv>, StoreError> {
        // The order matters: the log drops a version only after the backend has it.
        if let Some(kv) = self.log.read().version(revision) {
            return Ok(Some(kv));
        }
        let cached = self.cache.lock().holding(revision);
        if let Some(segment) = cached
            && let Some(found) = version_in(&segment, revision)
        {
            return found.map(Some);
        }
        let Some(segment) = self.read_segment(revision)? else {
            return Ok(None);
        };
        let found = version_in(&segment, revision).transpose();
        self.cache.lock().insert(Arc::new(segment));
        found
    }

    /// Reads the segment that holds `revision`, if any does.
    pub(crate) fn read_segment(&self, revision: Revision) -> Result<Option<Segment>, StoreError> {
        let behind = key::encode(Revision::new(revision.main, revision.sub + 1));
        match self
            .reader()
            .scan(Bucket::Key, &[], Some(&behind))
            .next_back()
        {
            None => Ok(None),
            Some(record) => {
                let (key, value) = record?;
                Segment::decode(&key, &value).map(Some)
            }
        }
    }
}

fn version_in(segment: &Segment, revision: Revision) -> Option<Result<StoredKv, StoreError>> {
    let record = segment.record(revision)?;
    Some(record.kv().map_err(|problem| segment.corrupt(problem)))
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let published = self.published.load();
        f.debug_struct("Shared")
            .field("revision", &published.revision)
            .field("compact_revision", &published.compact_revision)
            .finish_non_exhaustive()
    }
}

/// Segments that were read lately. One that has grown since on the disk just misses the versions
/// it has not got; versions never change.
#[derive(Debug, Default)]
struct SegmentCache {
    by_first: BTreeMap<Revision, Cached>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    segment: Arc<Segment>,
    used: u64,
}

impl SegmentCache {
    fn holding(&mut self, revision: Revision) -> Option<Arc<Segment>> {
        self.clock += 1;
        let (_, cached) = self.by_first.range_mut(..=revision).next_back()?;
        cached.used = self.clock;
        Some(cached.segment.clone())
    }

    fn insert(&mut self, segment: Arc<Segment>) {
        self.clock += 1;
        self.bytes += cost(&segment);
        let cached = Cached {
            used: self.clock,
            segment,
        };
        if let Some(before) = self.by_first.insert(cached.segment.first, cached) {
            self.bytes -= cost(&before.segment);
        }
        while self.bytes > SEGMENT_CACHE_BYTES_MAX && self.by_first.len() > 1 {
            let oldest = self.by_first.iter().min_by_key(|(_, cached)| cached.used);
            let oldest = oldest.map(|(first, _)| *first);
            if let Some(removed) = oldest.and_then(|first| self.by_first.remove(&first)) {
                self.bytes -= cost(&removed.segment);
            }
        }
    }
}

fn cost(segment: &Segment) -> usize {
    segment.bytes + size_of_val(&segment.records[..])
}
