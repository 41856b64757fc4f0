//! A watcher: a range, what of it is wanted, and a cursor.
//!
//! It knows nothing of streams or locks; `watchable_store` says where watchers live.

use types::WatchId;

use crate::watchable_store::watched_range::WatchedRange;
use crate::{EventFilter, EventKind, PrevKv};

/// Names a watcher for the life of the process; never used twice, unlike a [`WatchId`], which a
/// client may choose again after it cancelled the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WatcherKey(pub(crate) u64);

/// The kinds of events that a watcher wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    put: bool,
    delete: bool,
}

impl Wanted {
    pub(crate) fn without(filters: &[EventFilter]) -> Self {
        Self {
            put: !filters.contains(&EventFilter::NoPut),
            delete: !filters.contains(&EventFilter::NoDelete),
        }
    }

    pub(crate) fn wants(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.put,
            EventKind::Delete => self.delete,
        }
    }
}

/// Where a watcher is in the store's history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Position {
    /// In the hub, at this place of its table: gets events as they are published.
    Synced {
        /// Its place.
        slot: usize,
    },
    /// Not in the hub: has been given everything before this revision, and needs history from
    /// there on.
    Unsynced {
        /// The cursor.
        cursor: i64,
    },
    /// Its client has been told that it needs compacted history. As in etcd, it keeps its id until
    /// it is cancelled.
    Compacted,
}

/// A watcher, as its stream sees it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: WatchId,
    pub(crate) range: WatchedRange,
    pub(crate) wanted: Wanted,
    pub(crate) prev_kv: PrevKv,
    /// The first revision the client asked for; 0 for "after the current one".
    pub(crate) start: i64,
    /// The client has been handed everything up to here.
    pub(crate) given: i64,
    pub(crate) position: Position,
}

impl Watcher {
    /// Whether it can still be given anything.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.position, Position::Compacted)
    }
}
