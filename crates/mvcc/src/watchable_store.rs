//! Watch streams: many watchers, each a range and a cursor.

use std::sync::Arc;

use types::{KeyRange, WatchId};

use crate::{EventKind, PrevKv, RevisionEvents};

/// Events that a watcher does not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// No puts.
    NoPut,
    /// No deletes.
    NoDelete,
}

/// A watcher to make.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The id the client wants; `None` for the stream's next free one.
    pub id: Option<WatchId>,
    /// Which keys.
    pub keys: KeyRange,
    /// The first revision to deliver; `None` for "after the current one".
    pub start_revision: Option<i64>,
    /// What to leave out.
    pub filters: Vec<EventFilter>,
    /// Whether the server will ask its events for the replaced values.
    pub prev_kv: PrevKv,
}

/// A watcher was refused.
#[derive(Debug, thiserror::Error)]
pub enum CreateWatchError {
    /// The range cannot hold a key.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    /// The stream has a watcher of that id.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
}

/// What a stream has to say next.
#[derive(Debug)]
pub enum WatchBatch {
    /// Events of one watcher; whole revisions, in order.
    Events(WatchEvents),
    /// The watcher is gone: it would need history that is compacted.
    Compacted {
        /// The watcher.
        id: WatchId,
        /// The client may start again here.
        compact_revision: i64,
    },
    /// Answer to [`WatchStream::request_progress`]: every watcher of the stream has been given
    /// every event up to `revision`.
    Progress {
        /// The revision.
        revision: i64,
    },
}

/// Events of one watcher.
#[derive(Debug)]
pub struct WatchEvents {
    /// The watcher.
    pub id: WatchId,
    /// The revision of the last of them.
    pub revision: i64,
    /// Each revision with the places, in its `events`, of those that the watcher wants.
    pub revisions: Vec<(Arc<RevisionEvents>, Vec<u32>)>,
    /// Whether to encode them with the replaced values.
    pub prev_kv: PrevKv,
}

/// The watchers of one gRPC stream. Dropping it cancels them all.
#[derive(Debug)]
pub struct WatchStream {}

impl WatchStream {
    /// Makes a watcher. Its events come out of [`WatchStream::next`].
    pub fn create(&mut self, _request: WatchRequest) -> Result<WatchId, CreateWatchError> {
        let _ = EventKind::Put;
        todo!()
    }
    /// Removes a watcher; `false` when there is none of that id. No event of it comes after this.
    pub fn cancel(&mut self, _id: WatchId) -> bool {
        todo!()
    }
    /// Asks for one [`WatchBatch::Progress`] as soon as every watcher is up to date.
    pub fn request_progress(&mut self) {
        todo!()
    }
    /// The revision up to which this watcher has been given everything, or `None` while it lags or
    /// waits for a future revision (for periodic progress notifications).
    #[must_use]
    pub fn synced_revision(&self, _id: WatchId) -> Option<i64> {
        todo!()
    }
    /// The store's revision, for response headers.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// The next thing to send. Waits while there is nothing. Safe to drop at any await: nothing is
    /// lost.
    pub async fn next(&mut self) -> WatchBatch {
        todo!()
    }
}

/// Every watch stream of a store, as the writer sees them.
#[derive(Debug)]
pub(crate) struct Hub {}

impl Hub {
    /// No streams; the store is at `revision`.
    pub(crate) fn new(_revision: i64) -> Self {
        Self {}
    }
    /// Hands out the events of revisions that are about to be visible, in order.
    pub(crate) fn dispatch(&self, _events: &[Arc<RevisionEvents>]) {}
    /// History below `revision` cannot be read any more.
    pub(crate) fn compacted(&self, _revision: i64) {}
}
