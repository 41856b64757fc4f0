//! History, version by version: as it leaves a store for one of another kind, and as it comes from
//! there. In a store of ours it is packed into segments; nobody outside sees how.

use bytes::Bytes;
use types::Revision;

use crate::install::Pinned;
use crate::segment::{Segment, SegmentBuilder};
use crate::{EventKind, SegmentProblem, StoreError, StoredKv};

/// A version of a key, in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// When it was written.
    pub revision: Revision,
    /// Whether it is a value or a deletion.
    pub kind: EventKind,
    /// `mvccpb.KeyValue`, canonical; of a deletion, with only the key.
    pub stored: Bytes,
}

impl Pinned {
    /// Everything in it, in the order of history. Reads the disk.
    pub fn versions(&self) -> impl Iterator<Item = Result<VersionRecord, StoreError>> + use<> {
        self.versions_from(&[])
    }

    /// What is in it of the revisions after this one, in the order of history. Reads the disk, but not
    /// what is before.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn versions_after(
        &self,
        main: i64,
    ) -> Result<impl Iterator<Item = Result<VersionRecord, StoreError>> + use<>, StoreError> {
        let first = Revision::new(main.saturating_add(1), 0);
        let from = match self.past().read_segment(first)? {
            Some(segment) => backend::schema::key::encode(segment.first),
            None => backend::schema::key::encode(first),
        };
        let is_before = move |version: &Result<VersionRecord, StoreError>| matches!(version, Ok(version) if version.revision < first);
        Ok(self.versions_from(&from).skip_while(is_before))
    }

    fn versions_from(
        &self,
        from: &[u8],
    ) -> impl Iterator<Item = Result<VersionRecord, StoreError>> + use<> {
        self.segments(from).flat_map(|record| {
            let decoded = record.and_then(|(key, value)| Segment::decode(&key, &value));
            let (records, error) = match decoded {
                Ok(segment) => (segment.records, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let versions = records.into_iter().map(|record| {
                Ok(VersionRecord {
                    revision: record.revision,
                    kind: record.kind,
                    stored: record.stored,
                })
            });
            error.into_iter().chain(versions)
        })
    }
}

/// Packs versions, in the order of history, into segments for a store that is to be made.
#[derive(Debug, Default)]
pub struct SegmentPacker {
    open: Option<(Revision, SegmentBuilder)>,
    last: Option<Revision>,
}

/// A full segment: its key and its value in bucket `Key`.
pub type PackedSegment = (Bytes, Bytes);

impl SegmentPacker {
    /// Adds the next version, and returns the segment before it if that is full.
    pub fn push(&mut self, version: &VersionRecord) -> Result<Option<PackedSegment>, StoreError> {
        self.check(version).map_err(|problem| StoreError::Segment {
            first: version.revision,
            problem,
        })?;
        self.last = Some(version.revision);
        let is_full = self
            .open
            .as_ref()
            .is_some_and(|(_, open)| !open.has_room_for(&version.stored));
        let full = if is_full { self.finish() } else { None };
        let (_, open) = self
            .open
            .get_or_insert_with(|| (version.revision, SegmentBuilder::new()));
        open.push(version.revision, version.kind, &version.stored);
        Ok(full)
    }

    /// The last segment.
    pub fn finish(&mut self) -> Option<PackedSegment> {
        let (first, open) = self.open.take()?;
        let key = backend::schema::key::encode(first);
        Some((Bytes::copy_from_slice(&key), open.finish().into()))
    }

    fn check(&self, version: &VersionRecord) -> Result<(), SegmentProblem> {
        let found = version.revision;
        let after = self.last.unwrap_or(Revision::new(0, 0));
        if found <= after || found.main < 0 || u32::try_from(found.sub).is_err() {
            return Err(SegmentProblem::Order { after, found });
        }
        let key = match version.kind {
            EventKind::Put => StoredKv::check(&version.stored, found),
            EventKind::Delete => StoredKv::parse_key(&version.stored),
        };
        let key = key.map_err(|problem| SegmentProblem::Kv {
            revision: found,
            problem,
        })?;
        if key.is_empty() {
            return Err(SegmentProblem::NoKey { revision: found });
        }
        let is_key_only = || StoredKv::tombstone(key, found).encoded_key_only() == version.stored;
        if version.kind == EventKind::Delete && !is_key_only() {
            return Err(SegmentProblem::Tombstone { revision: found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvParts;

    fn put(main: i64, sub: i64, key: &[u8], value: &[u8]) -> VersionRecord {
        let revision = Revision::new(main, sub);
        let kv = StoredKv::new(&KvParts {
            key,
            value,
            mod_revision: revision,
            create_revision: main,
            version: 1,
            lease: None,
        });
        VersionRecord {
            revision,
            kind: EventKind::Put,
            stored: Bytes::copy_from_slice(kv.encoded()),
        }
    }

    #[test]
    fn versions_go_into_segments_in_their_order() {
        let mut packer = SegmentPacker::default();
        let mut segments = Vec::new();
        let versions: Vec<_> = (2..1000)
            .map(|main| put(main, 0, b"key", &[1; 300]))
            .collect();
        for version in &versions {
            segments.extend(packer.push(version).unwrap());
        }
        segments.extend(packer.finish());
        assert!(segments.len() > 2);
        let found: Vec<_> = segments
            .iter()
            .flat_map(|(key, value)| Segment::decode(key, value).unwrap().records)
            .map(|record| record.revision.main)
            .collect();
        assert_eq!(found, (2..1000).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_version_of_its_revision_is_refused() {
        let mut packer = SegmentPacker::default();
        packer.push(&put(5, 1, b"key", b"")).unwrap();
        let refused = [
            put(5, 1, b"key", b""),
            put(4, 9, b"key", b""),
            put(6, 0, b"", b"value"),
            VersionRecord {
                revision: Revision::new(7, 0),
                ..put(6, 0, b"key", b"")
            },
            VersionRecord {
                kind: EventKind::Delete,
                ..put(6, 0, b"key", b"")
            },
            VersionRecord {
                stored: Bytes::new(),
                ..put(6, 0, b"key", b"")
            },
        ];
        for version in refused {
            assert!(packer.push(&version).is_err(), "{version:?}");
        }
        packer.push(&put(6, 0, b"key", b"")).unwrap();
    }
}
