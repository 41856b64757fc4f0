//! From the disk back into memory: one thread reads segments and makes versions of them, the other one the index.

use std::sync::{Arc, mpsc};
use std::thread;

use backend::{Bucket, Reader};
use types::Revision;

use crate::compaction::Compaction;
use crate::error::SegmentProblem;
use crate::install::Loaded;
use crate::segment::{Record, Segment, Segments};
use crate::shared::{Shared, Snapshot};
use crate::tree_index::TreeIndex;
use crate::{Config, OpenError, Store, StoreError, StoredKv, Writer, meta};

/// Segments that are read before the index is made of them; the reader waits while there are so many.
const SEGMENTS_AHEAD_MAX: usize = 16;

/// A segment, and the versions that its records stand for, each in memory of its own.
struct Read {
    segment: Segment,
    versions: Vec<StoredKv>,
}

/// Loads the store from its backend: everything up to the last batch that was committed.
pub fn open(reader: Reader, config: &Config) -> Result<(Store, Writer), OpenError> {
    Ok(open_loaded(load(reader)?, config))
}

/// The store that was loaded.
#[must_use]
pub fn open_loaded(loaded: Loaded, config: &Config) -> (Store, Writer) {
    let snapshot = Snapshot {
        past: Arc::new(loaded.past(config)),
        index: loaded.index,
        revision: loaded.revision,
        compact_revision: loaded.compaction.revision(),
    };
    let shared = Arc::new(Shared::new(snapshot.clone(), config));
    shared.hub.compacted(loaded.compaction.revision());
    shared.scrubbed.send_replace(loaded.compaction.finished());
    let store = Store {
        shared: shared.clone(),
    };
    shared.sizes().set_allocated(loaded.allocated);
    let writer = Writer::new(shared, snapshot, loaded.segments, loaded.compaction);
    (store, writer)
}

/// Reads everything that a store needs in memory; nobody sees it yet.
pub fn load(reader: Reader) -> Result<Loaded, OpenError> {
    let (mut index, mut segments) = (TreeIndex::default(), Segments::default());
    let last = load_segments(&reader, &mut index, &mut segments)?;
    let scheduled = meta::get(&reader, meta::SCHEDULED_COMPACT)?;
    let finished = meta::get(&reader, meta::FINISHED_COMPACT)?;
    let compaction = Compaction::resume(scheduled, finished, &mut index, &mut segments);
    let noted = meta::get(&reader, meta::CURRENT_REVISION)?;
    let allocated = meta::get(&reader, meta::ALLOCATED)?;
    // Compaction may have removed the last versions of all; and a store begins at 1.
    let revision = [noted, scheduled, finished, Some(last.main)]
        .into_iter()
        .flatten();
    let revision = revision.fold(1, i64::max);
    tracing::info!(
        revision,
        compact_revision = compaction.revision(),
        keys = index.live_len(),
        "the store is loaded"
    );
    Ok(Loaded {
        reader,
        index,
        revision,
        segments,
        compaction,
        allocated: allocated
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
    })
}

/// Adds all segments to the index; returns the last version's revision.
fn load_segments(
    reader: &Reader,
    index: &mut TreeIndex,
    segments: &mut Segments,
) -> Result<Revision, OpenError> {
    let (ahead, read) = mpsc::sync_channel(SEGMENTS_AHEAD_MAX);
    thread::scope(|scope| {
        thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, move || read_segments(reader, &ahead))
            .map_err(OpenError::Thread)?;
        Ok(index_segments(read, index, segments)?)
    })
}

/// Reads until the end, the first error, or nobody wants more.
fn read_segments(reader: &Reader, ahead: &mpsc::SyncSender<Result<Read, StoreError>>) {
    for record in reader.scan(Bucket::Key, &[], None) {
        let read = record
            .map_err(StoreError::from)
            .and_then(|(key, value)| Segment::decode(&key, &value))
            .and_then(Read::of);
        let is_last = read.is_err();
        if ahead.send(read).is_err() || is_last {
            return;
        }
    }
}

impl Read {
    fn of(segment: Segment) -> Result<Self, StoreError> {
        let versions: Result<_, _> = segment.records.iter().map(Record::kv).collect();
        match versions {
            Ok(versions) => Ok(Self { segment, versions }),
            Err(problem) => Err(segment.corrupt(problem)),
        }
    }
}

fn index_segments(
    read: mpsc::Receiver<Result<Read, StoreError>>,
    index: &mut TreeIndex,
    segments: &mut Segments,
) -> Result<Revision, StoreError> {
    let mut after = Revision::new(0, 0);
    let mut last_segment = None;
    for read in read {
        let Read { segment, versions } = read?;
        for (record, version) in segment.records.iter().zip(versions) {
            let found = record.revision;
            if found <= after {
                return Err(segment.corrupt(SegmentProblem::Order { after, found }));
            }
            after = found;
            let key = version.clone();
            index.change(key.key(), |_| (record.kind, version));
        }
        segments.load(&segment);
        last_segment = Some(segment);
    }
    if let Some(segment) = last_segment {
        segments.reopen(&segment);
    }
    Ok(after)
}
