//! The store at one moment: consistent, and never in a writer's way.

use std::sync::Arc;

use types::KeyRange;

use crate::event_log::version_in;
use crate::key_index::{At, KeyIndex, Version};
use crate::shared::{Past, Shared, Snapshot};
use crate::tree_index::TreeIndex;
use crate::{RangeError, RevisionEvents, StoreError, StoredKv};

/// The store as it was when the view was taken. Later writes do not show.
#[derive(Clone)]
pub struct ReadView {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) shared: Arc<Shared>,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; `None` (or anything not positive) for the view's own.
    pub at: Option<i64>,
    /// At most so many key-values, in key order; `None` for all. `count` does not depend on it.
    pub limit: Option<usize>,
    /// Only count, return no key-values.
    pub count_only: bool,
}

/// What a range found.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The key-values in key order, at most `limit`.
    pub kvs: Vec<StoredKv>,
    /// How many keys the range holds at that revision, whatever the limit.
    pub count: usize,
}

impl ReadView {
    /// The revision of the view.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.snapshot.revision
    }

    /// History up to here is gone; -1 when nothing was compacted yet.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.snapshot.compact_revision
    }

    /// Reads a range. A range at an older revision may read the disk, and then finds out that the
    /// revision has been compacted since the view was taken.
    pub fn range(&self, range: &Range) -> Result<RangeResult, RangeError> {
        self.source().range(range)
    }

    /// The first key-values of a range as it was at revision `at`, and whether there are more: a range
    /// that counts nothing.
    ///
    /// # Errors
    ///
    /// See [`range`](Self::range).
    pub fn page(
        &self,
        keys: &KeyRange,
        at: i64,
        size: PageSize,
    ) -> Result<(Vec<StoredKv>, bool), RangeError> {
        self.source().page(keys, at, size)
    }

    /// The newest version of one key, if it exists.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<StoredKv> {
        self.snapshot.index.live(key).cloned()
    }

    /// Every key-value that exists, in key order.
    pub fn for_each(&self, visit: impl FnMut(&StoredKv)) {
        self.snapshot
            .index
            .all()
            .filter_map(KeyIndex::live)
            .for_each(visit);
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            index: &self.snapshot.index,
            revision: self.snapshot.revision,
            compact_revision: self.snapshot.compact_revision,
            shared: &self.shared,
            past: &self.snapshot.past,
            unpublished: &[],
        }
    }
}

impl std::fmt::Debug for ReadView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadView")
            .field("revision", &self.revision())
            .field("compact_revision", &self.compact_revision())
            .finish_non_exhaustive()
    }
}

/// How much of a range is read at once: at least one key-value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Key-values, at most.
    pub keys: usize,
    /// The page ends with the one that makes it so large.
    pub bytes: usize,
}

/// Whatever can be read: a view, or the writer's state in the middle of a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) index: &'a TreeIndex,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) shared: &'a Shared,
    pub(crate) past: &'a Past,
    /// Revisions that the event log has not got yet.
    pub(crate) unpublished: &'a [Arc<RevisionEvents>],
}

impl Source<'_> {
    fn check_revision(&self, at: i64) -> Result<(), RangeError> {
        if at > self.revision {
            return Err(RangeError::FutureRevision);
        }
        if at < self.compact_revision {
            return Err(RangeError::Compacted {
                compact_revision: self.compact_revision,
            });
        }
        Ok(())
    }

    fn page(
        &self,
        keys: &KeyRange,
        at: i64,
        size: PageSize,
    ) -> Result<(Vec<StoredKv>, bool), RangeError> {
        self.check_revision(at)?;
        if let KeyRange::Single(key) = keys {
            let range = Range {
                keys: keys.clone(),
                at: Some(at),
                limit: None,
                count_only: false,
            };
            return Ok((self.single(key, at, &range)?.kvs, false));
        }
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        let mut existing = self.index.existing(keys, at);
        for index in existing.by_ref().take(size.keys) {
            let kv = self.value(index.at(at), at)?;
            bytes += kv.as_ref().map_or(0, |kv| kv.encoded().len());
            kvs.extend(kv);
            if bytes >= size.bytes {
                break;
            }
        }
        Ok((kvs, existing.next().is_some()))
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeResult, RangeError> {
        let at = range.at.filter(|at| *at > 0).unwrap_or(self.revision);
        self.check_revision(at)?;
        if let KeyRange::Single(key) = &range.keys {
            return self.single(key, at, range);
        }
        if range.count_only {
            let count = self.index.count(&range.keys, at);
            return Ok(RangeResult {
                kvs: Vec::new(),
                count,
            });
        }
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut kvs = Vec::new();
        for index in self.index.existing(&range.keys, at).take(limit) {
            kvs.extend(self.value(index.at(at), at)?);
        }
        let count = if kvs.len() < limit {
            kvs.len()
        } else {
            self.index.count(&range.keys, at)
        };
        Ok(RangeResult { kvs, count })
    }

    fn single(&self, key: &[u8], at: i64, range: &Range) -> Result<RangeResult, RangeError> {
        let found = self.index.get(key).map_or(At::Absent, |index| index.at(at));
        let count = usize::from(!matches!(found, At::Absent));
        if range.count_only || range.limit == Some(0) {
            return Ok(RangeResult {
                kvs: Vec::new(),
                count,
            });
        }
        Ok(RangeResult {
            kvs: self.value(found, at)?.into_iter().collect(),
            count,
        })
    }

    /// The key-value that was found, fetched if need be.
    pub(crate) fn value(&self, found: At<'_>, at: i64) -> Result<Option<StoredKv>, RangeError> {
        match found {
            At::Absent => Ok(None),
            At::Newest(kv) => Ok(Some(kv.clone())),
            At::Older(version) => self.fetch(version, at).map(Some),
        }
    }

    fn fetch(&self, version: Version, at: i64) -> Result<StoredKv, RangeError> {
        let revision = version.revision();
        let unpublished = self.unpublished.first().and_then(|first| {
            let place = usize::try_from(revision.main - first.revision).ok()?;
            version_in(self.unpublished.get(place)?, revision)
        });
        if let Some(kv) = unpublished {
            return Ok(kv);
        }
        if let Some(kv) = self.past.version(revision)? {
            return Ok(kv);
        }
        let compact_revision = self.shared.compact_revision();
        if at < compact_revision {
            return Err(RangeError::Compacted { compact_revision });
        }
        Err(StoreError::Missing { revision }.into())
    }
}
