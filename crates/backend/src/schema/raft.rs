//! Buckets `RaftLog` and `RaftMeta`: the Raft log and what Raft must not forget.
//!
//! `RaftLog`: groups of consecutive entries.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | index of the group's first entry, big endian |
//!
//! The value is a packed group, which `raft` owns (`raft/log_store`).
//!
//! `RaftMeta`: single values; the key is the name in ASCII ([`RaftMetaKey::name`]), the codec is
//! its owner's, `raft` if none is named.

use super::{Bucket, KeyError};

/// The single values of the Raft log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RaftMetaKey {
    /// The last vote, given or asked for.
    Vote,
    /// The id of the last entry that is known to be committed.
    Committed,
    /// The id of the last entry that was purged.
    Purged,
    /// The member's id and its cluster's, 8 bytes each, big endian: what the first record of an
    /// etcd's write-ahead log holds. Owner: `kvorum`.
    Identity,
    /// Up to where the member may have given ids to proposals.
    ReservedIds,
}

impl RaftMetaKey {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Vote,
        Self::Committed,
        Self::Purged,
        Self::Identity,
        Self::ReservedIds,
    ];

    /// The name, which is on the disk: never change one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
            Self::Identity => "identity",
            Self::ReservedIds => "reserved_ids",
        }
    }
}

/// The key in bucket `RaftLog` of the group that begins with entry `first_index`.
#[must_use]
pub const fn encode_log(first_index: u64) -> [u8; 8] {
    first_index.to_be_bytes()
}

/// The index of the first entry of the group at `key` of bucket `RaftLog`.
pub fn decode_log(key: &[u8]) -> Result<u64, KeyError> {
    let first_index = key
        .try_into()
        .or(Err(KeyError::new(Bucket::RaftLog, key)))?;
    Ok(u64::from_be_bytes(first_index))
}

/// The key in bucket `RaftMeta` of a single value.
#[must_use]
pub const fn encode_meta(key: RaftMetaKey) -> &'static [u8] {
    key.name().as_bytes()
}

/// Which single value is at `key` of bucket `RaftMeta`.
pub fn decode_meta(key: &[u8]) -> Result<RaftMetaKey, KeyError> {
    let found = RaftMetaKey::ALL
        .into_iter()
        .find(|known| encode_meta(*known) == key);
    found.ok_or_else(|| KeyError::new(Bucket::RaftMeta, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_says_which_entry_the_group_begins_with(first_index: u64) {
            prop_assert_eq!(decode_log(&encode_log(first_index)), Ok(first_index));
        }

        #[test]
        fn groups_sort_by_index(a: u64, b: u64) {
            prop_assert_eq!(encode_log(a).cmp(&encode_log(b)), a.cmp(&b));
        }

        #[test]
        fn only_eight_bytes_are_a_key(key: Vec<u8>) {
            prop_assert_eq!(decode_log(&key).is_ok(), key.len() == 8);
        }
    }

    #[test]
    fn every_name_stands_for_itself_alone() {
        for key in RaftMetaKey::ALL {
            assert_eq!(decode_meta(encode_meta(key)), Ok(key));
        }
        assert!(decode_meta(b"votes").is_err());
        assert_eq!(
            RaftMetaKey::ALL.map(RaftMetaKey::name),
            ["vote", "committed", "purged", "identity", "reserved_ids"]
        );
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(encode_log(0x0102), [0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
