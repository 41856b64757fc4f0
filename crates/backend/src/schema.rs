//! Every key on the disk is described here, one file for each bucket.

/// The buckets of a store. The number is on the disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bucket {
    /// Packed segments of the revisioned store (`schema::key`).
    Key = 1,
    /// Single values: applied index, compaction marks, format version (`schema::meta`).
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
}
