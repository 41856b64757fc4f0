//! What members say to each other of backups, in JSON.

use std::time::{Duration, SystemTime};

use backup::Metadata;
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// A backup, and what of the archive comes before it.
    Backup,
    /// A segment of the archive; a backup if the archive has to begin anew.
    Archive,
}

/// The leader's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    /// Names it.
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// When it was due, in milliseconds since 1970.
    pub(super) due_unix_ms: i64,
    /// Changes when somebody else may have archived in between.
    pub(super) session: u64,
}

/// How a member does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The order that it carries out.
    pub(super) running: Option<u64>,
    /// The last one that it has.
    pub(super) done: Option<Done>,
    /// The last good backup that it knows of.
    pub(super) last: Option<Metadata>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    pub(super) id: u64,
    /// Why it was not carried out.
    pub(super) error: Option<String>,
    /// The backup that was taken.
    pub(super) backup: Option<Metadata>,
    /// Up to which revision changes are archived.
    pub(super) archived: Option<i64>,
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is no clock.
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// The time of so many milliseconds since 1970.
pub(super) fn wall(unix_ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or_default())
}
