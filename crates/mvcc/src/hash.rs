//! A hash of the history that equals etcd's.

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
