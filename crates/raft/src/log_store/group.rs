//! One record of the log: a group of neighbouring entries, packed.
//!
//! ```text
//! key    index of the first entry, u64, big endian
//! value  version u8, committed mark (known u8, term u64, index u64),
//!        then for each entry: index u64, term u64, kind u8, length u32, payload
//! ```
//! The payload of a proposal is its id (u64) and its commands, each with its length; that of a membership is the
//! membership; a blank entry has none. The committed mark is as of the time of writing: beside the
//! entries it costs nothing, as a record of its own it would make every flush a batch of two. The backend checks a record's checksum before we see it.

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;

use crate::codec::{DecodeError, Reader, Writer};
use crate::membership;
use crate::type_config::{Entry, LogId, Payload, Proposal, Proposed, log_id};

const GROUP_VERSION: u8 = 2;
const BLANK: u8 = 0;
const PROPOSAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

const PROPOSAL_ID_BYTES: usize = 8;
const GROUP_HEAD_BYTES: usize = 18;
/// With the id, if it is a proposal.
const ENTRY_HEAD_BYTES: usize = 21 + PROPOSAL_ID_BYTES;

/// A group's record is closed once it has reached this size. sled stores a value of this size
/// well; a larger entry has a record to itself.
pub(super) const GROUP_BYTES: usize = 64 * 1024;

/// A group that is being filled.
#[derive(Debug)]
pub(super) struct Group {
    entries: Vec<(LogId, usize)>,
    out: Writer,
}

/// An entry's bytes, as a part of its group's record.
#[derive(Clone, Debug)]
pub(super) struct PackedEntry {
    pub(super) log_id: LogId,
    pub(super) bytes: Bytes,
}

impl Group {
    pub(super) fn begin(entry: &Entry, committed: Option<LogId>) -> Self {
        debug_assert!(committed.is_none_or(|mark| mark.index <= entry.log_id.index));
        let mut out =
            Writer::with_capacity(GROUP_HEAD_BYTES + ENTRY_HEAD_BYTES + payload_len(entry));
        out.u8(GROUP_VERSION);
        out.u8(u8::from(committed.is_some()));
        out.u64(committed.map_or(0, |mark| mark.leader_id.term));
        out.u64(committed.map_or(0, |mark| mark.index));
        let mut group = Self {
            entries: Vec::new(),
            out,
        };
        group.write(entry);
        group
    }

    /// Adds an entry if there is room for it.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        if self.out.written() + payload_len(entry) > GROUP_BYTES {
            return false;
        }
        debug_assert_eq!(entry.log_id.index, self.last() + 1, "a group has no holes");
        self.write(entry);
        true
    }

    pub(super) fn first(&self) -> u64 {
        self.entries
            .first()
            .expect("a group begins with an entry")
            .0
            .index
    }

    pub(super) fn last(&self) -> u64 {
        self.entries
            .last()
            .expect("a group begins with an entry")
            .0
            .index
    }

    /// The group's record, and each entry's part of it.
    pub(super) fn finish(self) -> (Bytes, Vec<PackedEntry>) {
        let record = self.out.finish();
        let ends = self
            .entries
            .iter()
            .skip(1)
            .map(|(_, start)| *start)
            .chain([record.len()]);
        let packed = self
            .entries
            .iter()
            .zip(ends)
            .map(|((log_id, start), end)| PackedEntry {
                log_id: *log_id,
                bytes: record.slice(*start..end),
            })
            .collect();
        (record, packed)
    }

    fn write(&mut self, entry: &Entry) {
        self.entries.push((entry.log_id, self.out.written()));
        self.out.u64(entry.log_id.index);
        self.out.u64(entry.log_id.leader_id.term);
        match &entry.payload {
            EntryPayload::Blank => {
                self.out.u8(BLANK);
                self.out.len(0);
            }
            EntryPayload::Normal(proposal) => {
                self.out.u8(PROPOSAL);
                self.out.len(PROPOSAL_ID_BYTES + payload_len(entry));
                self.out.u64(proposal.id());
                for proposed in proposal.commands() {
                    self.out.bytes(&proposed.encoded);
                }
            }
            EntryPayload::Membership(membership) => {
                let mut payload = Writer::default();
                membership::encode(membership, &mut payload);
                self.out.u8(MEMBERSHIP);
                self.out.bytes(&payload.finish());
            }
        }
    }
}

/// The record of neighbouring entries, however large; empty if there are none.
pub(crate) fn pack(entries: &[Entry]) -> Bytes {
    let Some((first, rest)) = entries.split_first() else {
        return Bytes::new();
    };
    let mut group = Group::begin(first, None);
    for entry in rest {
        group.write(entry);
    }
    group.out.finish()
}

/// The entries that [`pack`] has packed, the first of them at `first`.
pub(crate) fn unpack_all(first: u64, record: &Bytes) -> Result<Vec<Entry>, CorruptGroup> {
    if record.is_empty() {
        return Ok(Vec::new());
    }
    let decoded = decode(first, record)?;
    Ok(decoded
        .entries
        .into_iter()
        .map(|(entry, _)| entry)
        .collect())
}

/// Bytes of an entry's commands in the log; those of other entries do not count.
pub(super) fn payload_len(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.encoded_len() + 4 * proposal.commands().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// A group of the log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the raft log is broken at index {index} (record {group} of bucket RaftLog)")]
pub struct CorruptGroup {
    /// The record's key.
    pub group: u64,
    /// The entry at or before which reading stopped.
    pub index: u64,
    /// What is wrong.
    #[source]
    pub source: Arc<DecodeError>,
}

/// What a group's record holds.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The committed mark as of its writing.
    pub(super) committed: Option<LogId>,
    /// The entries, each with its bytes.
    pub(super) entries: Vec<(Entry, PackedEntry)>,
}

/// Reads the group at `first`.
pub(super) fn decode(first: u64, record: &Bytes) -> Result<Decoded, CorruptGroup> {
    let mut input = Reader::new(record);
    let mut entries = Vec::new();
    let mut next = first;
    let corrupt = |index, source| CorruptGroup {
        group: first,
        index,
        source: Arc::new(source),
    };
    let committed = decode_header(&mut input).map_err(|source| corrupt(next, source))?;
    while !input.is_empty() {
        let start = record.len() - input.left();
        let entry = decode_entry(next, &mut input).map_err(|source| corrupt(next, source))?;
        let bytes = record.slice(start..record.len() - input.left());
        let packed = PackedEntry {
            log_id: entry.log_id,
            bytes,
        };
        entries.push((entry, packed));
        next += 1;
    }
    if entries.is_empty() {
        return Err(corrupt(first, DecodeError::CutOff { missing: 1 }));
    }
    Ok(Decoded { committed, entries })
}

fn decode_header(input: &mut Reader<'_>) -> Result<Option<LogId>, DecodeError> {
    input.version(GROUP_VERSION)?;
    let is_known = input.u8()? != 0;
    let mark = log_id(input.u64()?, input.u64()?);
    Ok(is_known.then_some(mark))
}

/// The entry that these bytes are.
pub(super) fn unpack(packed: &PackedEntry) -> Result<Entry, DecodeError> {
    decode_entry(packed.log_id.index, &mut Reader::new(&packed.bytes))
}

fn decode_entry(expected: u64, input: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let (index, term) = (input.u64()?, input.u64()?);
    if index != expected {
        return Err(DecodeError::Index {
            found: index,
            expected,
        });
    }
    let kind = input.u8()?;
    let mut payload = Reader::new(input.bytes()?);
    let decoded = match kind {
        BLANK => Payload::Blank,
        PROPOSAL => Payload::Normal(decode_proposal(&mut payload)?),
        MEMBERSHIP => Payload::Membership(membership::decode(&mut payload)?),
        found => return Err(DecodeError::Kind { found }),
    };
    payload.end()?;
    Ok(Entry {
        log_id: log_id(term, index),
        payload: decoded,
    })
}

fn decode_proposal(input: &mut Reader<'_>) -> Result<Proposal, DecodeError> {
    let id = input.u64()?;
    let mut commands = Vec::new();
    while !input.is_empty() {
        // A copy of its own: a command's keys live on in the index, and must not keep the whole
        // group in memory.
        let encoded = Bytes::copy_from_slice(input.bytes()?);
        let request = apply::Request::decode(&encoded).map_err(|source| DecodeError::Command {
            position: commands.len(),
            source,
        })?;
        commands.push(Proposed { request, encoded });
    }
    Ok(Proposal::new(id, commands))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::put;
    use crate::type_config::Membership;

    fn payload() -> impl Strategy<Value = Payload> {
        let key_value = (
            prop::collection::vec(any::<u8>(), 1..20),
            prop::collection::vec(any::<u8>(), 0..200),
        );
        prop_oneof![
            Just(Payload::Blank),
            prop::collection::vec(key_value, 1..8).prop_map(|kvs| Payload::Normal(Proposal::new(
                7,
                kvs.iter().map(|(key, value)| put(key, value)).collect()
            ))),
            any::<u64>().prop_map(|id| Payload::Membership(Membership::new_with_defaults(
                vec![[id].into()],
                [id, id ^ 1]
            ))),
        ]
    }

    proptest! {
        #[test]
        fn entries_survive_their_group(first in 0_u64..1 << 60, term in any::<u64>(), payloads in prop::collection::vec(payload(), 1..20)) {
            let entries: Vec<Entry> = (first..)
                .zip(payloads)
                .map(|(index, payload)| Entry { log_id: log_id(term, index), payload })
                .collect();
            let committed = first.checked_sub(1).map(|index| log_id(term, index));
            let mut group = Group::begin(&entries[0], committed);
            for entry in &entries[1..] {
                prop_assert!(group.push(entry));
            }
            prop_assert_eq!((group.first(), group.last()), (first, first + entries.len() as u64 - 1));
            let (record, packed) = group.finish();
            let unpacked: Vec<Entry> = packed.iter().map(|entry| unpack(entry).unwrap()).collect();
            prop_assert_eq!(&unpacked, &entries);
            let read = decode(first, &record).unwrap();
            prop_assert_eq!(read.committed, committed);
            let (decoded, parts): (Vec<Entry>, Vec<PackedEntry>) = read.entries.into_iter().unzip();
            prop_assert_eq!(decoded, entries);
            for (part, packed) in parts.iter().zip(packed) {
                prop_assert_eq!(&part.bytes, &packed.bytes);
            }
        }

        #[test]
        fn any_bytes_are_entries_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Only that it returns: a panic here would be a member that cannot say what is wrong.
            let version = std::iter::once(GROUP_VERSION).chain(bytes).collect::<Bytes>();
            prop_assert!(decode(0, &version).is_err() || !version.is_empty());
        }
    }

    #[test]
    fn a_broken_entry_is_named_by_its_index() {
        let entry = |index| Entry {
            log_id: log_id(1, index),
            payload: Payload::Blank,
        };
        let mut group = Group::begin(&entry(5), None);
        assert!(group.push(&entry(6)));
        let (bytes, _packed) = group.finish();
        let error = decode(5, &bytes.slice(..bytes.len() - 1)).unwrap_err();
        assert_eq!((error.group, error.index), (5, 6));
        assert_eq!(decode(4, &bytes).unwrap_err().index, 4);
    }

    #[test]
    fn a_full_group_refuses_and_one_large_entry_has_its_own() {
        let large = Payload::Normal(Proposal::new(1, vec![put(b"k", &vec![7; 2 * GROUP_BYTES])]));
        let mut group = Group::begin(
            &Entry {
                log_id: log_id(1, 0),
                payload: large.clone(),
            },
            None,
        );
        assert!(!group.push(&Entry {
            log_id: log_id(1, 1),
            payload: large
        }));
        assert_eq!(decode(0, &group.finish().0).unwrap().entries.len(), 1);
    }
}
