//! One watch stream: hands out what its queue holds, and catches its unsynced watchers up.
//!
//! It sends nothing and knows no protobuf; `server/v3rpc/watch` does.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::{JoinError, JoinHandle};
use types::WatchId;

use super::queue::{StreamQueue, Taken};
use super::watched_range::WatchedRange;
use super::{CreateWatchError, Revisions, WatchBatch, WatchEvents, WatchRequest};
use crate::RangeError;
use crate::catch_up::{CATCH_UP_WATCHERS_MAX, CatchUp, CaughtUp, Lagging, WatchableStore};
use crate::watcher::{Position, Wanted, Watcher, WatcherKey};

/// The watchers of one gRPC stream. Dropping it cancels them all.
pub struct WatchStream {
    store: Arc<dyn WatchableStore>,
    queue: Arc<StreamQueue>,
    watchers: HashMap<WatcherKey, Watcher>,
    ids: HashMap<WatchId, WatcherKey>,
    next_id: i64,
    /// Those that need history, in the order of their turns.
    unsynced: VecDeque<WatcherKey>,
    /// What the last step of history gave: at most one batch for each watcher. While there
    /// is something in here, nobody becomes synced and nothing more is read.
    caught_up: VecDeque<WatchBatch>,
    /// The step of history that is being read.
    reading: Option<JoinHandle<Result<CaughtUp, RangeError>>>,
    /// Whose turn it is, where both have something.
    turn: Turn,
    /// Requests for which a progress mark is to be put into the queue as soon as all are synced.
    progress_requests: u32,
    /// A revision, and how many more requests it answers before anything else is handed out.
    progress_answers: (i64, u32),
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Queue,
    CaughtUp,
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream")
            .field("watchers", &self.watchers.len())
            .field("unsynced", &self.unsynced.len())
            .finish_non_exhaustive()
    }
}

impl WatchStream {
    pub(crate) fn new(store: impl WatchableStore) -> Self {
        store.hub().streams.fetch_add(1, Ordering::Relaxed);
        Self {
            store: Arc::new(store),
            queue: Arc::default(),
            watchers: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            unsynced: VecDeque::new(),
            caught_up: VecDeque::new(),
            reading: None,
            turn: Turn::Queue,
            progress_requests: 0,
            progress_answers: (0, 0),
        }
    }

    /// Makes a watcher. Its events come out of [`WatchStream::next`].
    pub fn create(&mut self, request: WatchRequest) -> Result<WatchId, CreateWatchError> {
        if request.keys.is_empty() {
            return Err(CreateWatchError::EmptyRange);
        }
        let id = match request.id {
            Some(id) if self.ids.contains_key(&id) => return Err(CreateWatchError::DuplicateId),
            Some(id) => id,
            None => self.free_id(),
        };
        let start = request.start_revision.unwrap_or(0).max(0);
        let key = self.store.hub().new_key();
        let mut watcher = Watcher {
            id,
            range: WatchedRange::from(&request.keys),
            wanted: Wanted::without(&request.filters),
            prev_kv: request.prev_kv,
            start,
            given: start - 1,
            position: Position::Unsynced { cursor: start },
        };
        let mut synced = self.store.hub().synced();
        if start == 0 || start > synced.revision {
            watcher.given = synced.revision;
            let first = start.max(synced.revision + 1);
            let slot = synced.insert(key, &watcher, first, &self.queue);
            watcher.position = Position::Synced { slot };
        } else {
            self.unsynced.push_back(key);
        }
        drop(synced);
        self.store.hub().watchers.fetch_add(1, Ordering::Relaxed);
        self.ids.insert(id, key);
        self.watchers.insert(key, watcher);
        Ok(id)
    }

    /// Removes a watcher; `false` when there is none of that id. No event of it comes after this.
    pub fn cancel(&mut self, id: WatchId) -> bool {
        let Some(key) = self.ids.get(&id).copied() else {
            return false;
        };
        self.forget(key);
        self.unsynced.retain(|unsynced| *unsynced != key);
        self.caught_up.retain(|batch| match batch {
            WatchBatch::Events(events) => events.id != id,
            WatchBatch::Compacted { id: compacted, .. } => *compacted != id,
            WatchBatch::Progress { .. } | WatchBatch::Failed => true,
        });
        // What the queue holds for it is dropped when it comes out.
        true
    }

    /// Asks for one [`WatchBatch::Progress`] as soon as every watcher is up to date. Requests that come
    /// while one is not up to date are answered together. There is no answer for a stream without
    /// watchers or with one that waits for a future revision.
    ///
    /// Differs from etcd: it forgets the request when a watcher is unsynced.
    pub fn request_progress(&mut self) {
        self.progress_requests = match self.is_synced() {
            true => self.progress_requests.saturating_add(1),
            false => 1,
        };
    }

    /// The revision up to which this watcher has been given everything, or `None` while it lags or
    /// waits for a future revision (for periodic progress notifications).
    #[must_use]
    pub fn synced_revision(&self, id: WatchId) -> Option<i64> {
        let key = self.ids.get(&id)?;
        let watcher = self.watchers.get(key)?;
        let Position::Synced { slot } = watcher.position else {
            return None;
        };
        let synced = self.store.hub().synced();
        if !synced.holds(slot, *key) || watcher.start > synced.revision {
            return None;
        }
        // Under the hub's lock, so that nothing is put into the queue meanwhile.
        let handed_out = self.queue.handed_out().unwrap_or(synced.revision);
        Some(handed_out.max(watcher.given))
    }

    /// The store's revision, for response headers.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.store.hub().revision()
    }

    /// The next thing to send. Waits while there is nothing. Safe to drop at any await: nothing is
    /// lost.
    pub async fn next(&mut self) -> WatchBatch {
        loop {
            // However much there is in the queue: who lags has a turn as well.
            if let Some(reading) = &mut self.reading
                && reading.is_finished()
            {
                let read = reading.await;
                if let Some(failed) = self.on_read(read) {
                    return failed;
                }
            }
            if let Some(batch) = self.try_next() {
                return batch;
            }
            let Some(reading) = &mut self.reading else {
                self.queue.arrived().await;
                continue;
            };
            tokio::select! {
                () = self.queue.arrived() => {}
                read = reading => {
                    if let Some(failed) = self.on_read(read) {
                        return failed;
                    }
                }
            }
        }
    }

    /// The next thing to send, if it is there. What it begins to wait for is waited for in [`Self::next`].
    pub fn try_next(&mut self) -> Option<WatchBatch> {
        loop {
            if let (revision, requests @ 1..) = std::mem::take(&mut self.progress_answers)
                && let Some(answer) = self.on_progress(revision, requests)
            {
                return Some(answer);
            }
            self.sync();
            self.mark_progress();
            if matches!(self.turn, Turn::CaughtUp) && !self.caught_up.is_empty() {
                self.turn = Turn::Queue;
                return self.take_caught_up();
            }
            let Some(taken) = self.queue.pop() else {
                return self.take_caught_up();
            };
            self.turn = Turn::CaughtUp;
            let batch = match taken {
                Taken::Events(key, revisions) => self.on_events(key, revisions),
                Taken::LeftBehind(key, cursor) => self.on_left_behind(key, cursor),
                Taken::Progress { revision, requests } => self.on_progress(revision, requests),
            };
            if batch.is_some() {
                return batch;
            }
        }
    }

    /// Puts watchers that have caught up back into the hub, cancels those that need compacted
    /// history, and begins to read for the others.
    fn sync(&mut self) {
        if self.unsynced.is_empty() || !self.caught_up.is_empty() || self.reading.is_some() {
            return;
        }
        let store = Arc::clone(&self.store);
        let mut synced = store.hub().synced();
        let compact_revision = synced.compact_revision;
        self.unsynced.retain(|key| {
            let Some(watcher) = self.watchers.get_mut(key) else {
                return false;
            };
            let Position::Unsynced { cursor } = watcher.position else {
                return false;
            };
            if cursor <= synced.revision {
                return true;
            }
            watcher.given = watcher.given.max(cursor - 1);
            let slot = synced.insert(*key, watcher, cursor, &self.queue);
            watcher.position = Position::Synced { slot };
            false
        });
        let to = synced.revision;
        drop(synced);
        self.cancel_compacted(compact_revision);
        self.read(to);
    }

    /// Begins to read history for the watcher whose turn it is, and for those ahead of it.
    fn read(&mut self, to: i64) {
        let Some(from) = self.unsynced.front().and_then(|key| self.cursor(*key)) else {
            return;
        };
        let mut watchers = Vec::new();
        for key in &self.unsynced {
            let (Some(watcher), Some(cursor)) = (self.watchers.get(key), self.cursor(*key)) else {
                continue;
            };
            if cursor < from {
                continue;
            }
            watchers.push(Lagging {
                key: *key,
                range: watcher.range.clone(),
                wanted: watcher.wanted,
                prev_kv: watcher.prev_kv,
                cursor,
            });
            if watchers.len() == CATCH_UP_WATCHERS_MAX {
                break;
            }
        }
        self.unsynced.rotate_left(1);
        let step = CatchUp { from, to, watchers };
        let store = Arc::clone(&self.store);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            step.run(store.as_ref())
        }));
    }

    /// Takes over what a step of history read.
    fn on_read(
        &mut self,
        read: Result<Result<CaughtUp, RangeError>, JoinError>,
    ) -> Option<WatchBatch> {
        self.reading = None;
        let caught_up = match read {
            Ok(Ok(caught_up)) => caught_up,
            Ok(Err(RangeError::Compacted { compact_revision })) => {
                self.cancel_compacted(compact_revision);
                return None;
            }
            Ok(Err(error)) => {
                tracing::error!(%error, source = ?error, "failed to read history for watchers");
                return Some(WatchBatch::Failed);
            }
            Err(error) => {
                tracing::error!(%error, "reading history for watchers did not end");
                return Some(WatchBatch::Failed);
            }
        };
        for (key, revisions) in caught_up.watchers {
            // Those that were cancelled meanwhile are gone.
            let Some(watcher) = self.watchers.get_mut(&key) else {
                continue;
            };
            let Position::Unsynced { cursor } = &mut watcher.position else {
                continue;
            };
            *cursor = caught_up.next.max(*cursor);
            if !revisions.is_empty() {
                self.caught_up.push_back(WatchBatch::Events(WatchEvents {
                    id: watcher.id,
                    revision: caught_up.next - 1,
                    revisions,
                    prev_kv: watcher.prev_kv,
                }));
            }
        }
        None
    }

    /// Cancels the unsynced watchers that need history below `compact_revision`: nothing more is
    /// read for them, but they are there until the client is told.
    fn cancel_compacted(&mut self, compact_revision: i64) {
        let lost = |cursor: i64| cursor < compact_revision;
        if !self
            .unsynced
            .iter()
            .any(|key| self.cursor(*key).is_some_and(lost))
        {
            return;
        }
        for key in std::mem::take(&mut self.unsynced) {
            let Some(watcher) = self.watchers.get(&key) else {
                continue;
            };
            if self.cursor(key).is_some_and(lost) {
                let id = watcher.id;
                self.caught_up.push_back(WatchBatch::Compacted {
                    id,
                    compact_revision,
                });
            } else {
                self.unsynced.push_back(key);
            }
        }
    }

    /// Whether no watcher is known to lag, and all that the last step of history gave is handed out.
    fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && self.caught_up.is_empty()
    }

    /// Puts a progress mark into the queue, if one is asked for and every watcher is synced.
    fn mark_progress(&mut self) {
        if self.progress_requests > 0 && self.is_synced() {
            let requests = std::mem::take(&mut self.progress_requests);
            let synced = self.store.hub().synced();
            self.queue.push_progress(synced.revision, requests);
        }
    }

    fn take_caught_up(&mut self) -> Option<WatchBatch> {
        let batch = self.caught_up.pop_front()?;
        match &batch {
            WatchBatch::Events(events) => {
                let watcher = self
                    .ids
                    .get(&events.id)
                    .and_then(|key| self.watchers.get_mut(key));
                if let Some(watcher) = watcher {
                    watcher.given = watcher.given.max(events.revision);
                }
            }
            WatchBatch::Compacted { id, .. } => {
                let watcher = self.ids.get(id).and_then(|key| self.watchers.get_mut(key));
                if let Some(watcher) = watcher {
                    watcher.position = Position::Compacted;
                    self.store.hub().watchers.fetch_sub(1, Ordering::Relaxed);
                }
            }
            WatchBatch::Progress { .. } | WatchBatch::Failed => {}
        }
        Some(batch)
    }

    fn on_events(&mut self, key: WatcherKey, revisions: Revisions) -> Option<WatchBatch> {
        let watcher = self.watchers.get_mut(&key)?;
        let revision = revisions.last()?.0.revision;
        debug_assert!(
            watcher.given < revisions[0].0.revision,
            "given once, in order"
        );
        watcher.given = revision;
        let (id, prev_kv) = (watcher.id, watcher.prev_kv);
        Some(WatchBatch::Events(WatchEvents {
            id,
            revision,
            revisions,
            prev_kv,
        }))
    }

    fn on_left_behind(&mut self, key: WatcherKey, cursor: i64) -> Option<WatchBatch> {
        let watcher = self.watchers.get_mut(&key)?;
        watcher.position = Position::Unsynced { cursor };
        self.unsynced.push_back(key);
        None
    }

    /// A progress mark has come out: everything that was put into the queue up to `revision` has
    /// been handed out. It is not true (any more) of watchers that were made since with a past start,
    /// and it would lead those back that have been given more from history.
    fn on_progress(&mut self, revision: i64, requests: u32) -> Option<WatchBatch> {
        let lags = |w: &Watcher| match w.position {
            Position::Unsynced { cursor } => cursor <= revision,
            Position::Synced { .. } | Position::Compacted => false,
        };
        let mut waits = false;
        let mut is_empty = true;
        for watcher in self.watchers.values().filter(|w| w.is_alive()) {
            if lags(watcher) || watcher.given > revision {
                self.progress_requests = self.progress_requests.max(requests);
                return None;
            }
            is_empty = false;
            waits |= watcher.start > revision;
        }
        if is_empty || waits {
            return None;
        }
        self.progress_answers = (revision, requests - 1);
        Some(WatchBatch::Progress { revision })
    }

    /// The cursor of an unsynced watcher.
    fn cursor(&self, key: WatcherKey) -> Option<i64> {
        match self.watchers.get(&key)?.position {
            Position::Unsynced { cursor } => Some(cursor),
            Position::Synced { .. } | Position::Compacted => None,
        }
    }

    /// Removes a watcher from the stream and, if it is synced, from the hub.
    fn forget(&mut self, key: WatcherKey) {
        let Some(watcher) = self.watchers.remove(&key) else {
            return;
        };
        self.ids.remove(&watcher.id);
        let hub = self.store.hub();
        if let Position::Synced { slot } = watcher.position {
            hub.synced().remove(slot, key);
        }
        let alive = usize::from(watcher.is_alive());
        hub.watchers.fetch_sub(alive, Ordering::Relaxed);
    }

    /// Entries and bytes that wait in the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.queue.size()
    }

    /// The revision up to which the watcher has certainly been given everything.
    #[cfg(test)]
    pub(super) fn given(&self, id: WatchId) -> i64 {
        self.watchers[&self.ids[&id]].given
    }

    /// The next id that no watcher of the stream has.
    fn free_id(&mut self) -> WatchId {
        while self.ids.contains_key(&WatchId(self.next_id)) {
            self.next_id += 1;
        }
        let id = WatchId(self.next_id);
        self.next_id += 1;
        id
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let hub = self.store.hub();
        let mut synced = hub.synced();
        for (key, watcher) in &self.watchers {
            if let Position::Synced { slot } = watcher.position {
                synced.remove(slot, *key);
            }
        }
        drop(synced);
        let alive = self.watchers.values().filter(|w| w.is_alive()).count();
        hub.watchers.fetch_sub(alive, Ordering::Relaxed);
        hub.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
