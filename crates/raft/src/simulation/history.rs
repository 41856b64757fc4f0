//! What clients were told, and when; and what the store says has happened.

use std::collections::BTreeMap;
use std::time::Duration;

/// A time of the run.
pub(super) type At = Duration;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Write this value, which nobody else writes.
    Put { key: u8, value: u64 },
    /// Write this value if the key has this mod revision, else read.
    Guarded {
        key: u8,
        mod_revision: i64,
        value: u64,
    },
    /// Delete the key.
    Delete { key: u8 },
    /// Read the key, linearizably.
    Read { key: u8 },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Written; the store's revision after it.
    Written { revision: i64 },
    /// The guard did not hold.
    Refused { revision: i64 },
    /// So many deleted.
    Deleted { revision: i64, count: usize },
    /// The key's value and mod revision, if it is there.
    Found {
        revision: i64,
        found: Option<(u64, i64)>,
    },
    /// Certainly not done.
    NotDone,
    /// Nobody knows.
    Unknown,
}

impl Answer {
    /// The revision that the client has seen with it.
    pub(super) const fn revision(&self) -> Option<i64> {
        match self {
            Self::Written { revision }
            | Self::Refused { revision }
            | Self::Deleted { revision, .. }
            | Self::Found { revision, .. } => Some(*revision),
            Self::NotDone | Self::Unknown => None,
        }
    }
}

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) client: usize,
    pub(super) member: usize,
    pub(super) request: Request,
    pub(super) invoked: At,
    pub(super) returned: At,
    pub(super) answer: Answer,
}

/// A change of one key: its new value, or that it is gone.
pub(super) type Change = (u8, Option<u64>);

/// Every revision and what it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    pub(super) revisions: BTreeMap<i64, Vec<Change>>,
}

impl History {
    /// The value of a key at a revision, with its mod revision.
    pub(super) fn at(&self, key: u8, revision: i64) -> Option<(u64, i64)> {
        let changes = self.revisions.range(..=revision).rev();
        let last = changes
            .flat_map(|(revision, changes)| changes.iter().map(move |change| (*revision, change)))
            .find(|(_, (changed, _))| *changed == key);
        last.and_then(|(revision, (_, value))| Some(((*value)?, revision)))
    }

    /// The last revision.
    pub(super) fn last(&self) -> i64 {
        self.revisions.last_key_value().map_or(1, |(last, _)| *last)
    }
}
