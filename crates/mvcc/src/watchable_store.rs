//! Watch streams: many watchers, each a range and a cursor.
//!
//! ```text
//!                 Writer::publish
//!                       │ dispatch: whole revisions, in order, before readers see them
//!                 ┌─────▼─────┐   a watcher that does not fit into its stream's queue
//!                 │    Hub    │   leaves the hub and becomes unsynced
//!                 │  synced   ├──────────────────────────────┐
//!                 └─────┬─────┘                              │
//!       one bounded queue per stream                         ▼
//!                       │                            ┌───────────────┐
//!                       ▼                            │   unsynced    │ costs a cursor, no events
//!                 WatchStream::next ◄────────────────┤  (in stream)  │
//!                       │         a step of history  └───────┬───────┘
//!                       ▼         when the client reads      │ cursor past the hub's revision,
//!                    client                                  │ under the hub's lock
//!                                    back into the hub ◄─────┘
//! ```
//!
//! It does what etcd's `server/storage/mvcc/watchable_store.go` does, by the same words, but has no
//! background loop, no victims and no timer. A watcher is in exactly one of two places:
//!
//! * **synced**, in the [`Hub`]: `dispatch` looks up who wants each event and puts the revision into
//!   the queue of that watcher's stream. The queue is bounded in entries and bytes.
//! * **unsynced**, in its [`WatchStream`]: it has a cursor, the first revision it was not given. It
//!   gets there by a start revision in the past, or because its stream's queue was full: its place in
//!   the queue is then taken by a mark, so that what waits before it is handed out first. When
//!   the client reads, the stream reads a bounded piece of history for those whose turn it is and, once
//!   all of that is handed out, puts back into the hub whoever has nothing more to read.
//!
//! So events of one watcher come in order, once each and without a gap: the queue is in order, a
//! watcher has either queue or history as its source, and it changes from one to the other at a
//! revision fixed under the hub's lock. All events of one revision are one item of one batch.
//!
//! **Progress** ("you have been given everything up to here") is a mark in the queue, put there under
//! the hub's lock when no watcher of the stream is unsynced. It comes out behind every event it speaks of.
//! When it comes out and a watcher has meanwhile fallen behind it or run ahead of it, it is
//! not handed out but set anew. This is what etcd's issues 15220 and 17507 were about.
//!
//! **Compaction** only matters to unsynced watchers: one whose cursor is below the compacted revision is
//! cancelled when its stream reads the next time.
//!
//! Locks: the hub's, then a queue's; neither is held across an await or a read of history.

pub(crate) mod index;
pub(crate) mod queue;
mod range_tree;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod watched_range;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use smallvec::{SmallVec, smallvec};
use types::{KeyRange, WatchId};

pub use self::stream::WatchStream;

use self::index::{Place, RangeIndex, small};
use self::queue::{Pushed, StreamQueue};
use crate::watcher::{Wanted, Watcher, WatcherKey};
use crate::{PrevKv, RevisionEvents};

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
    /// The watcher gets nothing more: it would need history that is compacted. As in etcd, it keeps
    /// its id until it is cancelled.
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
    /// History could not be read (the log says why). The stream is of no more use.
    Failed,
}

/// The places of events in their revision: few, as a rule, and then they take no memory of their own.
pub type Places = SmallVec<[u32; 4]>;

/// Revisions with the places, in their `events`, of what one watcher wants of them. Who keeps up is given one
/// at a time.
pub type Revisions = SmallVec<[(Arc<RevisionEvents>, Places); 1]>;

/// Events of one watcher.
#[derive(Debug)]
pub struct WatchEvents {
    /// The watcher.
    pub id: WatchId,
    /// With them, the watcher has been given everything up to here: the revision of the last of them,
    /// or, when they are from history, of the last that was looked at.
    pub revision: i64,
    /// Each revision with the places, in its `events`, of those that the watcher wants.
    pub revisions: Revisions,
    /// Whether to encode them with the replaced values.
    pub prev_kv: PrevKv,
}

/// How many streams and watchers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Open streams.
    pub streams: usize,
    /// Watchers of all streams.
    pub watchers: usize,
    /// Those of them that are unsynced (etcd's "slow" watchers).
    pub slow_watchers: usize,
}

/// Where published events meet the watchers that want them.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<Synced>,
    /// A copy of the state's, to be read without the lock.
    revision: AtomicI64,
    next_key: AtomicU64,
    streams: AtomicUsize,
    watchers: AtomicUsize,
}

/// The synced watchers.
#[derive(Debug)]
pub(crate) struct Synced {
    /// The last revision that was dispatched.
    revision: i64,
    compact_revision: i64,
    watchers: Slab<SyncedWatcher>,
    index: RangeIndex,
    /// Who wants something of the revision that is being dispatched. Empty in between.
    matched: Vec<Matched>,
}

/// A watcher that wants something of a revision.
#[derive(Debug)]
struct Matched {
    slot: usize,
    /// Which of its events.
    places: Places,
}

#[derive(Debug)]
struct SyncedWatcher {
    key: WatcherKey,
    place: Place,
    /// Nothing before this revision is for it.
    first: i64,
    wanted: Wanted,
    /// Where it stands, counted from 1, among those who want something of the revision that is being dispatched. 0 in
    /// between.
    matched: u32,
    queue: Arc<StreamQueue>,
}

impl Hub {
    /// A hub with no watchers; the store is at `revision`.
    pub(crate) fn new(revision: i64) -> Self {
        Self {
            state: Mutex::new(Synced {
                revision,
                compact_revision: 0,
                watchers: Slab::new(),
                index: RangeIndex::default(),
                matched: Vec::new(),
            }),
            revision: AtomicI64::new(revision),
            next_key: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            watchers: AtomicUsize::new(0),
        }
    }

    /// Gives the revisions, which follow on those before, to the watchers that want them. Waits for
    /// no stream.
    pub(crate) fn dispatch(&self, revisions: &[Arc<RevisionEvents>]) {
        let Some(last) = revisions.last() else { return };
        let mut state = self.state.lock();
        for revision in revisions {
            state.dispatch(revision);
        }
        // Under the lock, so that it never goes back.
        self.revision.store(last.revision, Ordering::Release);
    }

    /// The store is at `revision` now, and the events up to there were not dispatched: another
    /// member's state was installed. Whoever wants them reads history.
    pub(crate) fn jump(&self, revision: i64) {
        let mut state = self.state.lock();
        state.jump(revision);
        self.revision.store(revision, Ordering::Release);
    }

    /// History up to `revision` is gone: unsynced watchers that still need it are to be cancelled.
    pub(crate) fn compacted(&self, revision: i64) {
        let mut state = self.state.lock();
        state.compact_revision = state.compact_revision.max(revision);
    }

    /// The last revision that was dispatched.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// How many streams and watchers there are.
    pub(crate) fn counts(&self) -> WatchCounts {
        let watchers = self.watchers.load(Ordering::Relaxed);
        let synced = self.state.lock().watchers.len();
        WatchCounts {
            streams: self.streams.load(Ordering::Relaxed),
            watchers,
            // The two are not read at one moment.
            slow_watchers: watchers.saturating_sub(synced),
        }
    }

    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.state.lock()
    }

    fn new_key(&self) -> WatcherKey {
        WatcherKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }
}

impl Synced {
    /// Takes a watcher in, which gets everything from revision `first` on: the next one, or later.
    /// Returns its slot.
    fn insert(
        &mut self,
        key: WatcherKey,
        watcher: &Watcher,
        first: i64,
        queue: &Arc<StreamQueue>,
    ) -> usize {
        assert!(
            first > self.revision,
            "a synced watcher has nothing to catch up"
        );
        let entry = self.watchers.vacant_entry();
        let slot = entry.key();
        entry.insert(SyncedWatcher {
            key,
            place: self.index.insert(&watcher.range, slot),
            first,
            wanted: watcher.wanted,
            matched: 0,
            queue: Arc::clone(queue),
        });
        slot
    }

    /// Whether the watcher is (still) at this slot.
    fn holds(&self, slot: usize, key: WatcherKey) -> bool {
        self.watchers
            .get(slot)
            .is_some_and(|watcher| watcher.key == key)
    }

    /// Removes the watcher, unless it has left already.
    fn remove(&mut self, slot: usize, key: WatcherKey) {
        if self.holds(slot, key) {
            self.remove_slot(slot);
        }
    }

    fn remove_slot(&mut self, slot: usize) {
        let place = self.watchers.remove(slot).place;
        if let Some(moved) = self.index.remove(place) {
            self.watchers[moved].place = place;
        }
        debug_assert_eq!(self.watchers.is_empty(), self.index.is_empty());
    }

    fn jump(&mut self, revision: i64) {
        let behind: Vec<usize> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.first <= revision)
            .map(|(slot, _)| slot)
            .collect();
        for slot in behind {
            let watcher = &self.watchers[slot];
            let cursor = watcher.first.max(self.revision + 1);
            watcher.queue.push_left_behind(watcher.key, cursor);
            self.remove_slot(slot);
        }
        self.revision = revision;
    }

    fn dispatch(&mut self, revision: &Arc<RevisionEvents>) {
        assert!(
            revision.revision > self.revision,
            "revisions are dispatched in order"
        );
        self.revision = revision.revision;
        for (event_place, event) in (0u32..).zip(&revision.events) {
            self.index.matches(event.kv.key(), |slot| {
                let watcher = &mut self.watchers[slot];
                if revision.revision < watcher.first || !watcher.wanted.wants(event.kind) {
                    return;
                }
                if let Some(at) = watcher.matched.checked_sub(1) {
                    self.matched[at as usize].places.push(event_place);
                    return;
                }
                let places = smallvec![event_place];
                self.matched.push(Matched { slot, places });
                watcher.matched = small(self.matched.len());
            });
        }
        if self.matched.is_empty() {
            return;
        }
        let bytes = revision.bytes();
        let mut matched = std::mem::take(&mut self.matched);
        for Matched { slot, places } in matched.drain(..) {
            let watcher = &mut self.watchers[slot];
            watcher.matched = 0;
            let pushed = watcher
                .queue
                .push_events(watcher.key, revision, places, bytes);
            if pushed == Pushed::LeftBehind {
                self.remove_slot(slot);
            }
        }
        self.matched = matched;
    }
}
