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
//! there.

use backend::Bucket;
use backend::schema::key;
use crc32c::crc32c_append;
use types::{KeyRange, Revision};

use crate::key_index::{At, KeyIndex};
use crate::segment::Segment;
use crate::{EventKind, HashError, RangeError, ReadView, Store, StoreError, StoredKv};

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

/// See [`Store::hash_kv`].
pub(crate) fn hash_kv(store: &Store, revision: Option<i64>) -> Result<HashKv, HashError> {
    loop {
        let view = store.view();
        let answer = hash_view(&view, revision.filter(|revision| *revision != 0))?;
        // A compaction since then may have removed records before they were read.
        if store.compact_revision() == view.compact_revision() {
            return Ok(answer);
        }
    }
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
    let nothing_to_keep = index.count(&KeyRange::all(), hash_revision, current_revision) == 0;
    let mut hasher = Hasher {
        view,
        compact_revision,
        kept_at: if nothing_to_keep {
            compact_revision
        } else {
            hash_revision
        },
        crc: crc32c_append(0, BUCKET_NAME),
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
