//! A hash of the history that equals etcd's.
//!
//! etcd hashes its bucket `key` as it lies on the disk (`server/storage/mvcc/hash.go`): CRC-32C over
//! the bucket's name and then over each record's key and value. The key is the revision: 8 bytes main,
//! `_`, 8 bytes sub, and a `t` if it is a tombstone. The value is `mvccpb.KeyValue`.
//!
//! A hash up to revision r must not depend on how far compaction has come on this member. Records
//! after the compacted revision c all count. Of those at or before it, compaction may have removed
//! any that no read at c needs; what no read at r needs (it was overwritten or deleted between c and
//! r) need not be there either. So only those count that a read at r finds. A tombstone exactly at c
//! is kept by newer etcds and not by older ones, and never counts. One oddity is etcd's: if there
//! is no key at all at r, it takes its set of records to keep for missing, and counts all that are
//! there; and one that r itself deleted and put again is none to it.
//!
//! Each compaction, at c after one at p, leaves the hash up to c as it was before: of the history since p, all
//! of it. It is remembered ([`Remembered`]) and is from then on the answer for c, however long c is compacted: that
//! is how members compare what they had before history went. It is made beside the writer ([`HashJob`]), from
//! the state as it was; the compaction removes nothing from the disk before that is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backend::Bucket;
use backend::schema::key;
use crc32c::crc32c_append;
use parking_lot::Mutex;
use types::{KeyRange, Revision};

use crate::install::Hold;
use crate::key_index::{At, KeyIndex};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::{EventKind, HashError, RangeError, ReadView, Store, StoreError, StoredKv};

/// Hashes of compactions that are remembered, as in etcd (`hashStorageMaxSize`). The oldest goes for a new one.
const REMEMBERED_MAX: usize = 10;

/// What `HashKV` answers (`server/storage/mvcc/hash.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the bucket name and every kept record up to `hash_revision`.
    pub hash: u32,
    /// History up to here was compacted when the hash was made.
    pub compact_revision: i64,
    /// The hash is of the store at this revision.
    pub hash_revision: i64,
    /// The store's revision when the hash was made.
    pub current_revision: i64,
}

/// The name of etcd's bucket.
const BUCKET_NAME: &[u8] = b"key";

/// The hash that a compaction has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionHash {
    /// See [`HashKv::hash`].
    pub hash: u32,
    /// The compaction's revision.
    pub revision: i64,
    /// The one of the compaction before; -1: there was none.
    pub compact_revision: i64,
}

/// The hashes that compactions have left. In memory only, as in etcd.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    state: Mutex<RememberedState>,
}

#[derive(Debug, Default)]
struct RememberedState {
    /// Ascending by revision.
    hashes: Vec<CompactionHash>,
    /// How often the store has been replaced: hashes of the one before say nothing.
    generation: u64,
}

impl Remembered {
    fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    fn at(&self, revision: i64) -> Option<CompactionHash> {
        let state = self.state.lock();
        let found = state.hashes.iter().find(|hash| hash.revision == revision);
        found.copied()
    }

    pub(crate) fn all(&self) -> Vec<CompactionHash> {
        self.state.lock().hashes.clone()
    }

    fn add(&self, hash: CompactionHash, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        tracing::info!(
            hash = hash.hash,
            revision = hash.revision,
            "compact-revision" = hash.compact_revision,
            "storing new hash"
        );
        let place = state
            .hashes
            .partition_point(|it| it.revision < hash.revision);
        state.hashes.insert(place, hash);
        if state.hashes.len() > REMEMBERED_MAX {
            state.hashes.remove(0);
        }
    }

    /// Another store takes the place of this one.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.hashes.clear();
        state.generation += 1;
    }
}

/// A compaction of which the hash is still to be made. Reads the whole store: run it off the async threads
/// and off the apply path. While it lives, the compaction removes nothing from the disk.
pub struct HashJob {
    view: ReadView,
    compact_revision: i64,
    revision: i64,
    generation: u64,
    _hold: Hold,
}

impl std::fmt::Debug for HashJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashJob")
            .field("revision", &self.revision)
            .field("compact_revision", &self.compact_revision)
            .finish_non_exhaustive()
    }
}

impl HashJob {
    /// `view` is of the moment of the compaction: nothing has been forgotten for it.
    pub(crate) fn new(view: ReadView, (before, revision): (i64, i64), hold: Hold) -> Self {
        Self {
            generation: view.shared.remembered().generation(),
            view,
            compact_revision: before,
            revision,
            _hold: hold,
        }
    }

    /// Makes the hash, and has it remembered. Ends early, without one, when `is_cancelled`.
    pub fn run(self, is_cancelled: &AtomicBool) -> Result<(), StoreError> {
        let (before, revision) = (self.compact_revision, self.revision);
        let index = &self.view.snapshot.index;
        // Here etcd's set of what is to be kept has a tombstone at the revision itself, too.
        let nothing_to_keep = index.count(&KeyRange::all(), revision) == 0
            && !index.all().any(|key| key.has_tombstone_at(revision));
        let mut hasher = Hasher {
            view: &self.view,
            compact_revision: before,
            kept_at: if nothing_to_keep { before } else { revision },
            crc: crc32c_append(0, BUCKET_NAME),
            is_cancelled: Some(is_cancelled),
        };
        hasher.add_all(revision)?;
        if !is_cancelled.load(Ordering::Relaxed) {
            let hash = CompactionHash {
                hash: hasher.crc,
                revision,
                compact_revision: before,
            };
            self.remembered().add(hash, self.generation);
        }
        Ok(())
    }

    fn remembered(&self) -> &Remembered {
        let shared: &Arc<Shared> = &self.view.shared;
        shared.remembered()
    }
}

/// See [`Store::hash_kv_now`].
pub(crate) fn hash_kv_now(store: &Store, revision: Option<i64>) -> Result<HashKv, HashError> {
    loop {
        let view = store.view();
        let answer = hash_view(&view, revision.filter(|revision| *revision != 0))?;
        // A compaction since then may have removed records before they were read.
        if store.compact_revision() == view.compact_revision() {
            return Ok(answer);
        }
    }
}

/// See [`Store::hash_kv`].
pub(crate) fn hash_kv(store: &Store, revision: Option<i64>) -> Result<HashKv, HashError> {
    let remembered = revision.and_then(|revision| store.shared.remembered().at(revision));
    if let Some(hash) = remembered {
        return Ok(HashKv {
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
            current_revision: store.revision(),
        });
    }
    hash_kv_now(store, revision)
}

fn hash_view(view: &ReadView, revision: Option<i64>) -> Result<HashKv, HashError> {
    let (current_revision, compact_revision) = (view.revision(), view.compact_revision());
    let hash_revision = revision.unwrap_or(current_revision);
    if hash_revision > 0 && hash_revision < compact_revision {
        return Err(RangeError::Compacted { compact_revision });
    }
    if hash_revision > current_revision {
        return Err(RangeError::FutureRevision);
    }
    let index = &view.snapshot.index;
    // A key that was deleted and put again by one transaction is none that etcd keeps.
    let is_to_keep = |key: &KeyIndex| {
        !matches!(key.at(hash_revision), At::Absent) && !key.has_tombstone_at(hash_revision)
    };
    let nothing_to_keep = !index.all().any(is_to_keep);
    let mut hasher = Hasher {
        view,
        compact_revision,
        kept_at: if nothing_to_keep {
            compact_revision
        } else {
            hash_revision
        },
        crc: crc32c_append(0, BUCKET_NAME),
        is_cancelled: None,
    };
    hasher.add_all(hash_revision)?;
    Ok(HashKv {
        hash: hasher.crc,
        compact_revision,
        hash_revision,
        current_revision,
    })
}

struct Hasher<'a> {
    view: &'a ReadView,
    compact_revision: i64,
    /// Of what is compacted, that counts which a read at this revision finds.
    kept_at: i64,
    crc: u32,
    /// Nobody wants the hash any more.
    is_cancelled: Option<&'a AtomicBool>,
}

impl Hasher<'_> {
    fn add_all(&mut self, until: i64) -> Result<(), StoreError> {
        let past = &self.view.snapshot.past;
        // First what only the log has: the scan of the backend comes later, and must not miss it.
        let (persisted, logged) = {
            let log = past.log.read();
            let from = (log.persisted() + 1).max(log.first().unwrap_or(0));
            let logged = log
                .since(from)
                .take_while(|events| events.revision <= until);
            (
                log.persisted().min(until),
                logged.cloned().collect::<Vec<_>>(),
            )
        };
        let end = key::encode(Revision::new(persisted.max(0) + 1, 0));
        for record in past.reader().scan(Bucket::Key, &[], Some(&end)) {
            let is_cancelled = self.is_cancelled;
            if is_cancelled.is_some_and(|it| it.load(Ordering::Relaxed)) {
                return Ok(());
            }
            let (key, value) = record?;
            let segment = Segment::decode(&key, &value)?;
            for record in &segment.records {
                if record.revision.main > persisted {
                    break;
                }
                self.add(record.revision, record.kind, &record.stored)
                    .map_err(|problem| segment.corrupt(problem))?;
            }
        }
        for event in logged.iter().flat_map(|events| &events.events) {
            let revision = event.kv.mod_revision();
            self.add(revision, event.kind, event.stored())
                .map_err(|problem| StoreError::Segment {
                    first: revision,
                    problem,
                })?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        revision: Revision,
        kind: EventKind,
        stored: &[u8],
    ) -> Result<(), crate::SegmentProblem> {
        let is_tombstone = kind == EventKind::Delete;
        if revision.main <= self.compact_revision {
            let key = StoredKv::parse_key(stored)
                .map_err(|problem| crate::SegmentProblem::Kv { revision, problem })?;
            let kept = self.view.snapshot.index.get(key);
            if is_tombstone || !kept.is_some_and(|index| self.keeps(index, revision)) {
                return Ok(());
            }
        }
        let mut key = [0; 18];
        key[..8].copy_from_slice(&revision.main.to_be_bytes());
        key[8] = b'_';
        key[9..17].copy_from_slice(&revision.sub.to_be_bytes());
        key[17] = b't';
        let key = if is_tombstone { &key[..] } else { &key[..17] };
        self.crc = crc32c_append(crc32c_append(self.crc, key), stored);
        Ok(())
    }

    /// Whether a read at `kept_at` finds this version.
    fn keeps(&self, index: &KeyIndex, revision: Revision) -> bool {
        match index.at(self.kept_at) {
            At::Absent => false,
            At::Newest(kv) => kv.mod_revision() == revision,
            At::Older(version) => version.revision() == revision,
        }
    }
}
