//! A whole store on its way from one member to another: what is sent of it, and what was loaded of one
//! that was received.
//!
//! A store that is being sent stands still on the disk as far as this is concerned: segments are only
//! ever added to, except by compaction, which waits while there is a [`Hold`]. So what has to be
//! remembered is the revision, and which segment was not full: that one is cut.

use std::sync::Arc;

use backend::schema::key;
use backend::schema::meta::{self, MetaKey};
use backend::{Bucket, Reader};
use bytes::Bytes;
use types::Revision;

use crate::compaction::Compaction;
use crate::segment::{Segment, SegmentBuilder, Segments};
use crate::shared::Past;
use crate::tree_index::TreeIndex;
use crate::{Config, StoreError, StoredKv, Writer};

/// While there is one, compaction removes nothing from the disk.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<()>);

impl Hold {
    /// Whether there is another one.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A store that was loaded and is not in use yet.
pub struct Loaded {
    pub(crate) reader: Reader,
    pub(crate) index: TreeIndex,
    pub(crate) revision: i64,
    pub(crate) segments: Segments,
    pub(crate) compaction: Compaction,
    /// What the store had been allocated.
    pub(crate) allocated: u64,
}

impl Loaded {
    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Every key-value that exists, in key order.
    pub fn for_each(&self, visit: impl FnMut(&StoredKv)) {
        self.index
            .all()
            .filter_map(crate::key_index::KeyIndex::live)
            .for_each(visit);
    }

    pub(crate) fn past(&self, config: &Config) -> Past {
        Past::new(self.reader.clone(), self.revision, config)
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// The store as of one revision, to be sent. Its segments may be read once the batch that was staged
/// before is committed.
#[derive(Clone)]
pub struct Pinned {
    past: Arc<Past>,
    revision: i64,
    /// The segment that was not full.
    open: Option<Revision>,
    bytes: u64,
    marks: Vec<(MetaKey, i64)>,
    _hold: Hold,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Holds the store as of the last [`Writer::stage`], after which nothing may have been written.
    #[must_use]
    pub fn pin(&self) -> Pinned {
        debug_assert_eq!(self.unstaged_bytes(), 0, "everything is staged");
        let mut marks = vec![(MetaKey::CurrentRevision, self.revision)];
        if self.compaction.revision() >= 0 {
            marks.push((MetaKey::ScheduledCompact, self.compaction.revision()));
        }
        // Otherwise whoever gets this does the physical work itself, as after a crash.
        if self.compaction.finished() >= 0 {
            marks.push((MetaKey::FinishedCompact, self.compaction.finished()));
        }
        Pinned {
            past: Arc::clone(&self.past),
            revision: self.revision,
            open: self.segments.open(),
            bytes: self.segments.bytes(),
            marks,
            _hold: self.hold.clone(),
        }
    }
}

impl Pinned {
    /// About how many bytes its segments are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision up to which history is to be removed, and the one up to which it has been.
    #[must_use]
    pub fn compactions(&self) -> (Option<i64>, Option<i64>) {
        let mark = |wanted| {
            let mark = self.marks.iter().find(|(key, _)| *key == wanted);
            mark.map(|(_, revision)| *revision)
        };
        (
            mark(MetaKey::ScheduledCompact),
            mark(MetaKey::FinishedCompact),
        )
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    /// Its records in bucket `Meta`.
    pub fn marks(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.marks.iter().map(|(key, revision)| {
            let value = Bytes::copy_from_slice(&revision.to_be_bytes());
            (Bytes::from_static(meta::encode(*key)), value)
        })
    }

    /// Its records in bucket `Key` from this key on. Reads the disk.
    pub fn segments(
        &self,
        from: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + use<> {
        let (open, revision) = (self.open, self.revision);
        let end = key::encode(Revision::new(revision + 1, 0));
        self.past
            .reader()
            .scan(Bucket::Key, from, Some(&end))
            .map(move |record| {
                let (key, value) = record?;
                let is_open = open.is_some_and(|open| key[..] == key::encode(open)[..]);
                let value = match is_open {
                    true => cut(&key, &value, revision)?,
                    false => value,
                };
                Ok((key, value))
            })
    }
}

/// The segment without what is after `revision`.
fn cut(key: &[u8], value: &Bytes, revision: i64) -> Result<Bytes, StoreError> {
    let segment = Segment::decode(key, value)?;
    let mut kept = SegmentBuilder::new();
    let records = segment.records.iter();
    for record in records.take_while(|record| record.revision.main <= revision) {
        kept.push(record.revision, record.kind, &record.stored);
    }
    Ok(kept.finish().into())
}
