//! What watchers see.

use bytes::Bytes;

use crate::StoredKv;

/// All changes of one revision, in order. Shared by the event log and every watcher.
#[derive(Debug)]
pub struct RevisionEvents {
    /// The main revision of the transaction.
    pub revision: i64,
    /// Its changes, by sub revision; never empty.
    pub events: Vec<Event>,
}

/// Whether a key was written or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted.
    Delete,
}

/// Whether an event carries the key-value that it replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrevKv {
    /// Without it.
    Omit,
    /// With it, where there was one and history still has it.
    Include,
}

/// One change of one key.
#[derive(Debug)]
pub struct Event {
    /// Written or deleted.
    pub kind: EventKind,
    /// The version written; for a delete, one that has only key and mod revision.
    pub kv: StoredKv,
    /// The version before, if there was one and it is still known.
    pub prev: Option<StoredKv>,
}

impl Event {
    /// The message `mvccpb.Event`, encoded once for all watchers that ask alike.
    #[must_use]
    pub fn encoded(&self, _prev: PrevKv) -> Bytes {
        todo!()
    }
}
