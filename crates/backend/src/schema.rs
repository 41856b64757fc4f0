//! Every key on the disk is described here, one file for each bucket: its bytes, and who owns the
//! value behind it. How values are checked and split is [`crate::Writer`]'s business.

use std::fmt;

use bytes::Bytes;

use crate::error::Hex;

pub mod alarm;
pub mod auth;
pub mod key;
pub mod lease;
pub mod members;
pub mod meta;
pub mod raft;

/// The version of everything below this module. A store of a later one is refused, one of an earlier one is marked
/// with this one when it is opened. 2: there are places among packed records (`engine/sled/places`).
pub const FORMAT_VERSION: u32 = 2;

/// The buckets of a store. The number is on the disk: never reuse one, and never one above 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bucket {
    /// Packed segments of the revisioned store (`schema::key`).
    Key = 1,
    /// Single values: applied index, compaction marks, membership (`schema::meta`).
    Meta = 2,
    /// Leases (`schema::lease`).
    Lease = 3,
    /// Alarms (`schema::alarm`).
    Alarm = 4,
    /// Members of the cluster (`schema::members`).
    Members = 5,
    /// Packed groups of Raft log entries (`schema::raft`).
    RaftLog = 6,
    /// Vote, committed and purged marks of the Raft log (`schema::raft`).
    RaftMeta = 7,
    /// Ids of members that were removed (`schema::members`).
    MembersRemoved = 8,
    /// Whether authentication is on, and its revision (`schema::auth`).
    Auth = 9,
    /// Users (`schema::auth`).
    AuthUsers = 10,
    /// Roles (`schema::auth`).
    AuthRoles = 11,
}

impl Bucket {
    /// All buckets, by number.
    pub const ALL: [Self; 11] = [
        Self::Key,
        Self::Meta,
        Self::Lease,
        Self::Alarm,
        Self::Members,
        Self::RaftLog,
        Self::RaftMeta,
        Self::MembersRemoved,
        Self::Auth,
        Self::AuthUsers,
        Self::AuthRoles,
    ];
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Alarm => "alarm",
            Self::Members => "members",
            Self::RaftLog => "raft_log",
            Self::RaftMeta => "raft_meta",
            Self::MembersRemoved => "members_removed",
            Self::Auth => "auth",
            Self::AuthUsers => "auth_users",
            Self::AuthRoles => "auth_roles",
        })
    }
}

/// A key on the disk is not one that its bucket can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bucket {bucket} cannot hold a key {}", Hex(key))]
pub struct KeyError {
    /// The bucket.
    pub bucket: Bucket,
    /// The key.
    pub key: Bytes,
}

impl KeyError {
    fn new(bucket: Bucket, key: &[u8]) -> Self {
        Self {
            bucket,
            key: Bytes::copy_from_slice(key),
        }
    }
}

/// Two numbers, big endian, one after the other.
fn join(first: [u8; 8], second: [u8; 8]) -> [u8; 16] {
    let mut key = [0; 16];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&first);
    right.copy_from_slice(&second);
    key
}
