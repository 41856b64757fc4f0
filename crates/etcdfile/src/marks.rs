//! When revisions were seen: what an increment knows of time, of which history itself knows nothing.

use types::Revision;

use crate::schema;

/// Bytes of a mark.
const MARK_BYTES: usize = 16;

/// At a time, by the clock of the member that saw it, the store had a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeMark {
    /// The revision.
    pub revision: i64,
    /// Milliseconds since 1970.
    pub unix_ms: i64,
}

impl TimeMark {
    pub(crate) fn encode(marks: &[Self]) -> Vec<u8> {
        let numbers = marks.iter().flat_map(|mark| [mark.revision, mark.unix_ms]);
        numbers.flat_map(i64::to_be_bytes).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Self>> {
        let (marks, []) = bytes.as_chunks::<MARK_BYTES>() else {
            return None;
        };
        let mark = |bytes: &[u8; MARK_BYTES]| {
            let (revision, unix_ms) = bytes.split_first_chunk()?;
            Some(Self {
                revision: i64::from_be_bytes(*revision),
                unix_ms: i64::from_be_bytes(unix_ms.try_into().ok()?),
            })
        };
        marks.iter().map(mark).collect()
    }
}

/// The digest of a revision's records, to tell apart two histories that both have it; 0 if it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tip(u32);

impl Tip {
    /// Adds a record.
    pub fn add(&mut self, revision: Revision, is_tombstone: bool, stored: &[u8]) {
        let key = schema::encode_revision(revision, is_tombstone);
        self.0 = crc32c::crc32c_append(crc32c::crc32c_append(self.0, &key), stored);
    }

    /// The digest of all that was added.
    #[must_use]
    pub const fn digest(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_a_cut_one_is_none() {
        let marks = [1, 2, 300].map(|revision| TimeMark {
            revision,
            unix_ms: 1_700_000_000_000 + revision,
        });
        let bytes = TimeMark::encode(&marks);
        assert_eq!(TimeMark::decode(&bytes).unwrap(), marks);
        assert_eq!(TimeMark::decode(&bytes[1..]), None);
        assert_eq!(TimeMark::decode(&[]), Some(Vec::new()));
    }
}
