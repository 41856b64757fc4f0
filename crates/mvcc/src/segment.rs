//! History on the disk: packed, because the engine's price is per record.
//!
//! A segment is one record of bucket `Key` under the revision of its first version
//! (`backend::schema::key`). Its value:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, [`FORMAT`] |
//! | then, for each version | |
//! | varint | main revision |
//! | varint | sub revision |
//! | 1 | kind: 0 put, 1 delete |
//! | varint | length of what follows |
//! | that many | canonical `mvccpb.KeyValue`; of a delete, with only the key |
//!
//! Versions are in the order of history. A segment that compaction has written again begins with a
//! later version than its key says, or holds fewer; no version ever moves to another segment. So
//! the version of a revision is, if anywhere, in the last segment at or before it.

use std::collections::BTreeMap;

use backend::schema::key;
use backend::{Batch, Bucket};
use bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint};
use types::Revision;

use crate::config::{SEGMENT_BYTES_MAX, SEGMENT_VERSIONS_MAX};
use crate::error::SegmentProblem;
use crate::key_index::Version;
use crate::{EventKind, StoreError, StoredKv, size};

/// The only format so far.
const FORMAT: u8 = 1;

const KIND_PUT: u8 = 0;
const KIND_DELETE: u8 = 1;

/// Bytes of a record's head, at most: three varints and the kind.
const RECORD_HEAD_BYTES_MAX: usize = 31;

/// A version as it is in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) kind: EventKind,
    /// `mvccpb.KeyValue`; of a delete, with only the key.
    pub(crate) stored: Bytes,
}

impl Record {
    /// The version, in memory of its own: it must not keep its whole segment. That is one copy.
    pub(crate) fn kv(&self) -> Result<StoredKv, SegmentProblem> {
        match self.kind {
            EventKind::Put => {
                StoredKv::parse(&self.stored, self.revision).map_err(|problem| SegmentProblem::Kv {
                    revision: self.revision,
                    problem,
                })
            }
            EventKind::Delete => Ok(StoredKv::tombstone(self.key()?, self.revision)),
        }
    }

    /// Its key.
    pub(crate) fn key(&self) -> Result<&[u8], SegmentProblem> {
        StoredKv::parse_key(&self.stored).map_err(|problem| SegmentProblem::Kv {
            revision: self.revision,
            problem,
        })
    }

    /// Its place in history.
    pub(crate) fn version(&self) -> Version {
        Version::new(
            self.revision,
            self.stored.len(),
            self.kind == EventKind::Delete,
        )
    }
}

/// A segment, taken apart. The records share its memory.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The revision that it is stored under.
    pub(crate) first: Revision,
    pub(crate) records: Vec<Record>,
    /// Bytes of the whole.
    pub(crate) bytes: usize,
}

impl Segment {
    /// Takes apart what the backend holds.
    pub(crate) fn decode(key: &[u8], value: &Bytes) -> Result<Self, StoreError> {
        let first = key::decode(key)?;
        let records =
            decode(first, value).map_err(|problem| StoreError::Segment { first, problem })?;
        Ok(Self {
            first,
            records,
            bytes: value.len(),
        })
    }

    /// The record of a revision.
    pub(crate) fn record(&self, revision: Revision) -> Option<&Record> {
        let place = self
            .records
            .binary_search_by_key(&revision, |record| record.revision)
            .ok()?;
        self.records.get(place)
    }

    /// Names the segment in an error.
    pub(crate) fn corrupt(&self, problem: SegmentProblem) -> StoreError {
        StoreError::Segment {
            first: self.first,
            problem,
        }
    }
}

fn decode(first: Revision, value: &Bytes) -> Result<Vec<Record>, SegmentProblem> {
    let mut rest = value.clone();
    match rest.try_get_u8() {
        Ok(FORMAT) => {}
        Ok(found) => {
            return Err(SegmentProblem::Format {
                expected: FORMAT,
                found,
            });
        }
        Err(_too_short) => return Err(SegmentProblem::Truncated),
    }
    let mut records: Vec<Record> = Vec::new();
    while rest.has_remaining() {
        let record = decode_record(&mut rest)?;
        let after = records.last().map(|record| record.revision);
        if after.map_or(record.revision < first, |after| record.revision <= after) {
            let after = after.unwrap_or(first);
            return Err(SegmentProblem::Order {
                after,
                found: record.revision,
            });
        }
        records.push(record);
    }
    Ok(records)
}

fn decode_record(rest: &mut Bytes) -> Result<Record, SegmentProblem> {
    let number = |rest: &mut Bytes| {
        let number = decode_varint(rest)
            .ok()
            .and_then(|number| i64::try_from(number).ok());
        number.ok_or(SegmentProblem::Truncated)
    };
    let main = number(rest)?;
    let sub = number(rest)?;
    let kind = match rest.try_get_u8() {
        Ok(KIND_PUT) => EventKind::Put,
        Ok(KIND_DELETE) => EventKind::Delete,
        Ok(found) => return Err(SegmentProblem::Kind { found }),
        Err(_too_short) => return Err(SegmentProblem::Truncated),
    };
    let len = usize::try_from(number(rest)?)
        .ok()
        .filter(|len| *len <= rest.len());
    let len = len.ok_or(SegmentProblem::Truncated)?;
    if u32::try_from(sub).is_err() {
        return Err(SegmentProblem::Truncated);
    }
    Ok(Record {
        revision: Revision::new(main, sub),
        kind,
        stored: rest.split_to(len),
    })
}

/// Puts a segment together.
#[derive(Debug)]
pub(crate) struct SegmentBuilder {
    bytes: Vec<u8>,
    versions: usize,
}

impl SegmentBuilder {
    pub(crate) fn new() -> Self {
        Self::with_capacity(0)
    }

    /// For so many bytes, or more.
    fn with_capacity(bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(bytes);
        bytes.push(FORMAT);
        Self { bytes, versions: 0 }
    }

    pub(crate) fn push(&mut self, revision: Revision, kind: EventKind, stored: &[u8]) {
        for number in [revision.main, revision.sub] {
            let number = u64::try_from(number).expect("revisions are not negative");
            encode_varint(number, &mut self.bytes);
        }
        self.bytes.push(match kind {
            EventKind::Put => KIND_PUT,
            EventKind::Delete => KIND_DELETE,
        });
        encode_varint(stored.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(stored);
        self.versions += 1;
    }

    pub(crate) fn has_room_for(&self, stored: &[u8]) -> bool {
        self.versions == 0
            || (self.versions < SEGMENT_VERSIONS_MAX
                && self.bytes.len() + RECORD_HEAD_BYTES_MAX + stored.len() <= SEGMENT_BYTES_MAX)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// What is in a segment and how much of it still counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    /// Its last version.
    pub(crate) last: Revision,
    /// Bytes of all its versions.
    pub(crate) bytes: u64,
    /// All its versions.
    pub(crate) versions: u32,
    /// Versions that are not compacted.
    pub(crate) live: u32,
    /// Bytes of those.
    pub(crate) live_bytes: u64,
}

impl SegmentInfo {
    /// Whether there is anything compacted in it.
    fn is_dirty(&self) -> bool {
        self.live == 0 || self.live_bytes < self.bytes
    }
}

/// The segments of a store, as the writer knows them without reading: one of the last is open.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    by_first: BTreeMap<Revision, SegmentInfo>,
    /// The last segment while there is room in it.
    open: Option<(Revision, SegmentBuilder)>,
    /// The open segment holds more than any batch.
    open_changed: bool,
    /// How large the one before it was.
    sealed_bytes: usize,
    /// What the live versions take of etcd's pages.
    paged_bytes: u64,
}

impl Segments {
    /// Adds the next version; what is full goes into `batch`.
    pub(crate) fn append(&mut self, version: Version, stored: &[u8], batch: &mut Batch) {
        let kind = if version.is_tombstone() {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        if self
            .open
            .as_ref()
            .is_some_and(|(_, open)| !open.has_room_for(stored))
        {
            self.seal(batch);
        }
        let first = self
            .open
            .as_ref()
            .map_or(version.revision(), |(first, _)| *first);
        let (_, open) = self
            .open
            .get_or_insert_with(|| (first, SegmentBuilder::with_capacity(self.sealed_bytes)));
        open.push(version.revision(), kind, stored);
        self.open_changed = true;
        self.count(first, version);
    }

    /// Notes a segment that the backend holds.
    pub(crate) fn load(&mut self, segment: &Segment) {
        self.open = None;
        let last = segment
            .records
            .last()
            .map_or(segment.first, |record| record.revision);
        // Counted even when it is empty, so that compaction removes it.
        self.info(segment.first, last);
        for record in &segment.records {
            self.count(segment.first, record.version());
        }
    }

    /// Goes on writing in the segment that was loaded last, if there is room in it.
    pub(crate) fn reopen(&mut self, last: &Segment) {
        let mut open = SegmentBuilder::new();
        for record in &last.records {
            open.push(record.revision, record.kind, &record.stored);
        }
        if open.has_room_for(&[]) {
            self.open = Some((last.first, open));
        }
    }

    fn info(&mut self, first: Revision, last: Revision) -> &mut SegmentInfo {
        let empty = SegmentInfo {
            last,
            bytes: 0,
            versions: 0,
            live: 0,
            live_bytes: 0,
        };
        self.by_first.entry(first).or_insert(empty)
    }

    fn count(&mut self, first: Revision, version: Version) {
        let info = self.info(first, version.revision());
        info.last = version.revision();
        info.bytes += version.stored_len();
        info.versions += 1;
        info.live += 1;
        info.live_bytes += version.stored_len();
        self.paged_bytes += size::paged(version);
    }

    /// Puts the open segment into `batch` for the last time.
    fn seal(&mut self, batch: &mut Batch) {
        if let Some((first, open)) = self.open.take() {
            self.sealed_bytes = open.bytes.len().min(SEGMENT_BYTES_MAX);
            if std::mem::take(&mut self.open_changed) {
                batch.put(Bucket::Key, key::encode(first).to_vec(), open.finish());
            }
        }
    }

    /// Puts the open segment into `batch` if it has changed since the last time.
    pub(crate) fn stage_open(&mut self, batch: &mut Batch) {
        if let Some((first, open)) = &self.open
            && std::mem::take(&mut self.open_changed)
        {
            batch.put(
                Bucket::Key,
                key::encode(*first).to_vec(),
                open.bytes.clone(),
            );
        }
    }

    /// Notes that a version is compacted.
    pub(crate) fn drop_version(&mut self, version: Version) {
        let holder = self.by_first.range_mut(..=version.revision()).next_back();
        let (_, info) = holder.expect("every version of the index has been put into a segment");
        debug_assert!(
            info.last >= version.revision() && info.live > 0,
            "{version:?} {info:?}"
        );
        info.live -= 1;
        info.live_bytes -= version.stored_len();
        self.paged_bytes -= size::paged(version);
    }

    /// The segments that hold something compacted, in order; never the open one, which changes
    /// anyway.
    pub(crate) fn dirty(&self) -> impl Iterator<Item = Revision> {
        let open = self.open.as_ref().map(|(first, _)| *first);
        let dirty = self.by_first.iter().filter(|(_, info)| info.is_dirty());
        dirty
            .map(|(first, _)| *first)
            .filter(move |first| Some(*first) != open)
    }

    /// The segment that may still be written again with more versions than it has.
    pub(crate) fn open(&self) -> Option<Revision> {
        self.open.as_ref().map(|(first, _)| *first)
    }

    /// Bytes of all versions that may be on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.by_first.values().map(|info| info.bytes).sum()
    }

    pub(crate) fn get(&self, first: Revision) -> Option<&SegmentInfo> {
        self.by_first.get(&first)
    }

    /// Forgets a segment of which nothing is live.
    pub(crate) fn remove(&mut self, first: Revision) {
        let removed = self.by_first.remove(&first);
        debug_assert!(
            removed.is_none_or(|info| info.live == 0),
            "{first} is still needed"
        );
    }

    /// Notes that a segment has been written again with only its live versions.
    pub(crate) fn rewritten(&mut self, first: Revision) {
        if let Some(info) = self.by_first.get_mut(&first) {
            info.bytes = info.live_bytes;
            info.versions = info.live;
        }
    }

    /// Bytes of all versions that are not compacted.
    #[cfg(test)]
    pub(crate) fn live_bytes(&self) -> u64 {
        self.by_first.values().map(|info| info.live_bytes).sum()
    }

    /// What all versions that are not compacted take of etcd's pages.
    pub(crate) const fn paged_bytes(&self) -> u64 {
        self.paged_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_segment_holds_what_was_put_into_it(
            records in prop::collection::vec(
                (1..1_000_000i64, 0..5i64, any::<bool>(), prop::collection::vec(any::<u8>(), 0..50)),
                0..40,
            ),
        ) {
            let (mut main, mut builder, mut expected) = (0, SegmentBuilder::new(), Vec::new());
            for (step, sub, delete, stored) in records {
                main += step;
                let kind = if delete { EventKind::Delete } else { EventKind::Put };
                builder.push(Revision::new(main, sub), kind, &stored);
                expected.push((Revision::new(main, sub), kind, stored));
            }
            let value = Bytes::from(builder.finish());
            let segment = Segment::decode(&key::encode(Revision::new(1, 0)), &value).unwrap();
            let found: Vec<_> = segment.records.iter()
                .map(|record| (record.revision, record.kind, record.stored.to_vec()))
                .collect();
            prop_assert_eq!(&found, &expected);
            for (revision, ..) in expected {
                prop_assert_eq!(segment.record(revision).unwrap().revision, revision);
            }
        }

        #[test]
        fn garbage_is_refused_or_decoded_but_never_a_panic(value: Vec<u8>) {
            let value = Bytes::from(value);
            if let Ok(segment) = Segment::decode(&key::encode(Revision::new(0, 0)), &value) {
                for record in segment.records {
                    drop(record.kv());
                }
            }
        }
    }

    #[test]
    fn a_large_version_gets_a_segment_of_its_own() {
        let (mut segments, mut batch) = (Segments::default(), Batch::new());
        let sizes = [10, SEGMENT_BYTES_MAX * 2, 10, 10];
        for (sub, size) in sizes.into_iter().enumerate() {
            let revision = Revision::new(2, i64::try_from(sub).unwrap());
            segments.append(
                Version::new(revision, size, false),
                &vec![0; size],
                &mut batch,
            );
        }
        let firsts: Vec<i64> = segments.by_first.keys().map(|first| first.sub).collect();
        assert_eq!(firsts, [0, 1, 2]);
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let mut builder = SegmentBuilder::new();
        builder.push(Revision::new(5, 1), EventKind::Put, b"");
        builder.push(Revision::new(5, 1), EventKind::Put, b"");
        let value = Bytes::from(builder.finish());
        let error = Segment::decode(&key::encode(Revision::new(5, 1)), &value).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Segment {
                problem: SegmentProblem::Order { .. },
                ..
            }
        ));
    }
}
