//! What waits for one stream to be handed out, in order, and bounded.
//!
//! The hub puts in, the stream takes out. Whatever has an order between the two goes through this
//! queue: events, the mark that a watcher was left behind, and the mark up to which a progress
//! answer may speak.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::smallvec;
use tokio::sync::Notify;

use super::{Places, Revisions};
use crate::RevisionEvents;
use crate::watcher::WatcherKey;

/// Events of how many revisions (counted once per watcher) may wait for one stream. When it is
/// full, watchers that would get more become unsynced and read history later.
pub(crate) const QUEUE_ENTRIES_MAX: usize = 4096;

/// Bytes of events that may wait for one stream; a revision counts whole, once, because that is
/// what waiting keeps in memory. When it is full, watchers become unsynced. A revision that is
/// larger by itself may still wait alone.
pub(crate) const QUEUE_BYTES_MAX: usize = 2 << 20;

/// Bytes of events (again: of whole revisions) that go into one [`crate::WatchEvents`] of several
/// revisions. One revision is never split.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 10;

/// What waits.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Events of one revision for one watcher.
    Events {
        /// Whose.
        watcher: WatcherKey,
        /// The revision.
        revision: Arc<RevisionEvents>,
        /// Which of its events.
        places: Places,
    },
    /// The watcher did not fit any more and has left the hub.
    LeftBehind {
        /// Who.
        watcher: WatcherKey,
        /// The first revision that it was not given.
        cursor: i64,
    },
    /// Everything up to here, for all watchers that were synced, is before this entry.
    Progress {
        /// The store's revision when the mark was set.
        revision: i64,
        /// How many requests it answers.
        requests: u32,
    },
}

/// What was taken out.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Events of one watcher, of one or more revisions.
    Events(WatcherKey, Revisions),
    /// As [`Entry::LeftBehind`].
    LeftBehind(WatcherKey, i64),
    /// As [`Entry::Progress`].
    Progress { revision: i64, requests: u32 },
}

/// The queue of one stream, shared by the stream and the hub.
#[derive(Debug, Default)]
pub(crate) struct StreamQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Weighed>,
    bytes: usize,
    /// Entries that are events.
    events: usize,
    /// The revision that was added last, whose bytes are counted already.
    last_revision: i64,
}

#[derive(Debug)]
struct Weighed {
    entry: Entry,
    /// What this entry added to the queue's bytes: its revision's, or nothing when another entry
    /// of the same revision is before it.
    charge: usize,
}

impl StreamQueue {
    /// Waits until something was put in since the last wait. Safe to drop.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Adds the mark that the watcher was left behind.
    pub(crate) fn push_left_behind(&self, watcher: WatcherKey, cursor: i64) {
        let entry = Entry::LeftBehind { watcher, cursor };
        self.push(self.waiting.lock(), Weighed { entry, charge: 0 });
    }

    /// Adds events of one revision, or, when they do not fit, the mark that the watcher was left
    /// behind: then the caller removes it from the hub.
    #[must_use]
    pub(crate) fn push_events(
        &self,
        watcher: WatcherKey,
        revision: &Arc<RevisionEvents>,
        places: Places,
        revision_bytes: usize,
    ) -> Pushed {
        let mut waiting = self.waiting.lock();
        let known = waiting.events > 0 && waiting.last_revision == revision.revision;
        let charge = if known { 0 } else { revision_bytes };
        let fits = waiting.events < QUEUE_ENTRIES_MAX && waiting.bytes + charge <= QUEUE_BYTES_MAX;
        let (entry, charge, pushed) = if fits || waiting.events == 0 {
            waiting.last_revision = revision.revision;
            waiting.events += 1;
            (
                Entry::Events {
                    watcher,
                    revision: Arc::clone(revision),
                    places,
                },
                charge,
                Pushed::Queued,
            )
        } else {
            (
                Entry::LeftBehind {
                    watcher,
                    cursor: revision.revision,
                },
                0,
                Pushed::LeftBehind,
            )
        };
        waiting.bytes += charge;
        self.push(waiting, Weighed { entry, charge });
        pushed
    }

    /// Marks that everything up to `revision` has been put in.
    pub(crate) fn push_progress(&self, revision: i64, requests: u32) {
        let waiting = self.waiting.lock();
        self.push(
            waiting,
            Weighed {
                entry: Entry::Progress { revision, requests },
                charge: 0,
            },
        );
    }

    fn push(&self, mut waiting: parking_lot::MutexGuard<'_, Waiting>, weighed: Weighed) {
        let was_empty = waiting.entries.is_empty();
        waiting.entries.push_back(weighed);
        drop(waiting);
        // The stream looks into the queue before it waits, so only the first entry has to wake it.
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Takes out the next thing; neighbouring revisions of one watcher together.
    pub(crate) fn pop(&self) -> Option<Taken> {
        let mut waiting = self.waiting.lock();
        let Weighed { entry, charge } = waiting.entries.pop_front()?;
        waiting.bytes -= charge;
        let (watcher, revision, places) = match entry {
            Entry::Events {
                watcher,
                revision,
                places,
            } => (watcher, revision, places),
            Entry::LeftBehind { watcher, cursor } => {
                return Some(Taken::LeftBehind(watcher, cursor));
            }
            Entry::Progress { revision, requests } => {
                return Some(Taken::Progress { revision, requests });
            }
        };
        let mut taken: Revisions = smallvec![(revision, places)];
        let mut bytes = charge;
        waiting.events -= 1;
        while let Some((revision, places, charge)) = waiting.pop_events_of(watcher, bytes) {
            taken.push((revision, places));
            bytes += charge;
        }
        debug_assert!(
            waiting.events > 0 || waiting.bytes == 0,
            "bytes without events"
        );
        Some(Taken::Events(watcher, taken))
    }

    /// The last revision of which nothing waits here any more, if anything waits. Not beyond what
    /// a progress mark will say.
    pub(crate) fn handed_out(&self) -> Option<i64> {
        Some(match &self.waiting.lock().entries.front()?.entry {
            Entry::Events { revision, .. } => revision.revision - 1,
            Entry::LeftBehind { cursor, .. } => cursor - 1,
            Entry::Progress { revision, .. } => *revision,
        })
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.entries.len(), waiting.bytes)
    }
}

impl Waiting {
    /// The next entry, if it is events of `watcher` and fits beside `bytes` in a batch.
    fn pop_events_of(
        &mut self,
        wanted: WatcherKey,
        bytes: usize,
    ) -> Option<(Arc<RevisionEvents>, Places, usize)> {
        let next = self.entries.pop_front_if(|next| {
            matches!(next.entry, Entry::Events { watcher, .. } if watcher == wanted)
                && bytes + next.charge <= BATCH_BYTES_MAX
        })?;
        let Entry::Events {
            revision, places, ..
        } = next.entry
        else {
            unreachable!("the condition above lets only events through")
        };
        self.events -= 1;
        self.bytes -= next.charge;
        Some((revision, places, next.charge))
    }
}

/// What became of events that were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// They wait.
    Queued,
    /// They did not fit; the watcher has to leave the hub.
    LeftBehind,
}
