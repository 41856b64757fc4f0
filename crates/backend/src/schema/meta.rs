//! Bucket `Meta`: single values of the state, each under a name of its own.
//!
//! The key is the name in ASCII, as [`MetaKey::name`] gives it. Names follow etcd's `meta` bucket
//! where there is one. (The format version of the store is no record of any bucket: the store itself
//! writes and checks it when it is opened.)

use super::{Bucket, KeyError};

/// The single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MetaKey {
    /// The id (term, node, index) of the last log entry whose effect is in the store: etcd's
    /// consistent index. Owner: `apply`.
    Applied,
    /// The membership as of the applied entry, as Raft needs it. Owner: `apply` keeps it for `raft`,
    /// which knows the codec.
    Membership,
    /// The revision up to which history is to be removed. Owner: `mvcc`; 8 bytes, big endian.
    ScheduledCompact,
    /// The revision up to which history has been removed. Owner: `mvcc`; 8 bytes, big endian.
    FinishedCompact,
    /// The current revision: that of the last transaction that changed something, of which
    /// compaction may have left no version. Owner: `mvcc`; 8 bytes, big endian.
    CurrentRevision,
    /// Bytes that the store has been allocated, as etcd counts them. Owner: `mvcc`; 8 bytes, big endian.
    Allocated,
    /// The log entry as of which this store was received from another member, in the form of
    /// `Applied`. Owner: `apply`.
    Installed,
    /// How far the store has been received; gone when it is complete. Owner: `apply/snapshot`.
    Incoming,
    /// The cluster's version, as text. Owner: `apply/versions`.
    ClusterVersion,
    /// The version that the cluster is to go down to, as text; gone when there is no downgrade.
    /// Owner: `apply/versions`.
    Downgrade,
}

impl MetaKey {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Applied,
        Self::Membership,
        Self::ScheduledCompact,
        Self::FinishedCompact,
        Self::CurrentRevision,
        Self::Allocated,
        Self::Installed,
        Self::Incoming,
        Self::ClusterVersion,
        Self::Downgrade,
    ];

    /// The name, which is on the disk: never change one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "consistent_index",
            Self::Membership => "confState",
            Self::ScheduledCompact => "scheduledCompactRev",
            Self::FinishedCompact => "finishedCompactRev",
            Self::CurrentRevision => "currentRev",
            Self::Allocated => "allocated",
            Self::Installed => "installed",
            Self::Incoming => "incoming",
            Self::ClusterVersion => "clusterVersion",
            Self::Downgrade => "downgrade",
        }
    }
}

/// The key of a single value.
#[must_use]
pub const fn encode(key: MetaKey) -> &'static [u8] {
    key.name().as_bytes()
}

/// Which single value is at `key`.
pub fn decode(key: &[u8]) -> Result<MetaKey, KeyError> {
    let found = MetaKey::ALL.into_iter().find(|known| encode(*known) == key);
    found.ok_or_else(|| KeyError::new(Bucket::Meta, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_itself_alone() {
        for key in MetaKey::ALL {
            assert_eq!(decode(encode(key)), Ok(key));
        }
        assert!(decode(b"").is_err());
        assert!(decode(b"consistent_indexx").is_err());
    }

    #[test]
    fn the_names_on_the_disk_have_not_changed() {
        let names = MetaKey::ALL.map(MetaKey::name);
        assert_eq!(
            names,
            [
                "consistent_index",
                "confState",
                "scheduledCompactRev",
                "finishedCompactRev",
                "currentRev",
                "allocated",
                "installed",
                "incoming",
                "clusterVersion",
                "downgrade",
            ]
        );
    }
}
