//! What is known of a backup without reading it: a file of JSON beside it, written last. Without it a file
//! is no backup of ours, and nothing of ours removes it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name of the file.
    pub name: String,
    /// The cluster's id, in hex.
    pub cluster_id: String,
    /// The id of the member that took it, in hex.
    pub member_id: String,
    /// The name of that member.
    pub member_name: String,
    /// When the state was held, in milliseconds since 1970.
    pub taken_unix_ms: i64,
    /// When it was due, the same.
    pub due_unix_ms: i64,
    /// How long it took.
    pub took_ms: u64,
    /// The revision of the store.
    pub revision: i64,
    /// The digest of that revision, in hex.
    pub tip: String,
    /// The archive that begins or goes on with it, in hex; empty without an archive.
    #[serde(default)]
    pub chain: String,
    /// The last entry of the log that is in it, counted from 1.
    pub raft_index: u64,
    /// That entry's term.
    pub raft_term: u64,
    /// Bytes of the snapshot, before it was compressed.
    pub snapshot_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// The version of kvorum that wrote it.
    pub kvorum_version: String,
}

impl Metadata {
    /// When the state was held.
    #[must_use]
    pub fn taken(&self) -> SystemTime {
        at(self.taken_unix_ms)
    }

    /// When it was due.
    #[must_use]
    pub fn due(&self) -> SystemTime {
        at(self.due_unix_ms)
    }

    /// The archive that it belongs to.
    pub(crate) fn chain(&self) -> Option<u64> {
        u64::from_str_radix(&self.chain, 16).ok()
    }

    /// The digest of its revision.
    pub(crate) fn tip(&self) -> Option<u32> {
        u32::from_str_radix(&self.tip, 16).ok()
    }
}

fn at(unix_ms: i64) -> SystemTime {
    let ms = u64::try_from(unix_ms).unwrap_or_default();
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}
